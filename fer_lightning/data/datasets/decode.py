"""Reads sets of image files as square uint8 RGB: decoded once into memory, or each time they are needed."""

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from typing import Literal

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.base import ArrayImages, DataError, Images, Texts
from fer_lightning.data.datasets.image_file import check_face, read_face, read_image
from fer_lightning.data.progress import tracked
from fer_lightning.data.views import center, fit

log = logging.getLogger(__name__)

IN_MEMORY_BYTES = 2 * 1024**3
"""Up to this size as uint8 RGB (57,065 faces at 112 px, 14,266 at 224 px) a set is decoded into memory."""

NAMED = 5
"""So many bad images are named in a message; a file lists more of them."""

OnBadImage = Literal["stop", "skip"]
"""Whether images that cannot be used stop the reading, or are left out with a warning."""


def square(image: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Resize the shorter side to ``size`` pixels and keep the center: (H, W, 3) to (size, size, 3)."""
    return center(fit(image, size), size)


class Paths:
    """Paths end to end in one array.

    A list would be copied into every forked worker by its reference counts, and an array of text is as wide
    as the longest.
    """

    def __init__(self, paths: Sequence[str] | Texts) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        """Return the number of paths."""
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> str:
        """Return one path."""
        row = range(len(self))[row]
        return os.fsdecode(self._bytes[self._ends[row] : self._ends[row + 1]].tobytes())


class FileImages:
    """Images decoded each time they are read: the form of a set too large for memory."""

    def __init__(self, paths: Sequence[str] | Texts, size: int) -> None:
        self.paths, self.size = Paths(paths), size

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, row: int) -> npt.NDArray[np.uint8]:
        """Return one image, (size, size, 3) uint8 RGB.

        Raises:
            DataError: naming the file, if it does not decode.
        """
        return square(read_image(self.paths[row]), self.size)


def decode_all(
    paths: Sequence[str] | Texts, size: int, on_bad_image: OnBadImage
) -> tuple[Images, npt.NDArray[np.bool_]]:
    """Open a set of image files, in memory if it fits (``IN_MEMORY_BYTES``) and lazily otherwise.

    Every file is decoded here once either way (for a lazy set at an eighth of its size, where the format can
    do that), so that a bad one shows before training starts and not hours into it.

    Args:
        paths: N image files.
        size: side in pixels; see ``square``.
        on_bad_image: what to do about files that are missing, do not decode or are smaller than a face.

    Returns:
        The M images that can be used, in order, and (N,) which they are. In memory, a set without color is
        held as gray.

    Raises:
        DataError: with the count, the first names and a file that lists all, if there are bad images and
            ``on_bad_image`` is ``stop``.
    """
    if len(paths) * size * size * 3 > IN_MEMORY_BYTES:
        good = _each(paths, lambda row: check_face(paths[row]), on_bad_image)
        return FileImages([path for path, kept in zip(paths, good, strict=True) if kept], size), good

    pixels = np.empty((len(paths), size, size, 3), np.uint8)
    gray = np.empty(len(paths), np.bool_)

    def fill(row: int) -> None:
        pixels[row] = square(read_face(paths[row]), size)
        gray[row] = (pixels[row] == pixels[row, :, :, :1]).all()

    good = _each(paths, fill, on_bad_image)
    if not good.all():
        pixels = pixels[good]
    if gray[good].all():
        pixels = np.ascontiguousarray(pixels[..., 0])
    return ArrayImages(pixels), good


def _each(
    paths: Sequence[str] | Texts, work: Callable[[int], None], on_bad_image: OnBadImage
) -> npt.NDArray[np.bool_]:
    """Call ``work`` for each row and return (N,) which succeed; in threads: decoding frees Python's lock."""

    def problem(row: int) -> str:
        try:
            work(row)
        except DataError as error:
            return str(error)
        return ""

    with ThreadPool() as pool:
        results = pool.imap(problem, range(len(paths)), chunksize=64)
        problems = list(tracked(results, len(paths), "decoding images"))
    if bad := [text for text in problems if text]:
        message = f"{len(bad)} of {len(paths)} images cannot be used: {'; '.join(bad[:NAMED])}"
        if len(bad) > NAMED:
            message += f"; {_listed(bad)}"
        # Names may be no valid Unicode, which not every log or terminal takes.
        message = message.encode(errors="backslashreplace").decode()
        if on_bad_image == "stop":
            raise DataError(f'{message}. Repair or remove them, or leave them out with on_bad_image="skip"')
        log.warning("%s. They are left out.", message)
    return np.array([not text for text in problems], np.bool_)


def _listed(bad: Sequence[str]) -> str:
    """Write a line for each bad image into a file of its own, and return the phrase that names it.

    In the temporary folder, because that of the images may be read-only and every process needs its own.
    """
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="bad_images_", suffix=".txt", encoding="utf-8", errors="surrogateescape", delete=False
        ) as file:
            file.writelines(f"{text}\n" for text in bad)
    except OSError as error:
        return f"the list of all of them could not be written ({error})"
    return f"all of them are listed in {file.name}"
