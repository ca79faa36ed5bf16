"""Records of a run: its faces, code, settings and cost, in files and in the loggers."""

import json
import math
import os
import subprocess
import time
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_warn

import fer_lightning
from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.errors import InputError
from fer_lightning.files import write_atomically
from fer_lightning.methods.base import SemiSupervised, class_path
from fer_lightning.outputs.run_logger import RunLogger


class RunRecord(Callback):
    """Writes ``split.json`` and ``run.json``, and gives the loggers what a number must be traceable to.

    ``run.json`` has the method's class and ``revision``, both seeds, hash of the split, commit, data set and
    its license, numbers of labels, unlabeled faces and parameters, steps, seconds and device. It is renewed
    with every checkpoint. Its ``finished`` is false from the first batch on, and true once training has
    ended. Its ``wall_s`` is the time spent on the weights at hand: a run that resumes goes on from the time
    of its checkpoint, so work that was lost does not count.

    Args:
        run_dir: where the files go.
        change_length: whether a run that goes on may be longer or shorter than it was to be.
    """

    def __init__(self, run_dir: Path, change_length: bool = False) -> None:
        self.run_dir = Path(run_dir)
        self.change_length = change_length
        self._wall_s = 0.0
        self._since: float | None = None
        self._origin: dict[str, Any] = {}
        self._finished = False
        self._setting: dict[str, Any] = {}
        self._setting_before: dict[str, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write both files, and let the log of the run begin at this step.

        Raises:
            InputError: if the run that goes on had another seed or another length; nothing is written then.
        """
        method, data = cast(SemiSupervised, pl_module), _data(trainer)
        self._finished = False
        self._since = time.monotonic()
        self._setting = {
            "revision": method.revision,
            "devices": trainer.world_size,
            "accumulate_grad_batches": trainer.accumulate_grad_batches,
            "precision": str(trainer.precision),
            "length": _length(trainer),
            "seed_everything": seed_everything(),
        }
        self._compare()
        self._origin = _origin(trainer, method)
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.begin(trainer.global_step)
            logger.log_hyperparams(self._origin)
        if trainer.is_global_zero:
            with write_atomically(self.run_dir / "split.json") as stream:
                stream.write(data.split.to_json())
            self._write(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record that training has ended."""
        self._finished = True
        if trainer.is_global_zero:
            self._origin = self._origin or _origin(trainer, cast(SemiSupervised, pl_module))
            self._write(trainer)

    def _compare(self) -> None:
        """Refuse or tell what is not as it was before."""
        before = self._setting_before
        differ = [name for name, value in self._setting.items() if before.get(name, value) != value]
        if "seed_everything" in differ:
            raise InputError(
                f"the run to go on with has seed_everything {before['seed_everything']}, not "
                f"{self._setting['seed_everything']}: leave it as it was",
                option="seed_everything",
            )
        if "length" in differ and not self.change_length:
            raise InputError(
                f"the run to go on with was to take {before['length']} optimizer steps, and now would take "
                f"{self._setting['length']}: its learning rate would jump to another schedule. Leave "
                "max_steps, max_epochs and the epoch's length as they were, or set change_length to true",
                option="change_length",
            )
        for name in differ:
            rank_zero_warn(
                f"the run to resume had {name} {before[name]}, now it is {self._setting[name]}: training "
                "goes on, but not exactly as it would have"
            )

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Renew the record of the steps."""
        if trainer.is_global_zero and self._origin:
            self._write(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Record how far training has come."""
        if trainer.is_global_zero and self._origin:
            self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        device = trainer.strategy.root_device
        content = self._origin | {
            "finished": self._finished,
            "steps": trainer.global_step,
            "wall_s": round(self._wall(), 1),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "devices": trainer.world_size,
            "lightning": L.__version__,
            "torch": torch.__version__,
        }
        with write_atomically(self.run_dir / "run.json") as stream:
            stream.write(json.dumps(content, indent=2) + "\n")

    def _wall(self) -> float:
        return self._wall_s + (0.0 if self._since is None else time.monotonic() - self._since)

    def state_dict(self) -> dict[str, Any]:
        """Return the time spent so far, and the settings without which a run goes on differently."""
        return {"wall_s": self._wall(), **self._setting}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._setting_before = dict(state_dict)
        self._wall_s = self._setting_before.pop("wall_s")


class SaveRunConfig(SaveConfigCallback):
    """Writes the resolved configuration of a ``fit`` to ``config.yaml`` and gives it to the loggers.

    The checkpoint that training resumes from is left out: the file describes the run, wherever it went on.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write nothing yet: what the run goes on from is not compared with its options yet."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it, for ``fit`` alone: ``test`` measures a run and does not change its settings."""
        self.config = self.config.clone()
        for name, default in (("ckpt_path", None), ("resume", "never"), ("change_length", False)):
            self.config[name] = default
        super().setup(trainer, pl_module, "fit")

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give it to every logger."""
        config = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))
        for logger in trainer.loggers:
            logger.log_hyperparams(config)


def seed_everything() -> int | None:
    """Return the seed that the initial weights were drawn from, None if there was none."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    return None if seed is None else int(seed)


def _length(trainer: L.Trainer) -> int | None:
    """Return the optimizer steps of the whole run, None if only time or the user ends it."""
    steps = trainer.estimated_stepping_batches
    return None if math.isinf(steps) else int(steps)


def source_commit() -> str | None:
    """Return the commit of the code that runs, None if it is not from a repository.

    ``-dirty`` is added if a file of the package differs from it or is new; results and notes that change do
    not count.
    """
    package = Path(fer_lightning.__file__).parent
    try:
        _git(package, "ls-files", "--error-unmatch", "__init__.py")  # else it is another project's
        dirty = "-dirty" if _git(package, "status", "--porcelain", ".") else ""
        return _git(package, "rev-parse", "HEAD") + dirty
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _origin(trainer: L.Trainer, method: SemiSupervised) -> dict[str, Any]:
    """Return method, seed, code and data of the run as plain numbers and texts."""
    data = _data(trainer)
    return {
        "method": class_path(type(method)),
        "revision": method.revision,
        "seed_everything": seed_everything(),
        "data_seed": data.seed,
        "split": data.split.sha256,
        "commit": source_commit(),
        "dataset": data.faces.dataset,
        "license": data.dataset.license,
        "labels": len(data.labeled),
        "unlabeled": len(data.unlabeled),
        "label_noise": data.label_noise,
        "parameters": sum(p.numel() for p in method.student.parameters()),
    }


def _data(trainer: L.Trainer) -> SemiSupervisedFaces:
    return cast(SemiSupervisedFaces, trainer.datamodule)  # type: ignore[attr-defined]
