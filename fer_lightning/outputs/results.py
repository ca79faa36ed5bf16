"""Result rows: one CSV line per finished run, and the tables made from them.

A row carries all that its numbers can be traced to: the configuration and its hash, the method's class and
revision, seed, split, commit, device and time. Tables are made from rows alone.
"""

import fcntl
import os
import re
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fer_lightning.errors import InputError
from fer_lightning.files import write_atomically, writing
from fer_lightning.outputs.csv_files import read_csv, write_csv

Row = dict[str, str]
"""One line of a results file. A column that a run does not have is empty."""
Key = tuple[str, str]
"""Name and seed: no two rows have the same."""

COLUMNS = ("name", "seed")
"""The columns of a ``Key``."""
HEADLINE = {
    "accuracy": "accuracy %",
    "uar": "UAR %",
    "ece": "ECE %",
    "ccc_valence": "CCC valence",
    "ccc_arousal": "CCC arousal",
}
"""The test metrics that a table shows, where any row has them, and their headings; a row has fractions
for %."""
TRAINING = {"val/score": "validation score %", "audit/coverage": "coverage %", "audit/purity": "purity %"}
"""Columns and headings of the training: the score that chose the epoch; the share of unlabeled faces whose
pseudo-label was accepted in the last epoch, and the share of those that was right."""
NOT_RUN = "not run"
STALE = "stale"


def read_rows(file: Path) -> list[Row]:
    """Read a results file, in its order; a file that does not exist holds no rows.

    Raises:
        InputError: if it is not a results file.
    """
    rows = read_csv(file)
    if rows and (missing := set(COLUMNS) - set(rows[0])):
        raise InputError(f"{file} is no results file: it lacks the columns {', '.join(sorted(missing))}")
    return rows


def add_row(file: Path, row: Mapping[str, object]) -> None:
    """Put a row into a results file in place of the one with its name and seed, if any.

    The file is replaced at once, and two processes that add rows wait for each other.

    Raises:
        NotWritten: if the disk is full or the folder not writable.
    """
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        old = read_rows(file)
        rank = {name: rank for rank, name in enumerate(dict.fromkeys(key(each)[0] for each in [*old, row]))}
        rows: list[Mapping[str, object]] = [*(each for each in old if key(each) != key(row)), row]
        rows.sort(key=lambda each: (rank[key(each)[0]], int(key(each)[1])))
        write_csv(file, rows)
    finally:
        os.close(folder)


def key(row: Mapping[str, object]) -> Key:
    """Return name and seed of a row."""
    return str(row["name"]), str(row["seed"])


class Summary(NamedTuple):
    """A table ready to be drawn: every cell is text."""

    header: list[str]
    lines: list[list[str]]
    not_run: list[str]
    """Names that were to be run and have no row."""


def summarize(
    rows: Sequence[Row], baselines: Mapping[str, str | None] | None = None, stale: Collection[Key] = ()
) -> Summary:
    """Return one line per name with a row: mean ± sample standard deviation of its test metrics over seeds.

    Metrics are those of the epoch chosen on the validation faces, and then the accuracy at the last epoch.
    The gain is the difference in accuracy to a baseline, seed by seed: a seed means the same labeled faces,
    and what the two share does not blur it.

    Args:
        rows: of one results file.
        baselines: names of all runs that are planned, in the order of their lines, and the name that each is
            compared with, if any; rows of other names follow.
        stale: rows that are counted as stale and enter no mean.
    """
    baselines = dict(baselines or {})
    present = dict.fromkeys(row["name"] for row in rows)
    names = list(dict.fromkeys([*(name for name in baselines if name in present), *present]))
    valid = [row for row in rows if key(row) not in stale]
    columns = _columns(rows)
    gains = {name: _gain(valid, name, baselines.get(name)) for name in names}
    compared = {baselines[name] for name, gain in gains.items() if gain}
    header = ["method", "labels", "seeds", *columns.values()]
    if compared:
        header.insert(4, f"gain over {compared.copy().pop()}" if len(compared) == 1 else "gain over baseline")
    if len(compared) > 1:
        header.insert(5, "baseline")
    lines = []
    for name in names:
        mine = [row for row in valid if row["name"] == name]
        old = sum(row["name"] == name for row in rows) - len(mine)
        labels = ", ".join(dict.fromkeys(row.get("labels", "") for row in mine))
        seeds = f"{len(mine)} + {old} {STALE}" if old else str(len(mine))
        cells = [
            "–"
            if column in TRAINING and not any(row.get(column) for row in mine)
            else _mean([float(row[column]) for row in mine if row.get(column)], 100 if "%" in heading else 1)
            or (STALE if old and not mine else NOT_RUN)
            for column, heading in columns.items()
        ]
        if compared:
            cells.insert(1, gains[name] or "–")
        if len(compared) > 1:
            cells.insert(2, (baselines.get(name) if gains[name] else None) or "–")
        lines.append([name, labels, seeds, *cells])
    return Summary(header, lines, [name for name in baselines if name not in present])


def _columns(rows: Sequence[Row]) -> dict[str, str]:
    """Return the columns of metrics that a table of these rows shows, and their headings."""
    metrics = [metric for metric in HEADLINE if any(row.get(f"best/{metric}") for row in rows)]
    columns = {f"best/{metric}": HEADLINE[metric] for metric in metrics or ("accuracy", "uar", "ece")}
    if "best/accuracy" in columns:
        columns["last/accuracy"] = f"last epoch: {HEADLINE['accuracy']}"
    return columns | {
        column: heading for column, heading in TRAINING.items() if any(row.get(column) for row in rows)
    }


def _gain(rows: Sequence[Row], name: str, baseline: str | None) -> str:
    """Return the mean of the differences in accuracy to a baseline over their common seeds, empty without."""
    mine, other = (
        {
            row["seed"]: float(row["best/accuracy"])
            for row in rows
            if row["name"] == each and row.get("best/accuracy")
        }
        for each in (name, baseline)
    )
    differences = [mine[seed] - other[seed] for seed in mine.keys() & other.keys()]
    return _mean(differences, 100, sign="+") if name != baseline else ""


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]], left: int) -> str:
    """Return a table as Markdown, its first ``left`` columns aligned to the left, the others to the right."""
    ruler = [*("---" for _ in header[:left]), *("---:" for _ in header[left:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ruler, *lines))


def put_between(readme: Path, opening: str, closing: str, content: str) -> None:
    """Replace what stands between two markers of a README.

    Raises:
        InputError: if it is not there, or has no such markers.
    """
    if not readme.is_file():
        raise InputError(f"{readme} does not exist")
    text = readme.read_text(encoding="utf-8")
    block = re.compile(f"({re.escape(opening)}).*?({re.escape(closing)})", re.DOTALL)
    if not block.search(text):
        raise InputError(f"{readme} has no place for this table: write {opening} and {closing} into it")
    with write_atomically(readme) as stream:
        stream.write(block.sub(lambda found: f"{found[1]}\n{content}\n{found[2]}", text))


def _mean(values: Sequence[float], scale: int, sign: str = "") -> str:
    """Return mean ± sample standard deviation, the mean alone of one value, nothing of none."""
    if not values:
        return ""
    mean = f"{scale * statistics.fmean(values):{sign}.2f}"
    return f"{mean} ± {scale * statistics.stdev(values):.2f}" if len(values) > 1 else mean
