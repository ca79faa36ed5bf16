"""CK+: 593 sequences of 123 people in a laboratory, 327 of them with an emotion."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets import ck_plus_files as files
from fer_lightning.data.datasets.archive import find_root
from fer_lightning.data.datasets.base import ArrayImages, DataError, one_hot
from fer_lightning.data.datasets.decode import OnBadImage
from fer_lightning.data.datasets.expected import ALL, Variant
from fer_lightning.data.datasets.index import ArchiveDataset, Index
from fer_lightning.emotions import CK_PLUS, Taxonomy

FOLDS = (33, 39, 40, 35, 30, 37, 29, 29, 33, 22)
"""Labeled sequences of the ten folds of subjects."""
_MARKS = ("*cohn-kanade-images*", "[Cc]ontempt", "ckextended.csv")
_LAYOUT = "cohn-kanade-images, Emotion and Landmarks; or CK+48 with a folder per emotion; or ckextended.csv"
Fold = Literal[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


class CKPlus(ArchiveDataset):
    """CK+'s labeled sequences, in ten folds of subjects: one is ``test``, the next ``val``, others ``train``.

    Lucey et al., "The Extended Cohn-Kanade Dataset (CK+): A Complete Dataset for Action Unit and
    Emotion-Specified Expression", CVPR Workshops 2010.

    The subjects with a labeled sequence, sorted, go to the folds in turn, as in Emotion-FAN (Meng et al.,
    ICIP 2019); the last fold has no fear, so pool the predictions of all folds before averaging over
    emotions. ``clip`` is the sequence. Unlabeled sequences of training subjects are ``unlabeled``.

    Official frames are cut around their landmarks. CK+48 holds the last three frames of labeled sequences and
    no neutral face. ``ckextended.csv`` names no subjects: its own parts are used, in which people recur.

    Args:
        root: the folder with ``cohn-kanade-images``, CK+48, or ``ckextended.csv``; or a wrapper.
        fold: the fold that is ``test``.
        frames: last frames of each sequence that carry its emotion.
        neutral: whether the ``first`` frame of each labeled sequence is a neutral face.
        contempt: whether its 18 sequences are used.
        on_bad_image: ``stop`` at images that do not decode, or ``skip`` them with a warning.
        strict: whether other counts than the published ones are an error, and not a warning.
    """

    license = "CK+: for non-commercial research, on a signed agreement"
    page = "http://www.jeffcohn.net/Resources/"

    def __init__(
        self,
        root: str | Path,
        fold: Fold = 1,
        frames: Literal[1, 3] = 3,
        neutral: Literal["none", "first"] = "none",
        contempt: bool = True,
        on_bad_image: OnBadImage = "stop",
        strict: bool = False,
    ) -> None:
        super().__init__(root, on_bad_image, strict)
        self.fold, self.frames, self.neutral, self.contempt = fold, frames, neutral, contempt

    def index(self) -> Index:
        """Read the sequences.

        Raises:
            DataError: naming the file or folder that is wrong, and what to do.
        """
        given = Path(self.root).expanduser()
        root = given if given.suffix == ".csv" and given.is_file() else find_root(given, _MARKS, _LAYOUT)
        if root.is_file() or (root / "ckextended.csv").is_file():
            return self._from_csv(root if root.is_file() else root / "ckextended.csv")
        if any(root.glob("[Cc]ontempt")):
            if self.neutral != "none":
                raise DataError(
                    f"{root}: CK+48 has no neutral; contempt takes its place. Leave neutral=none",
                    option="data.dataset.neutral",
                )
            return self._from_sequences(files.read_48(root, self.page), ["this is the copy CK+48"])
        index = self._from_sequences(*files.read_sequences(root))
        index.boxes = files.read_boxes(root, [Path(path) for path in index.paths])
        return index

    def _from_sequences(self, sequences: list[files.Sequence], notes: list[str]) -> Index:
        """Choose the frames of labeled sequences, and those of unlabeled ones of training subjects."""
        neutral = self.neutral == "first"
        labeled = [sequence for sequence in sequences if sequence.label >= 0]
        part_of = self._parts([sequence.subject for sequence in labeled])
        paths, labels, clips, partition = [], [], [], []
        short = [each.clip for each in sequences if len(each.frames) < self.frames + neutral]
        for sequence in sequences:
            if sequence.clip in short or self._left_out(sequence.label):
                continue
            part = part_of.get(sequence.subject, "train")
            frames = sequence.frames[-self.frames :]
            emotions = [sequence.label] * len(frames)
            if sequence.label < 0:
                part = "unlabeled" if part == "train" else ""
            elif neutral:
                frames, emotions = [sequence.frames[0], *frames], [CK_PLUS.index("neutral"), *emotions]
            if not part:
                continue
            paths += frames
            labels += emotions
            clips += [sequence.clip] * len(frames)
            partition += [part] * len(frames)
        if short:
            notes = [*notes, f"{len(short)} sequences are too short and are left out, such as {short[0]}"]
        if not paths:
            raise DataError(
                f"{self.root}: no sequence has the {self.frames + neutral} frames that are asked for"
            )
        taxonomy, emotion = self._emotion(labels)
        return Index(
            dataset=f"ck_plus-{len(taxonomy)}-fold{self.fold}",
            taxonomy=taxonomy,
            names=[path.name for path in paths],
            paths=[str(path) for path in paths],
            partition=np.array(partition),
            emotion=emotion,
            columns={
                "clip": np.array(clips),
                "subject": np.array([clip.partition("_")[0] for clip in clips]),
            },
            variants=self._variants(),
            notes=notes,
        )

    def _from_csv(self, path: Path) -> Index:
        table = files.read_csv(path)
        neutral = CK_PLUS.index("neutral")
        kept = [
            row
            for row, label in enumerate(table.label)
            if not self._left_out(label) and (self.neutral == "first" or label != neutral)
        ]
        if not kept:
            raise DataError(f"{path}: no row shows an emotion that the options leave")
        taxonomy, emotion = self._emotion([table.label[row] for row in kept])
        return Index(
            dataset=f"ckextended-{len(taxonomy)}",
            taxonomy=taxonomy,
            names=[f"ckextended/{row:05d}" for row in kept],
            paths=[],
            partition=np.array([table.partition[row] for row in kept]),
            emotion=emotion,
            images=ArrayImages(table.images.pixels[kept]),
            notes=[f"{path} names no subjects: its parts are not subject-independent, and fold is not used"],
        )

    def _left_out(self, label: int) -> bool:
        return not self.contempt and label == CK_PLUS.index("contempt")

    def _emotion(self, labels: Sequence[int]) -> tuple[Taxonomy, npt.NDArray[np.float32]]:
        """Return the emotions that the options leave, in CK+'s order, and (N, C) labels."""
        used = {"contempt": self.contempt, "neutral": self.neutral == "first"}
        columns = [column for column, emotion in enumerate(CK_PLUS.emotions) if used.get(emotion, True)]
        taxonomy = Taxonomy(f"ck_plus{len(columns)}", tuple(CK_PLUS.emotions[column] for column in columns))
        return taxonomy, one_hot(labels, len(CK_PLUS))[:, columns]

    def _parts(self, subjects: Sequence[str]) -> dict[str, str]:
        """Return the partition of each subject with a label."""
        turns = {self.fold - 1: "test", self.fold % len(FOLDS): "val"}
        return {
            subject: turns.get(turn % len(FOLDS), "train")
            for turn, subject in enumerate(sorted(set(subjects)))
        }

    def _variants(self) -> list[Variant]:
        """Return the published counts, which tell no emotions by fold."""
        if not self.contempt:
            return []
        each = self.frames + (self.neutral == "first")
        test, val = FOLDS[self.fold - 1], FOLDS[self.fold % len(FOLDS)]
        parts = {"train": sum(FOLDS) - test - val, "val": val, "test": test}
        return [Variant("CK+", {part: {ALL: count * each} for part, count in parts.items()})]
