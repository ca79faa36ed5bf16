"""Prints pip constraints for the oldest versions that pyproject.toml allows: ``make test-oldest``."""

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

for requirement in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["parquet"]:
    name, version = re.match(r"([\w-]+)[^=>]*[=>]=([\d.]+)", requirement).groups()
    print(f"{name}=={version}")
