"""The commands ``fer-lightning data check | list``."""

import inspect
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import fer_lightning.data.datasets as datasets
from fer_lightning.data.datasets.base import DataError, FaceDataset
from fer_lightning.data.datasets.index import ArchiveDataset


def published() -> list[type[FaceDataset]]:
    """Return the data sets that have a page of their own, by name."""
    named = (getattr(datasets, name) for name in sorted(datasets.__all__, key=lambda name: name.lower()))
    sets = [each for each in named if isinstance(each, type) and issubclass(each, FaceDataset)]
    return [each for each in sets if each.page]


def list_data() -> None:
    """Print what each data set is, its terms, and the page where it is asked for."""
    console = Console()
    for kind in published():
        lines = (
            f"[bold]{kind.__name__}[/bold]: {escape(_first_line(kind))}",
            escape(kind.license),
            kind.page,
        )
        console.print("\n  ".join(lines), highlight=False, soft_wrap=True)


def _first_line(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ").replace("``", "")


def check_data(dataset: ArchiveDataset) -> int:
    """Print the counts of an archive beside the published ones, and what is unusual about this copy.

    Returns:
        Exit status: 1 if a count differs, or if the copy is not an official one.

    Raises:
        DataError: if it cannot be read, with the page where the data are asked for.
    """
    try:
        index = dataset.index()
    except DataError as error:
        asked = "" if dataset.page in str(error) else f". The data are asked for at {dataset.page}"
        raise DataError(f"{error}{asked}", option=error.option) from error
    comparison = index.compare()
    name = comparison.variant.name if comparison.variant else "nothing published"
    table = Table("part", "emotion", "found", "expected", title=escape(f"{index.dataset}: {dataset.root}"))
    for column in table.columns[2:]:
        column.justify = "right"
    part = ""
    for line in comparison.lines:
        if part not in ("", line.partition):
            table.add_section()
        expected = "" if line.expected is None else f"{line.expected:,}"
        style = "" if line.expected in (None, line.found) else "red"
        shown = line.partition if line.partition != part else ""
        table.add_row(shown, line.emotion, f"{line.found:,}", expected, style=style)
        part = line.partition
    console = Console()
    console.print(table)
    for message in (f"compared with {name}", *index.notes, *comparison.warnings):
        console.print(message, soft_wrap=True, highlight=False, markup=False)
    console.print(f"{dataset.license} ({dataset.page})", soft_wrap=True, highlight=False, markup=False)
    return int(bool(comparison.warnings))


def _checker(kind: type[ArchiveDataset]) -> Callable[..., int]:
    """Return ``check_data`` as a function with the options of one data set."""

    def check(*args: Any, **options: Any) -> int:
        return check_data(kind(*args, **options))

    # What jsonargparse reads a function's options and their help from.
    check.__signature__ = inspect.signature(kind)  # type: ignore[attr-defined]
    check.__doc__ = kind.__doc__
    return check


COMMANDS: dict[str, Any] = {
    "list": list_data,
    "check": {
        "_help": "compare an archive with its published counts",
        **{kind.__name__: _checker(kind) for kind in published() if issubclass(kind, ArchiveDataset)},
    },
}
"""For jsonargparse's ``auto_cli``."""
