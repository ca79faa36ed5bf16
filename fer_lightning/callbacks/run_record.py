"""Records of a run: its faces, code, settings and cost, in files and in the loggers."""

import json
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
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.outputs.files import write_atomically
from fer_lightning.outputs.run_logger import RunLogger


class RunRecord(Callback):
    """Writes ``split.json`` and ``run.json``, and gives the loggers what a number must be traceable to.

    ``run.json`` has the method's class and ``revision``, seed, hash of the split, commit, data set and its
    license, numbers of labels, unlabeled faces and parameters, steps, seconds and device. Its ``finished`` is
    false from the first batch on, and true once training has ended. Its ``wall_s`` is the time spent on the
    weights at hand: a run that resumes goes on from the time of its checkpoint, so work that was lost does
    not count.

    Args:
        run_dir: where the files go.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = Path(run_dir)
        self._wall_s = 0.0
        self._since: float | None = None
        self._setting: dict[str, int] = {}
        self._setting_before: dict[str, int] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write both files, and let the log of the run begin at this step."""
        method, data = cast(SemiSupervised, pl_module), _data(trainer)
        self._since = time.monotonic()
        self._setting = {
            "revision": method.revision,
            "devices": trainer.world_size,
            "accumulate_grad_batches": trainer.accumulate_grad_batches,
        }
        for name, before in self._setting_before.items():
            if before != self._setting[name]:
                rank_zero_warn(
                    f"the run to resume had {name} {before}, now it is {self._setting[name]}: training goes "
                    "on, but not exactly as it would have"
                )
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.begin(trainer.global_step)
            logger.log_hyperparams(_origin(trainer, method))
        if trainer.is_global_zero:
            with write_atomically(self.run_dir / "split.json") as stream:
                stream.write(data.split.to_json())
            self._write(trainer, method, finished=False)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record that training has ended."""
        if trainer.is_global_zero:
            self._write(trainer, cast(SemiSupervised, pl_module), finished=True)

    def _write(self, trainer: L.Trainer, method: SemiSupervised, finished: bool) -> None:
        device = trainer.strategy.root_device
        content = _origin(trainer, method) | {
            "finished": finished,
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
        """Write it for ``fit`` alone: ``test`` measures a run and does not change its settings."""
        if stage == "fit":
            self.config = self.config.clone()
            self.config["ckpt_path"] = None
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give it to every logger."""
        config = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))
        for logger in trainer.loggers:
            logger.log_hyperparams(config)


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
    data, seed = _data(trainer), os.environ.get("PL_GLOBAL_SEED")
    return {
        "method": f"{type(method).__module__}.{type(method).__qualname__}",
        "revision": method.revision,
        "seed": None if seed is None else int(seed),
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
