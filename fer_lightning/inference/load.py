"""Open a checkpoint without knowing which method wrote it."""

import importlib
from pathlib import Path

from fer_lightning.errors import CheckpointError
from fer_lightning.methods.base import SemiSupervised, class_path
from fer_lightning.outputs.checkpoint_files import read_checkpoint

PACKAGE = "fer_lightning"


def load_method(path: str | Path, method: type[SemiSupervised] | None = None) -> SemiSupervised:
    """Open a checkpoint as the method that wrote it, on the CPU, in eval mode.

    Args:
        path: a ``.ckpt`` file written by this package.
        method: class of the method, where it is none of this package: a checkpoint imports no other code.

    Raises:
        CheckpointError: if the file is not a checkpoint of this package, is of another method than the one
            given, or is of none of this package and no method is given.
    """
    name = read_checkpoint(path)["method"]
    if method is None:
        method = _own_method(path, name)
    if class_path(method) != name:
        raise CheckpointError(f"{path} was written by {name}, not by {class_path(method)}")
    # Weights that the file replaces need not be fetched first.
    opened = method.load_from_checkpoint(
        path, map_location="cpu", weights_only=True, pretrained=False, weights=None, compile=False
    )
    return opened.eval()


def _own_method(path: str | Path, name: str) -> type[SemiSupervised]:
    """Return the method of this package that has a name; nothing else is imported."""
    module, _, qualname = str(name).rpartition(".")
    if module.partition(".")[0] != PACKAGE:
        raise CheckpointError(
            f"{path} was written by {name}, which is no method of this package and is not imported on the "
            "word of a file: give its class, load(path, method=YourMethod)"
        )
    try:
        method = getattr(importlib.import_module(module), qualname)
    except (ImportError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{path} was written by {name}, which this version does not have") from error
    if not (isinstance(method, type) and issubclass(method, SemiSupervised)):
        raise CheckpointError(f"{path} names {name}, which is not a method of this package")
    return method
