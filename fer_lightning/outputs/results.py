"""Result rows: one CSV line per finished run, and the tables written from them.

A number in a README is worth what can be traced behind it. So a row carries the configuration, the seed, the
hash of the split, the commit and the cost of the run it came from, and tables are written from rows alone.
"""

import csv
import os
import re
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fer_lightning.errors import InputError

Row = dict[str, str]
"""One line of a results file. A column that a run does not have is empty."""

KEY = ("name", "seed")
"""The columns that tell one row from another."""
HEADLINE = {
    "accuracy": "accuracy %",
    "uar": "UAR %",
    "ece": "ECE %",
    "ccc_valence": "CCC valence",
    "ccc_arousal": "CCC arousal",
}
"""The metrics that a table shows, where any row has them, and their headings; a row has fractions for %."""
TRAINING = {"val/score": "validation score %", "audit/coverage": "coverage %", "audit/purity": "purity %"}
"""Likewise, of the training: the score that chose the epoch; how many faces had a pseudo-label in
the last epoch, and how many of those a right one."""
FLOOR = "floor"
"""Name of the run that learns from the labels alone; the others are held against it, seed by seed."""
NOT_RUN = "not run"


def read_rows(file: Path) -> list[Row]:
    """Read a results file, in its order; a file that does not exist holds no rows.

    Raises:
        InputError: if it is not a results file.
    """
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        rows = list(reader)
        missing = set(KEY) - set(reader.fieldnames or ())
    if missing:
        raise InputError(f"{file} is no results file: it lacks the columns {', '.join(sorted(missing))}")
    return rows


def add_row(file: Path, row: Mapping[str, object]) -> None:
    """Put a row into a results file in place of the one with its name and seed, if any.

    The file is replaced at once: neither a reader nor a kill in the middle meets half of it.
    """
    new = {column: _text(value) for column, value in row.items()}
    old = read_rows(file)
    rank = {name: rank for rank, name in enumerate(dict.fromkeys(row["name"] for row in [*old, new]))}
    rows = [*(row for row in old if _key(row) != _key(new)), new]
    rows.sort(key=lambda row: (rank[row["name"]], int(row["seed"])))
    columns = list(dict.fromkeys(column for row in rows for column in row))
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with open(handle, "w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.chmod(temporary, 0o644)  # mkstemp lets only the owner read
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


class Summary(NamedTuple):
    """A table ready to be drawn: every cell is text."""

    header: list[str]
    lines: list[list[str]]


def summarise(rows: Sequence[Row], planned: Iterable[str] = ()) -> Summary:
    """Give one line per method: mean ± sample standard deviation of its test metrics over seeds.

    Metrics are those of the epoch chosen on the validation faces, and then the accuracy at the last epoch.
    The gain is that in accuracy over the floor or, for a run NAME-VARIATION, over the run NAME: seed by seed,
    as a seed means the same labeled faces, so that what the two share does not blur it.

    Args:
        rows: rows of one results file.
        planned: names that get a line, in this order, even without a row; rows of other names follow.
    """
    metrics = [metric for metric in HEADLINE if any(row.get(f"selected/{metric}") for row in rows)]
    columns = {f"selected/{metric}": HEADLINE[metric] for metric in metrics or ("accuracy", "uar", "ece")}
    if "selected/accuracy" in columns:
        columns["last/accuracy"] = f"last epoch: {HEADLINE['accuracy']}"
    columns |= {
        column: heading for column, heading in TRAINING.items() if any(row.get(column) for row in rows)
    }
    names = list(dict.fromkeys([*planned, *(row["name"] for row in rows)]))
    gains = {name: _gain(name, names, rows) for name in names}
    lines = []
    for name in names:
        mine = [row for row in rows if row["name"] == name]
        labels = ", ".join(dict.fromkeys(row.get("labels", "") for row in mine))
        cells = [
            _mean([float(row[column]) for row in mine if row.get(column)], 100 if "%" in heading else 1)
            if column not in TRAINING or any(row.get(column) for row in mine)
            else "–"
            for column, heading in columns.items()
        ]
        gain = [gains[name] or "–"] if any(gains.values()) else []
        lines.append([name, labels, str(len(mine)), *cells[:1], *gain, *cells[1:]])
    accuracy, *others = columns.values()
    gain = ["gain in points over"] if any(gains.values()) else []
    return Summary(["method", "labels", "seeds", accuracy, *gain, *others], lines)


def _gain(name: str, names: Sequence[str], rows: Sequence[Row]) -> str:
    """Paired difference in accuracy to the run that this one is to be compared with; empty without one."""
    whole = max((other for other in names if name.startswith(f"{other}-")), key=len, default=FLOOR)
    mine, other = (
        {
            row["seed"]: float(row["selected/accuracy"])
            for row in rows
            if row["name"] == each and row.get("selected/accuracy")
        }
        for each in (name, whole)
    )
    differences = [mine[seed] - other[seed] for seed in mine.keys() & other.keys()]
    return f"{_mean(differences, 100, sign='+')} {whole}" if differences and name != whole else ""


def table(file: Path, planned: Iterable[str] = ()) -> str:
    """Return the summary of a results file as Markdown.

    Args:
        file: results file.
        planned: see `summarise`.
    """
    summary = summarise(read_rows(file), planned)
    return markdown(summary.header, summary.lines, left=2)


def write_readme(readme: Path, file: Path, planned: Iterable[str] = ()) -> None:
    """Put the table of a results file between its markers in a README.

    The markers are ``<!-- results:NAME -->``, where NAME is the results file's without its suffix, and
    ``<!-- /results -->``.

    Raises:
        InputError: if the README has no such markers.
    """
    put_between(readme, f"<!-- results:{file.stem} -->", "<!-- /results -->", table(file, planned))


def put_between(readme: Path, opening: str, closing: str, content: str) -> None:
    """Replace what stands between two markers of a README.

    Raises:
        InputError: if it has no such markers.
    """
    text = readme.read_text(encoding="utf-8")
    block = re.compile(f"({re.escape(opening)}).*?({re.escape(closing)})", re.DOTALL)
    if not block.search(text):
        raise InputError(f"{readme} has no place for this table: write {opening} and {closing} into it")
    readme.write_text(block.sub(lambda found: f"{found[1]}\n{content}\n{found[2]}", text), encoding="utf-8")


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]], left: int) -> str:
    """Return a table as Markdown, its first ``left`` columns aligned to the left, the others to the right."""
    ruler = [*("---" for _ in header[:left]), *("---:" for _ in header[left:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ruler, *lines))


def _text(value: object) -> str:
    """Write a number so that it reads back the same, without the noise of float32 arithmetic."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[column] for column in KEY)


def _mean(values: Sequence[float], scale: int, sign: str = "") -> str:
    if not values:
        return NOT_RUN
    mean = f"{scale * statistics.fmean(values):{sign}.2f}"
    return f"{mean} ± {scale * statistics.stdev(values):.2f}" if len(values) > 1 else mean
