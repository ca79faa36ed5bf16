"""Checkpoint files: written whole or not at all, and read without running code."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from fer_lightning.errors import CheckpointError
from fer_lightning.files import ADVICE, NotWritten, free_space, write_atomically

BEST, LAST = "best.ckpt", "last.ckpt"
"""Names of the two checkpoints that a run keeps in ``checkpoints``."""


class CheckpointNotSaved(NotWritten):
    """A checkpoint could not be written; the one before it is as it was."""


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when it is complete.

    Lightning's own collects it in the system's temporary folder, from which moving to another disk is a copy:
    when the disk fills up in the middle of it, the old checkpoint is gone and the new one useless. It also
    reads from any address, and there whatever a pickle would run.
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

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a local checkpoint on the CPU, always without running code.

        Raises:
            CheckpointError: if the file is missing, carries code, or is none of ours.
        """
        return read_checkpoint(os.fspath(path))


def _advice(path: Path) -> str:
    if path.exists():
        return f"The one that was there is intact. {ADVICE} go on from it (ckpt_path)"
    return f"There was none before it. {ADVICE} start again"


_RUN_AS_CODE = {"_instantiator", "_class_path", "checkpoint_path"}
"""Hyper-parameters by which Lightning would import a class, or timm would open another file."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file on the CPU as plain tensors, numbers and strings.

    Raises:
        CheckpointError: if the file is missing, carries code or is none of ours; names ``ckpt_path``.
    """
    path = Path(path)
    if path.is_dir():
        raise _unfit(
            f"{path} is a folder; a run keeps its checkpoints in checkpoints/best.ckpt and last.ckpt"
        )
    if not path.is_file():
        raise _unfit(f"{path} does not exist; a run keeps its own in checkpoints/best.ckpt and last.ckpt")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        size = path.stat().st_size
        reason = re.sub(r"(?s).*WeightsUnpickler error: ", "", str(error))
        reason = f"{type(error).__name__}: {reason}".split(". ")[0].strip(": ")
        raise _unfit(
            f"{path} ({size:,} bytes) cannot be read as a checkpoint: it is cut off, another kind of file, "
            f"or carries code, which is never run ({reason.splitlines()[0]})"
        ) from error
    if not isinstance(content, dict) or not {"method", "state_dict"} <= content.keys():
        raise _unfit(
            f"{path} is no checkpoint of this package; bare weights are for a method's parameter weights"
        )
    if refused := _RUN_AS_CODE & set(_keys(content.get("hyper_parameters", {}))):
        raise _unfit(
            f"{path} has the hyper-parameter {', '.join(sorted(refused))}, by which it would have code or "
            "another file opened; it is not used"
        )
    return content


def _unfit(message: str) -> CheckpointError:
    return CheckpointError(message, option="ckpt_path")


def _keys(value: Any) -> Iterator[Any]:
    """Yield the keys of nested mappings."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _keys(inner)
