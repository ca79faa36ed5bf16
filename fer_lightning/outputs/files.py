"""Files that are written whole or not at all, and clear words where they cannot be."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from fer_lightning.errors import InputError

ADVICE = "Make room or make the folder writable, then"


class NotWritten(InputError):
    """A file of the run could not be written."""


@contextlib.contextmanager
def writing(file: Path) -> Iterator[None]:
    """Say of which file an operating system's error speaks, and what to do.

    Raises:
        NotWritten: if writing the file fails.
    """
    try:
        yield
    except OSError as error:
        raise NotWritten(
            f"cannot write {file}: {error.strerror or error}; {free_space(file)}. {ADVICE} go on from the "
            "last checkpoint with --ckpt_path"
        ) from error


def free_space(path: Path) -> str:
    """Return a phrase that tells how much space is free where a file should go."""
    try:
        return f"{shutil.disk_usage(path.parent).free / 2**20:,.0f} MiB are free there"
    except OSError:
        return "how much is free there cannot be told"
