"""Every exported method, by the name of its file, with the options of its YAML and a tiny network."""

from pathlib import Path
from typing import Any

import yaml
from faces import TINY, tiny_data

import fer_lightning.methods
from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.methods import SemiSupervised

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
METHODS: dict[str, type[SemiSupervised]] = {
    method.__module__.split(".")[2]: method
    for method in map(fer_lightning.methods.__dict__.get, fer_lightning.methods.__all__)
    if method is not SemiSupervised
}
UNLABELED = [name for name in METHODS if name != "supervised"]
"""Those that learn from unlabeled faces."""


def config(name: str) -> dict[str, Any]:
    """The method's YAML."""
    return yaml.safe_load((EXPERIMENTS / f"methods/{name}.yaml").read_text())


def build(name: str, method: type[SemiSupervised] | None = None, **options: Any) -> SemiSupervised:
    """The method (or a subclass of it) as its YAML says, but tiny and without steps on labels alone."""
    asked = config(name)["model"].get("init_args", {}) | {"labeled_only_steps": 0} | TINY | options
    return (method or METHODS[name])(**asked)


def data(name: str, **options: Any) -> SemiSupervisedFaces:
    """Tiny data as its YAML wants them."""
    asked = {k: v for k, v in config(name).get("data", {}).items() if k in ("class_balanced",)}
    return tiny_data(**(asked | options))
