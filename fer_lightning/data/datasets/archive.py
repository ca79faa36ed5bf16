"""Finds the root of a published archive, names what is still packed, and reads its text files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fer_lightning.data.datasets.base import DataError

DEPTH = 3
"""Folders that people leave around an archive's root when they unpack it."""
_PACKED = (".zip", ".rar", ".7z", ".tar", ".tar.gz", ".tgz")


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark, or else in Latin-1.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_fields(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the place (``list.txt, line 3``) and the fields of each line that is not blank.

    Fields are divided by blanks or tabs, lines end as on Windows or on Unix.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if fields := line.split():
            yield f"{path}, line {number}", fields


def subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder by name, without hidden ones and those that a Mac's archives add."""
    return sorted(
        each for each in folder.iterdir() if each.is_dir() and each.name[0] != "." and each.name != "__MACOSX"
    )


def find_root(root: str | Path, marks: Sequence[str], expected: str) -> Path:
    """Find the folder that holds one of ``marks``: the given one, or one within ``DEPTH`` wrappers of it.

    Args:
        root: folder that the user named.
        marks: patterns of paths that only the archive's root holds, such as ``train_set/annotations``.
        expected: the archive's layout in a few words, for the messages.

    Raises:
        DataError: if there is none, naming what is there instead, or if there are several.
    """
    given = Path(root).expanduser()
    if not str(root) or not given.exists():
        raise DataError(f"{given} does not exist; expected a folder with {expected}")
    if given.is_file():
        raise DataError(f"{given} is a file; unpack it if it is an archive, to a folder with {expected}")
    level = [given]
    for _ in range(DEPTH + 1):
        found = [folder for folder in level if any(any(folder.glob(mark)) for mark in marks)]
        if len(found) > 1:
            raise DataError(f"{' and '.join(map(str, found))} both hold {expected}; give one of them")
        if found:
            return found[0]
        level = [below for folder in level for below in subfolders(folder)]
    packed = sorted(path for path in (*given.glob("*"), *given.glob("*/*")) if _is_packed(path))
    if packed:
        raise DataError(f"{packed[0]} is still packed; unpack it. Expected a folder with {expected}")
    raise DataError(f"{given} holds {held(given)}; expected {expected}")


def held(folder: Path) -> str:
    """Return the first names in a folder, for messages."""
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"


def unpacked(folder: Path, what: str) -> Path:
    """Return a folder if it is there and holds something.

    Raises:
        DataError: if not; naming the archive beside it that is still packed, if there is one.
    """
    if folder.is_dir() and any(folder.iterdir()):
        return folder
    packed = packed_in(folder.parent, folder.name)
    if packed:
        raise DataError(f"{packed[0]} is still packed; unpack it to {folder}")
    state = "is empty" if folder.is_dir() else "does not exist"
    raise DataError(f"{folder} {state}; expected {what} there")


def packed_in(folder: Path, name: str) -> list[Path]:
    """List the archives in a folder whose names begin with that of what is looked for, in either case."""
    beside = folder.iterdir() if folder.is_dir() else ()
    return sorted(
        entry for entry in beside if entry.name.lower().startswith(name.lower()) and _is_packed(entry)
    )


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(_PACKED)
