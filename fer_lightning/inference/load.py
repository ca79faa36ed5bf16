"""Open a checkpoint without knowing which method wrote it."""

import importlib
from pathlib import Path

from fer_lightning.errors import CheckpointError
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.outputs.checkpoint_files import read_checkpoint


def load_method(path: str | Path) -> SemiSupervised:
    """Open a checkpoint as the method that wrote it, on the CPU, in eval mode.

    Args:
        path: a ``.ckpt`` file written by this package.

    Raises:
        CheckpointError: if the file is not a checkpoint of this package, or its method cannot be found.
    """
    name = read_checkpoint(path)["method"]
    module, _, qualname = name.rpartition(".")
    try:
        method = getattr(importlib.import_module(module), qualname)
    except (ImportError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{path} was written by {name}, which cannot be imported here ({error})"
        ) from error
    if not (isinstance(method, type) and issubclass(method, SemiSupervised)):
        raise CheckpointError(f"{path} names {name}, which is not a method of this package")
    # Weights that the file replaces need not be fetched first.
    opened = method.load_from_checkpoint(
        path, map_location="cpu", weights_only=True, pretrained=False, weights=None, compile=False
    )
    return opened.eval()
