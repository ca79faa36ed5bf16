"""A run that resumes stays one run in Weights & Biases."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger

from fer_lightning.outputs.checkpoint_files import read_checkpoint


class WandbRun(Callback):
    """Keeps the id of the Weights & Biases run in the checkpoint, where ``wandb_run_id`` finds it."""

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


def wandb_run_id(checkpoint: str | Path) -> str | None:
    """Return the id of the Weights & Biases run that a checkpoint belongs to, None if there was none.

    ``WandbLogger(id=wandb_run_id("runs/a/checkpoints/last.ckpt"))`` goes on with that run. Offline, W&B
    writes a further folder with the same id, and syncing puts the two together.

    Args:
        checkpoint: file that training resumes from or that is evaluated.

    Raises:
        CheckpointError: if the file is not a checkpoint of this package.
    """
    callbacks: dict[str, Any] = read_checkpoint(checkpoint).get("callbacks", {})
    run_id: str | None = callbacks.get(WandbRun.__qualname__, {}).get("id")
    return run_id
