"""Aff-Wild2: faces in videos of the web, with valence and arousal or emotions of every frame."""

from pathlib import Path

import numpy as np

from fer_lightning.data.datasets.aff_wild2_files import (
    Task,
    crop_folders,
    find_sets,
    frames,
    read_labels,
    source_video,
)
from fer_lightning.data.datasets.archive import find_root
from fer_lightning.data.datasets.base import DataError, one_hot, require
from fer_lightning.data.datasets.decode import OnBadImage
from fer_lightning.data.datasets.expected import ALL, Variant
from fer_lightning.data.datasets.index import ArchiveDataset, Index
from fer_lightning.emotions import AFF_WILD2
from fer_lightning.ranges import PositiveInt, check_ranges

VARIANTS = (
    Variant("Aff-Wild2, annotations of ABAW5 and ABAW6", {"train": {ALL: 1_653_757}, "test": {ALL: 376_323}}),
    Variant("Aff-Wild2, annotations of ABAW3", {"train": {ALL: 1_555_919}, "test": {ALL: 338_755}}),
)
"""Frames with valence, arousal and a crop."""
MUCH = 0.2
"""Share of a trial's labels without a crop from which on it is told; 1.5 % is usual."""


class AffWild2(ArchiveDataset):
    """Aff-Wild2's face crops with the labels of one task; its validation set is ``test``.

    Kollias and Zafeiriou, "Expression, Affect, Action Unit Recognition: Aff-Wild2, Multi-Task Learning and
    ArcFace", BMVC 2019, https://arxiv.org/abs/1910.04855.

    The labels of its test set were never published: results are reported on the validation set, and so it is
    ``test`` here; carve ``val`` out of training. Line ``n`` below the header of a label file is the crop
    number ``n``; frames without a crop, or marked to be ignored, are left out, and so are those whose emotion
    is "other". ``clip`` is the trial, one person in one video; ``source`` the video. The tasks divide the
    videos differently: train and test within one task.

    Args:
        root: the folder that holds ``cropped_aligned`` (and ``cropped_aligned_new_50_vids``), or a wrapper.
        annotations: the folder of annotations of one year; by default they are searched for in ``root``.
        task: which labels are read, ``valence_arousal`` or ``emotions``.
        every: take each so-many-th frame of a trial: 1 takes all, nearly two million.
        on_bad_image: ``stop`` at trials that are missing and crops that do not decode, or ``skip`` them with
            a warning.
        strict: whether other counts than the published ones are an error, and not a warning; with
            ``valence_arousal`` of ``every`` frame.

    Raises:
        InputError: for an option out of its range.
    """

    license = "Aff-Wild2: for non-commercial research in academia, on a signed agreement"
    page = "https://ibug.doc.ic.ac.uk/resources/aff-wild2/"

    def __init__(
        self,
        root: str | Path,
        annotations: str | Path | None = None,
        task: Task = "valence_arousal",
        every: PositiveInt = 5,
        on_bad_image: OnBadImage = "stop",
        strict: bool = False,
    ) -> None:
        super().__init__(root, on_bad_image, strict)
        check_ranges(type(self), {"every": every}, "data.dataset")
        self.annotations, self.task, self.every = annotations, task, every

    def index(self) -> Index:
        """Read the labels and list the crops of every trial.

        Raises:
            DataError: naming the file, line or trial that is wrong, and what to do.
        """
        root = find_root(self.root, ("cropped_aligned*",), "cropped_aligned/<trial> and annotations")
        crops = crop_folders(root)
        given = root if self.annotations is None else Path(self.annotations).expanduser()
        sets = find_sets(require(given, "the annotations"), self.task)
        files = {part: sorted(folder.glob("[!.]*.txt")) for part, folder in sets.items()}
        both = {path.name for path in files["train"]} & {path.name for path in files["test"]}
        if both:
            raise DataError(f"{min(both)} is in {sets['train']} and in {sets['test']}; remove one of them")
        notes = _missing_trials(files, crops, self.on_bad_image)
        names, paths, partition, trials = [], [], [], []
        emotions, values, lost = [], [], 0
        for part, path in ((part, path) for part, of_part in files.items() for path in of_part):
            trial = path.stem
            if trial not in crops:
                continue
            labels, held = read_labels(path, self.task), frames(crops[trial])
            known = ~np.isnan(labels.valence_arousal[:, 0]) | (labels.emotion >= 0)
            numbers = [row + 1 for row in np.flatnonzero(known).tolist()]
            absent = sum(number not in held for number in numbers)
            lost += absent
            if absent > MUCH * len(numbers):
                notes.append(f"{trial}: {absent:,} of {len(numbers):,} labels have no crop")
            kept = [number for number in numbers if number in held and (number - 1) % self.every == 0]
            rows = [number - 1 for number in kept]
            names += [f"{trial}/{number:05d}.jpg" for number in kept]
            paths += [f"{crops[trial]}/{held[number]}" for number in kept]
            partition += [part] * len(kept)
            trials += [trial] * len(kept)
            emotions.append(labels.emotion[rows])
            values.append(labels.valence_arousal[rows])
        if not names:
            raise DataError(f"{sets['train']} and {sets['test']} label no frame that has a crop")
        notes.append(
            f"{len(files['train'])} and {len(files['test'])} trials; {lost:,} labeled frames have no crop"
        )
        every_frame = self.every == 1 and self.task == "valence_arousal"
        return Index(
            dataset=f"aff_wild2-{self.task}",
            taxonomy=AFF_WILD2,
            names=names,
            paths=paths,
            partition=np.array(partition),
            emotion=one_hot(np.concatenate(emotions), len(AFF_WILD2)),
            columns={
                "valence_arousal": np.concatenate(values),
                "clip": np.array(trials),
                "source": np.array([source_video(trial) for trial in trials]),
            },
            variants=VARIANTS if every_frame else (),
            notes=notes,
        )


def _missing_trials(
    files: dict[str, list[Path]], crops: dict[str, Path], on_bad_image: OnBadImage
) -> list[str]:
    """Refuse trials without crops, or return a note about them."""
    listed = [path.stem for of_part in files.values() for path in of_part]
    missing = [trial for trial in listed if trial not in crops]
    if not missing:
        return []
    message = (
        f"{len(missing)} of {len(listed)} trials have annotations but no folder of crops, such as "
        f"{missing[0]}: is cropped_aligned_new_50_vids missing?"
    )
    if on_bad_image == "stop" or len(missing) > len(listed) / 2:
        raise DataError(f'{message} on_bad_image="skip" leaves them out')
    return [f"{message} They are left out"]
