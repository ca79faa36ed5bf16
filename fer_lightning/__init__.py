"""Semi-supervised facial expression recognition on PyTorch Lightning.

``load`` opens any checkpoint of this package; everything else is reached through its module, so that
importing the package costs nothing it does not use.
"""

import os
from typing import TYPE_CHECKING

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network for its version

if TYPE_CHECKING:
    from pathlib import Path

    from fer_lightning.methods.base import SemiSupervised

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(path: "str | Path", method: "type[SemiSupervised] | None" = None) -> "SemiSupervised":
    """Open a checkpoint on the CPU, as the method that wrote it, ready to predict.

    Example, with two black images in the place of faces:

        >>> import fer_lightning, torch
        >>> method = fer_lightning.load("runs/mine/checkpoints/best.ckpt")
        >>> faces = torch.zeros(2, 3, 48, 48, dtype=torch.uint8)
        >>> with torch.inference_mode():
        ...     prediction = method(faces)
        >>> prediction.emotion.shape
        torch.Size([2, 7])
        >>> method.task.emotions
        ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise', 'neutral')

    Args:
        path: a ``.ckpt`` file written by this package.
        method: class of the method, where it is none of this package: a checkpoint imports no other code.

    Returns:
        The method in eval mode: called with faces, it returns a ``Prediction`` with the probabilities of the
        emotions, (B, C), and valence and arousal, (B, 2), where it learned them. Faces are (B, 3, H, W)
        uint8 RGB; or one or a list of PIL images, (H, W, 3) uint8 arrays and (3, H, W) uint8 tensors. They
        are resized to the size of the training.

    Raises:
        CheckpointError: if the file is not a checkpoint of this package.
    """
    from fer_lightning.inference.load import load_method

    return load_method(path, method)
