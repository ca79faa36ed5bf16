"""The commands ``fer-lightning splits make | verify | show``."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer_lightning.data.datasets.base import DataError, FaceDataset
from fer_lightning.data.split_checks import verify_split
from fer_lightning.data.splits import NO_EMOTION, PARTS, Split, SplitRequest, make_split


def make(dataset: FaceDataset, output: Path, image_size: int = 48, **request: Any) -> None:
    """Make a split manifest and show its counts.

    Args:
        dataset: the data set, by class.
        output: the JSON file to write. One that holds another split is not overwritten.
        image_size: side in pixels that images of mixed sizes are decoded to.
        **request: what is asked of the split, see ``SplitRequest``.

    Raises:
        DataError: if the faces cannot give what is asked for, or ``output`` holds something else.
    """
    asked = SplitRequest(**request)  # before the data are read, which may take minutes
    split = make_split(dataset.load(image_size), asked)
    if output.exists() and output.read_bytes() != split.to_json().encode():
        raise DataError(f"{output} exists and is another split: remove it first, or give another output")
    split.save(output)
    show(output)


def verify(manifest: Path, dataset: FaceDataset, image_size: int = 48) -> None:
    """Hold a manifest against its data set, and exit with 1 if the split is unfit for use.

    Args:
        manifest: the JSON file that ``make`` wrote.
        dataset: the data set, by class.
        image_size: side in pixels that images of mixed sizes are decoded to; as given to ``make``.
    """
    split = Split.load(manifest)
    findings = verify_split(split, dataset.load(image_size))
    title = escape(f"{manifest}: {len(findings) or 'no'} findings")
    table = Table("severity", "finding", title=title, show_lines=True)
    for finding in findings:
        style = "red" if finding.severity == "error" else "yellow"
        table.add_row(finding.severity, escape(finding.message), style=style)
    Console().print(table if findings else title)
    if any(finding.severity == "error" for finding in findings):
        sys.exit(1)


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


COMMANDS: dict[str, Callable[..., None]] = {"make": make, "verify": verify, "show": show}
"""For jsonargparse's ``auto_cli``."""
