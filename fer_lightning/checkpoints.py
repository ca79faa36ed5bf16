"""Open a checkpoint without knowing which method wrote it."""

import importlib
from pathlib import Path
from typing import Any

import torch

from fer_lightning.methods.base import CheckpointError, SemiSupervised


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
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not isinstance(content, dict) or "method" not in content or "state_dict" not in content:
        raise CheckpointError(
            f"{path} is no checkpoint of this package; start from bare weights by --model.weights"
        )
    return content


def load_method(path: str | Path) -> SemiSupervised:
    """Open a checkpoint as the method that wrote it, on the CPU, in eval mode.

    Raises:
        CheckpointError: if the file is none of ours, or its method cannot be found.
    """
    name = read_checkpoint(path)["method"]
    module, _, qualname = name.rpartition(".")
    try:
        method = getattr(importlib.import_module(module), qualname)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(
            f"{path} was written by {name}, which cannot be imported here ({error})"
        ) from error
    if not (isinstance(method, type) and issubclass(method, SemiSupervised)):
        raise CheckpointError(f"{path} names {name}, which is no method of this package")
    # What the file's weights replace need not be fetched first.
    opened = method.load_from_checkpoint(
        path, map_location="cpu", weights_only=True, pretrained=False, weights=None, compile=False
    )
    return opened.eval()
