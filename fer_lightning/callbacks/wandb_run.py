"""A run that resumes stays one run in Weights & Biases."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, WandbLogger

from fer_lightning.outputs.checkpoint_files import read_checkpoint


class WandbRun(Callback):
    """Keeps the id of the Weights & Biases run in the checkpoint, for ``resume_wandb`` to find."""

    def __init__(self) -> None:
        self._logger: WandbLogger | None = None
        self._restored: str | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the logger."""
        self._logger = next((each for each in trainer.loggers if isinstance(each, WandbLogger)), None)

    def state_dict(self) -> dict[str, Any]:
        """Return the id; a run that goes on without the logger keeps the one it had."""
        run_id = self._restored if self._logger is None else self._logger.version
        return {} if run_id is None else {"id": run_id}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the id."""
        self._restored = state_dict["id"]


def resume_wandb(loggers: Iterable[Logger], checkpoint: str | Path | None) -> None:
    """Let a Weights & Biases logger go on with the run that a checkpoint belongs to.

    To be called before the trainer starts. A logger that was given an id of its own keeps it. Offline, W&B
    writes a further folder with the same id, and syncing puts the two together.

    Args:
        loggers: those of the trainer; others than W&B's are left alone.
        checkpoint: file that training resumes from or that is tested; without one nothing happens.

    Raises:
        CheckpointError: if the file is none of ours.
    """
    ours = [each for each in loggers if isinstance(each, WandbLogger) and each.version is None]
    if not ours or checkpoint is None or not Path(checkpoint).is_file():  # Lightning reports a missing file
        return
    run_id = read_checkpoint(checkpoint).get("callbacks", {}).get(WandbRun.__qualname__, {}).get("id")
    for logger in ours if run_id else ():
        # From these it starts its run when it is first used; there is no public way to change them.
        logger._wandb_init |= {"id": run_id, "resume": "allow"}
        logger._id = run_id
