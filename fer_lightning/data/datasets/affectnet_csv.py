"""Reads the lists of AffectNet: picture, box of the face, expression, valence and arousal on each line."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.crops import Boxes
from fer_lightning.data.datasets.image_file import SUFFIXES
from fer_lightning.emotions import VALENCE_AROUSAL_RANGE

COLUMNS = (
    *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height"),
    *("facial_landmarks", "expression", "valence", "arousal"),
)
EXPRESSIONS = 11
"""Eight emotions, none of them, uncertain, and no face."""
UNKNOWN = -2.0
"""Valence and arousal of a picture that has none."""
Keeps = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32]], npt.NDArray[np.bool_]]


@dataclass
class Listed:
    """Faces of one or more lists."""

    files: list[str]
    """(N,) pictures, relative to the folder of the images."""
    partition: npt.NDArray[np.str_]
    expression: npt.NDArray[np.int64]
    valence_arousal: npt.NDArray[np.float32]
    """(N, 2), NaN where unknown."""
    boxes: Boxes
    notes: list[str] = field(default_factory=list)


def _rows(path: Path, notes: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the place and the columns of each line; whether there is a header is told by the first one."""
    # Bytes that are no UTF-8 survive in file names, where they may be on the disk too.
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file)
        columns: list[str] = []
        for fields in reader:
            fields = [each.strip() for each in fields]
            if not any(fields):
                continue
            if not columns:
                header = not fields[0].lower().endswith(SUFFIXES)
                columns = [each.removeprefix("#") for each in fields] if header else list(COLUMNS)
                _check_columns(path, columns)
                if header:
                    continue
                notes.append(f"{path}: no header line; taken as the official nine columns")
            if len(fields) != len(columns):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(fields)} columns instead of {len(columns)}; "
                    "is it cut off?"
                )
            yield f"{path}, line {reader.line_num}", dict(zip(columns, fields, strict=True))
    if not columns:
        raise DataError(f"{path} is empty; expected {','.join(COLUMNS)}")


def _check_columns(path: Path, columns: list[str]) -> None:
    if len(columns) > 100:
        raise DataError(
            f"{path}: columns 5...{len(columns) - 4} are landmarks; give the original CSV, of nine columns"
        )
    missing = [name for name in COLUMNS if name not in columns and name != "facial_landmarks"]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; it has: {', '.join(columns)[:200]}")


def read_list(path: Path, part: str, keeps: Keeps) -> Listed:
    """Read one list.

    Args:
        path: of the list.
        part: partition that its faces become.
        keeps: tells from (N,) expressions and (N, 2) valence and arousal which faces are wanted.

    Raises:
        DataError: naming the line that is wrong.
    """
    notes: list[str] = []
    files, expressions, values, boxes = [], [], [], []
    for where, row in _rows(path, notes):
        number = row["expression"]
        if not (number.isdecimal() and int(number) < EXPRESSIONS):
            raise DataError(f"{where}: expression is {number!r}; expected 0..{EXPRESSIONS - 1}")
        files.append(row["subDirectory_filePath"])
        expressions.append(int(number))
        values.append([_value(row, name, where) for name in ("valence", "arousal")])
        boxes.append(_box(row, where))
    expression = np.array(expressions, np.int64)
    valence_arousal = np.array(values, np.float32).reshape(-1, 2)
    box = np.array(boxes, np.float32).reshape(-1, 4)
    wanted, boxless = keeps(expression, valence_arousal), np.isnan(box).any(1)
    if (wanted & boxless).any():
        notes.append(f"{path}: {(wanted & boxless).sum():,} rows have no box of a face and are left out")
    kept = wanted & ~boxless
    return Listed(
        files=[files[row] for row in np.flatnonzero(kept).tolist()],
        partition=np.full(int(kept.sum()), part, "<U9"),
        expression=expression[kept],
        valence_arousal=valence_arousal[kept],
        boxes=box[kept],
        notes=notes,
    )


def _box(row: dict[str, str], where: str) -> list[float]:
    """Return left, top, right and bottom, NaN where the list says that there is no face."""
    texts = [row[name] for name in COLUMNS[1:5]]
    if "NULL" in texts:
        return [np.nan] * 4
    try:
        left, top, width, height = map(float, texts)
    except ValueError:
        raise DataError(f"{where}: the box is {' '.join(texts)}; expected four numbers") from None
    return [left, top, left + width, top + height] if width > 0 and height > 0 else [np.nan] * 4


def _value(row: dict[str, str], name: str, where: str) -> float:
    low, high = VALENCE_AROUSAL_RANGE
    try:
        value = float(row[name])
    except ValueError:
        raise DataError(f"{where}: {name} is {row[name]!r}, not a number") from None
    if value == UNKNOWN:
        return np.nan
    if not low <= value <= high:
        raise DataError(
            f"{where}: {name} is {value:g}; expected [{low:g}, {high:g}], or {UNKNOWN:g} if unknown"
        )
    return value
