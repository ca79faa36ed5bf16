"""FER+: the faces of FER2013, labeled again by ten people each."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets import ferplus_folders
from fer_lightning.data.datasets.base import (
    ArrayImages,
    DataError,
    FaceDataset,
    Faces,
    Images,
    Texts,
    one_hot,
    require,
)
from fer_lightning.data.datasets.decode import decode_all
from fer_lightning.data.datasets.fer2013 import (
    PARTITIONS,
    SIDE,
    USAGES,
    csv_rows,
    find,
    open_npz,
    read_rows,
    row_names,
    usage_of,
)
from fer_lightning.emotions import BASIC_7, BASIC_8, FERPLUS

log = logging.getLogger(__name__)

VOTES = (*FERPLUS.emotions, "unknown", "NF")
"""The choices of the voters, in the order of the columns of votes; NF is "not a face"."""


class FERPlus(FaceDataset):
    """FER2013's faces with the votes of FER+, as one label or as a distribution.

    Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label
    Distribution", ICMI 2016, https://arxiv.org/abs/1608.01041.

    As in the authors' code (https://github.com/microsoft/FERPlus), a choice with a single vote is noise and
    set to 0. Then a face is labeled by

    - ``majority``: the emotion with more than half of the remaining votes, those for unknown and "not a face"
      among them. Ties, scattered votes, and faces that most call unknown or no face have no label. Of the
      28,709 / 3,589 / 3,589 faces of train / val / test this keeps 25,060 / 3,199 / 3,153 with 8 classes, and
      24,941 / 3,186 / 3,137 with 7, where a majority for contempt is no label either.
    - ``distribution``: the remaining votes for the emotions, divided by their sum, if together they are more
      than half of the remaining votes and the leading emotion is ahead of every other choice (unknown, "not a
      face", and with 7 classes contempt). This keeps 28,153 / 3,524 / 3,521 with 8 classes, 27,904 / 3,486 /
      3,490 with 7. The authors also cut the tail of the distribution, and refuse faces with more than three
      emotions; here neither is done, because the tail is what a soft label is for.

    Votes and pixels are paired by row: the numbers in the image names of ``fer2013new.csv`` skip.

    Args:
        root: FER2013 in one of its forms with rows: ``fer2013.csv``, ``icml_face_data.csv`` or
            ``fer2013_uint8.npz``, or a folder that holds one, itself or in a folder ``fer2013``. Or the
            folder in which the authors' script wrote ``FER2013Train``, ``FER2013Valid`` and ``FER2013Test``,
            each with a ``label.csv``; then names are paths.
        votes: the file ``fer2013new.csv``; by default it is searched for beside the pixels and in ``root``,
            and then as ``ferplus_votes`` in ``fer2013_uint8.npz``.
        labels: one label for each face, or a distribution over the emotions.
        classes: 8 with contempt, 7 without.
        rejected: whether to ``drop`` training faces whose votes give no label, or to keep them as
            ``unlabeled``. Val and test never hold them.
    """

    license = "FER2013: collected from the web for the ICML 2013 challenge, for research; FER+ votes: MIT"
    page = "https://github.com/microsoft/FERPlus"

    def __init__(
        self,
        root: str | Path,
        votes: str | Path | None = None,
        labels: Literal["majority", "distribution"] = "majority",
        classes: Literal[7, 8] = 8,
        rejected: Literal["drop", "unlabeled"] = "drop",
    ) -> None:
        self.root = root
        self.votes = votes
        self.labels = labels
        self.classes = classes
        self.rejected = rejected

    def load(self, image_size: int) -> Faces:
        """Read everything into memory, as gray at its own 48 px, named as in ``FER2013``.

        Args:
            image_size: not used: all faces are of one size.

        Raises:
            DataError: naming the file or row that is wrong, or if votes and pixels do not belong together.
        """
        written = Path(self.root).expanduser()
        if (written / ferplus_folders.FOLDERS[0]).is_dir():
            table = ferplus_folders.read(written, len(VOTES))
            files = np.array([f"{written}/{name}" for name in table.names])
            return self._faces(
                *("ferplus-folders", np.array(table.names), table.usage, table.votes),
                lambda kept: decode_all(files[kept], SIDE, "stop")[0],
            )
        source = find(self.root)
        if source.is_dir():
            raise DataError(
                f"{source}: FER+ votes are paired with FER2013 by row, and folders of images have no rows; "
                "give fer2013.csv, icml_face_data.csv or fer2013_uint8.npz"
            )
        rows = read_rows(source)
        votes = self._read_votes(source, rows.usage)
        return self._faces(
            *("ferplus", row_names(len(votes)), rows.usage, votes),
            lambda kept: ArrayImages(rows.images[kept]),
        )

    def _faces(
        self,
        form: str,
        names: Texts,
        usage: npt.NDArray[np.int64],
        votes: npt.NDArray[np.int64],
        open_images: Callable[[npt.NDArray[np.bool_]], Images],
    ) -> Faces:
        """Turn votes into labels, and leave out the faces that they reject."""
        taxonomy = {7: BASIC_7, 8: BASIC_8}[self.classes]
        read = {"majority": majority, "distribution": distribution}[self.labels]
        emotion = read(votes, taxonomy.columns_in(FERPLUS))

        partition = np.array(PARTITIONS)[usage]
        rejected = np.isnan(emotion).any(1)
        unlabeled = rejected & (partition == "train") & (self.rejected == "unlabeled")
        log.info(
            "FER+: no %s over %d emotions for %s faces; %d of them stay as unlabeled, the others are dropped",
            self.labels,
            self.classes,
            " / ".join(f"{(rejected & (partition == part)).sum()} {part}" for part in PARTITIONS),
            unlabeled.sum(),
        )
        kept = ~rejected | unlabeled
        return Faces(
            dataset=f"{form}-{self.labels}-{self.classes}",
            taxonomy=taxonomy,
            names=names[kept],
            partition=np.where(unlabeled, "unlabeled", partition)[kept],
            emotion=emotion[kept],
            images=open_images(kept),
        )

    def _read_votes(self, source: Path, usage: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return (N, 10) votes that belong to the rows of FER2013."""
        beside = [folder / "fer2013new.csv" for folder in (source.parent, Path(self.root).expanduser())]
        found = next((path for path in beside if path.is_file()), source)
        path = found if self.votes is None else require(Path(self.votes).expanduser(), "fer2013new.csv")
        try:
            votes, of_votes = _read_npz(path) if path.suffix == ".npz" else _read_csv(path)
        except DataError as error:
            if path != source:
                raise
            raise DataError(
                f"no votes of FER+ in or beside {source}; put fer2013new.csv there, or give `votes` "
                "(https://github.com/microsoft/FERPlus)"
            ) from error
        if votes.shape != (len(usage), len(VOTES)):
            raise DataError(
                f"{path}: votes are {votes.shape}, not {(len(usage), len(VOTES))}, as {source} needs"
            )
        other = np.flatnonzero(of_votes != usage)
        if len(other):
            row = other[0]
            raise DataError(
                f"{path}, row {row}: Usage is {USAGES[of_votes[row]]}, but {USAGES[usage[row]]} in {source}; "
                "both files must be in their published order"
            )
        return votes


def majority(votes: npt.NDArray[np.int64], columns: list[int]) -> npt.NDArray[np.float32]:
    """Turn (N, 10) votes into (N, C) one-hot labels over C of the columns; NaN where there is no majority."""
    votes = _without_single_votes(votes)
    chosen = votes[:, columns]
    return one_hot(np.where(chosen.max(1) > votes.sum(1) / 2, chosen.argmax(1), -1), len(columns))


def distribution(votes: npt.NDArray[np.int64], columns: list[int]) -> npt.NDArray[np.float32]:
    """Turn (N, 10) votes into (N, C) distributions over C of the columns; NaN for too few votes."""
    votes = _without_single_votes(votes)
    chosen, others = votes[:, columns], np.delete(votes, columns, axis=1)
    total = chosen.sum(1)
    kept = (total > votes.sum(1) / 2) & (chosen.max(1) > others.max(1))
    return np.where(kept[:, None], chosen / total.clip(1)[:, None], np.nan).astype(np.float32)


def _without_single_votes(votes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.where(votes > 1, votes, 0)


def _read_npz(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (N, 10) votes and (N,) numbers in ``USAGES``."""
    votes, usage = open_npz(path, ("ferplus_votes", "usage"))
    return votes.astype(np.int64), usage.astype(np.int64)


def _read_csv(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (N, 10) votes and (N,) numbers in ``USAGES``."""
    votes, usages = [], []
    for number, (usage, *counts) in enumerate(csv_rows(path, ("Usage", *VOTES))):
        where = f"{path}, row {number}"
        usages.append(usage_of(usage, where))
        if not all(count.isdecimal() for count in counts):
            raise DataError(f"{where}: votes are {', '.join(counts)}; expected counts")
        votes.append([int(count) for count in counts])
    return np.array(votes).reshape(-1, len(VOTES)), np.array(usages)
