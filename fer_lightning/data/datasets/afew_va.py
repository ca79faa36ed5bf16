"""AFEW-VA: 600 clips of films, valence and arousal of every frame."""

from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np

from fer_lightning.data.datasets.afew_va_clips import Clip, clip_folders, read_clip
from fer_lightning.data.datasets.archive import find_root
from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.crops import landmark_boxes
from fer_lightning.data.datasets.decode import OnBadImage
from fer_lightning.data.datasets.expected import ALL, Variant
from fer_lightning.data.datasets.index import ArchiveDataset, Index
from fer_lightning.data.progress import tracked
from fer_lightning.emotions import BASIC_7
from fer_lightning.ranges import PositiveFloat, check_ranges

CLIPS, FRAMES = 600, 30_051
FOLDS = 5
LANDMARK_SCALE = 1.3
"""How much larger than its 68 landmarks a face is cut out: they end at brows and chin."""
_MARKS = ("[0-9][0-9][0-9]/*.json", "[0-9][0-9]/[0-9][0-9][0-9]/*.json")
_LAYOUT = "clips 001 ... 600, each with 001.json and frames, in folders 01 ... 12 or without them"


class AFEWVA(ArchiveDataset):
    """AFEW-VA's frames in five folds of actors: one is ``test``, the next ``val``, others ``train``.

    Kossaifi et al., "AFEW-VA Database for Valence and Arousal Estimation In-the-Wild", Image and Vision
    Computing 2017. It has no emotions: train with ``targets: valence_arousal``.

    No folds are published that keep actors apart, so here the actors, those with the most frames first, go to
    the fold with the fewest frames so far; ties follow the sha256 of the name. ``subject`` is the actor,
    ``clip`` the number of the clip. Faces are cut around their landmarks; the film frames are stored with
    pixels that are not square, so that faces are somewhat narrow.

    Args:
        root: the folder that holds the clips, or a wrapper.
        fold: the fold that is ``test``.
        scale: what valence and arousal are divided by; 1 for a copy where they were divided before.
        on_bad_image: ``stop`` at frames that are missing or do not decode, or ``skip`` them with a warning.
        strict: whether other counts than the published ones are an error, and not a warning.

    Raises:
        InputError: for an option out of its range.
    """

    license = "AFEW-VA: for non-commercial research, on a signed agreement"
    page = "https://ibug.doc.ic.ac.uk/resources/afew-va-database/"

    def __init__(
        self,
        root: str | Path,
        fold: Literal[1, 2, 3, 4, 5] = 1,
        scale: PositiveFloat = 10.0,
        on_bad_image: OnBadImage = "stop",
        strict: bool = False,
    ) -> None:
        super().__init__(root, on_bad_image, strict)
        check_ranges(type(self), {"scale": scale}, "data.dataset")
        self.fold, self.scale = fold, scale

    def index(self) -> Index:
        """Read the annotations of every clip.

        Raises:
            DataError: naming the file and frame that are wrong, and what to do.
        """
        root = find_root(self.root, _MARKS, _LAYOUT)
        folders, notes = clip_folders(root)
        read = (read_clip(folder, self.scale, self.on_bad_image) for folder in folders)
        clips = [clip for clip in tracked(read, len(folders), "reading clips") if clip.frames]
        if not clips:
            raise DataError(f"{root}: no clip has a frame")
        if len(clips) != CLIPS:
            notes.append(f"{len(clips)} clips ({CLIPS} in AFEW-VA)")
        notes += [note for clip in clips for note in clip.notes]
        values = np.concatenate([clip.valence_arousal for clip in clips])
        if self.scale > 1 and (np.abs(values) <= 1 / self.scale).all():
            notes.append(
                f"all values were within [-1, 1] before they were divided by {self.scale:g}; official ones "
                "run over -10..10: give scale=1 if they had been divided"
            )
        parts = self._parts(clips)
        counts = [len(clip.frames) for clip in clips]
        return Index(
            dataset=f"afew_va-fold{self.fold}",
            taxonomy=BASIC_7,
            names=[f"{clip.name}/{frame.name}" for clip in clips for frame in clip.frames],
            paths=[str(frame) for clip in clips for frame in clip.frames],
            partition=np.repeat([parts[clip.actor] for clip in clips], counts),
            emotion=np.full((len(values), len(BASIC_7)), np.nan, np.float32),
            columns={
                "valence_arousal": values,
                "subject": np.repeat([clip.actor for clip in clips], counts),
                "clip": np.repeat([clip.name for clip in clips], counts),
            },
            boxes=landmark_boxes(np.concatenate([clip.landmarks for clip in clips]), LANDMARK_SCALE),
            variants=[Variant("AFEW-VA", {ALL: {ALL: FRAMES}})],
            notes=notes,
        )

    def _parts(self, clips: list[Clip]) -> Mapping[str, str]:
        """Return the partition of each actor."""
        frames: Counter[str] = Counter()
        for clip in clips:
            frames[clip.actor] += len(clip.frames)
        turns = {self.fold - 1: "test", self.fold % FOLDS: "val"}
        filled, parts = [0] * FOLDS, {}
        for actor in sorted(frames, key=lambda name: (-frames[name], sha256(name.encode()).hexdigest())):
            fold = filled.index(min(filled))
            filled[fold] += frames[actor]
            parts[actor] = turns.get(fold, "train")
        return parts
