"""The tables of results, as Markdown and for a terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fer_lightning.cli.matrix_file import Matrix, read_matrix
from fer_lightning.cli.versions import stale_rows
from fer_lightning.errors import InputError
from fer_lightning.outputs.results import Summary, markdown, put_between, read_rows, summarize


def show_results(file: Path, readme: Path | None = None, matrix: Path | None = None) -> int:
    """Print the table of a results file as Markdown, or put it into a README.

    A row whose settings or method have changed since it was made is stale: it is counted as such and enters
    no mean.

    Args:
        file: results file (CSV). With a matrix, it need not exist yet.
        readme: README with the markers ``<!-- results:NAME -->`` and ``<!-- /results -->``, NAME being the
            results file's without its suffix; what stands between them is replaced.
        matrix: matrix file: the order of the lines, what each run is compared with, and which have no row.

    Returns:
        Exit status, 0.
    """
    planned = read_matrix(matrix) if matrix else None
    if not file.is_file() and not planned:
        raise InputError(f"{file} does not exist")
    summary = results_table(file, planned)
    table = markdown(summary.header, summary.lines, left=2)
    if summary.not_run:
        absent = f"Not run: {', '.join(summary.not_run)}."
        table = f"{table}\n\n{absent}" if summary.lines else absent
    if readme:
        put_between(readme, f"<!-- results:{file.stem} -->", "<!-- /results -->", table)
    else:
        print(table)
    return 0


def results_table(file: Path, matrix: Matrix | None = None) -> Summary:
    """Summarize a results file, with its stale rows told apart.

    Args:
        file: results file (CSV).
        matrix: the runs that are planned, with their baselines and today's settings.
    """
    rows = read_rows(file)
    configs: Mapping[str, str] = {}
    baselines: Mapping[str, str | None] = {}
    if matrix:
        configs = {cell.name: cell.config for cell in matrix.cells()}
        baselines = {run.name: run.baseline or matrix.baseline for run in matrix.runs}
    return summarize(rows, baselines, stale_rows(rows, configs))


def draw(summary: Summary, title: str, console: Console) -> None:
    """Print a summary with as many of its columns as the terminal has room for, each on one line.

    Columns are left out from the right, where the less important ones are. The number of labels goes to the
    title if it is the same for all.
    """
    labels = summary.header.index("labels")
    if len(numbers := {line[labels] for line in summary.lines} - {""}) == 1:
        title = f"{title}; {numbers.pop()} labels"
        lines = [cells[:labels] + cells[labels + 1 :] for cells in (summary.header, *summary.lines)]
        summary = Summary(lines[0], lines[1:], summary.not_run)
    for shown in range(len(summary.header), 0, -1):
        table = _rich(summary, shown)
        if table.__rich_measure__(console, console.options.update(max_width=10_000)).maximum <= console.width:
            break
    console.print(title, markup=False, highlight=False, soft_wrap=True)
    if summary.lines:
        console.print(table)
        if hidden := summary.header[shown:]:
            console.print(f"Not shown here: {', '.join(hidden)}.", highlight=False)
    if summary.not_run:
        console.print(f"Not run: {', '.join(summary.not_run)}.", highlight=False)


def _rich(summary: Summary, shown: int) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for position, heading in enumerate(summary.header[:shown]):
        words = heading.replace(" ", "\n")
        justify: Literal["left", "right"] = "left" if position == 0 or heading == "baseline" else "right"
        table.add_column(words, justify=justify, no_wrap=True, vertical="bottom")
    for cells in summary.lines:
        table.add_row(*cells[:shown])
    return table
