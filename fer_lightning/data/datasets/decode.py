"""Reads image files as square uint8 RGB: decoded by OpenCV, converted once."""

import logging
import os
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.base import ArrayImages, DataError, Images
from fer_lightning.data.progress import tracked
from fer_lightning.data.views import center, fit

log = logging.getLogger(__name__)

IN_MEMORY_BYTES = 2 * 1024**3
"""Up to this size as uint8 RGB (57,065 faces at 112 px, 14,266 at 224 px) a set is decoded into memory."""

OnBadImage = Literal["stop", "skip"]
"""Whether images that do not decode stop the reading, or are left out with a warning."""


def read_image(path: str | Path) -> npt.NDArray[np.uint8]:
    """Read one image file, (H, W, 3) uint8 RGB.

    Gray is repeated over the channels, 16 bits become 8, transparency is dropped, EXIF orientation is
    applied.

    Raises:
        DataError: naming the file, if it is missing or does not decode.
    """
    image = _decode(path, cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path} is missing or does not decode as an image")
    return _rgb(image)


def square(image: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Resize the shorter side to ``size`` pixels and keep the center: (H, W, 3) to (size, size, 3)."""
    return center(fit(image, size), size)


class FileImages:
    """Images decoded each time they are read: the form of a set too large for memory."""

    def __init__(self, paths: Sequence[str] | npt.NDArray[np.str_], size: int) -> None:
        # One array, where a list would be copied into every forked worker by its reference counts.
        self.paths = np.asarray(paths, np.str_)
        self.size = size

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, row: int) -> npt.NDArray[np.uint8]:
        """Return one image, (size, size, 3) uint8 RGB.

        Raises:
            DataError: naming the file, if it does not decode.
        """
        return square(read_image(str(self.paths[row])), self.size)


def decode_all(
    paths: Sequence[str] | npt.NDArray[np.str_], size: int, on_bad_image: OnBadImage
) -> tuple[Images, npt.NDArray[np.bool_]]:
    """Open a set of image files, in memory if it fits (``IN_MEMORY_BYTES``) and lazily otherwise.

    Every file is decoded here once either way (for a lazy set at an eighth of its size, where the format can
    do that), so that a bad one shows before training starts and not hours into it.

    Args:
        paths: N image files.
        size: side in pixels; see ``square``.
        on_bad_image: what to do about files that do not decode.

    Returns:
        The M images that decode, in order, and (N,) which they are. In memory, a set without color is held
        as gray.

    Raises:
        DataError: with the count and the first names, if files do not decode and ``on_bad_image`` is
            ``stop``.
    """
    paths = np.asarray(paths, np.str_)
    if len(paths) * size * size * 3 > IN_MEMORY_BYTES:
        decodes = _each(
            lambda row: _decode(paths[row], cv2.IMREAD_REDUCED_GRAYSCALE_8) is not None, len(paths)
        )
        _report(paths, decodes, on_bad_image)
        return FileImages(paths[decodes], size), decodes

    pixels = np.empty((len(paths), size, size, 3), np.uint8)
    gray = np.empty(len(paths), np.bool_)

    def fill(row: int) -> bool:
        image = _decode(paths[row], cv2.IMREAD_COLOR)
        if image is None:
            return False
        pixels[row] = square(_rgb(image), size)
        gray[row] = (pixels[row] == pixels[row, :, :, :1]).all()
        return True

    decodes = _each(fill, len(paths))
    _report(paths, decodes, on_bad_image)
    if not decodes.all():
        pixels = pixels[decodes]
    if gray[decodes].all():
        pixels = np.ascontiguousarray(pixels[..., 0])
    return ArrayImages(pixels), decodes


def _decode(path: str | Path, flags: int) -> npt.NDArray[np.uint8] | None:
    """Return the image, BGR or gray by ``flags``, or None if there is none in that file."""
    try:
        # Not cv2.imread, which cannot open names outside the code page on Windows.
        return cv2.imdecode(np.fromfile(os.fspath(path), np.uint8), flags)  # type: ignore[return-value]
    except (OSError, cv2.error):  # missing or unreadable; empty, or larger than OpenCV is willing to open
        return None


def _rgb(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _each(work: Callable[[int], bool], count: int) -> npt.NDArray[np.bool_]:
    """Collect ``work(0)`` ... ``work(count - 1)``, from threads: OpenCV decodes without Python's lock."""
    with ThreadPool() as pool:
        results = pool.imap(work, range(count), chunksize=64)
        return np.fromiter(tracked(results, count, "decoding images"), np.bool_, count)


def _report(paths: npt.NDArray[np.str_], decodes: npt.NDArray[np.bool_], on_bad_image: OnBadImage) -> None:
    bad = paths[~decodes]
    if not len(bad):
        return
    names = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
    message = f"{len(bad)} of {len(paths)} images are missing or do not decode: {names}"
    if on_bad_image == "stop":
        raise DataError(f'{message}. Repair or remove them, or leave them out with on_bad_image="skip"')
    log.warning("%s. They are left out.", message)
