"""Faces listed in a CSV or parquet table: for a data set that has no reader of its own."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.base import DataError, FaceDataset, Faces, Partition, Texts, one_hot, require
from fer_lightning.data.datasets.decode import OnBadImage, decode_all
from fer_lightning.data.datasets.labels import DROPPED, NO_LABEL, label_numbers
from fer_lightning.data.datasets.table_file import Table, read_table
from fer_lightning.data.datasets.walk import first_rows
from fer_lightning.emotions import VALENCE_AROUSAL_RANGE

log = logging.getLogger(__name__)

_MISSING = {"", "na", "n/a", "<na>", "nan", "null", "none"}
"""How tables write that a label is unknown, in lower case."""


class FaceTable(FaceDataset):
    """Faces listed in a table, one a row.

    ========== ==========================================================================================
    column     holds
    ========== ==========================================================================================
    path       image file, relative to ``root``; also the face's name
    label      emotion, by name or synonym, or its position in ``emotions``, from 0; empty where unknown
    valence    unpleasant to pleasant, -1 ... 1; empty where unknown
    arousal    calm to excited, -1 ... 1; empty where unknown
    subject    person in the image
    group      attribute by which results of groups of people are compared
    partition  ``train``, ``val``, ``test`` or ``unlabeled``; empty is ``train``
    ========== ==========================================================================================

    A training face without label, valence and arousal is ``unlabeled``, and labels of an ``unlabeled`` face
    are dropped; one of val or test needs a label. Unknown labels may also be written NA, N/A, NaN, null or
    None, in either case. Rows are counted from 0, below the header.

    Args:
        table: a ``.csv`` file with a header (commas, semicolons or tabs), or a ``.parquet`` file.
        root: folder the paths are relative to; by default the table's.
        emotions: a taxonomy's name or a list of emotions; by default ``basic7``, or ``basic8`` if
            contempt occurs.
        columns: your names of columns where they differ from those above, as ``{"label": "expression"}``.
        on_bad_image: ``stop`` at images that do not decode or are smaller than 16 px a side, or ``skip``
            them with a warning. A missing file always stops, because then it is mostly ``root`` that is
            wrong.
        on_duplicate: ``stop`` at two rows of one file, however its path is spelled, or keep the ``first``
            with a warning.
        drop: emotions, or other labels of the table, whose faces are left out; the taxonomy lacks them.
    """

    def __init__(
        self,
        table: str | Path,
        root: str | Path | None = None,
        emotions: str | list[str] | None = None,
        columns: dict[str, str] | None = None,
        on_bad_image: OnBadImage = "stop",
        on_duplicate: Literal["stop", "first"] = "stop",
        drop: list[str] | None = None,
    ) -> None:
        self.table = table
        self.root = root
        self.emotions = emotions
        self.columns = columns or {}
        self.on_bad_image = on_bad_image
        self.on_duplicate = on_duplicate
        self.drop = drop

    def load(self, image_size: int) -> Faces:
        """Read the table, and the images as ``decode_all`` does.

        Raises:
            DataError: naming the row or file that is wrong.
            UnknownEmotion: naming the row whose label is no emotion of the taxonomy.
        """
        table = read_table(require(Path(self.table).expanduser(), "a table of faces"), self.columns)
        label, taxonomy = label_numbers(_known(table["label"]), self.emotions, table.where, self.drop)
        table, label = table.only(label != DROPPED), label[label != DROPPED]
        paths = self._paths(table)
        once = self._once(table, paths)
        table, label, paths = table.only(once), label[once], paths[once]

        partition = _partition(table["partition"], table.where)
        axes = [_number(_known(table[name]), name, table.where) for name in ("valence", "arousal")]
        valence_arousal = np.stack(axes, 1)
        unknown = (label == NO_LABEL) & np.isnan(valence_arousal).all(1)
        partition[(partition == "train") & unknown] = "unlabeled"
        label[partition == "unlabeled"] = NO_LABEL
        valence_arousal[partition == "unlabeled"] = np.nan
        if (unlabeled := np.isin(partition, ("val", "test")) & unknown).any():
            row = int(unlabeled.argmax())
            raise DataError(
                f"{table.where(row)}: a face of {partition[row]} needs a label, valence or arousal"
            )

        images, kept = decode_all(paths, image_size, self.on_bad_image)
        return Faces(
            dataset=f"table-{taxonomy.name}",
            taxonomy=taxonomy,
            names=table["path"][kept],
            partition=partition[kept],
            emotion=one_hot(label, len(taxonomy))[kept],
            valence_arousal=valence_arousal[kept],
            subject=table["subject"][kept],
            group=table["group"][kept],
            images=images,
        )

    def _paths(self, table: Table) -> Texts:
        """Return the (N,) paths of the images."""
        empty = np.flatnonzero(table["path"] == "")
        if len(empty):
            raise DataError(f"{table.where(empty[0])}: path is empty; each row needs the file of its face")
        root = table.file.parent
        if self.root is not None:
            root = require(Path(self.root).expanduser(), "the folder of the images")
        return np.array([os.path.join(root, os.path.expanduser(path)) for path in table["path"]], np.object_)

    def _once(self, table: Table, paths: Texts) -> npt.NDArray[np.bool_]:
        """Choose the first row of each file, by (N,) bool; refuse missing files, and others as asked for."""
        first = first_rows(paths)
        missing = np.flatnonzero(first < 0)
        if len(missing):
            raise DataError(
                f"{table.where(missing[0])}: there is no file {paths[missing[0]]}; {len(missing)} of "
                f"{len(paths)} are missing. Paths are relative to `root`, by default the table's folder"
            )
        once: npt.NDArray[np.bool_] = first == np.arange(len(paths))
        again = np.flatnonzero(~once)
        if len(again):
            row, other = again[0], first[again[0]]
            message = (
                f"{table.file}: {len(again)} of {len(paths)} rows repeat the file of another, such as "
                f"{table.place(row)}, {table['path'][row]!r}, that of {table.place(other)}, "
                f"{table['path'][other]!r}"
            )
            if self.on_duplicate == "stop":
                raise DataError(f'{message}. Remove them, or leave them out with on_duplicate="first"')
            log.warning("%s. They are left out.", message)
        return once


def _known(texts: Texts) -> Texts:
    """Return (N,) labels, "" for all ways to write that one is unknown."""
    return np.array(["" if text.lower() in _MISSING else text for text in texts], np.object_)


def _partition(text: Texts, where: Callable[[int], str]) -> npt.NDArray[np.str_]:
    known = get_args(Partition)
    wrong = np.flatnonzero(~np.isin(text, ("", *known))).tolist()
    if wrong:
        raise DataError(
            f"{where(wrong[0])}: partition is {str(text[wrong[0]])!r}, not one of {', '.join(known)}"
        )
    return np.where(text == "", "train", text).astype("<U9")  # room for "unlabeled"


def _number(text: Texts, name: str, where: Callable[[int], str]) -> npt.NDArray[np.float32]:
    """Return (N,) valence or arousal; empty is NaN."""
    low, high = VALENCE_AROUSAL_RANGE
    values = np.full(len(text), np.nan, np.float32)
    for row in np.flatnonzero(text != "").tolist():
        try:
            values[row] = float(text[row])
        except ValueError:
            hint = "; write decimals with a point" if "," in text[row] else ""
            raise DataError(f"{where(row)}: {name} is '{text[row]}', not a number{hint}") from None
        if not np.isnan(values[row]) and not low <= values[row] <= high:
            raise DataError(
                f"{where(row)}: {name} is {text[row]}, outside [{low:g}, {high:g}]. Bring other ranges to "
                "this one (divide AFEW-VA's -10 ... 10 by 10); leave unknown ones empty (AffectNet writes -2)"
            )
    return values
