"""Reads a CSV or parquet file as columns of text, each row of which knows its place in the file."""

import csv
import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.base import DataError, Texts

log = logging.getLogger(__name__)

COLUMNS = ("path", "label", "valence", "arousal", "subject", "group", "partition")
"""Columns that a table of faces may have; only ``path`` is needed."""

_SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class Table:
    """Every one of ``COLUMNS`` as text, "" where a cell is empty or the file lacks the column."""

    file: Path
    columns: dict[str, Texts]
    row: npt.NDArray[np.int64]
    """(N,) counted from 0, below the header."""
    line: npt.NDArray[np.int64] | None
    """(N,) line of the file in which the row ends, counted from 1; None if it has no lines."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.row)

    def __getitem__(self, column: str) -> Texts:
        """Return (N,) text of a column."""
        return self.columns[column]

    def only(self, kept: npt.NDArray[np.bool_]) -> "Table":
        """Return the rows of a mask (N,)."""
        columns = {name: texts[kept] for name, texts in self.columns.items()}
        return Table(self.file, columns, self.row[kept], None if self.line is None else self.line[kept])

    def place(self, index: int) -> str:
        """Return where row ``index`` is in the file: ``row 3 (line 5)``."""
        return f"row {self.row[index]}" + ("" if self.line is None else f" (line {self.line[index]})")

    def where(self, index: int) -> str:
        """Return the file and the place in it of row ``index``, to begin a message with."""
        return f"{self.file}, {self.place(index)}"


def read_table(file: Path, names: Mapping[str, str]) -> Table:
    """Read the columns of a table.

    Args:
        file: parquet by its ending, or else CSV in UTF-8: with commas, semicolons or tabs, and a header.
        names: name in the file of a column, where it differs. Upper and lower case are the same, unless two
            names differ in nothing else.

    Raises:
        DataError: if it does not open, lacks a named column, has no rows, or a row has too many or too few
            fields; the message names the row.
    """
    if unknown := sorted(set(names) - set(COLUMNS)):
        raise DataError(f"columns names {', '.join(unknown)}, which is none of {', '.join(COLUMNS)}")
    if file.suffix.lower() == ".parquet":
        columns, line = _read_parquet(file, names), None
    else:
        columns, line = _read_csv(file, names)
    count = len(columns["path"])
    if not count:
        raise DataError(f"{file} has no rows")
    for column in COLUMNS:
        columns.setdefault(column, np.full(count, "", np.object_))
    return Table(file, columns, np.arange(count), line)


def _read_parquet(file: Path, names: Mapping[str, str]) -> dict[str, Texts]:
    import pandas as pd  # half a second that only parquet needs to wait for

    try:
        frame = pd.read_parquet(file)
    except ImportError as error:
        raise DataError(
            f"{file}: reading parquet needs pyarrow: pip install 'fer-lightning[parquet]'"
        ) from error
    except (ValueError, OSError) as error:
        raise _not_a_table(file, error) from error
    places = _places(file, [str(name) for name in frame.columns], names)
    return {
        column: frame.iloc[:, place].astype("string").fillna("").str.strip().to_numpy(np.object_)
        for column, place in places.items()
    }


def _read_csv(file: Path, names: Mapping[str, str]) -> tuple[dict[str, Texts], npt.NDArray[np.int64]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = _rows(stream, names.get("path", "path"))
            _, header = next(rows, (0, []))
            if not header:
                raise _not_a_table(file, "it is empty")
            places = _places(file, header, names)
            lines: list[int] = []
            cells: list[list[str]] = [[] for _ in places]
            for line, row in rows:
                if len(row) != len(header):
                    raise DataError(
                        f"{file}, row {len(lines)} (line {line}): {len(row)} fields, where the header has "
                        f"{len(header)}. Put a field that holds the separator in double quotes"
                    )
                lines.append(line)
                for column, place in zip(cells, places.values(), strict=True):
                    column.append(row[place])
    except UnicodeDecodeError as error:
        raise _not_a_table(file, f"{error}; save it as UTF-8") from error
    except (csv.Error, OSError) as error:
        raise _not_a_table(file, error) from error
    texts = [np.array(column, np.object_) for column in cells]
    return dict(zip(places, texts, strict=True)), np.array(lines, np.int64)


def _rows(stream: TextIO, path_column: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line in which a row ends, and its fields without blanks around them; skip empty lines."""
    first = next((line for line in iter(stream.readline, "") if line.strip()), "")
    stream.seek(0)
    separator = _separator(first, path_column)
    # As text, so that a subject "007" stays one, and "NA" is not taken for nothing.
    reader = csv.reader(stream, delimiter=separator, skipinitialspace=True, strict=True)
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise csv.Error(f"line {reader.line_num}: {error}") from error
        if row is None:
            return
        if row and row != [""]:
            yield reader.line_num, [field.strip() for field in row]


def _separator(header: str, path_column: str) -> str:
    """Return the separator by which the header has a column of paths, or else the commonest."""
    for separator in _SEPARATORS:
        fields = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
        if path_column.lower() in (field.strip().lower() for field in fields):
            return separator
    return max(_SEPARATORS, key=header.count)


def _places(file: Path, header: Sequence[str], names: Mapping[str, str]) -> dict[str, int]:
    """Return the number in the header of each of ``COLUMNS`` that is there."""
    lower = [name.strip().lower() for name in header]
    places, missing = {}, []
    for column in COLUMNS:
        name = names.get(column, column)
        found = [place for place, other in enumerate(header) if other == name]
        found = found or [place for place, other in enumerate(lower) if other == name.lower()]
        if len(found) > 1:
            raise DataError(f"{file} has {len(found)} columns {name}; rename all but one")
        if found:
            places[column] = found[0]
        elif column in names or column == "path":
            missing.append(name)
    if missing:
        raise DataError(
            f"{file} has no column {', '.join(missing)}; it has: {', '.join(header)}. "
            'Name yours with columns={"path": ...}'
        )
    for column in COLUMNS:
        unread = [name for place, name in enumerate(lower) if place not in places.values()]
        if column not in places and (near := difflib.get_close_matches(column, unread, 1, 0.75)):
            log.warning(
                '%s: the column %s is not read; if it is %s, say columns={"%s": "%s"}',
                *(file, near[0], column, column, near[0]),
            )
    return places


def _not_a_table(file: Path, why: object) -> DataError:
    return DataError(
        f"{file} does not open as a table ({why}); expected .csv with a header, in UTF-8, or .parquet"
    )
