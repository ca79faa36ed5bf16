"""The two checkpoints of a run: the best on the validation faces, and the last."""

import os
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint

from fer_lightning.outputs.checkpoint_files import BEST, LAST

EXCHANGED_STEPS = 10
"""On several ranks the time is looked at after this many steps, as they have to agree on it."""


def run_checkpoints(
    run_dir: Path, every_n_steps: int | None = None, every_minutes: float | None = None
) -> list[Callback]:
    """Return the callbacks that keep ``checkpoints/best.ckpt`` and ``checkpoints/last.ckpt``.

    Args:
        run_dir: of the run.
        every_n_steps: optimizer steps after which the last checkpoint is renewed within an epoch too.
        every_minutes: minutes after which it is.
    """
    folder = Path(run_dir) / "checkpoints"
    return [BestCheckpoint(folder), LastCheckpoint(folder / LAST, every_n_steps, every_minutes)]


def resumable(trainer: L.Trainer, batch_idx: int) -> bool:
    """Return whether a checkpoint of the moment after this batch is one from which training goes on exactly.

    It is not while gradients are being accumulated, which no checkpoint holds, nor when validation or the end
    of the epoch comes next, which a trainer that resumes would skip.
    """
    done = batch_idx + 1
    validate = trainer.val_check_batch
    return (
        done % trainer.accumulate_grad_batches == 0
        and not trainer.is_last_batch
        and not (validate and done % validate == 0)
    )


class BestCheckpoint(ModelCheckpoint):
    """Keeps the one checkpoint with the highest ``val/score``; without validation faces there is none.

    Args:
        folder: of ``best.ckpt``.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder,
            filename=Path(BEST).stem,
            monitor="val/score",
            mode="max",
            enable_version_counter=False,
        )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Set up, without the warning that the folder is not empty: when a run is resumed it never is."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*exists and is not empty")
            super().setup(trainer, pl_module, stage)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if the score is the highest so far."""
        if self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the best score, wherever the run directory lies by now.

        Lightning would forget it in a directory that was moved, and write the next epoch over the best one.
        Where the file itself is gone, or stayed behind, there is nothing to hold on to.
        """
        file = self.format_checkpoint_name({})
        if state_dict["best_model_path"] and os.path.exists(file):
            score = state_dict["best_model_score"]
            moved = {"dirpath": self.dirpath, "best_model_path": file, "best_k_models": {file: score}}
            super().load_state_dict(state_dict | moved | {"kth_best_model_path": file, "kth_value": score})


class LastCheckpoint(Checkpoint):
    """Renews the last checkpoint when an epoch has ended in every other respect.

    Args:
        path: of the file.
        every_n_steps: optimizer steps after which it is renewed within an epoch too.
        every_minutes: minutes after which it is, counted from the last time.
    """

    def __init__(
        self, path: Path, every_n_steps: int | None = None, every_minutes: float | None = None
    ) -> None:
        self.path, self.every_n_steps, self.every_minutes = path, every_n_steps, every_minutes
        self._saved_at = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin the next epoch, where the checkpoint that training resumes from is of the end of one.

        Without ``max_steps`` Lightning does so itself. With it, Lightning 2.6 ends the epoch once more: what
        a method does then is done twice, and as the epoch also counts twice, ``max_epochs`` come too early.
        """
        self._saved_at = time.monotonic()
        loop = trainer.fit_loop
        if loop.restarted_on_epoch_end:
            loop.epoch_progress.increment_completed()
            loop._restarting = False
            loop.epoch_loop.restarting = False
            loop.reset_restart_stage()
            loop.epoch_loop.reset_restart_stage()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save in mid-epoch, if it is due."""
        if resumable(trainer, batch_idx) and self._due(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save: Lightning calls checkpoint callbacks after all others and after the method itself."""
        self._save(trainer)

    def _due(self, trainer: L.Trainer) -> bool:
        step = trainer.global_step
        if self.every_n_steps and step % self.every_n_steps == 0:
            return True
        if not self.every_minutes or (trainer.world_size > 1 and step % EXCHANGED_STEPS):
            return False
        late = time.monotonic() - self._saved_at >= 60 * self.every_minutes
        return trainer.strategy.reduce_boolean_decision(late, all=False)  # clocks differ between ranks

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_at = time.monotonic()
