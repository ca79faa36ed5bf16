"""AffectNet as of March 2021: a face and small NumPy files for each number."""

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.affectnet_csv import UNKNOWN
from fer_lightning.data.datasets.archive import unpacked
from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.cache import Arrays, remember
from fer_lightning.data.datasets.decode import OnBadImage
from fer_lightning.data.datasets.listed_images import locate, walk_images
from fer_lightning.data.progress import tracked
from fer_lightning.emotions import AFFECTNET_8, VALENCE_AROUSAL_RANGE

MARKS = ("train_set/images", "train_set/annotations", "val_set/images", "val_set/annotations")
_PARTS = {"train_set": "train", "val_set": "test"}
_KINDS = ("exp", "val", "aro")


@dataclass
class Numbered:
    """The faces of both sets, each sorted by number."""

    names: list[str]
    """(N,) as ``train_set/1234.jpg``."""
    paths: list[str]
    partition: npt.NDArray[np.str_]
    expression: npt.NDArray[np.int64]
    valence_arousal: npt.NDArray[np.float32]
    """(N, 2), NaN where unknown."""
    notes: list[str]


def read(root: Path, on_bad_image: OnBadImage) -> Numbered:
    """Read the annotations and find the images.

    Raises:
        DataError: naming what is missing or wrong.
    """
    parts = [_read_set(root / name, part, on_bad_image) for name, part in _PARTS.items()]
    return Numbered(
        names=[name for part in parts for name in part.names],
        paths=[path for part in parts for path in part.paths],
        partition=np.concatenate([part.partition for part in parts]),
        expression=np.concatenate([part.expression for part in parts]),
        valence_arousal=np.concatenate([part.valence_arousal for part in parts]),
        notes=[note for part in parts for note in part.notes],
    )


def _read_set(folder: Path, part: str, on_bad_image: OnBadImage) -> Numbered:
    annotations = unpacked(folder / "annotations", "NUMBER_exp.npy, NUMBER_val.npy and NUMBER_aro.npy")
    images = unpacked(folder / "images", "NUMBER.jpg")
    held = remember(annotations, [f"_{kind}.npy" for kind in _KINDS], partial(_read_files, annotations))
    numbers, notes = held["number"].tolist(), []
    found = locate(images, [f"{number}.jpg" for number in numbers])
    lost = [number for number, path in zip(numbers, found.paths, strict=True) if not path]
    known = set(map(str, numbers))
    bare = [file for file in walk_images(images) if Path(file).stem not in known]
    problems = []
    if lost:
        first = f"{annotations}/{lost[0]}_exp.npy has no {images}/{lost[0]}.jpg"
        problems.append(f"{first}, and {len(lost) - 1:,} more")
    if bare:
        first = f"{images}/{bare[0]} has no {annotations}/{Path(bare[0]).stem}_exp.npy"
        problems.append(f"{first}, and {len(bare) - 1:,} more")
    if problems and (on_bad_image == "stop" or len(lost) > len(numbers) / 2):
        raise DataError(f'{"; ".join(problems)}. on_bad_image="skip" leaves single ones out')
    unknown = int(held["unknown"])
    if unknown:
        notes.append(f"{annotations}: {unknown:,} faces have no valence or arousal")
    kept = ~found.missing
    rows = np.flatnonzero(kept).tolist()
    return Numbered(
        [f"{folder.name}/{numbers[row]}.jpg" for row in rows],
        [found.paths[row] for row in rows],
        np.full(len(rows), part, "<U9"),
        held["expression"][kept],
        held["valence_arousal"][kept],
        notes + found.notes + [f"{problem}: left out" for problem in problems],
    )


def _read_files(folder: Path, files: list[str]) -> Arrays:
    """Return number, expression, valence and arousal of each face, and of how many these are unknown."""
    kinds: defaultdict[int, set[str]] = defaultdict(set)
    for file in files:
        number, _, kind = file.removesuffix(".npy").rpartition("_")
        if not number.isdecimal():
            raise DataError(f"{folder / file}: expected NUMBER_{kind}.npy")
        kinds[int(number)].add(kind)
    numbers = sorted(number for number, held in kinds.items() if "exp" in held)
    if not numbers:
        raise DataError(f"{folder} holds no NUMBER_exp.npy")

    def row(number: int) -> list[float]:
        expression, *values = (
            _scalar(folder / f"{number}_{kind}.npy") if kind in kinds[number] else np.nan for kind in _KINDS
        )
        low, high = VALENCE_AROUSAL_RANGE
        values = [np.nan if value == UNKNOWN else value for value in values]
        if expression not in range(len(AFFECTNET_8)):
            raise DataError(
                f"{folder}/{number}_exp.npy holds {expression:g}; expected 0..{len(AFFECTNET_8) - 1}"
            )
        for kind, value in zip(_KINDS[1:], values, strict=True):
            if not (np.isnan(value) or low <= value <= high):
                raise DataError(f"{folder}/{number}_{kind}.npy holds {value:g}; expected [{low:g}, {high:g}]")
        return [expression, *values]

    with ThreadPool() as pool:
        results = pool.imap(row, numbers, chunksize=256)
        values = np.array(list(tracked(results, len(numbers), f"reading {folder.name}")), np.float32)
    return {
        "number": np.array(numbers),
        "expression": values[:, 0].astype(np.int64),
        "valence_arousal": values[:, 1:],
        "unknown": np.isnan(values).any(1).sum(),
    }


def _scalar(path: Path) -> float:
    """Return the one number of a NumPy file, which may be stored as text."""
    try:
        return float(np.load(path, allow_pickle=False).item())
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} does not hold one number ({error})") from None
