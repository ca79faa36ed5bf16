"""Checkpoint files: written whole or not at all, and read without running code."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from fer_lightning.errors import CheckpointError
from fer_lightning.outputs.files import ADVICE, NotWritten, free_space, write_atomically


class CheckpointNotSaved(NotWritten):
    """A checkpoint could not be written; the one before it is as it was."""


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when it is complete.

    Lightning's own collects it in the system's temporary folder, from which moving to another disk is a copy:
    when the disk fills up in the middle of it, the old checkpoint is gone and the new one useless.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointNotSaved: if that fails, naming the file, the free space and what to do.
        """
        if storage_options is not None:
            raise TypeError("a checkpoint is a local file here: there are no storage_options")
        path = Path(path)
        try:
            with write_atomically(path, "wb") as file:
                torch.save(checkpoint, file)
        except (NotWritten, RuntimeError) as error:
            cause = error.__cause__ or error.__context__  # torch wraps a failed write in an error of its own
            if not isinstance(cause, OSError):
                raise
            raise CheckpointNotSaved(
                f"cannot write the checkpoint {path}: {cause.strerror or cause}; {free_space(path)}. "
                f"{_advice(path)}"
            ) from error


def _advice(path: Path) -> str:
    if path.exists():
        return f"The one that was there is intact. {ADVICE} go on from it (ckpt_path)"
    return f"There was none before it. {ADVICE} start again"


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file on the CPU as plain tensors, numbers and strings.

    Raises:
        CheckpointError: if the file is missing, carries code, or is none of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist; a run keeps its own in checkpoints/best.ckpt and last.ckpt"
        )
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Torch's own words here are a page on how to run the code in a file.
        refused = isinstance(error, pickle.UnpicklingError)
        reason = "it is damaged, or holds code" if refused else str(error).partition("\n")[0]
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(content, dict) or "method" not in content or "state_dict" not in content:
        raise CheckpointError(
            f"{path} is no checkpoint of this package; bare weights are for a method's parameter weights"
        )
    return content
