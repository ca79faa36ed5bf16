"""What a method accepts as faces, as one batch of tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fer_lightning.data.views import center, fit
from fer_lightning.errors import InputError

EXPECTED = (
    "faces are uint8 RGB in 0 ... 255: a (B, 3, H, W) tensor, or one or a list of PIL images, (H, W, 3) "
    "arrays and (3, H, W) tensors"
)


def face_batch(faces: Any, size: int | None = None) -> Tensor:
    """Return faces as one batch.

    Args:
        faces: (B, 3, H, W) uint8 RGB; or one or a sequence of PIL images, (H, W, 3) uint8 arrays and
            (3, H, W) uint8 tensors.
        size: side of the images in pixels: others are resized by their shorter side and cropped to the
            central square. None for as they are.

    Returns:
        (B, 3, H, W) uint8 RGB; the tensor given where nothing is to be changed.

    Raises:
        InputError: for anything else, such as floats, whose range is not known.
    """
    if isinstance(faces, Tensor) and faces.ndim == 4:
        _check(faces.dtype == torch.uint8 and faces.shape[1] == 3, faces)
        if size is None or faces.shape[2:] == (size, size):
            return faces
        images: Sequence[Any] = list(faces)
    elif isinstance(faces, np.ndarray) and faces.ndim == 4:
        images = list(faces)
    elif isinstance(faces, Sequence):
        images = faces
    else:
        images = [faces]
    _check(len(images) > 0, faces)
    arrays = [_array(image) for image in images]
    if size is not None:
        arrays = [center(fit(array, size), size) for array in arrays]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise InputError(
            f"faces of several sizes ({shapes[0]} and {shapes[1]}), and this model knows none of its own: "
            "resize them"
        )
    batch = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    return batch.to(faces.device) if isinstance(faces, Tensor) else batch


def _array(image: Any) -> npt.NDArray[np.uint8]:
    """Return one face as (H, W, 3) uint8 RGB."""
    if isinstance(image, Image.Image):
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    if isinstance(image, Tensor):
        _check(image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3, image)
        return image.permute(1, 2, 0).cpu().numpy()
    _check(isinstance(image, np.ndarray), image)
    _check(image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, image)
    array: npt.NDArray[np.uint8] = image
    return array


def _check(fits: bool, faces: Any) -> None:
    if not fits:
        given = type(faces).__name__
        if hasattr(faces, "dtype"):
            given = f"{faces.dtype} {tuple(faces.shape)}"
        elif isinstance(faces, Sequence):
            given = f"an empty {given}" if not len(faces) else given
        raise InputError(f"{EXPECTED}; not {given}")
