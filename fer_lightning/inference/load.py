"""Open a checkpoint without knowing which method wrote it."""

import importlib
from pathlib import Path

from fer_lightning.errors import CheckpointError
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.outputs.checkpoint_files import read_checkpoint


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
