"""Recognizes the class folders that people make of an archive and pass on under its name."""

from pathlib import Path

from fer_lightning.data.datasets.archive import DEPTH, subfolders
from fer_lightning.data.datasets.listed_images import walk_images
from fer_lightning.emotions import UnknownEmotion, canonical


def count_in_class_folders(root: Path) -> int:
    """Return the number of images below a folder if they lie in folders of classes, else 0.

    Args:
        root: holds folders named after emotions or numbered, itself or in others (``train``, ``val``).
    """
    level = [root]
    for _ in range(DEPTH):
        if any(sum(map(_is_class, subfolders(folder))) > 2 for folder in level):
            return len(walk_images(root))
        level = [below for folder in level for below in subfolders(folder)]
    return 0


def _is_class(folder: Path) -> bool:
    try:
        return folder.name.isdecimal() or bool(canonical(folder.name))
    except UnknownEmotion:
        return False
