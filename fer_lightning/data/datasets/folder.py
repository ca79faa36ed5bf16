"""Faces in folders named after emotions, and any folder of unlabeled faces beside them."""

import os
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.base import DataError, FaceDataset, Faces, one_hot, require
from fer_lightning.data.datasets.decode import OnBadImage, decode_all
from fer_lightning.emotions import BASIC_7, BASIC_8, Taxonomy, UnknownEmotion, taxonomy

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
"""Files that count as images, in either case; others are passed over."""


class FaceFolder(FaceDataset):
    """Your own faces: one folder per emotion for the labeled ones, any folder for the unlabeled ones.

    ::

        labeled/happy/*.jpg  labeled/sad/*.jpg ...      unlabeled/any/depth/*.png

    Folders are matched by name, which is any synonym of an emotion (``happy``, ``joy``, ``Happiness``); they
    may hold folders of their own. Hidden files are passed over.

    Args:
        labeled: folder with one folder per emotion, to train on.
        unlabeled: folder of any depth with faces to learn from without labels.
        val: folder with one folder per emotion, to choose by.
        test: folder with one folder per emotion, to report on.
        emotions: a taxonomy's name or a list of emotions; by default ``basic7``, or ``basic8`` if
            contempt occurs.
        on_bad_image: ``stop`` at images that do not decode, or ``skip`` them with a warning.
    """

    def __init__(
        self,
        labeled: str | Path,
        unlabeled: str | Path | None = None,
        val: str | Path | None = None,
        test: str | Path | None = None,
        emotions: str | list[str] | None = None,
        on_bad_image: OnBadImage = "stop",
    ) -> None:
        self.labeled = labeled
        self.unlabeled = unlabeled
        self.val = val
        self.test = test
        self.emotions = emotions
        self.on_bad_image = on_bad_image

    def load(self, image_size: int) -> Faces:
        """Read the index. Names are ``labeled/happy/1.jpg``: the part, then the path in it.

        Raises:
            DataError: if a folder is missing, holds no images, or lies within another, or if images do not
                decode.
            UnknownEmotion: if a folder is not named after an emotion.
        """
        folders = {
            part: require(Path(folder).expanduser(), f"the folder of {part} faces")
            for part in ("labeled", "unlabeled", "val", "test")
            if (folder := getattr(self, part)) is not None
        }
        _require_separate(folders)
        names, paths, partition, labels = [], [], [], []
        for part, folder in folders.items():
            if part == "unlabeled":
                files = image_files(folder)
                found = np.full(len(files), "")
            else:
                files, found = emotion_files(folder)
            names.append(np.char.add(f"{part}/", files))
            paths.append(np.char.add(f"{folder}/", files))
            partition.append(np.full(len(files), "train" if part == "labeled" else part))
            labels.append(found)
        path = np.concatenate(paths)
        label, order = label_numbers(np.concatenate(labels), self.emotions, lambda row: str(path[row]))
        images, kept = decode_all(path, image_size, self.on_bad_image)
        return Faces(
            dataset=f"folder-{order.name}",
            taxonomy=order,
            names=np.concatenate(names)[kept],
            partition=np.concatenate(partition)[kept],
            emotion=one_hot(label, len(order))[kept],
            images=images,
        )


def image_files(folder: Path) -> npt.NDArray[np.str_]:
    """List the images below a folder, at any depth: (N,) paths relative to it, with ``/``, sorted.

    Raises:
        DataError: if there are none.
    """
    found = []
    for directory, below, files in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        here = Path(directory).relative_to(folder)
        images = [name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        found += [(here / name).as_posix() for name in images]
    if not found:
        raise DataError(f"{folder} holds no images (files ending in {' '.join(SUFFIXES)})")
    return np.sort(np.array(found, np.str_))


def emotion_files(folder: Path) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.str_]]:
    """List the images of a folder with one folder per emotion.

    Returns:
        (N,) paths relative to it, and (N,) the name of the folder each one is in, as it is written.

    Raises:
        DataError: if there are none, or if one lies beside the emotions' folders.
    """
    files = image_files(folder)
    loose = files[np.char.find(files, "/") < 0]
    if len(loose):
        raise DataError(
            f"{folder}: {len(loose)} images lie in no emotion's folder, the first is {loose[0]}; "
            f"expected {folder}/<emotion>/{loose[0]}"
        )
    return files, np.array([file.partition("/")[0] for file in files], np.str_)


def label_numbers(
    labels: npt.NDArray[np.str_], emotions: str | list[str] | None, where: Callable[[int], str]
) -> tuple[npt.NDArray[np.int64], Taxonomy]:
    """Turn names of emotions into their numbers in a taxonomy.

    Args:
        labels: (N,) names, by any synonym; "" is no label.
        emotions: a taxonomy's name or a list of emotions; None is ``basic7``, or ``basic8`` if contempt
            occurs.
        where: returns the place from which row ``i`` was read, for the error.

    Returns:
        (N,) numbers, -1 for no label, and the taxonomy.

    Raises:
        UnknownEmotion: naming the place, if a label names no emotion of the taxonomy.
    """
    order = BASIC_8 if emotions is None else taxonomy(emotions)
    unique, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    numbers = np.full(len(unique), -1)
    for place, (label, row) in enumerate(zip(unique.tolist(), first.tolist(), strict=True)):
        try:
            numbers[place] = order.index(label) if label else -1
        except UnknownEmotion as error:
            raise UnknownEmotion(f"{where(row)}: {error}") from None
    if emotions is None and numbers.max() < len(BASIC_7):
        order = BASIC_7  # the same numbers: contempt is the last of BASIC_8
    return numbers[inverse], order


def _require_separate(folders: dict[str, Path]) -> None:
    """Refuse a folder within another one: its faces would be in two parts."""
    for (part, folder), (other_part, other) in combinations(folders.items(), 2):
        here, there = folder.resolve(), other.resolve()
        if here.is_relative_to(there) or there.is_relative_to(here):
            raise DataError(
                f"{part}={folder} and {other_part}={other} overlap; each face belongs to one of them"
            )
