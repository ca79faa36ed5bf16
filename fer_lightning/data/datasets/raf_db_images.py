"""The images of RAF-DB: where the official archive and its copies have them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.decode import OnBadImage
from fer_lightning.data.datasets.listed_images import locate, picture_sizes, require_images
from fer_lightning.data.datasets.raf_db_files import NAME

SIDE = 100
"""Pixels of an aligned image, on each side."""


def find_images(
    folder: Path, names: Sequence[str], form: str, on_bad_image: OnBadImage
) -> tuple[list[str], npt.NDArray[np.bool_], list[str]]:
    """Find the images of the official archive.

    Args:
        folder: ``Image/aligned`` or ``Image/original``.
        names: N names of the official list.
        form: ``aligned`` or ``original``.
        on_bad_image: what to do about missing ones.

    Returns:
        The image files that are there, (N,) which names they belong to, and notes.

    Raises:
        DataError: if images are missing, or the folder holds the other form.
    """
    aligned = [name.replace(".", "_aligned.") for name in names]
    wanted, others = (aligned, list(names)) if form == "aligned" else (list(names), aligned)
    found = locate(folder, wanted)
    if found.missing.all():
        swapped = [path for path in locate(folder, others).paths if path]
        if swapped:
            sizes = picture_sizes(swapped)
            other = "original" if form == "aligned" else "aligned"
            raise DataError(
                f"{folder} holds {other} names: {len(swapped):,} files matched "
                f'{"without" if form == "aligned" else "with"} "_aligned", {sizes[SIDE, SIDE]} of '
                f"{sizes.total()} tried are {SIDE}x{SIDE}. Give images={other}, or put the {form} "
                "images there",
                option="data.dataset.images",
            )
    kept = require_images(found, wanted, folder, on_bad_image)
    paths = [path for path in found.paths if path]
    return paths, kept, found.notes + (size_notes(paths) if form == "aligned" else [])


def size_notes(paths: Sequence[str]) -> list[str]:
    """Return a note if aligned images are not of RAF-DB's size."""
    sizes = picture_sizes(paths)
    other = sizes.total() - sizes[SIDE, SIDE]
    if not other:
        return []
    (width, height), _ = next(each for each in sizes.most_common() if each[0] != (SIDE, SIDE))
    return [
        f"{other} of {sizes.total()} aligned images tried are not {SIDE}x{SIDE} (such as {width}x{height}): "
        "a re-aligned copy, whose results are not comparable"
    ]


def official_names(files: Sequence[str], partition: npt.NDArray[np.str_]) -> tuple[list[str], list[str]]:
    """Return the names of a copy's files as the official list has them, or their paths, and notes."""
    names = [file.rpartition("/")[2].replace("_aligned", "") for file in files]
    if len(set(names)) < len(names) or not all(NAME.fullmatch(name) for name in names):
        return list(files), ["file names are not RAF-DB's: faces are named by their paths"]
    moved = [name for name, part in zip(names, partition, strict=True) if not name.startswith(part)]
    if moved:
        return names, [f"{len(moved):,} faces lie in another part than their names say, such as {moved[0]}"]
    return names, []
