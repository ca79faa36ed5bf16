"""A progress bar for work that takes a while before training begins."""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TypeVar

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.progress import Progress

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds without a bar: most data sets are read sooner."""


def tracked(results: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield results as they come, and show their progress on stderr once they take longer than ``PATIENCE``.

    Rank zero alone shows it. Where stderr is no terminal, it is one line at the end.

    Args:
        results: of the work.
        total: how many there will be.
        what: name of the work.
    """
    start, bar = time.monotonic(), None
    with ExitStack() as stack:
        for done, result in enumerate(results, 1):
            yield result
            if bar is None and time.monotonic() - start > PATIENCE:
                hidden = getattr(rank_zero_only, "rank", 0) != 0
                bar = stack.enter_context(Progress(console=Console(stderr=True), disable=hidden))
                task = bar.add_task(what, total=total)
            if bar is not None:
                bar.update(task, completed=done)
