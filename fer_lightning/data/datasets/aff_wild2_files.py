"""The files of Aff-Wild2: one text file of labels for each trial, one folder of face crops for each trial."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.archive import packed_in, read_text, subfolders
from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.image_file import SUFFIXES
from fer_lightning.emotions import AFF_WILD2, VALENCE_AROUSAL_RANGE, canonical

Task = Literal["valence_arousal", "emotions"]
DEPTH = 7
"""Folders that the archives of some years wrap their annotations in."""
IGNORED_VA, IGNORED_EMOTION = -5.0, -1
"""What marks a frame without a label."""
SETS = {"train": ("train_set", "training_set"), "test": ("validation_set",)}
"""Names of the folders of annotations in lower case; labels of the official test set were never published."""
_TASKS = {"valence_arousal": ("va_", "valence_arousal"), "emotions": ("expr_",)}


def source_video(trial: str) -> str:
    """Return the video that a trial was cut from: without the side of its person, and without its part."""
    video = re.sub(r"_(left|right)$", "", trial)
    return re.sub(r"^(video\d+)_\d+$|(x\d+)-\d+$", r"\1\2", video)


def find_sets(root: Path, task: Task) -> dict[str, Path]:
    """Find the two folders of annotations of a task: partition -> folder.

    Raises:
        DataError: if a folder is not there, or is there twice.
    """
    found: dict[str, list[Path]] = {part: [] for part in SETS}
    for folder in _annotation_folders(root):
        parents = [each.lower() for each in folder.relative_to(root).parts[:-1]] or [root.name.lower()]
        of_task = any(parent.startswith(_TASKS[task]) for parent in (*parents, root.name.lower()))
        for part, names in SETS.items():
            if of_task and folder.name.lower() in names:
                found[part].append(folder)
    for part, folders in found.items():
        if len(folders) > 1:
            raise DataError(f"{' and '.join(map(str, folders))} are both there; give annotations of one year")
        if not folders:
            challenge = "VA_Estimation" if task == "valence_arousal" else "EXPR_Recognition"
            missing = "Train_Set" if part == "train" else "Validation_Set"
            raise DataError(f"{root} holds no {challenge}_Challenge/{missing}; give a folder that does")
    return {part: folders[0] for part, folders in found.items()}


def _annotation_folders(root: Path) -> Iterator[Path]:
    """Yield the folders below the root, but not those of images and videos."""
    for directory, below, _ in os.walk(root):
        here = Path(directory)
        deep = len(here.relative_to(root).parts) >= DEPTH
        skipped = ("cropped", "batch", "videos", ".", "__macosx")
        below[:] = sorted(name for name in below if not deep and not name.lower().startswith(skipped))
        yield from (here / name for name in below)


def crop_folders(root: Path) -> dict[str, Path]:
    """Find the crops of each trial: ``cropped_aligned`` and ``cropped_aligned_new_50_vids``, merged.

    Raises:
        DataError: if there are none, or if they are still packed.
    """
    trials: dict[str, Path] = {}
    level = [root]
    for _ in range(4):
        level = [
            below
            for folder in level
            for below in subfolders(folder)
            if below.name.lower() in ("cropped_aligned", "cropped_aligned_new_50_vids")
        ]
        for folder in level:
            trials |= {
                trial.name: trial for trial in subfolders(folder) if not trial.name.startswith("cropped")
            }
    if trials:
        return trials
    packed = packed_in(root, "cropped_aligned")
    if packed:
        raise DataError(f"{packed[0]} is still packed; unpack it to {root / 'cropped_aligned'}")
    raise DataError(f"{root} holds no cropped_aligned; expected cropped_aligned/<trial>/00001.jpg, ... there")


@dataclass
class Labels:
    """The labels of one trial. Row ``i`` is frame ``i + 1``."""

    emotion: npt.NDArray[np.int64]
    """(N,) index in ``AFF_WILD2``, -1 for none or another emotion."""
    valence_arousal: npt.NDArray[np.float32]
    """(N, 2), NaN where unknown."""


def read_labels(path: Path, task: Task) -> Labels:
    """Read the labels of one trial.

    Raises:
        DataError: naming the line that is wrong.
    """
    lines = [line.strip() for line in read_text(path).rstrip().split("\n")]
    header = [name.strip().lower() for name in lines[0].split(",")]
    if not header[0] or re.match(r"^[-+.\d]", header[0]):
        raise DataError(f"{path}: the first line is {lines[0]!r}, no header: labels would shift by a frame")
    read = _valence_arousal if task == "valence_arousal" else _emotions
    return read(path, header, lines[1:])


def _valence_arousal(path: Path, header: list[str], lines: list[str]) -> Labels:
    if header != ["valence", "arousal"]:
        raise DataError(f"{path}: the header is {','.join(header)}; expected valence,arousal")
    low, high = VALENCE_AROUSAL_RANGE
    values = np.full((len(lines), 2), np.nan, np.float32)
    for row, line in enumerate(lines):
        try:
            valence, arousal = (float(each) for each in line.split(","))
        except ValueError:
            raise DataError(f"{path}, line {row + 2}: found {line!r}; expected valence,arousal") from None
        if IGNORED_VA in (valence, arousal):
            continue
        if not (low <= valence <= high and low <= arousal <= high):
            raise DataError(
                f"{path}, line {row + 2}: found {line}; expected [{low:g}, {high:g}], or {IGNORED_VA:g}"
            )
        values[row] = valence, arousal
    return Labels(np.full(len(lines), -1), values)


def _emotions(path: Path, header: list[str], lines: list[str]) -> Labels:
    order = [-1 if name == "other" else AFF_WILD2.index(canonical(name)) for name in header]
    labels = np.full(len(lines), -1)
    for row, line in enumerate(lines):
        if not re.fullmatch(r"-1|\d+", line) or int(line) >= len(order):
            raise DataError(
                f"{path}, line {row + 2}: found {line!r}; expected 0..{len(order) - 1}, or -1 to ignore"
            )
        labels[row] = order[int(line)] if int(line) >= 0 else IGNORED_EMOTION
    return Labels(labels, np.full((len(lines), 2), np.nan, np.float32))


def frames(folder: Path) -> dict[int, str]:
    """Return the crops of a trial: number of the frame, from 1 -> name of the file."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    pairs = ((name.partition(".")[0], name) for name in names if name.lower().endswith(SUFFIXES))
    return {int(stem): name for stem, name in pairs if stem.isdecimal()}
