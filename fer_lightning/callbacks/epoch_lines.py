"""One line per epoch for a log file, where no progress bar is seen."""

import sys
import time

import lightning as L
from lightning.pytorch.callbacks import Callback

SHOWN = ("train/loss", "val/score", "audit/coverage", "audit/purity")


class EpochLines(Callback):
    """Prints where training is at the end of every epoch, unless a terminal shows the progress bar."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the clock."""
        self._since = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line."""
        before, self._since = self._since, time.monotonic()
        if not trainer.is_global_zero or sys.stdout.isatty():
            return
        values = [f"{n} {trainer.callback_metrics[n]:.4f}" for n in SHOWN if n in trainer.callback_metrics]
        where = f"epoch {trainer.current_epoch}  step {trainer.global_step}"
        print("  ".join([where, *values, f"{self._since - before:.0f} s"]), flush=True)
