"""Frames: pictures and moments of videos, each with where it comes from."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fer_lightning.data.datasets.image_file import read_image
from fer_lightning.data.views import Image
from fer_lightning.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

Picture: TypeAlias = "str | Path | PillowImage | npt.NDArray[np.uint8] | Tensor"


@dataclass(frozen=True)
class Frame:
    """A picture, or a frame of a video or a camera."""

    source: str
    """Path as it was given, or ``camera 0``."""
    image: Image | None
    """(H, W, 3) uint8 RGB; None where there is an error."""
    number: int = 0
    """From 0, within its source."""
    time: float = 0.0
    """Seconds since the beginning of the video, or since the camera was opened."""
    fps: float | None = None
    """Frames a second; None for a picture."""
    error: str = ""
    """What is wrong with a frame that cannot be read, naming the file."""
    name: str = ""
    """Relative path, for files that are made of the frame."""


def frames_of(images: "Picture | Iterable[Picture]") -> Iterator[Frame]:
    """Turn pictures into frames, named after their file or their number.

    Args:
        images: one or several of: path of a file, Pillow image, (H, W, 3) uint8 RGB array, (3, H, W) uint8
            RGB tensor. The EXIF orientation of files and Pillow images is applied.

    Raises:
        DataError: naming a file that does not decode.
        InputError: for a picture of another kind, shape or type.
    """
    several = [images] if _is_one(images) else cast(Iterable[Picture], images)
    return (_frame(image, number) for number, image in enumerate(several))


def _is_one(images: Any) -> bool:
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim == 3
    return isinstance(images, str | Path) or hasattr(images, "getexif")


def _frame(image: Any, number: int) -> Frame:
    """Turn what was given as a picture into a frame."""
    if isinstance(image, str | Path):
        return Frame(str(image), read_image(Path(image).expanduser()))
    if hasattr(image, "getexif"):
        from PIL import ImageOps

        image = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    elif isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
        image = np.moveaxis(image, 0, -1) if image.ndim == 3 else image
    if not isinstance(image, np.ndarray):
        raise InputError(f"picture {number} is a {type(image).__name__}, not a path, image, array or tensor")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(
            f"picture {number} is {image.dtype} {image.shape}: give uint8 RGB, (H, W, 3) as an array or "
            "(3, H, W) as a tensor"
        )
    return Frame(str(number), np.ascontiguousarray(image))
