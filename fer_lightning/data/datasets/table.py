"""Faces listed in a CSV or parquet table: for a data set that has no reader of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.base import DataError, FaceDataset, Faces, Partition, one_hot, require
from fer_lightning.data.datasets.decode import OnBadImage, decode_all
from fer_lightning.data.datasets.folder import label_numbers
from fer_lightning.emotions import VALENCE_AROUSAL_RANGE

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("path", "label", "valence", "arousal", "subject", "group", "partition")
"""Columns that a table of faces may have; only ``path`` is needed."""


class FaceTable(FaceDataset):
    """Faces listed in a table, one a row.

    ========== ==========================================================================================
    column     holds
    ========== ==========================================================================================
    path       image file, relative to ``root``; also the face's name
    label      emotion, by name or synonym; empty where unknown
    valence    unpleasant to pleasant, -1 ... 1; empty where unknown
    arousal    calm to excited, -1 ... 1; empty where unknown
    subject    person in the image
    group      attribute by which results of groups of people are compared
    partition  ``train``, ``val``, ``test`` or ``unlabeled``; empty is ``train``
    ========== ==========================================================================================

    A training face without label, valence and arousal is ``unlabeled``, and labels of an ``unlabeled`` face
    are dropped; one of val or test needs a label. Rows are counted from 0, below the header.

    Args:
        table: a ``.csv`` file with a header, or a ``.parquet`` file.
        root: folder the paths are relative to; by default the table's.
        emotions: a taxonomy's name or a list of emotions; by default ``basic7``, or ``basic8`` if
            contempt occurs.
        columns: your names of columns where they differ from those above, as ``{"label": "expression"}``.
        on_bad_image: ``stop`` at images that do not decode, or ``skip`` them with a warning. A missing
            file always stops, because then it is mostly ``root`` that is wrong.
    """

    def __init__(
        self,
        table: str | Path,
        root: str | Path | None = None,
        emotions: str | list[str] | None = None,
        columns: dict[str, str] | None = None,
        on_bad_image: OnBadImage = "stop",
    ) -> None:
        self.table = table
        self.root = root
        self.emotions = emotions
        self.columns = columns or {}
        self.on_bad_image = on_bad_image

    def load(self, image_size: int) -> Faces:
        """Read the table, and the images as ``decode_all`` does.

        Raises:
            DataError: naming the row or file that is wrong.
            UnknownEmotion: naming the row whose label is no emotion of the taxonomy.
        """
        path = require(Path(self.table).expanduser(), "a table of faces")
        text = self._read(path)

        def where(row: int) -> str:
            return f"{path}, row {row}"

        names = text["path"]
        files = self._files(path, names, where)
        partition = _partition(text["partition"], where)
        label, taxonomy = label_numbers(text["label"], self.emotions, where)
        valence_arousal = np.stack([_number(text[name], name, where) for name in ("valence", "arousal")], 1)

        partition[(partition == "train") & (label < 0) & np.isnan(valence_arousal).all(1)] = "unlabeled"
        label[partition == "unlabeled"] = -1
        valence_arousal[partition == "unlabeled"] = np.nan
        unlabeled = np.isin(partition, ("val", "test")) & (label < 0) & np.isnan(valence_arousal).all(1)
        if unlabeled.any():
            row = int(unlabeled.argmax())
            raise DataError(f"{where(row)}: a face of {partition[row]} needs a label, valence or arousal")

        images, kept = decode_all(files, image_size, self.on_bad_image)
        return Faces(
            dataset=f"table-{taxonomy.name}",
            taxonomy=taxonomy,
            names=names[kept],
            partition=partition[kept],
            emotion=one_hot(label, len(taxonomy))[kept],
            valence_arousal=valence_arousal[kept],
            subject=text["subject"][kept],
            group=text["group"][kept],
            images=images,
        )

    def _read(self, path: Path) -> dict[str, npt.NDArray[np.str_]]:
        """Return every one of ``COLUMNS`` as text, "" where the table is empty or lacks it."""
        frame = _open(path)
        unknown = set(self.columns) - set(COLUMNS)
        if unknown:
            raise DataError(
                f"columns names {', '.join(sorted(unknown))}, which is none of {', '.join(COLUMNS)}"
            )
        needed = {self.columns.get("path", "path"), *self.columns.values()}
        missing = sorted(needed - set(frame.columns))
        if missing:
            raise DataError(
                f"{path} has no column {', '.join(missing)}; it has: {', '.join(map(str, frame.columns))}. "
                'Name yours with columns={"path": ...}'
            )
        if frame.empty:
            raise DataError(f"{path} has no rows")
        texts = {}
        for column in COLUMNS:
            name = self.columns.get(column, column)
            if name in frame:
                texts[column] = frame[name].astype("string").fillna("").str.strip().to_numpy(np.str_)
            else:
                texts[column] = np.full(len(frame), "")
        return texts

    def _files(
        self, table: Path, names: npt.NDArray[np.str_], where: Callable[[int], str]
    ) -> npt.NDArray[np.str_]:
        """Return the (N,) image files, all of which exist."""
        root = table.parent
        if self.root is not None:
            root = require(Path(self.root).expanduser(), "the folder of the images")
        files = np.array([str(root / name) for name in names], np.str_)
        missing = [row for row, file in enumerate(files) if not Path(file).is_file()]
        if missing:
            raise DataError(
                f"{where(missing[0])}: there is no file {files[missing[0]]}; {len(missing)} of {len(files)} "
                "are missing. Paths are relative to `root`, by default the table's folder"
            )
        return files


def _open(path: Path) -> "pd.DataFrame":
    import pandas as pd  # half a second that only tables need to wait for

    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        # As text, so that a subject "007" stays one, and "NA" is not taken for nothing.
        return pd.read_csv(
            path, dtype="string", keep_default_na=False, skipinitialspace=True, index_col=False
        )
    except ImportError as error:
        raise DataError(
            f"{path}: reading parquet needs pyarrow: pip install 'fer-lightning[parquet]'"
        ) from error
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path} does not open as a table ({error}); expected .csv with a header, or .parquet"
        ) from error


def _partition(text: npt.NDArray[np.str_], where: Callable[[int], str]) -> npt.NDArray[np.str_]:
    known = get_args(Partition)
    wrong = np.flatnonzero(~np.isin(text, ("", *known))).tolist()
    if wrong:
        raise DataError(
            f"{where(wrong[0])}: partition is {str(text[wrong[0]])!r}, not one of {', '.join(known)}"
        )
    return np.where(text == "", "train", text).astype("<U9")  # room for "unlabeled"


def _number(text: npt.NDArray[np.str_], name: str, where: Callable[[int], str]) -> npt.NDArray[np.float32]:
    """Return (N,) valence or arousal; empty is NaN."""
    low, high = VALENCE_AROUSAL_RANGE
    values = np.full(len(text), np.nan, np.float32)
    for row in np.flatnonzero(text != "").tolist():
        try:
            values[row] = float(text[row])
        except ValueError:
            raise DataError(f"{where(row)}: {name} is '{text[row]}', not a number") from None
        if not np.isnan(values[row]) and not low <= values[row] <= high:
            raise DataError(
                f"{where(row)}: {name} is {text[row]}, outside [{low:g}, {high:g}]. Bring other ranges to "
                "this one (divide AFEW-VA's -10 ... 10 by 10); leave unknown ones empty (AffectNet writes -2)"
            )
    return values
