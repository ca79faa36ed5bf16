import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = ROOT / "pyproject.toml"
HEAVY = ("albumentations", "wandb", "open_clip", "matplotlib", "timm", "pandas", "sklearn", "tensorboard")
WRITTEN = ("fer_lightning", "experiments", "notebooks", "tests")


@pytest.fixture(scope="module")
def project():
    return tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


def test_importing_the_package_imports_nothing_that_it_does_not_use():
    loaded = python("import sys, fer_lightning; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert "fer_lightning" in loaded
    assert not set(loaded) & set(HEAVY)


def test_importing_the_command_line_asks_for_no_network():
    hook = (
        "import sys\n"
        "def refuse(event, _):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'urllib.Request'):\n"
        "        raise SystemExit(f'network: {event}')\n"
        "sys.addaudithook(refuse)\n"
    )
    with pytest.raises(subprocess.CalledProcessError):  # the hook works
        python(f"{hook}import socket; socket.getaddrinfo('localhost', 80)")
    python(f"{hook}import fer_lightning.cli.program")


def test_both_commands_are_the_same_program(project):
    from fer_lightning.cli import main

    assert project["scripts"] == {
        "fer-lightning": "fer_lightning.cli:main",
        "lightning": "fer_lightning.cli:main",
    }
    assert callable(main)


def test_every_bound_of_a_dependency_has_its_reason(project):
    lines = PYPROJECT.read_text(encoding="utf-8").splitlines()
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    bounded = [requirement for requirement in wanted if re.search("[<>=]", requirement)]
    assert len(bounded) > 10
    for requirement in bounded:
        (line,) = [line for line in lines if line.strip().startswith(f'"{requirement}",')]
        assert re.search(r'",  # \w.{9}', line), f"no reason beside {requirement}"


def test_dev_brings_every_other_extra(project):
    extras = project["optional-dependencies"]
    (everything,) = [requirement for requirement in extras["dev"] if requirement.startswith("fer-lightning[")]
    assert set(re.split(r"[\[\],]", everything)[1:-1]) == set(extras) - {"dev"}


def test_nothing_written_is_left_undone_or_names_a_place_on_one_machine():
    marks = "|".join(("TO" + "DO", "FIX" + "ME"))
    places = "|".join(("home", "root", "Users"))
    wrong = re.compile(rf"\b(?:{marks})\b|(?<![\w.])/(?:{places})/")
    files = [path for top in WRITTEN for path in (ROOT / top).rglob("*")]
    files += [
        path for path in ROOT.iterdir() if path.suffix in (".md", ".toml", ".yaml") or path.name == "Makefile"
    ]
    texts = [path for path in files if path.suffix in (".py", ".yaml", ".ipynb", ".md", ".toml", "")]
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in texts
        if path.is_file()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if wrong.search(line)
    ]
    assert found == []
