"""The commands ``fer-lightning splits make | verify | show``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import fer_lightning.data.synthetic  # noqa: F401  (imported, its data set can be named without its module)
from fer_lightning.data.datasets.base import DataError, FaceDataset
from fer_lightning.data.split_checks import verify_split
from fer_lightning.data.splits import NO_EMOTION, PARTS, Split, SplitRequest, make_split
from fer_lightning.ranges import PositiveInt


def make(dataset: FaceDataset, output: Path, image_size: PositiveInt = 48, **request: Any) -> None:
    """Make a split manifest and print its counts.

    Args:
        dataset: the data set, by class.
        output: the JSON file to write. One that holds another split is not overwritten.
        image_size: side in pixels that images of mixed sizes are decoded to.
        **request: options of the split, see ``SplitRequest``.

    Raises:
        DataError: if there are too few faces for the request, or ``output`` holds another split.
    """
    checked = SplitRequest(**request)  # before the data are read, which may take minutes
    split = make_split(dataset.load(image_size), checked)
    if output.exists() and output.read_bytes() != split.to_json().encode():
        raise DataError(
            f"{output} holds another split: remove it first, or give another file", option="output"
        )
    split.save(output)
    show(output)


def verify(manifest: Path, dataset: FaceDataset, image_size: PositiveInt = 48) -> int:
    """Compare a manifest with its data set and print what is wrong; exit status 1 if it is unfit for use.

    Args:
        manifest: the JSON file that ``make`` wrote.
        dataset: the data set, by class.
        image_size: side in pixels that images of mixed sizes are decoded to; as given to ``make``.

    Returns:
        Exit status: 1 if there are errors, 0 if there is nothing or warnings alone.
    """
    split = Split.load(manifest)
    findings = verify_split(split, dataset.load(image_size))
    title = escape(f"{manifest}: {len(findings) or 'no'} findings")
    table = Table("severity", "finding", title=title, show_lines=True)
    for finding in findings:
        style = "red" if finding.severity == "error" else "yellow"
        table.add_row(finding.severity, escape(finding.message), style=style)
    Console().print(table if findings else title)
    return int(any(finding.severity == "error" for finding in findings))


def show(manifest: Path) -> None:
    """Print the counts, the request and the hash of a manifest, and whether it was edited.

    Args:
        manifest: the JSON file that ``make`` wrote.
    """
    split = Split.load(manifest)
    request = ", ".join(f"{name}={value}" for name, value in vars(split.request).items() if value is not None)
    table = Table("emotion", *PARTS, title=escape(f"{split.dataset}: {manifest}"))
    for column in table.columns[1:]:
        column.justify = "right"
    for emotion in (*split.taxonomy, NO_EMOTION):
        table.add_row(emotion, *(f"{split.counts[part][emotion]:,}" for part in PARTS))
    table.add_section()
    table.add_row("all", *(f"{len(getattr(split, part)):,}" for part in PARTS))
    console = Console()
    console.print(table)
    edited = "" if split.digest() == split.sha256 else " (edited after it was made: unfit for use)"
    console.print(f"{request}\nsha256 {split.sha256}{edited}", soft_wrap=True, highlight=False, markup=False)


COMMANDS: dict[str, Callable[..., int | None]] = {"make": make, "verify": verify, "show": show}
"""For jsonargparse's ``auto_cli``."""
