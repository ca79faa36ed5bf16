"""Semi-supervised facial expression recognition on PyTorch Lightning.

``load`` opens any checkpoint of this package; everything else is reached through its module, so that
importing the package costs nothing it does not use.
"""

import os
from typing import TYPE_CHECKING

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network for its version

if TYPE_CHECKING:
    from fer_lightning.methods.base import SemiSupervised

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(path: str) -> "SemiSupervised":
    """Open a checkpoint on the CPU, as the method that wrote it, ready to predict.

    Args:
        path: a ``.ckpt`` file written by this package.

    Raises:
        CheckpointError: if the file is none of ours.
    """
    from fer_lightning.inference.load import load_method

    return load_method(path)
