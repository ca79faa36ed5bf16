"""The table of methods, made from the ``about`` of their classes."""

from pathlib import Path

import fer_lightning.methods
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.outputs.results import markdown, put_between

HEADER = ("method", "paper", "pseudo-labels", "learns from unlabeled faces", "extra state")
MARKERS = ("<!-- methods -->", "<!-- /methods -->")


def methods() -> list[type[SemiSupervised]]:
    """Return every method, the oldest first."""
    named = (getattr(fer_lightning.methods, name) for name in fer_lightning.methods.__all__)
    return sorted((m for m in named if m is not SemiSupervised), key=lambda m: (m.about.year, m.about.name))


def method_table() -> str:
    """Return the table as Markdown."""
    return markdown(HEADER, map(_line, methods()), left=len(HEADER))


def show_methods(readme: Path | None = None) -> int:
    """Print the table of methods as Markdown, or put it into a README.

    Args:
        readme: README with the markers ``<!-- methods -->`` and ``<!-- /methods -->``; what stands between
            them is replaced.

    Returns:
        Exit status, 0.
    """
    if readme:
        put_between(readme, *MARKERS, method_table())
    else:
        print(method_table())
    return 0


def _line(method: type[SemiSupervised]) -> list[str]:
    about = method.about
    paper = f"[{about.paper}]({about.url})" if about.url else about.paper or "–"
    name = f"`{method.__name__}`" + (f": {about.name}" if about.name != method.__name__ else "")
    return [name, paper, about.pseudo_labels, about.learns, about.state or "–"]
