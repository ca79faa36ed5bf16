"""Faces cut out of larger pictures by boxes, when they are read."""

import logging
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets import decode
from fer_lightning.data.datasets.base import ArrayImages, DataError, Images
from fer_lightning.data.datasets.decode import OnBadImage, Paths, square
from fer_lightning.data.datasets.image_file import read_image
from fer_lightning.data.progress import tracked

log = logging.getLogger(__name__)
Boxes = npt.NDArray[np.float32]
"""(N, 4) left, top, right, bottom in pixels of the picture; the right and bottom edge are not in the box."""


def landmark_boxes(points: npt.NDArray[np.floating], scale: float) -> Boxes:
    """Return the boxes around (N, K, 2) landmarks x, y, enlarged about their centers."""
    low, high = points.min(1), points.max(1)
    center, half = (low + high) / 2, (high - low) / 2 * scale
    return np.concatenate([center - half, center + half], 1).astype(np.float32)


def crop(
    image: npt.NDArray[np.uint8], box: Sequence[float] | npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Cut the square around a box out of a picture, (H, W, 3) to (h, w, 3).

    The square has the center and the longer side of the box. Where it leaves the picture it is moved back in,
    and where it is larger than the picture it is cut off.

    Raises:
        DataError: if the box does not meet the picture.
    """
    left, top, right, bottom = (float(edge) for edge in box)
    height, width = image.shape[:2]
    if not (left < right and top < bottom and left < width and top < height and right > 0 and bottom > 0):
        raise DataError(f"box {left:g} {top:g} {right:g} {bottom:g} is outside the {width}x{height} picture")
    side = max(1, round(max(right - left, bottom - top)))
    x, y = (
        min(max(0, round((low + high - side) / 2)), max(0, size - side))
        for low, high, size in ((left, right, width), (top, bottom, height))
    )
    return image[y : y + side, x : x + side]


class CropImages:
    """Faces cut out of their pictures each time they are read: the form of a set too large for memory."""

    def __init__(self, paths: Sequence[str], boxes: Boxes, size: int) -> None:
        self.paths, self.boxes, self.size = Paths(paths), boxes, size

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.paths)

    def __getitem__(self, row: int) -> npt.NDArray[np.uint8]:
        """Return one face, (size, size, 3) uint8 RGB.

        Raises:
            DataError: naming the file, if it does not decode or does not hold the box.
        """
        path = self.paths[row]
        picture = read_image(path)
        try:
            return square(crop(picture, self.boxes[row]), self.size)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None


def open_crops(
    paths: Sequence[str], boxes: Boxes, size: int, on_bad_image: OnBadImage
) -> tuple[Images, npt.NDArray[np.bool_]]:
    """Open faces in larger pictures, in memory if they fit (``IN_MEMORY_BYTES``) and lazily otherwise.

    Args:
        paths: N image files; a picture with several faces stands there several times.
        boxes: of the faces.
        size: side of a face in pixels.
        on_bad_image: what to do about files that do not decode.

    Returns:
        The M faces that can be read, in order, and (N,) which they are.

    Raises:
        DataError: with the count and the first reasons, if faces cannot be read and ``on_bad_image`` is
            ``stop``.
    """
    lazy = CropImages(paths, boxes, size)
    if len(paths) * size * size * 3 > decode.IN_MEMORY_BYTES:
        _, kept = decode.decode_all(paths, size, on_bad_image)  # for its check of every file
        return CropImages(
            [path for path, keep in zip(paths, kept, strict=True) if keep], boxes[kept], size
        ), kept
    pixels = np.empty((len(paths), size, size, 3), np.uint8)

    def fill(row: int) -> str:
        try:
            pixels[row] = lazy[row]
        except DataError as error:
            return str(error)
        return ""

    with ThreadPool() as pool:
        problems = list(
            tracked(pool.imap(fill, range(len(paths)), chunksize=16), len(paths), "cropping faces")
        )
    kept = np.array([not problem for problem in problems], np.bool_)
    if not kept.all():
        reasons = [problem for problem in problems if problem]
        message = f"{len(reasons):,} of {len(paths):,} faces cannot be read: {'; '.join(reasons[:3])}"
        if on_bad_image == "stop" or not kept.any():
            raise DataError(f'{message}. Repair or remove them, or leave them out with on_bad_image="skip"')
        log.warning("%s. They are left out.", message)
        pixels = pixels[kept]
    return ArrayImages(pixels), kept
