"""FER2013: 35,887 gray faces of 48 px from the ICML 2013 challenge, in whichever form people have it."""

import csv
import logging
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fer_lightning import emotions
from fer_lightning.data.datasets.base import (
    ArrayImages,
    DataError,
    FaceDataset,
    Faces,
    Texts,
    one_hot,
    require,
)
from fer_lightning.data.datasets.decode import decode_all
from fer_lightning.data.datasets.folder import emotion_of
from fer_lightning.data.datasets.labels import label_numbers
from fer_lightning.data.datasets.walk import image_files

log = logging.getLogger(__name__)

FACES = 35_887
SIDE = 48
USAGES = ("Training", "PublicTest", "PrivateTest")
PARTITIONS = ("train", "val", "test")
"""The partition of each of ``USAGES``: epochs are chosen on PublicTest, and PrivateTest is the test set."""

_FILES = ("fer2013_uint8.npz", "fer2013.csv", "icml_face_data.csv")
_HELD_OUT = ("test", "validation")
_FORMS = (
    f"{', '.join(_FILES)}, or the folders train/<emotion>/ and test/<emotion>/ "
    "(https://www.kaggle.com/datasets/msambare/fer2013)"
)


class FER2013(FaceDataset):
    """FER2013, with Training to train on, PublicTest as val and PrivateTest as test.

    Goodfellow et al., "Challenges in Representation Learning", ICONIP 2013, https://arxiv.org/abs/1307.0414.

    It is read from any of its forms: Kaggle's ``fer2013.csv`` and ``icml_face_data.csv``, Kaggle's folders
    (``train/happy/Training_1206.jpg``), or ``fer2013_uint8.npz`` with ``images`` (N, 48, 48) uint8, ``label``
    (N,) 0 ... 6 and ``usage`` (N,) 0 ... 2, in the order of ``fer2013.csv``. The split is the same in all,
    save in the copy with the folders ``train`` and ``validation``: it divides the faces anew, and its
    ``validation`` is ``test`` here.

    Args:
        root: one of the files, or a folder that holds one form, itself or in a folder ``fer2013``.
    """

    license = "FER2013: collected from the web for the ICML 2013 challenge, for research"
    page = "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge"

    def __init__(self, root: str | Path) -> None:
        self.root = root

    def load(self, image_size: int) -> Faces:
        """Read everything into memory, as gray at its own 48 px.

        Names are the rows of ``fer2013.csv``, counted from 0: ``fer2013/00012``. Kaggle's folders do not tell
        the row, and there a name is the path.

        Args:
            image_size: not used: all faces are of one size.

        Raises:
            DataError: naming the file or row that is wrong.
        """
        source = find(self.root)
        if source.is_dir():
            return _from_folders(source)
        rows = read_rows(source)
        return Faces(
            dataset="fer2013",
            taxonomy=emotions.FER2013,
            names=row_names(len(rows.label)),
            partition=np.array(PARTITIONS)[rows.usage],
            emotion=one_hot(rows.label, len(emotions.FER2013)),
            images=ArrayImages(rows.images),
        )


class Rows(NamedTuple):
    """FER2013 in the order of the rows of ``fer2013.csv``."""

    images: npt.NDArray[np.uint8]
    """(N, 48, 48) gray."""
    label: npt.NDArray[np.int64]
    """(N,) number in the taxonomy ``fer2013``."""
    usage: npt.NDArray[np.int64]
    """(N,) number in ``USAGES``."""


def row_names(count: int) -> Texts:
    """Return the names of the first ``count`` rows."""
    return np.array([f"fer2013/{row:05d}" for row in range(count)], np.object_)


def find(root: str | Path) -> Path:
    """Return the file that holds FER2013, or the folder with its ``train`` and ``test``.

    Raises:
        DataError: if there is none of the forms, naming them all.
    """
    if not str(root):
        raise DataError("the root of FER2013 is empty; give the folder or the file that holds it")
    path = require(Path(root).expanduser(), f"FER2013: {_FORMS}")
    if path.is_file():
        if path.suffix not in (".csv", ".npz"):
            raise DataError(
                f"{path} is none of the forms of FER2013; unpack it if it is an archive, to {_FORMS}"
            )
        return path
    for folder in (path, path / "fer2013", path / "images"):
        for name in _FILES:
            if (folder / name).is_file():
                return folder / name
        if (folder / "train").is_dir() and any((folder / name).is_dir() for name in _HELD_OUT):
            return folder
    held = ", ".join(sorted(entry.name for entry in path.iterdir())[:10]) or "nothing"
    raise DataError(f"{path} holds no form of FER2013, but {held}; unpack archives; expected {_FORMS}")


def read_rows(source: Path) -> Rows:
    """Read ``fer2013.csv``, ``icml_face_data.csv`` or ``fer2013_uint8.npz``.

    Raises:
        DataError: naming the file and row that are wrong. Rows are counted from 0, below the header.
    """
    rows = _read_npz(source) if source.suffix == ".npz" else _read_csv(source)
    if len(rows.label) != FACES:
        log.warning("%s holds %d faces where FER2013 has %d: is it complete?", source, len(rows.label), FACES)
    return rows


def csv_rows(path: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    """Yield the named columns of each row, in the order of ``columns``, without blanks around them.

    Raises:
        DataError: if a column is missing, or a row is too short.
    """
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in columns if name not in header]
        if missing:
            found = ", ".join(header)[:200]
            raise DataError(f"{path} has no column {', '.join(missing)}; it has: {found or 'nothing'}")
        places = [header.index(name) for name in columns]
        for number, row in enumerate(row for row in reader if row):
            if len(row) != len(header):
                raise DataError(
                    f"{path}, row {number}: {len(row)} columns instead of {len(header)}; is it cut off?"
                )
            yield [row[place].strip() for place in places]


def usage_of(name: str, where: str) -> int:
    """Return the number of a usage in ``USAGES``.

    Raises:
        DataError: naming the place, if it is none of them.
    """
    if name not in USAGES:
        raise DataError(f"{where}: Usage is {name!r}, not one of {', '.join(USAGES)}")
    return USAGES.index(name)


def open_npz(path: Path, needed: Sequence[str]) -> list[npt.NDArray[np.integer]]:
    """Read the named arrays of an archive, each once.

    Raises:
        DataError: if it is no such archive, or lacks one of them.
    """
    try:
        with np.load(path) as archive:
            held = list(archive)
            arrays = [archive[name] for name in needed if name in held]
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} does not open as a NumPy archive of plain arrays ({error})") from error
    if len(arrays) != len(needed):
        raise DataError(
            f"{path} lacks {', '.join(set(needed) - set(held))}; it holds {', '.join(held) or 'nothing'}"
        )
    return arrays


def _read_npz(path: Path) -> Rows:
    images, label, usage = open_npz(path, ("images", "label", "usage"))
    count = len(images)
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE):
        raise DataError(f"{path}: images is {images.dtype} {images.shape}, not uint8 (N, {SIDE}, {SIDE})")
    for name, column, classes in (("label", label, len(emotions.FER2013)), ("usage", usage, len(USAGES))):
        if column.shape != (count,):
            raise DataError(f"{path}: {name} is {column.shape}, but there are {count} images")
        bad = np.flatnonzero((column < 0) | (column >= classes))
        if len(bad):
            raise DataError(f"{path}, row {bad[0]}: {name} is {column[bad[0]]}, not 0 ... {classes - 1}")
    return Rows(images.astype(np.uint8, copy=False), label.astype(np.int64), usage.astype(np.int64))


def _read_csv(path: Path) -> Rows:
    images, labels, usages = [], [], []
    for number, (emotion, pixels, usage) in enumerate(csv_rows(path, ("emotion", "pixels", "Usage"))):
        where = f"{path}, row {number}"
        if emotion not in {str(label) for label in range(len(emotions.FER2013))}:
            tip = "; 7 is contempt in ckextended.csv, which CKPlus reads" if emotion == "7" else ""
            raise DataError(f"{where}: emotion is {emotion!r}, not 0 ... {len(emotions.FER2013) - 1}{tip}")
        images.append(read_pixels(pixels, where))
        labels.append(int(emotion))
        usages.append(usage_of(usage, where))
    if not images:
        raise DataError(f"{path} has no rows")
    return Rows(np.stack(images).reshape(-1, SIDE, SIDE), np.array(labels), np.array(usages))


def read_pixels(text: str, where: str) -> npt.NDArray[np.uint8]:
    """Read the gray values of one image, (48 * 48,), from text.

    Raises:
        DataError: naming the place, if they are not 48 x 48 numbers from 0 to 255.
    """
    try:
        values = np.fromstring(
            text, np.int64, sep=" "
        )  # parses text when given a separator; five times `map(int`
    except ValueError:
        raise DataError(f"{where}: pixels holds something other than numbers") from None
    if len(values) != SIDE * SIDE:
        raise DataError(f"{where}: pixels holds {len(values)} numbers, not {SIDE} x {SIDE} = {SIDE * SIDE}")
    if values.min() < 0 or values.max() > 255:
        raise DataError(f"{where}: pixels runs from {values.min()} to {values.max()}, not within 0 ... 255")
    return values.astype(np.uint8)


def _from_folders(root: Path) -> Faces:
    """Read Kaggle's folders; the names of the files in ``test`` tell PublicTest from PrivateTest."""
    held_out = next(name for name in _HELD_OUT if (root / name).is_dir())
    parts = {part: image_files(root / part) for part in ("train", held_out)}
    files = np.array([f"{part}/{file}" for part in parts for file in parts[part]], np.object_)
    paths = np.array([f"{root}/{file}" for file in files], np.object_)
    label, taxonomy = label_numbers(
        np.concatenate([emotion_of(root / part, found) for part, found in parts.items()]),
        "fer2013",
        lambda row: str(paths[row]),
    )
    in_test = np.array([file.startswith(f"{held_out}/") for file in files])
    public, private = (
        in_test & np.array([f"/{usage}Test" in file for file in files]) for usage in ("Public", "Private")
    )
    unclear = in_test & ~public & ~private
    if unclear.any():
        log.warning(
            "%s: the names of %d of %d files tell neither PublicTest nor PrivateTest: these are all test, "
            "and results on them are not those on PrivateTest",
            root / held_out,
            unclear.sum(),
            in_test.sum(),
        )
    images, _ = decode_all(paths, SIDE, "stop")
    return Faces(
        dataset="fer2013-folder",
        taxonomy=taxonomy,
        names=np.array([f"fer2013/{file}" for file in files], np.object_),
        partition=np.select([public, in_test], ["val", "test"], "train"),
        emotion=one_hot(label, len(taxonomy)),
        images=images,
    )
