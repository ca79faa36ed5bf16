"""Finds the images that a list names, also under other spellings, and looks at their sizes and copies."""

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.decode import OnBadImage
from fer_lightning.data.datasets.image_file import SUFFIXES, read_image


def walk_images(folder: Path) -> list[str]:
    """List the images below a folder at any depth, as sorted paths relative to it with ``/``."""
    found = []
    for directory, below, files in os.walk(folder):
        below[:] = [name for name in below if name[0] != "." and name != "__MACOSX"]
        here = os.path.relpath(directory, folder).replace(os.sep, "/")
        prefix = "" if here == "." else f"{here}/"
        found += [prefix + name for name in files if name.lower().endswith(SUFFIXES) and name[0] != "."]
    return sorted(found)


@dataclass
class Found:
    """Where listed images are."""

    paths: list[str]
    """(N,) the files, "" for those that are missing."""
    notes: list[str] = field(default_factory=list)
    """What is unusual, in words."""

    @property
    def missing(self) -> npt.NDArray[np.bool_]:
        """(N,) whether there is no such file."""
        return np.array([not path for path in self.paths], np.bool_)


def locate(folder: Path, listed: Sequence[str]) -> Found:
    """Find listed images below a folder: by exact name, else in another case, else with another suffix.

    Each name that is found only in another case or with another suffix is counted in ``notes``.

    Args:
        folder: that the names are relative to.
        listed: N paths with ``/``.
    """
    held = walk_images(folder)
    exact = set(held)
    case = stem = None
    paths, other_case, other_suffix = [], [], []
    for name in listed:
        actual = name if name in exact else ""
        if not actual:
            case = {each.lower(): each for each in held} if case is None else case
            if actual := case.get(name.lower(), ""):
                other_case.append(f"{actual} for {name}")
        if not actual:
            stem = {_stem(each): each for each in held} if stem is None else stem
            if actual := stem.get(_stem(name), ""):
                other_suffix.append(f"{actual} for {name}")
        paths.append(f"{folder}/{actual}" if actual else "")
    notes = [
        f"{folder}: {len(names):,} images found {how}, such as {names[0]}"
        for names, how in ((other_case, "in another case"), (other_suffix, "with another suffix"))
        if names
    ]
    return Found(paths, notes)


def require_images(
    found: Found, listed: Sequence[str], folder: Path, on_bad_image: OnBadImage
) -> npt.NDArray[np.bool_]:
    """Return which of the listed images are there, (N,); those that are not are added to the notes.

    Raises:
        DataError: if some are missing and ``on_bad_image`` is ``stop``, or if most are.
    """
    missing = found.missing
    if not missing.any():
        return ~missing
    lost, first = int(missing.sum()), listed[int(missing.argmax())]
    message = (
        f"{folder}: listed {len(listed):,} images, present {len(listed) - lost:,}; the first missing one is "
        f"{first}. Is this a derived copy?"
    )
    if lost > len(listed) / 2:
        raise DataError(f"{message} Most are missing: unpack them there, or give another root")
    if on_bad_image == "stop":
        raise DataError(f'{message} on_bad_image="skip" leaves {lost:,} out')
    found.notes.append(f"{message} {lost:,} are left out")
    return ~missing


def picture_sizes(paths: Sequence[str], most: int = 64) -> Counter[tuple[int, int]]:
    """Count the (width, height) of images, evenly spread ones where there are more than ``most``."""
    sizes: Counter[tuple[int, int]] = Counter()
    for path in paths[:: -(-len(paths) // most) or 1]:
        with contextlib.suppress(DataError):  # one that does not decode is reported when all are read
            height, width = read_image(path).shape[:2]
            sizes[width, height] += 1
    return sizes


def copies(paths: Sequence[str], of: Sequence[str]) -> int:
    """Count the files in ``paths`` that are byte-identical to one in ``of``."""
    sizes = {os.path.getsize(path) for path in of}
    known = {_digest(path) for path in of}
    return sum(os.path.getsize(path) in sizes and _digest(path) in known for path in paths)


def _digest(path: str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()


def _stem(name: str) -> str:
    return os.path.splitext(name)[0].lower()


def distinct(names: Sequence[str]) -> list[str]:
    """Return names of faces that are distinct: a picture listed again is ``a.jpg#2``, then ``a.jpg#3``."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return result
