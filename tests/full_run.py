"""A small run with everything that a run leaves behind."""

from pathlib import Path
from typing import Any

import lightning as L
from faces import TINY, quiet_trainer, tiny_data
from lightning.pytorch.callbacks import Checkpoint

from fer_lightning.callbacks import EvaluationFigures, ViewPicture, run_callbacks
from fer_lightning.methods import FixMatch
from fer_lightning.outputs.checkpoint_files import SafeCheckpointIO
from fer_lightning.outputs.run_logger import RunLogger


class KeepCheckpoint(Checkpoint):
    """Keeps a checkpoint of the moment after a batch, counted from 1 over the run."""

    def __init__(self, batch: int, path: Path) -> None:
        self.batch, self.path = batch, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.batches_taken == self.batch:
            trainer.save_checkpoint(self.path, weights_only=False)


def full_trainer(run_dir: Path, callbacks: Any = (), loggers: Any = (), **options: Any) -> L.Trainer:
    """The trainer of the program, on the CPU and quiet; ``callbacks`` and ``loggers`` are a user's own.

    Without ``figures`` it draws only those of the audit, which saves half of the time.
    """
    names = options.keys() & {"every_n_steps", "every_minutes", "change_length"}
    kept = {name: options.pop(name) for name in names}
    ours = run_callbacks(run_dir, **kept)
    if not options.pop("figures", False):
        ours = [each for each in ours if not isinstance(each, EvaluationFigures | ViewPicture)]
    return quiet_trainer(
        run_dir,
        logger=[RunLogger(run_dir), *loggers],
        callbacks=[*callbacks, *ours],
        plugins=[SafeCheckpointIO()],
        enable_checkpointing=True,
        **({"log_every_n_steps": 1, "deterministic": True} | options),
    )


def fix_match() -> FixMatch:
    """The method of ``full_fit``."""
    return FixMatch(**TINY, threshold=0.2, ema_decay=0.9, dropout=0.2)


def full_fit(
    run_dir: Path, ckpt_path: Path | None = None, method: Any = None, data: Any = None, **options: Any
) -> L.Trainer:
    """Train FixMatch, or the method given, for two epochs of five batches, and return the trainer."""
    L.seed_everything(3, verbose=False)
    trainer = full_trainer(run_dir, **options)
    trainer.fit(method or fix_match(), data or tiny_data(), ckpt_path=ckpt_path)
    return trainer
