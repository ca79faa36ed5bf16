"""Archives whose folders are classes: numbered ones in copies (``train/3/*.jpg``), or named ones."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.archive import subfolders
from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.listed_images import walk_images
from fer_lightning.emotions import Taxonomy, taxonomy

_PARTS = {"train": "train", "valid": "val", "val": "val", "validation": "val", "test": "test"}


class Numbered(NamedTuple):
    """Images in numbered folders, sorted by partition and path."""

    files: list[str]
    """(N,) paths relative to the root."""
    partition: npt.NDArray[np.str_]
    number: npt.NDArray[np.int64]
    """(N,) number of the folder."""


def numbered_files(root: Path) -> Numbered:
    """List ``train/<number>/*``, and the same in ``val`` (or ``valid``, ``validation``) and ``test``.

    Raises:
        DataError: if a folder is not a number, or there are no images.
    """
    files, partition, numbers = [], [], []
    for folder in subfolders(root):
        part = _PARTS.get(folder.name.lower())
        for file in walk_images(folder) if part else ():
            number = file.partition("/")[0]
            if not number.isdecimal():
                raise DataError(
                    f"{folder / number}: expected folders with the number of a class; "
                    "folders named after emotions are read by FaceFolder"
                )
            files.append(f"{folder.name}/{file}")
            partition.append(part)
            numbers.append(int(number))
    if not files:
        raise DataError(f"{root} holds no images in train/<number>/")
    return Numbered(files, np.array(partition), np.array(numbers))


def named_files(folder: Path, page: str) -> tuple[list[str], list[str]]:
    """List ``<emotion>/*``: (N,) paths relative to the folder, sorted, and (N,) names of their folders.

    Raises:
        DataError: if there are no folders, an empty one, or an image beside them.
    """
    classes = subfolders(folder)
    empty = next((each for each in classes if not walk_images(each)), None)
    if empty or not classes:
        raise DataError(
            f"{empty or folder} is empty: some repositories ship the folders, not the images; ask for them "
            f"at {page}"
        )
    files = walk_images(folder)
    loose = [file for file in files if "/" not in file]
    if loose:
        raise DataError(f"{folder}: {len(loose):,} images lie in no emotion's folder, such as {loose[0]}")
    return files, [file.partition("/")[0] for file in files]


def in_order(
    number: npt.NDArray[np.int64], class_order: str | list[str], target: Taxonomy, root: Path
) -> npt.NDArray[np.int64]:
    """Turn numbers of folders, from 0 or from 1, into labels of ``target`` by a given order of the emotions.

    Raises:
        DataError: if there are more numbers than emotions.
        UnknownEmotion: if ``target`` lacks an emotion of the order.
    """
    order = taxonomy(class_order)
    first = int(number.min() > 0)
    if number.max() - first >= len(order):
        raise DataError(
            f"{root}: folders run to {number.max()}, class_order has {len(order)} emotions",
            option="data.dataset.class_order",
        )
    return np.array(order.columns_in(target))[number - first]
