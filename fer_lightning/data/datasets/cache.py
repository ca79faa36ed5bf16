"""Remembers what many small files say, until one of them changes."""

import hashlib
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[Any]]


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/fer_lightning``, or ``~/.cache/fer_lightning``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer_lightning"


def remember(folder: Path, suffixes: Sequence[str], read: Callable[[list[str]], Arrays]) -> Arrays:
    """Return what ``read`` makes of the small files of a folder, from a cache where none has changed since.

    The cache lies in ``cache_folder()``, for archives are often mounted read-only. A file that is added,
    removed, or has another size or time of change than before makes it be read anew. Where no cache can be
    written, the files are read each time.

    Args:
        folder: holds the files.
        suffixes: ends of their names, as ``_exp.npy``.
        read: turns the names of the files, sorted, into arrays of numbers and text.
    """
    with os.scandir(folder) as entries:
        files = sorted(
            (entry.name, (status := entry.stat()).st_size, status.st_mtime_ns)
            for entry in entries
            if entry.name.endswith(tuple(suffixes)) and not entry.name.startswith(".")
        )
    state = hashlib.sha256(repr(files).encode()).hexdigest()
    place = hashlib.sha256(f"{folder.resolve()}\n{suffixes}".encode()).hexdigest()
    cache = cache_folder() / f"{place[:32]}.npz"
    try:
        with np.load(cache) as stored:
            if str(stored["state"]) == state:
                return {name: stored[name] for name in stored.files if name != "state"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # absent, or cut off: it is made anew
    arrays = read([name for name, *_ in files])
    _write(cache, arrays | {"state": np.array(state)})
    return arrays


def _write(cache: Path, arrays: Arrays) -> None:
    """Write the cache in one step, so that a process beside this one never reads half of it."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache.parent, delete=False) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # NumPy takes them all for its one flag
        os.replace(file.name, cache)
    except OSError as error:
        log.warning("%s cannot be written (%s): these files are read anew each time", cache, error.strerror)
