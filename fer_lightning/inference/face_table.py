"""The table of recognized faces: its columns, and the file that it is written to row by row."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from fer_lightning.errors import InputError
from fer_lightning.files import writing
from fer_lightning.metrics import DIMENSIONS
from fer_lightning.outputs.csv_files import cell
from fer_lightning.task import Task

Row: TypeAlias = dict[str, Any]
BOX = ("x", "y", "width", "height")


def columns(task: Task) -> dict[str, type]:
    """Return the columns of a table of faces for a task, each with the type of its cells.

    ============== =====================================================================================
    column         holds
    ============== =====================================================================================
    source         path as it was given, ``camera 0``, or the number of a picture in memory
    frame, time    number of the frame, from 0, and its seconds; 0 for a picture
    status         ``face``, ``no face``, or ``unreadable``; what follows is empty for the last two
    faces          number of faces that were found in the frame
    x, y,          box of the face in pixels of the picture
    width, height
    emotion        the most probable one, by name
    confidence     its probability
    abstain        whether the confidence is under the threshold
    anger, ...     probability of each emotion
    valence,       in [-1, 1]
    arousal
    ============== =====================================================================================

    Emotions and what follows from them are missing for a task without, as valence and arousal are.
    """
    found: dict[str, type] = {"source": str, "frame": int, "time": float, "status": str, "faces": int}
    found |= dict.fromkeys(BOX, int)
    if task.classes:
        found |= {"emotion": str, "confidence": float, "abstain": bool}
        found |= dict.fromkeys(task.emotions, float)
    if task.valence_arousal:
        found |= dict.fromkeys(DIMENSIONS, float)
    return found


AGAIN = "start again, or choose another place"
"""What to do once there is room."""
_PART = 4096
"""Rows of a parquet file that are written at a time."""


@contextmanager
def open_table(file: Path, kinds: Mapping[str, type]) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Open a table for writing: CSV or parquet, by the ending of its name.

    What has been written stays whatever happens next: a CSV file is complete after every call, a parquet file
    once the context is left, also by an exception.

    Args:
        file: written over; its folder is made if need be.
        kinds: see ``columns``.

    Yields:
        A function that adds rows; a cell that is missing stays empty.

    Raises:
        InputError: for another ending, or parquet without pyarrow.
        NotWritten: if the disk is full or the place not writable.
    """
    openers = {".csv": _csv_table, ".parquet": _parquet_table}
    opener = openers.get(file.suffix.lower())
    if opener is None:
        raise InputError(f"{file} ends neither in .csv nor in .parquet", option="out")
    with writing(file, AGAIN):
        file.parent.mkdir(parents=True, exist_ok=True)
    with opener(file, kinds) as add:
        yield add


@contextmanager
def _csv_table(file: Path, kinds: Mapping[str, type]) -> Iterator[Callable[[Sequence[Row]], None]]:
    with writing(file, AGAIN):
        stream = file.open("w", newline="", encoding="utf-8")
    table = csv.DictWriter(stream, list(kinds), lineterminator="\n")

    def add(rows: Sequence[Row]) -> None:
        with writing(file, AGAIN):
            table.writerows({name: cell(value) for name, value in row.items()} for row in rows)
            stream.flush()

    try:
        with writing(file, AGAIN):
            table.writeheader()
        yield add
    finally:
        with writing(file, AGAIN):
            stream.close()


@contextmanager
def _parquet_table(file: Path, kinds: Mapping[str, type]) -> Iterator[Callable[[Sequence[Row]], None]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"{file}: writing parquet needs pyarrow: pip install 'fer-lightning[parquet]'", option="out"
        ) from error
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
    waiting: list[Row] = []

    def add(rows: Sequence[Row]) -> None:
        waiting.extend(rows)
        if len(waiting) >= _PART:
            with writing(file, AGAIN):
                table.write_table(pa.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

    with writing(file, AGAIN):
        table = parquet.ParquetWriter(file, schema)
    try:
        yield add
    finally:
        with writing(file, AGAIN), table:
            if waiting:
                table.write_table(pa.Table.from_pylist(waiting, schema=schema))
