"""Files that are written whole or not at all, and clear words where they cannot be."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from fer_lightning.errors import InputError

_MEND = "Make room or make the folder writable, then"


class NotWritten(InputError):
    """A file of the run could not be written."""


class CheckpointNotSaved(NotWritten):
    """A checkpoint could not be written; the one before it is as it was."""


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
            f"cannot write {file}: {error.strerror or error}; {_free(file)}. {_MEND} go on from the last "
            "checkpoint with --ckpt_path"
        ) from error


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when it is complete.

    Lightning's own collects it in the system's temporary folder, from which moving to another disk is a copy:
    when the disk fills up in the middle of it, the old checkpoint is gone and the new one useless.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointNotSaved: if that fails, naming the file, the free space and what to do.
        """
        if storage_options is not None:
            raise TypeError("a checkpoint is a local file here: there are no storage_options")
        path = Path(path)
        temporary = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())  # a full disk may show only now
            os.replace(temporary, path)
        except (OSError, RuntimeError) as error:
            cause = error if isinstance(error, OSError) else error.__context__  # torch wraps a failed write
            if not isinstance(cause, OSError):
                raise
            raise CheckpointNotSaved(
                f"cannot write the checkpoint {path}: {cause.strerror or cause}; {_free(path)}. "
                f"{_advice(path)}"
            ) from error
        finally:
            _remove(temporary)


def _remove(temporary: Path) -> None:
    """Give back the space of an incomplete file; if even that fails, the error on its way says enough."""
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)


def _free(path: Path) -> str:
    try:
        return f"{shutil.disk_usage(path.parent).free / 2**20:,.0f} MiB are free there"
    except OSError:
        return "how much is free there cannot be told"


def _advice(path: Path) -> str:
    if path.exists():
        return f"The one that was there is intact. {_MEND} go on from it with --ckpt_path {path}"
    return f"There was none before it. {_MEND} start again"
