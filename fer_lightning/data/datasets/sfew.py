"""SFEW 2.0: faces of actors in still frames of films, in seven emotions."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_lightning.data.datasets.archive import find_root, packed_in, subfolders
from fer_lightning.data.datasets.base import DataError, one_hot
from fer_lightning.data.datasets.class_folders import named_files
from fer_lightning.data.datasets.decode import OnBadImage
from fer_lightning.data.datasets.expected import ALL, Variant, official
from fer_lightning.data.datasets.index import ArchiveDataset, Index
from fer_lightning.data.datasets.labels import label_numbers
from fer_lightning.data.datasets.listed_images import picture_sizes, walk_images
from fer_lightning.emotions import SFEW as ORDER

ALIGNED = {"train": (178, 52, 78, 184, 144, 161, 94), "test": (77, 23, 46, 72, 84, 73, 56)}
FULL = {"train": (178, 66, 98, 198, 150, 172, 96), "test": (77, 23, 47, 73, 86, 73, 57)}
"""Published counts in the order of the taxonomy; the owners' alignment missed some faces."""
VARIANTS = (
    official("SFEW 2.0, aligned: 891/431 of 958/436 faces, as shipped", ORDER.emotions, ALIGNED),
    official("SFEW 2.0, all 958/436 faces", ORDER.emotions, FULL),
    Variant(
        "a derived copy, with faces detected anew", {"train": {ALL: 857}, "test": {ALL: 410}}, official=False
    ),
)
FRAME_WIDTH = 500
"""Pixels: aligned faces are narrower, and film frames (720x576) wider."""
_MARKS = ("Train", "Train_Aligned_Faces", "Train_SFEW_2_0")
_NAME = re.compile(r"(?P<source>.+)_(?P<time>\d+)_\d+")


class SFEW(ArchiveDataset):
    """SFEW 2.0's aligned faces; its validation faces are ``test``.

    Dhall et al., "Video and Image Based Emotion Recognition Challenges in the Wild: EmotiW 2015", ICMI 2015.

    The labels of its test faces were never published: results are reported on the validation faces, and so
    they are ``test`` here; carve ``val`` out of training. ``source`` is the film and ``clip`` the scene;
    actors are not named. Film frames are refused, for they are scenes and not faces.

    Args:
        root: the folder with ``Train``, ``Val`` and ``Test``, or with ``Train_Aligned_Faces`` and so on; or a
            wrapper.
        test_as_unlabeled: whether the 372 test faces without labels become unlabeled ones.
        on_bad_image: ``stop`` at images that do not decode, or ``skip`` them with a warning.
        strict: whether other counts than the published ones are an error, and not a warning.
    """

    license = "SFEW: for non-commercial research, on a signed agreement by e-mail"
    page = "https://cs.anu.edu.au/few/AFEW.html"

    def __init__(
        self,
        root: str | Path,
        test_as_unlabeled: bool = False,
        on_bad_image: OnBadImage = "stop",
        strict: bool = False,
    ) -> None:
        super().__init__(root, on_bad_image, strict)
        self.test_as_unlabeled = test_as_unlabeled

    def index(self) -> Index:
        """Read the folders.

        Raises:
            DataError: naming the folder that is wrong, and what to do.
        """
        root = find_root(
            self.root, _MARKS, "Train/<emotion> and Val/<emotion>, or Train_Aligned_Faces/<emotion>"
        )
        names, paths, labels, partition = [], [], [], []
        for part, to in (("Train", "train"), ("Val", "test")):
            folder = _faces(root, part)
            files, emotions = named_files(folder, self.page)
            _refuse_frames([f"{folder}/{file}" for file in files], part)
            names += [f"{part}/{file}" for file in files]
            paths += [f"{folder}/{file}" for file in files]
            labels += emotions
            partition += [to] * len(files)
        label, _ = label_numbers(np.array(labels), ORDER.name, lambda row: paths[row])
        scenes = [_NAME.fullmatch(Path(name).stem) for name in names]
        nameless = sum(scene is None for scene in scenes)
        index = Index(
            dataset="sfew",
            taxonomy=ORDER,
            names=names,
            paths=paths,
            partition=np.array(partition),
            emotion=one_hot(label, len(ORDER)),
            columns={
                "clip": np.array([f"{scene['source']}_{scene['time']}" if scene else "" for scene in scenes]),
                "source": np.array([scene["source"] if scene else "" for scene in scenes]),
            },
            variants=VARIANTS,
            notes=[f"{nameless:,} of {len(names):,} file names name no film: splits cannot be film-disjoint"]
            if nameless
            else [],
        )
        return self._with_test(index, root) if self.test_as_unlabeled else index

    def _with_test(self, index: Index, root: Path) -> Index:
        folder = _faces(root, "Test")
        files = walk_images(folder)
        _refuse_frames([f"{folder}/{file}" for file in files], "Test")
        index = index.with_unlabeled(
            [f"Test/{file}" for file in files], [f"{folder}/{file}" for file in files]
        )
        if any("/" in file for file in files):
            index.notes.append(
                f"{folder} holds folders: labels of these faces were never published, and are unused"
            )
        return index


def _faces(root: Path, part: str) -> Path:
    """Return the folder of aligned faces of a part, wherever people unpack it.

    Raises:
        DataError: if there is none, or if it is still packed.
    """
    aligned = f"{part}_Aligned_Faces".lower()
    inside = [
        folder
        for folder in subfolders(root)
        if folder.name.lower() in (part.lower(), f"{part}_SFEW_2_0".lower())
    ]
    for folder in (root, *inside):
        for below in subfolders(folder):
            if below.name.lower() in (aligned, f"{aligned}_new"):
                deeper = [each for each in subfolders(below) if each.name.lower() == below.name.lower()]
                return deeper[0] if deeper else below
    for folder in (root, *inside):
        if packed := packed_in(folder, aligned):
            raise DataError(f"{packed[0]} is still packed; unpack it to {folder / packed[0].stem}")
    if not inside:
        raise DataError(f"{root} holds no {part} and no {part}_Aligned_Faces; expected one of them there")
    return inside[0]


def _refuse_frames(paths: Sequence[str], part: str) -> None:
    sizes = picture_sizes(paths)
    (width, height), _ = sizes.most_common(1)[0] if sizes else ((0, 0), 0)
    if width >= FRAME_WIDTH:
        raise DataError(
            f"{Path(paths[0]).parent}: pictures are {width}x{height} film frames, not faces; give "
            f"{part}_Aligned_Faces, or cut the faces out and read them with FaceFolder"
        )
