"""Finds image files below a folder, through links too, and tells which paths are one file."""

import logging
import os
import stat
from collections import Counter
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.base import DataError, Texts
from fer_lightning.data.datasets.image_file import SUFFIXES

log = logging.getLogger(__name__)

_NOBODY_MISSES = {"thumbs.db", "desktop.ini", "__macosx"}
"""Left behind by systems: passed over without a word, as are hidden files."""


def image_files(folder: Path) -> Texts:
    """List the images below a folder, at any depth and through links.

    Links that lead back to a folder above are not followed. A file that is reached by two paths is listed
    twice: see ``first_rows``. What is passed over is counted in a warning, but for hidden files.

    Returns:
        (N,) paths relative to the folder, with ``/``, sorted; those behind links come last.

    Raises:
        DataError: if there are none, or if a folder cannot be read.
    """
    found: list[tuple[bool, str]] = []
    passed_over: Counter[str] = Counter()
    unreadable: list[str] = []
    linked: set[tuple[str, str]] = set()
    # Folders to list: the path below ``folder``, whether it is behind a link, and the folders that it is in.
    waiting = [("", False, frozenset({os.path.realpath(folder)}))]
    while waiting:
        here, behind_link, above = waiting.pop()
        try:
            entries = list(os.scandir(folder / here))
        except OSError as error:
            unreadable.append(f"{here or folder} ({error.strerror})")
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _NOBODY_MISSES:
                continue
            path, behind = f"{here}{entry.name}", behind_link or entry.is_symlink()
            suffix = os.path.splitext(entry.name)[1].lower()
            if _is_folder(entry):
                real = os.path.realpath(entry.path)
                # Once in each folder of the first level, which are emotions: else links between many folders
                # would be followed in every order.
                visit = (path.partition("/")[0], real)
                if real not in above and not (behind and visit in linked):
                    linked.add(visit)
                    waiting.append((f"{path}/", behind, above | {real}))
            elif suffix in SUFFIXES:
                found.append((behind, path))
            elif entry.is_symlink() and not os.path.exists(entry.path):
                unreadable.append(f"{path} (a link to {os.readlink(entry.path)}, which is not there)")
            else:
                passed_over[suffix or "without an ending"] += 1
    _tell(folder, passed_over, unreadable)
    if not found:
        raise DataError(f"{folder} holds no images (files ending in {' '.join(SUFFIXES)})")
    return np.array([path for _, path in sorted(found)], np.object_)


def first_rows(paths: Sequence[str] | Texts) -> npt.NDArray[np.int64]:
    """Return (N,) the first row whose path is the same file, however spelled; -1 where there is no file."""
    with ThreadPool() as pool:  # a disk in the network answers many questions at once
        identities = pool.map(_identity, paths, chunksize=64)
    rows = np.full(len(paths), -1)
    seen: dict[tuple[int, int], list[int]] = {}
    for row, identity in enumerate(identities):
        if identity is None:
            continue
        # Names that the disk gives to one file (hard links) have its number too, and count as several.
        others = seen.setdefault(identity, [])
        same = (other for other in others if os.path.realpath(paths[other]) == os.path.realpath(paths[row]))
        rows[row] = next(same, row)
        if rows[row] == row:
            others.append(row)
    return rows


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or to where one may not look
        return False


def _identity(path: str) -> tuple[int, int] | None:
    """Return the device and number of the file, or None if there is no such file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _tell(folder: Path, passed_over: Counter[str], unreadable: Sequence[str]) -> None:
    if unreadable:
        more = ", ..." if len(unreadable) > 5 else ""
        raise DataError(
            f"{folder}: {len(unreadable)} folders or links cannot be read: {', '.join(unreadable[:5])}{more}"
            ". Make them readable, or move them elsewhere"
        )
    if passed_over:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in passed_over.most_common())
        log.warning("%s: %d files are no images and are passed over: %s", folder, passed_over.total(), kinds)
