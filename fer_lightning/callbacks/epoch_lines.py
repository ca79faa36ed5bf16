"""The time that training will take, and a line per epoch for a log file."""

import math
import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

SHOWN = ("train/loss", "val/score", "audit/coverage", "audit/purity")
WARM_UP, MEASURED = 2, 10
"""Batches before the speed is measured, and those it is measured over."""


class EpochLines(Callback):
    """Prints how long training will take after its first batches, and the metrics of every epoch.

    The lines of the epochs are for a log file: where a terminal shows the progress bar there are none.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._since = time.monotonic()
        self._batches, self._measured_since = 0, 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print the time that is left, once the speed is known."""
        self._batches += 1
        if self._batches == WARM_UP:
            self._measured_since = time.monotonic()
        elif self._batches == WARM_UP + MEASURED:
            left = trainer.estimated_stepping_batches - trainer.global_step
            batch_s = (time.monotonic() - self._measured_since) / MEASURED
            if 0 < left < math.inf:
                duration = in_words(left * trainer.accumulate_grad_batches * batch_s)
                pl_module.print(f"About {duration} for the {left:,} steps to come, not counting validation")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line."""
        before, self._since = self._since, time.monotonic()
        if not trainer.is_global_zero or sys.stdout.isatty():
            return
        values = [f"{n} {trainer.callback_metrics[n]:.4f}" for n in SHOWN if n in trainer.callback_metrics]
        where = f"epoch {trainer.current_epoch}  step {trainer.global_step}"
        print("  ".join([where, *values, f"{self._since - before:.0f} s"]), flush=True)


def in_words(seconds: float) -> str:
    """Return a duration in its largest unit, such as ``12 minutes``."""
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
