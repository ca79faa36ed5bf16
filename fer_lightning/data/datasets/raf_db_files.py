"""The text files of RAF-DB: the list of labels, distributions of votes, attributes and boxes."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.archive import read_fields, unpacked
from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.cache import remember
from fer_lightning.data.datasets.crops import Boxes
from fer_lightning.emotions import RAF_DB

# The archive has the first, its README names both.
LISTS = ("EmoLabel/list_patition_label.txt", "EmoLabel/list_partition_label.txt")
GROUPS = {
    "gender": ("male", "female", ""),  # the last is "unsure"
    "race": ("Caucasian", "African-American", "Asian"),
    "age": ("0-3", "4-19", "20-39", "40-69", "70+"),
}
"""Names of the numbers in the last three lines of a file of attributes, in their order."""
COMPOUND = 11
NAME = re.compile(r"(train|test)_\d+\.jpg")


def find_list(root: Path) -> Path | None:
    """Return the list of labels, or None in a folder that has none."""
    return next((root / name for name in LISTS if (root / name).is_file()), None)


def read_list(path: Path, compound: bool = False) -> tuple[list[str], npt.NDArray[np.int64], list[str]]:
    """Read the list of labels.

    Args:
        path: of the list.
        compound: whether it is the list of the compound set.

    Returns:
        (N,) names, (N,) labels from 0 in RAF-DB's order, and notes.

    Raises:
        DataError: naming the line that is wrong, or if the labels are not those of the official list.
    """
    seen: dict[str, tuple[str, int]] = {}
    notes = []
    for where, fields in read_fields(path):
        if len(fields) != 2:
            raise DataError(
                f'{where} has {len(fields)} fields; official lines are "name label" with 1..7, a list from '
                "Ada-CM has a third column and 0..6: give the official list"
            )
        name, label = fields
        if not NAME.fullmatch(name):
            raise DataError(f"{where}: found {name}; expected train_NNNNN.jpg or test_NNNN.jpg")
        if not label.isdecimal() or int(label) > COMPOUND:
            raise DataError(f"{where}: label is {label}; expected a number from 1 to {len(RAF_DB)}")
        if name not in seen:
            seen[name] = where, int(label)
            continue
        first, before = seen[name]
        line = where.rpartition(" ")[2]
        if before != int(label):
            raise DataError(
                f"{first}: {name} is listed again in line {line} with label {label}, not {before}"
            )
        notes.append(f"{first}: {name} is listed again in line {line} with the same label: read once")
    if not seen:
        raise DataError(f"{path} is empty; expected lines as train_00001.jpg 5")
    labels = np.array([label for _, label in seen.values()])
    if labels.min() == 0:
        raise DataError(f"{path}: labels run 0..{labels.max()}; the official list is 1..7: give that one")
    if (labels.max() > len(RAF_DB)) != compound:
        found, wanted = ("basic", "compound") if compound else ("compound", "basic")
        raise DataError(f"{path}: labels run 1..{labels.max()}: this is the {found} set; give {wanted}")
    return list(seen), labels - 1, notes


def read_distributions(
    folder: Path, names: Sequence[str], label: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], list[str]]:
    """Read ``distribution_basic.txt``: a name and the share of the votes for each emotion, a line.

    Returns:
        (N, 7) shares, whose rows sum to 1, and notes.

    Raises:
        DataError: if a line is wrong, or a face has none.
    """
    path = folder / "distribution_basic.txt"
    if not path.is_file():
        raise DataError(
            f"{path} does not exist; not every release has it: leave labels=majority", option="labels"
        )
    shares = {}
    for where, (name, *texts) in read_fields(path):
        values = _numbers(texts, len(RAF_DB), where)
        if min(values) < 0 or abs(sum(values) - 1) > 0.02:
            raise DataError(f"{where}: the shares of the votes sum to {sum(values):g}; expected 1")
        shares[name.replace("_aligned", "")] = values
    lost = [name for name in names if name not in shares]
    if lost:
        raise DataError(f"{path}: {lost[0]} is not listed, and {len(lost) - 1:,} more")
    emotion = np.array([shares[name] for name in names], np.float32)
    emotion /= emotion.sum(1, keepdims=True)
    differ = int((emotion.argmax(1) != label).sum())
    return emotion, [f"{path}: {differ:,} faces have another label in the list"] if differ else []


def read_group(root: Path, names: Sequence[str], group: str) -> npt.NDArray[np.str_]:
    """Return the (N,) groups of faces by an attribute, "" where it is unsure.

    Raises:
        DataError: naming the file that is wrong or missing.
    """

    def parse(path: Path) -> list[float]:
        numbers = [text for _, fields in read_fields(path) for text in fields][-len(GROUPS) :]
        values = _numbers(numbers, len(GROUPS), str(path))
        for (attribute, known), value in zip(GROUPS.items(), values, strict=True):
            if value not in range(len(known)):
                raise DataError(f"{path}: {attribute} is {value:g}; expected 0..{len(known) - 1}")
        return values

    values = _annotations(root, "manual", "_manu_attri.txt", names, parse)
    groups: npt.NDArray[np.str_] = np.array(GROUPS[group])[values[:, list(GROUPS).index(group)].astype(int)]
    return groups


def read_boxes(root: Path, names: Sequence[str]) -> Boxes:
    """Return the (N, 4) boxes of faces in the original pictures.

    Raises:
        DataError: naming the file that is wrong or missing.
    """

    def parse(path: Path) -> list[float]:
        return _numbers([text for _, fields in read_fields(path) for text in fields], 4, str(path))

    return _annotations(root, "boundingbox", "_boundingbox.txt", names, parse).astype(np.float32)


def _annotations(
    root: Path, kind: str, suffix: str, names: Sequence[str], parse: Callable[[Path], list[float]]
) -> npt.NDArray[np.float64]:
    """Return what each face's file in ``Annotation/<kind>`` says, in the order of the names."""
    folder = unpacked(root / "Annotation" / kind, f"a file NAME{suffix} for each face (since version 1.1)")
    held = remember(
        folder,
        (suffix,),
        lambda files: {
            "files": np.array(files),
            "values": np.array([parse(folder / file) for file in files]),
        },
    )
    rows = {file: row for row, file in enumerate(held["files"].tolist())}
    wanted = [name.removesuffix(".jpg") + suffix for name in names]
    lost = [file for file in wanted if file not in rows]
    if lost:
        raise DataError(f"{folder / lost[0]} is missing, and {len(lost) - 1:,} more")
    return held["values"][[rows[file] for file in wanted]].astype(np.float64)


def _numbers(texts: Sequence[str], count: int, where: str) -> list[float]:
    try:
        values = [float(text) for text in texts]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise DataError(f"{where}: found {' '.join(texts)[:80] or 'nothing'}; expected {count} numbers")
    return values
