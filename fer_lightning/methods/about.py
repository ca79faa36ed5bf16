"""What the table of methods says of each: taken from the classes, so that it cannot disagree with them."""

from typing import NamedTuple


class About(NamedTuple):
    """A method in a line."""

    name: str
    """As its paper calls it."""
    paper: str
    """Authors and year; empty for what has no paper."""
    url: str
    believes: str
    """About an unlabeled face."""
    learns: str
    """From unlabeled faces, beside the labels."""
    state: str
    """What adapts beside the weights and their average; empty for nothing."""

    @property
    def year(self) -> int:
        """Of the paper, the last word of ``paper``; 0 for what has no paper."""
        return int(self.paper.split()[-1]) if self.paper else 0
