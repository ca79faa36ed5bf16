"""Every exported method, by the name of its file or folder, with its defaults and a tiny network."""

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
    """The method (or a subclass of it) with its defaults, but tiny and without steps on labels alone."""
    short = {"start_epoch": 1} if name == "dta_snl" else {}  # else it learns from labels alone for an epoch
    return (method or METHODS[name])(**({"labeled_only_steps": 0} | short | TINY | options))


def data(name: str, **options: Any) -> SemiSupervisedFaces:
    """Tiny data; what the method needs of them it declares."""
    return tiny_data(**options)
