"""Which settings and which code a result row is of, and whether those are today's."""

import hashlib
import importlib
import json
import shlex
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fer_lightning.errors import InputError
from fer_lightning.outputs.results import Row

_PATHS = ("root", "labeled", "unlabeled", "val", "test", "table", "votes")
_MACHINE: Mapping[str, Collection[str]] = {
    "trainer": (
        *("accelerator", "devices", "num_nodes", "strategy", "default_root_dir", "logger"),
        "enable_progress_bar",
    ),
    "data": ("workers",),
}


class Version(NamedTuple):
    """The settings and the code of a run; rows of two versions never enter one mean."""

    config_hash: str
    """The first 12 hexadecimal digits of a sha256 of the settings; see ``config_hash``."""
    method: str
    """Name of the method's class."""
    revision: str
    """``revision`` of that class: the number that is raised when its losses change."""

    @classmethod
    def of(cls, config: str) -> "Version":
        """Return today's version of a configuration.

        Args:
            config: as a row keeps it: YAML files, then KEY=VALUE, quoted as for a shell.

        Raises:
            InputError: if a file is gone, or no method of that name is known.
        """
        content = merge(config)
        found = content.get("model", {}).get("class_path")
        if not found:
            raise InputError(f"{config} names no method (model.class_path)")
        module, _, name = found.rpartition(".")
        try:
            method = getattr(importlib.import_module(module or "fer_lightning.methods"), name)
        except (ImportError, AttributeError) as error:
            raise InputError(f"{config} names the method {found}: {error}") from error
        return cls(config_hash(content), name, str(method.revision))

    def difference(self, row: Row) -> str:
        """Return in words what has changed since the version of a row; empty if nothing has."""
        if row.get("config_hash") != self.config_hash:
            return "its settings have changed"
        if row.get("revision") != self.revision:
            return f"{self.method} went from revision {row.get('revision') or 'unknown'} to {self.revision}"
        return ""


def stale_rows(rows: Iterable[Row], configs: Mapping[str, str] | None = None) -> set[tuple[str, str]]:
    """Return the name and seed of the rows that today's settings and code would not make again.

    Args:
        rows: of a results file.
        configs: configuration of a run by its name, from a matrix file; a row of another name is judged by
            the configuration that it holds itself.
    """
    stale = set()
    for row in rows:
        try:
            current = Version.of((configs or {}).get(row["name"], row.get("config", "")))
        except InputError:
            stale.add((row["name"], row["seed"]))
        else:
            if current.difference(row):
                stale.add((row["name"], row["seed"]))
    return stale


def merge(config: str) -> dict[str, Any]:
    """Read the YAML files of a configuration and put its arguments over them, later ones over earlier ones.

    ``{class_path: X, init_args: {lr: 1}}`` becomes ``{class_path: X, lr: 1}``, since ``model.lr`` names the
    same.

    Raises:
        InputError: if a file cannot be read.
    """
    content: dict[str, Any] = {}
    for word in shlex.split(config):
        key, assigned, value = word.partition("=")
        try:
            part = yaml.safe_load(value if assigned else Path(word).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise InputError(f"{word} of the configuration {config!r}: {error}") from error
        if assigned:
            for name in reversed(key.split(".")):
                part = {name: part}
        _update(content, _flat(part or {}))
    return content


def config_hash(content: Mapping[str, Any]) -> str:
    """Return a short hash of the settings of a run.

    Of what is set in files and arguments, not of defaults: a new option with a default that changes nothing
    leaves rows valid, and a default that changes what a method learns raises its ``revision``. Left out is
    the seed, which a row has in a column of its own, and what belongs to the machine: where data and run lie,
    loggers, accelerator, number of devices (batch sizes are those of all devices together) and of workers.
    Which faces were used is in the hash of the split.

    Args:
        content: as ``merge`` returns it.
    """
    kept = {key: _without(value, _MACHINE.get(key, ())) for key, value in content.items()}
    kept.pop("seed_everything", None)
    data = kept.get("data", {})
    if isinstance(data, dict):
        data.pop("seed", None)
        if isinstance(data.get("dataset"), dict):
            paths = [
                key for key, value in data["dataset"].items() if key in _PATHS and isinstance(value, str)
            ]
            data["dataset"] = _without(data["dataset"], paths)
    kept = {key: value for key, value in kept.items() if value != {}}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _without(value: Any, keys: Collection[str]) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: part for key, part in value.items() if key not in keys}


def _flat(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    flat = {key: _flat(part) for key, part in value.items()}
    for name in ("model", "dataset"):  # a class may be given by its name alone
        if isinstance(flat.get(name), str):
            flat[name] = {"class_path": flat[name]}
    arguments = flat.pop("init_args", {})
    return flat | arguments if isinstance(arguments, dict) else flat


def _update(content: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(content.get(key), dict):
            _update(content[key], value)
        else:
            content[key] = value
