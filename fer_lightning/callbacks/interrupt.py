"""Ctrl-C ends a run so that it can go on."""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from fer_lightning.callbacks.run_checkpoints import resumable

EXIT_STATUS = 130
"""What a shell reports of a program that Ctrl-C ended."""


class Interrupted(SystemExit):
    """The run has stopped because it was asked to; its exit status is 130."""


class SaveOnInterrupt(Checkpoint):
    """Stops training at the first Ctrl-C or SIGTERM with a checkpoint from which it goes on exactly.

    The running batch is finished, and where the end of an epoch is next, that too with its validation. A
    second Ctrl-C stops at once. It is a ``Checkpoint``, and the last of them, because what it saves must hold
    what all other callbacks have made of the batch.

    Args:
        path: where to save.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._asked = self._saved = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen; only the main thread may."""
        self._asked = self._saved = False
        self._speaks = trainer.is_global_zero
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
            }

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self._asked and self._speaks:
            # Not print(), which may be what the signal has interrupted.
            os.write(2, b"\nStopping at the next safe moment; Ctrl-C again stops at once, saving nothing.\n")
        self._asked = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if any rank was asked to stop."""
        if self._any_rank_asked(trainer) and resumable(trainer, batch_idx):
            trainer.save_checkpoint(self.path, weights_only=False)
            self._saved = True

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop if the batch before was saved: here, because by now its metrics are logged too."""
        if self._saved:
            raise Interrupted(EXIT_STATUS)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop if any rank was asked to since the last batch; the end of the epoch was saved."""
        if self._any_rank_asked(trainer):
            raise Interrupted(EXIT_STATUS)

    def _any_rank_asked(self, trainer: L.Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._asked, all=False)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Say how to go on: here, because the progress bar has gone by now."""
        self._stop_listening()
        if isinstance(exception, Interrupted) and trainer.is_global_zero:
            how = f"saved {self.path}. Go on with --ckpt_path {self.path}"
            done = how if self.path.exists() else "nothing was learnt yet, and nothing saved."
            print(f"Interrupted at step {trainer.global_step}: {done}", file=sys.stderr, flush=True)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the signals to those who had them before."""
        self._stop_listening()

    def _stop_listening(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
