"""The line of the table of methods, taken from the classes, so that it cannot disagree with them."""

from typing import NamedTuple


class About(NamedTuple):
    """A method in a line."""

    name: str
    """Name in its paper."""
    paper: str
    """Authors and year; empty for a method without a paper."""
    url: str
    pseudo_labels: str
    """Where the pseudo-label of an unlabeled face comes from, and when it is accepted."""
    learns: str
    """Learned from unlabeled faces, beside the labels."""
    state: str
    """Adaptive state beside the weights and their average; empty for none."""

    @property
    def year(self) -> int:
        """Year of the paper, the last word of ``paper``; 0 without a paper."""
        return int(self.paper.split()[-1]) if self.paper else 0
