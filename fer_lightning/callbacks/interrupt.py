"""Stop a training at a signal, such as Ctrl-C, with a checkpoint from which it goes on."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from fer_lightning.callbacks.run_checkpoints import resumable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
EXIT_STATUS = 130
"""Exit status of a program that Ctrl-C ended, by convention of shells."""


class Interrupted(SystemExit):
    """The training was stopped by a signal; the exit status is 130."""


class SaveOnInterrupt(Checkpoint):
    """Stops training at a signal with a checkpoint from which it goes on exactly.

    The signals are Ctrl-C (SIGINT), SIGTERM, SIGHUP (a terminal was closed) and SIGUSR1, by which SLURM tells
    that the time of a job is almost over (``#SBATCH --signal=USR1@120``): the job is put back into the queue.

    The running batch is finished, and where the end of an epoch is next, that too with its validation. A
    second Ctrl-C stops at once. It is a ``Checkpoint``, and the last of them, so that what it saves holds the
    state of all other callbacks after the batch.

    Args:
        path: where to save.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._signaled = self._saved = self._requeue = False
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Catch the signals; only the main thread can."""
        self._signaled = self._saved = self._requeue = False
        self._prints = trainer.is_global_zero
        if threading.current_thread() is threading.main_thread():
            # Under nohup the end of the terminal is not the end of the training.
            ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
            caught = [number for number in SIGNALS if number not in ignored]
            self._handlers = {number: signal.signal(number, self._on_signal) for number in caught}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signaled and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self._signaled and self._prints:
            # Not print(), which may be what the signal has interrupted. A terminal may be gone at SIGHUP.
            with suppress(OSError):
                name = signal.Signals(number).name
                how = "stopping at the next safe moment; Ctrl-C again stops at once, saving nothing"
                os.write(2, f"\n{name}: {how}.\n".encode())
        self._signaled = True
        self._requeue |= number == signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if any rank got a signal."""
        if self._any_rank_signaled(trainer) and resumable(trainer, batch_idx):
            trainer.save_checkpoint(self.path, weights_only=False)
            self._saved = True

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop if the batch before was saved: not earlier, so that its metrics are logged too."""
        if self._saved:
            self._stop(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop if any rank got a signal since the last batch; the end of the epoch was saved."""
        if self._any_rank_signaled(trainer):
            self._stop(trainer)

    def _any_rank_signaled(self, trainer: L.Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._signaled, all=False)

    def _stop(self, trainer: L.Trainer) -> None:
        self._requeue = trainer.strategy.reduce_boolean_decision(self._requeue, all=False)
        raise Interrupted(EXIT_STATUS)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Print how to go on, now that the progress bar is gone."""
        self._release_signals()
        if isinstance(exception, Interrupted) and trainer.is_global_zero:
            how = f"saved {self.path}. Go on with --resume auto, or --ckpt_path {self.path}"
            done = how if self.path.exists() else "no step was done, and nothing is saved."
            if self._requeue:
                done += f" {_requeue_job()}"
            with suppress(OSError):
                print(f"Interrupted at step {trainer.global_step}: {done}", file=sys.stderr, flush=True)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back to their earlier handlers."""
        self._release_signals()

    def _release_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def _requeue_job() -> str:
    """Put this job of SLURM back into the queue; return a sentence on how that went."""
    array = [os.environ.get(f"SLURM_ARRAY_{part}_ID", "") for part in ("JOB", "TASK")]
    job = "_".join(array) if all(array) else os.environ["SLURM_JOB_ID"]
    command = ["scontrol", "requeue", job]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        return f"`{' '.join(command)}` failed ({reason}): start the job again yourself."
    return f"Job {job} is back in the queue and goes on from there."
