"""Matrix files: which runs, method by seed, are to have a result row.

A matrix file is YAML::

    results: experiments/results/fer2013.csv  # one row per name and seed
    root: runs/fer2013  # of the run directories NAME-seedSEED
    seeds: [0, 1, 2]
    baseline: supervised  # the run that the others are compared with in the table
    configs: [experiments/trainer.yaml, experiments/data/fer2013.yaml, experiments/presets/from_scratch.yaml]
    args: {data.labels_per_class: 100}
    runs:
      - {name: supervised, configs: [experiments/methods/supervised.yaml]}
      - {name: fixmatch, configs: [experiments/methods/fixmatch.yaml]}
      - name: fixmatch_0.8
        configs: [experiments/methods/fixmatch.yaml]
        args: {model.threshold: 0.8}
        baseline: fixmatch
        seeds: [0]

The configs and args at its top are for every run; a run's own come after them and win. Its own seeds and
baseline replace the common ones. Paths are relative to the working directory, as on the command line.
"""

import argparse
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from fer_lightning.errors import InputError


@dataclass
class Experiment:
    """One entry of ``runs``: a method with its settings."""

    name: str
    configs: list[str] = field(default_factory=list)
    args: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] | None = None
    """None takes those of the matrix."""
    baseline: str | None = None
    """Name of the run that this one is compared with; None takes that of the matrix."""


@dataclass(frozen=True)
class Cell:
    """One experiment with one seed."""

    name: str
    seed: int
    directory: Path
    configs: tuple[str, ...]
    args: dict[str, Any]

    @property
    def config(self) -> str:
        """The configuration as a row and the run directory keep it: files, then KEY=VALUE."""
        return shlex.join([*self.configs, *(_assign(key, value) for key, value in self.args.items())])

    @property
    def options(self) -> list[str]:
        """The options of ``fit`` on its command line."""
        return [
            *(word for config in self.configs for word in ("--config", config)),
            *(f"--{_assign(key, value)}" for key, value in self.args.items()),
            f"--seed_everything={self.seed}",
            f"--data.seed={self.seed}",
            f"--trainer.default_root_dir={self.directory}",
        ]

    def __str__(self) -> str:
        """Return its name for messages."""
        return f"{self.name} (seed {self.seed})"


@dataclass
class Matrix:
    """A matrix file; see the docstring of the module."""

    results: Path
    root: Path
    runs: list[Experiment]
    configs: list[str] = field(default_factory=list)
    args: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])
    baseline: str | None = None

    def __post_init__(self) -> None:
        """Refuse names that are no directory's or given twice, unknown baselines, and missing files."""
        names = [run.name for run in self.runs]
        for name in names:
            if not re.fullmatch(r"[\w.-]+", name):
                raise InputError(
                    f"run name {name!r} names a directory: use letters, digits, '.', '_' and '-'"
                )
            if names.count(name) > 1:
                raise InputError(f"run name {name!r} is given twice: a row is known by its name and seed")
        for baseline in (self.baseline, *(run.baseline for run in self.runs)):
            if baseline is not None and baseline not in names:
                raise InputError(f"baseline {baseline!r} is none of the runs {', '.join(names)}")
        for config in (config for cell in self.cells() for config in cell.configs):
            if not Path(config).is_file():
                raise InputError(f"{config} does not exist; paths are relative to the working directory")

    def cells(self) -> list[Cell]:
        """Return every run with every seed; seed by seed, so that a stopped matrix compares all methods."""
        cells = [
            Cell(
                name=run.name,
                seed=seed,
                directory=self.root / f"{run.name}-seed{seed}",
                configs=(*self.configs, *run.configs),
                args=self.args | run.args,
            )
            for run in self.runs
            for seed in (self.seeds if run.seeds is None else run.seeds)
        ]
        return sorted(cells, key=lambda cell: cell.seed)


def read_matrix(file: Path, results: Path | None = None, root: Path | None = None) -> Matrix:
    """Read a matrix file.

    Args:
        file: YAML, as in the docstring of the module.
        results: results file in place of the one it names.
        root: folder of the run directories in place of the one it names.

    Raises:
        InputError: naming the file and what is wrong in it.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Matrix, "matrix")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise InputError("expected the keys results, root and runs at its top")
        content |= {key: str(path) for key, path in {"results": results, "root": root}.items() if path}
        matrix: Matrix = parser.instantiate(parser.parse_object({"matrix": content})).matrix
    except (OSError, yaml.YAMLError, argparse.ArgumentError, ValueError) as error:
        raise InputError(f"matrix file {file}: {error}") from error
    return matrix


def _assign(key: str, value: object) -> str:
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"
