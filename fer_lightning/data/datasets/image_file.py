"""Reads one image file as uint8 RGB, whatever its format."""

import io
import os
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from fer_lightning.data.datasets.base import DataError

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"),
    *(".gif", ".avif", ".heic", ".heif"),
)
"""Files that count as images, in either case. What is in one tells its format, not its ending."""

SMALLEST = 16
"""Pixels that a face needs a side: below, there is no expression to see."""

Pixels = npt.NDArray[np.uint8]


def read_image(path: str | Path) -> Pixels:
    """Read one image file, (H, W, 3) uint8 RGB.

    Gray is repeated over the channels, 16 bits become 8, transparency is dropped, EXIF orientation is
    applied, and of several frames the first is read. HEIC needs the package pillow-heif.

    Raises:
        DataError: naming the file, if it is missing or does not decode.
    """
    data = _bytes(path)
    if kind := _pillow_kind(data):
        return _through_pillow(path, data, kind)
    image = _through_opencv(data, cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path} does not decode as an image")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_face(path: str | Path) -> Pixels:
    """Read one image file as ``read_image`` does, if it is large enough for a face.

    Raises:
        DataError: naming the file, if it is missing, does not decode or has a side below ``SMALLEST``.
    """
    image = read_image(path)
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST:
        raise DataError(f"{path} is {width} x {height} px, and a face needs {SMALLEST} px a side")
    return image


def check_face(path: str | Path) -> None:
    """Raise what ``read_face`` would raise, at an eighth of its size where the format can do that."""
    data = _bytes(path)
    if not _pillow_kind(data):
        reduced = _through_opencv(data, cv2.IMREAD_REDUCED_GRAYSCALE_8)
        # Rounded up or down by format: what is left of a smaller one does not tell its size.
        if reduced is not None and min(reduced.shape) > SMALLEST // 8:
            return
    read_face(path)


def _bytes(path: str | Path) -> bytes:
    try:
        # Not cv2.imread, which cannot open names outside the code page on Windows.
        with open(os.fspath(path), "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} does not open ({getattr(error, 'strerror', None) or error})") from None


def _through_opencv(data: bytes, flags: int) -> Pixels | None:
    """Return the image, BGR or gray by ``flags``, or None if there is none in it."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)  # type: ignore[return-value]
    except cv2.error:  # empty, or larger than OpenCV is willing to open
        return None


def _pillow_kind(data: bytes) -> Literal["GIF", "AVIF", "HEIC"] | None:
    """Return the format if it is one that OpenCV reads in some builds only, or without its orientation."""
    if data[:4] == b"GIF8":
        return "GIF"
    if data[4:8] != b"ftyp":
        return None
    brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]  # the first box lists them
    if b"avif" in brands or b"avis" in brands:
        return "AVIF"
    return "HEIC" if any(brand in brands for brand in (b"hei", b"hev", b"mif1")) else None


def _through_pillow(path: str | Path, data: bytes, kind: str) -> Pixels:
    if kind == "HEIC":
        try:
            import pillow_heif
        except ImportError:
            raise DataError(
                f"{path} is a HEIC image, which needs pillow-heif: pip install pillow-heif"
            ) from None
        pillow_heif.register_heif_opener()
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), np.uint8)
    except Exception as error:  # a damaged file ends in errors of many kinds
        raise DataError(f"{path} does not decode as a {kind} image ({error})") from None
