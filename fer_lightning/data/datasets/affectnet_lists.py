"""Finds the lists and images of AffectNet, which people keep in folders of many spellings."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.affectnet_csv import Keeps, Listed, read_list
from fer_lightning.data.datasets.archive import DEPTH, packed_in, subfolders
from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.crops import Boxes
from fer_lightning.data.datasets.decode import OnBadImage
from fer_lightning.data.datasets.listed_images import locate, require_images

MARKS = ("Manually_Annotated*", "Automatically_[Aa]nnotated*", "training.csv", "Manually_training.csv")
_LISTS = {
    "train": ("training.csv", "manually_training.csv"),
    "test": ("validation.csv", "manually_validation.csv"),
    "unlabeled": ("automatically_annotated.csv",),
}
"""Names of the lists in lower case, by the partition that their faces become."""


def read(root: Path, keeps: Keeps) -> Listed:
    """Read the two lists of faces that people labeled.

    Args:
        root: of the archive.
        keeps: tells from (N,) expressions and (N, 2) valence and arousal which faces are wanted.

    Raises:
        DataError: if a list is missing, or a line is wrong.
    """
    found = {part: find_list(root, part) for part in _LISTS}
    absent = [_LISTS[part][0] for part in ("train", "test") if found[part] is None]
    if absent:
        there = ", ".join(str(path.relative_to(root)) for path in found.values() if path) or "no list"
        raise DataError(
            f"{root} holds {there}, but not {' and '.join(absent)}; expected them in "
            "Manually_Annotated_file_lists"
        )
    parts = [read_list(path, part, keeps) for part, path in found.items() if path and part != "unlabeled"]
    return Listed(
        files=[file for part in parts for file in part.files],
        partition=np.concatenate([part.partition for part in parts]),
        expression=np.concatenate([part.expression for part in parts]),
        valence_arousal=np.concatenate([part.valence_arousal for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        notes=[note for part in parts for note in part.notes],
    )


def automatic_faces(root: Path, on_bad_image: OnBadImage) -> tuple[list[str], list[str], Boxes, list[str]]:
    """Return pictures as listed, their files, boxes and notes of the half that a network labeled.

    Raises:
        DataError: if the list is missing, or a line is wrong.
    """
    path = find_list(root, "unlabeled")
    if path is None:
        raise DataError(
            f"{root} holds no automatically_annotated.csv; expected it in Automatically_Annotated_file_lists",
            option="data.dataset.automatic",
        )
    listed = read_list(path, "unlabeled", lambda expression, _: np.ones(len(expression), np.bool_))
    paths, kept, notes = find_images(root, listed, on_bad_image, "Automatically")
    rows = np.flatnonzero(kept).tolist()
    return (
        [listed.files[row] for row in rows],
        [paths[row] for row in rows],
        listed.boxes[kept],
        listed.notes + notes,
    )


def find_images(
    root: Path, listed: Listed, on_bad_image: OnBadImage, half: str = "Manually"
) -> tuple[list[str], npt.NDArray[np.bool_], list[str]]:
    """Return (N,) image files, (N,) which are there, and notes.

    Raises:
        DataError: if images are missing, with what is there of each list.
    """
    folder = _image_folder(root, half)
    found = locate(folder, listed.files)
    try:
        kept = require_images(found, listed.files, folder, on_bad_image)
    except DataError as error:
        there = "; ".join(
            f"{_LISTS[part][0]}: {(~found.missing[listed.partition == part]).sum():,} of "
            f"{(listed.partition == part).sum():,} faces"
            for part in dict.fromkeys(listed.partition.tolist())
        )
        raise DataError(f"{error}. There are of {there}") from None
    return found.paths, kept, found.notes


def find_list(root: Path, part: str) -> Path | None:
    """Return the list of a partition, wherever people put it, or None."""
    for folder in _places(root):
        for path in sorted(folder.glob("*.csv")):
            if path.name.lower() in _LISTS[part]:
                return path
    return None


def _places(root: Path) -> list[Path]:
    """List the folders that may hold a list: not those of images, which hold a million files."""
    places = level = [root]
    for _ in range(DEPTH - 1):
        level = [
            below
            for folder in level
            for below in subfolders(folder)
            if "annotated" in below.name.lower() and "images" not in below.name.lower()
        ]
        places = places + level
    return places


def _image_folder(root: Path, half: str) -> Path:
    """Return the folder with the numbered folders of images, at most three deep."""
    level = [root]
    for _ in range(DEPTH):
        level = [
            below
            for folder in level
            for below in subfolders(folder)
            if below.name.lower().startswith(f"{half}_annotated".lower())
        ]
        for folder in level:
            if any(below.name.isdecimal() for below in subfolders(folder)):
                return folder
    packed = packed_in(root, f"{half}_Annotated")
    if packed:
        raise DataError(f"{packed[0]} is still packed; unpack it to {root / half}_Annotated_Images")
    raise DataError(
        f"{root / half}_Annotated_Images does not exist; expected the folders 1, 2, ... of images there"
    )
