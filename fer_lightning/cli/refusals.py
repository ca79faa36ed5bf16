"""Which errors are the user's to mend: these end in one message, a fault of ours in its traceback.

The rule of the whole program is here. It imports neither torch nor Lightning, which take seconds.
"""

import traceback
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from pathlib import Path

from fer_lightning.errors import InputError

LIGHTNING = ("fit", "validate", "test", "predict")
"""Verbs of Lightning's Trainer, which take its options, those of a method and those of the data."""
REPORT = (
    "This is a fault of fer-lightning, not of what it was given: please report it to the project, with the "
    "command and all that it printed"
)


def message_of(error: Exception, words: Sequence[str]) -> str | None:
    """Return the message of an error that the user can mend, None for any other.

    Args:
        error: that ended the program.
        words: the command line, verb first.
    """
    if (refusal := _refusal(error)) is not None:
        # The library names options by their place in a training; a verb of our own has them without it.
        option = refusal.option if words[0] in LIGHTNING else (refusal.option or "").rpartition(".")[2]
        return f"{refusal} (--{option})" if option else str(refusal)
    if isinstance(error, ArgumentError):
        from fer_lightning.cli.messages import explain

        return explain(str(error), words)
    names = {cls.__name__ for cls in type(error).__mro__}
    if "MisconfigurationException" in names or (isinstance(error, ValueError) and _from_lightning(error)):
        return f"{error} (Lightning's Trainer)"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ValueError) and "Expected more than 1 value per channel" in str(error):
        return "batch norm needs more than one face in a batch: raise it (--data.batch_size)"
    if isinstance(error, UnicodeDecodeError) and (files := [word for word in _files(words) if _binary(word)]):
        return f"{', '.join(files)} is no text file (UTF-8)"
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return f"out of memory ({_line(error)}): take a smaller batch_size, unlabeled_ratio or image_size"
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return (
            f"a process that prepares batches has ended ({_line(error)}): it was killed, mostly for want of "
            "memory; take fewer data.workers"
        )
    return None


def _refusal(error: BaseException) -> InputError | None:
    """Return the error, or the one that caused it, that is written for the user."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    return cause


def _from_lightning(error: Exception) -> bool:
    """Return whether Lightning itself raised an error, such as about limits and intervals."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and {"lightning", "site-packages"} <= set(Path(frames[-1].filename).parts)


def _files(words: Sequence[str]) -> Iterator[str]:
    """Yield the files that a command line names."""
    for word in words:
        name = word.partition("=")[2] or word
        if Path(name).is_file():
            yield name


def _binary(file: str) -> bool:
    try:
        Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
