"""The two checkpoints of a run: the best on the validation faces, and the last."""

import os
import warnings
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint

BEST, LAST = "best.ckpt", "last.ckpt"


def run_checkpoints(run_dir: Path, every_n_steps: int | None = None) -> list[Callback]:
    """Return the callbacks that keep ``checkpoints/best.ckpt`` and ``checkpoints/last.ckpt``.

    Args:
        run_dir: of the run.
        every_n_steps: optimizer steps after which the last checkpoint is renewed within an epoch too.
    """
    folder = Path(run_dir) / "checkpoints"
    return [BestCheckpoint(folder), LastCheckpoint(folder / LAST, every_n_steps)]


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
    """

    def __init__(self, path: Path, every_n_steps: int | None = None) -> None:
        self.path, self.every_n_steps = path, every_n_steps

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin the next epoch, where the checkpoint that training resumes from is of the end of one.

        Without ``max_steps`` Lightning does so itself. With it, Lightning 2.6 ends the epoch once more: what
        a method does then is done twice, and as the epoch also counts twice, ``max_epochs`` come too early.
        """
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
        due = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if due and resumable(trainer, batch_idx):
            trainer.save_checkpoint(self.path, weights_only=False)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save: Lightning calls checkpoint callbacks after all others and after the method itself."""
        trainer.save_checkpoint(self.path, weights_only=False)
