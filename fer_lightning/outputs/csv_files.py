"""Small CSV files that are read, changed and put back whole."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from fer_lightning.files import write_atomically, writing

Row = Mapping[str, object]


def read_csv(file: Path) -> list[dict[str, str]]:
    """Read the rows of a file; one that does not exist has none.

    A last line without its end was cut off by a kill or a full disk, and does not count.
    """
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))


def write_csv(file: Path, rows: Iterable[Row], columns: Iterable[str] = ()) -> None:
    """Write rows in place of the file, at once: a kill in the middle leaves the old one.

    Args:
        file: made with its folder if need be.
        rows: a cell that is missing, None or NaN stays empty.
        columns: these come first; the others follow as they come up in the rows.

    Raises:
        NotWritten: if the disk is full or the folder not writable.
    """
    rows = list(rows)
    columns = list(dict.fromkeys([*columns, *(column for row in rows for column in row)]))
    with write_atomically(file) as lines:
        writer = csv.DictWriter(lines, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({column: cell(value) for column, value in row.items()} for row in rows)


def append_csv(file: Path, row: Row, columns: Iterable[str]) -> None:
    """Add a row to a file that has these columns."""
    with writing(file), file.open("a", newline="", encoding="utf-8") as lines:
        values = {column: cell(value) for column, value in row.items()}
        csv.DictWriter(lines, list(columns), lineterminator="\n").writerow(values)


def cell(value: object) -> object:
    """Return a value as it is written: a float with the seven digits that float32 has, nothing for NaN."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.7g}"
    return value
