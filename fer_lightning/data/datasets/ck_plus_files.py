"""The forms of CK+: the official sequences, and the copies CK+48 and ``ckextended.csv``."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.archive import read_fields, subfolders, unpacked
from fer_lightning.data.datasets.base import ArrayImages, DataError
from fer_lightning.data.datasets.class_folders import named_files
from fer_lightning.data.datasets.crops import Boxes, landmark_boxes
from fer_lightning.data.datasets.fer2013 import PARTITIONS, SIDE, USAGES, csv_rows, read_pixels, usage_of
from fer_lightning.data.datasets.labels import label_numbers
from fer_lightning.data.datasets.listed_images import walk_images
from fer_lightning.emotions import CK_PLUS, Taxonomy

SEQUENCES, LABELED = 593, 327
CSV_ORDER = Taxonomy(
    "ckextended", ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral", "contempt")
)
LANDMARK_SCALE = 1.3
"""How much larger than its 68 landmarks a face is cut out: they end at brows and chin."""
_FRAME = re.compile(r"(S\d{3})_(\d{3})_\d{8}")


@dataclass
class Sequence:
    """The frames of one sequence, from neutral to the height of an emotion."""

    clip: str
    """As ``S005_001``; it begins with the subject."""
    label: int
    """Index in ``CK_PLUS``, -1 for none."""
    frames: list[Path] = field(default_factory=list)
    """In order."""

    @property
    def subject(self) -> str:
        """The person, as ``S005``."""
        return self.clip.partition("_")[0]


def read_sequences(root: Path) -> tuple[list[Sequence], list[str]]:
    """Read the official sequences, sorted, and notes.

    Raises:
        DataError: naming the folder or file that is wrong.
    """
    images = _either(root, "cohn-kanade-images", "extended-cohn-kanade-images")
    emotions = _either(root, "Emotion", "Emotion_labels")
    sequences, other_apex = [], 0
    for subject in subfolders(images):
        for folder in subfolders(subject):
            frames = [folder / name for name in walk_images(folder)]
            if not frames:
                continue
            label, apex = _label(emotions / subject.name / folder.name)
            other_apex += label >= 0 and apex != frames[-1].stem
            sequences.append(Sequence(f"{subject.name}_{folder.name}", label, frames))
    labeled = sum(sequence.label >= 0 for sequence in sequences)
    if not labeled:
        raise DataError(
            f"{emotions}: 0 of {len(sequences)} sequences are labeled, expected {LABELED}; unpack "
            "Emotion_labels.zip there"
        )
    notes = []
    if (labeled, len(sequences)) != (LABELED, SEQUENCES):
        notes.append(f"{labeled} of {len(sequences)} sequences are labeled ({LABELED} of {SEQUENCES} in CK+)")
    if other_apex:
        notes.append(f"{other_apex} labels name another frame than the last one of their sequence")
    return sequences, notes


def _either(root: Path, name: str, packed: str) -> Path:
    """Return ``root/name``, or the same in the folder that its zip file unpacks to."""
    inner = root / packed / name
    outer = root / packed
    if not (root / name).is_dir() and outer.is_dir():
        return unpacked(inner if inner.is_dir() else outer, "folders S005, S010, ...")
    if not (root / name).is_dir():
        unpacked(outer, "folders S005, S010, ...")
    return unpacked(root / name, "folders S005, S010, ...")


def _label(folder: Path) -> tuple[int, str]:
    """Return the emotion of a sequence and its frame; -1 where there is no folder, or no file in it."""
    files = sorted(folder.glob("[!.]*_emotion.txt")) if folder.is_dir() else []
    if not files:
        return -1, ""
    for where, fields in read_fields(files[0]):
        try:
            number = float(fields[0])
        except ValueError:
            number = -1
        if number not in range(1, len(CK_PLUS)):
            raise DataError(f"{where}: found {fields[0]}; expected a number from 1 to {len(CK_PLUS) - 1}")
        return int(number), files[0].name.removesuffix("_emotion.txt")
    raise DataError(f"{files[0]} is empty; expected a number from 1 to {len(CK_PLUS) - 1}")


def read_boxes(root: Path, frames: list[Path]) -> Boxes:
    """Return the boxes around the landmarks of official frames, (N, 4).

    Raises:
        DataError: if landmarks are missing or wrong: without them, frames are no faces.
    """
    expected = "S005/001/S005_001_00000001_landmarks.txt (frames show more than faces: they are cut by these)"
    folder = unpacked(root / "Landmarks", expected)
    folder = folder / "Landmarks" if (folder / "Landmarks").is_dir() else folder
    points = np.empty((len(frames), 68, 2), np.float32)
    for row, frame in enumerate(frames):
        path = folder / frame.parent.parent.name / frame.parent.name / f"{frame.stem}_landmarks.txt"
        try:
            read: npt.NDArray[np.float32] = np.array([fields for _, fields in read_fields(path)], np.float32)
        except DataError:
            raise
        except ValueError:  # of other lengths, or no numbers
            read = np.empty(0, np.float32)
        if read.shape != points.shape[1:]:
            raise DataError(f"{path}: expected 68 lines of x and y")
        points[row] = read
    return landmark_boxes(points, LANDMARK_SCALE)


def read_48(root: Path, page: str) -> list[Sequence]:
    """Read CK+48: the last three frames of each labeled sequence, in folders of emotions.

    Raises:
        DataError: naming the file whose name is not CK+'s, or a sequence in two emotions.
    """
    files, emotions = named_files(root, page)
    labels, _ = label_numbers(np.array(emotions), CK_PLUS.name, lambda row: f"{root}/{files[row]}")
    sequences: dict[str, Sequence] = {}
    for file, label in sorted(zip(files, labels.tolist(), strict=True), key=lambda each: Path(each[0]).name):
        name = _FRAME.fullmatch(Path(file).stem)
        if not name:
            raise DataError(f"{root}/{file}: expected a name like S010_004_00000017.png")
        clip = f"{name[1]}_{name[2]}"
        sequence = sequences.setdefault(clip, Sequence(clip, label))
        if sequence.label != label:
            other = CK_PLUS.emotions[sequence.label]
            raise DataError(f"{root}/{file}: other frames of {clip} are in the folder of {other}")
        sequence.frames.append(root / file)
    return list(sequences.values())


@dataclass
class Table:
    """The rows of ``ckextended.csv``."""

    images: ArrayImages
    label: list[int]
    """Indices in ``CK_PLUS``."""
    partition: list[str]


def read_csv(path: Path) -> Table:
    """Read ``ckextended.csv``, whose faces are of 48 px and without subjects.

    Raises:
        DataError: naming the row that is wrong.
    """
    images, labels, partition = [], [], []
    order = CSV_ORDER.columns_in(CK_PLUS)
    for number, (emotion, pixels, usage) in enumerate(csv_rows(path, ("emotion", "pixels", "Usage"))):
        where = f"{path}, row {number}"
        if not (emotion.isdecimal() and int(emotion) < len(CSV_ORDER)):
            raise DataError(f"{where}: emotion is {emotion!r}, not 0 ... {len(CSV_ORDER) - 1}")
        images.append(read_pixels(pixels, where))
        labels.append(order[int(emotion)])
        partition.append(PARTITIONS[usage_of(usage, where)])
    if not images:
        raise DataError(f"{path} has no rows; expected columns emotion, pixels, Usage ({', '.join(USAGES)})")
    return Table(ArrayImages(np.stack(images).reshape(-1, SIDE, SIDE)), labels, partition)
