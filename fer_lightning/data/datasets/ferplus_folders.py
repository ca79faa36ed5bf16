"""FER+ as its authors' script writes it: three folders of images, each with its votes in ``label.csv``."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.archive import unpacked
from fer_lightning.data.datasets.base import DataError, require

FOLDERS = ("FER2013Train", "FER2013Valid", "FER2013Test")
"""In the order of the usages of FER2013."""


@dataclass
class Votes:
    """The rows of the three tables."""

    names: list[str]
    """(N,) as ``FER2013Train/fer0000000.png``."""
    usage: npt.NDArray[np.int64]
    """(N,) number of the folder in ``FOLDERS``."""
    votes: npt.NDArray[np.int64]
    """(N, choices)."""


def read(root: Path, choices: int) -> Votes:
    """Read the three tables; an image without a row has no votes, and is left out.

    Args:
        root: holds ``FOLDERS``.
        choices: of the voters, the columns after name and box.

    Raises:
        DataError: naming the folder, row or image that is missing or wrong. Rows are counted from 0.
    """
    names, usage, votes = [], [], []
    for number, name in enumerate(FOLDERS):
        folder = unpacked(root / name, "label.csv and fer0000000.png, ...")
        path = require(folder / "label.csv", "the votes: a name, a box and ten counts on each row")
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            for row, fields in enumerate(fields for fields in csv.reader(file) if fields):
                image, counts = fields[0], fields[2:]
                if len(counts) != choices or not all(each.strip().isdecimal() for each in counts):
                    raise DataError(
                        f"{path}, row {row}: expected a name, a box and {choices} counts of votes"
                    )
                if not (folder / image).is_file():
                    raise DataError(f"{path}, row {row}: there is no file {folder / image}")
                names.append(f"{name}/{image}")
                usage.append(number)
                votes.append([int(each) for each in counts])
    if not names:
        raise DataError(f"{root}: the three label.csv have no rows")
    return Votes(names, np.array(usage), np.array(votes))
