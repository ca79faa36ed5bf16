"""Files that are written whole or not at all, with an error that names the file where that fails."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from fer_lightning.errors import InputError

ADVICE = "Make room or make the folder writable, then"
RESUME = "start again; training goes on from its last checkpoint (ckpt_path)"


class NotWritten(InputError):
    """A file of the run could not be written."""


@contextlib.contextmanager
def writing(file: Path, then: str = RESUME) -> Iterator[None]:
    """Turn an error of the operating system into one that names the file and what to do.

    Args:
        file: that is written.
        then: what to do once there is room.

    Raises:
        NotWritten: if writing the file fails.
    """
    try:
        yield
    except OSError as error:
        raise NotWritten(
            f"cannot write {file}: {error.strerror or error}; {free_space(file)}. {ADVICE} {then}"
        ) from error


@contextlib.contextmanager
def write_atomically(file: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a new file that takes the place of ``file`` once it is complete.

    Neither a reader nor a kill in the middle meets half of it; where writing fails, the old file stays as it
    was, and nothing else is left. The new one is collected beside its place: from a temporary folder it would
    be copied to another disk, which can fill up in the middle.

    Args:
        file: its folder is made if need be.
        mode: ``w`` for UTF-8 text with line ends as written, ``wb`` for bytes.

    Raises:
        NotWritten: if writing fails.
    """
    new = file.with_name(f".{file.name}.new")
    encoding, newline = ("utf-8", "") if mode == "w" else (None, None)
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new.open(mode, encoding=encoding, newline=newline) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())  # a full disk may show only now
            os.replace(new, file)
        finally:
            with contextlib.suppress(OSError):  # the error on its way is enough
                new.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Wait until no other process is changing a file, and keep others waiting meanwhile.

    Args:
        file: to be read, changed and written back; it need not exist.
    """
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.with_name(f".{file.name}.lock").open("a")
    with lock:
        with contextlib.suppress(OSError):  # a file system that has no locks
            fcntl.lockf(lock, fcntl.LOCK_EX)
        yield


def free_space(path: Path) -> str:
    """Return how much space is free where a file should go, as a phrase."""
    try:
        return f"{shutil.disk_usage(path.parent).free / 2**20:,.0f} MiB are free there"
    except OSError:
        return "how much is free there cannot be told"
