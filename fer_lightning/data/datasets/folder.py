"""Faces in folders named after emotions, and any folder of unlabeled faces beside them."""

import logging
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.base import DataError, FaceDataset, Faces, Texts, one_hot, require
from fer_lightning.data.datasets.decode import OnBadImage, decode_all
from fer_lightning.data.datasets.labels import DROPPED, label_numbers
from fer_lightning.data.datasets.walk import first_rows, image_files

log = logging.getLogger(__name__)


class FaceFolder(FaceDataset):
    """Your own faces: one folder per emotion for the labeled ones, any folder for the unlabeled ones.

    ::

        labeled/happy/*.jpg  labeled/sad/*.jpg ...      unlabeled/any/depth/*.png

    Folders are matched by name, which is any synonym of an emotion (``happy``, ``joy``, ``Happiness``); they
    may hold folders of their own. Links are followed, and a face that is reached twice counts once. Hidden
    files are passed over.

    Args:
        labeled: folder with one folder per emotion, to train on.
        unlabeled: folder of any depth with faces to learn from without labels.
        val: folder with one folder per emotion, to choose by.
        test: folder with one folder per emotion, to report on.
        emotions: a taxonomy's name or a list of emotions; by default ``basic7``, or ``basic8`` if
            contempt occurs.
        on_bad_image: ``stop`` at images that do not decode or are smaller than 16 px a side, or ``skip``
            them with a warning.
        drop: emotions, or other folders of ``labeled``, ``val`` and ``test``, that are left out; the taxonomy
            lacks them.
    """

    def __init__(
        self,
        labeled: str | Path,
        unlabeled: str | Path | None = None,
        val: str | Path | None = None,
        test: str | Path | None = None,
        emotions: str | list[str] | None = None,
        on_bad_image: OnBadImage = "stop",
        drop: list[str] | None = None,
    ) -> None:
        self.labeled = labeled
        self.unlabeled = unlabeled
        self.val = val
        self.test = test
        self.emotions = emotions
        self.on_bad_image = on_bad_image
        self.drop = drop

    def load(self, image_size: int) -> Faces:
        """Read the index. Names are ``labeled/happy/1.jpg``: the part, then the path in it.

        Raises:
            DataError: if a folder is missing, cannot be read, holds no images, or lies within another; if one
                file is in two parts or under two emotions; or if images do not decode.
            UnknownEmotion: if a folder is not named after an emotion.
        """
        folders = {
            part: require(Path(folder).expanduser(), f"the folder of {part} faces")
            for part in ("labeled", "unlabeled", "val", "test")
            if (folder := getattr(self, part)) is not None
        }
        _require_separate(folders)
        files, found = {}, []
        for part, folder in folders.items():
            files[part] = image_files(folder)
            unlabeled = part == "unlabeled"
            found.append(
                np.full(len(files[part]), "", np.object_) if unlabeled else emotion_of(folder, files[part])
            )
        names = np.array([f"{part}/{file}" for part in files for file in files[part]], np.object_)
        paths = np.array([f"{folders[part]}/{file}" for part in files for file in files[part]], np.object_)
        parts = ["train" if part == "labeled" else part for part in files]
        partition = np.repeat(parts, [len(part) for part in files.values()])
        label, order = label_numbers(
            np.concatenate(found), self.emotions, lambda row: str(paths[row]), self.drop
        )
        rows = np.flatnonzero(_once(paths, partition, label) & (label != DROPPED))
        images, kept = decode_all(paths[rows], image_size, self.on_bad_image)
        rows = rows[kept]
        return Faces(
            dataset=f"folder-{order.name}",
            taxonomy=order,
            names=names[rows],
            partition=partition[rows],
            emotion=one_hot(label[rows], len(order)),
            images=images,
        )


def emotion_of(folder: Path, files: Texts) -> Texts:
    """Return (N,) the name of the folder that each image is in, as it is written.

    Args:
        folder: with one folder per emotion.
        files: (N,) of ``image_files``.

    Raises:
        DataError: if an image lies beside the emotions' folders.
    """
    loose = [file for file in files if "/" not in file]
    if loose:
        raise DataError(
            f"{folder}: {len(loose)} images lie in no emotion's folder, the first is {loose[0]}; "
            f"expected {folder}/<emotion>/{loose[0]}"
        )
    found = np.array([file.partition("/")[0] for file in files], np.object_)
    inside = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    if empty := sorted(inside - set(found)):
        log.warning("%s: there are no images in %s", folder, ", ".join(empty))
    return found


def _once(
    paths: Texts, partition: npt.NDArray[np.str_], label: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Choose each file once, by (N,) bool; refuse one that is in two parts or under two emotions."""
    first = first_rows(paths)
    once: npt.NDArray[np.bool_] = (first < 0) | (first == np.arange(len(paths)))
    again = np.flatnonzero(~once)
    for row, other in zip(again.tolist(), first[again].tolist(), strict=True):
        if (partition[row], label[row]) != (partition[other], label[other]):
            raise DataError(
                f"{paths[other]} and {paths[row]} are the same file; each face belongs to one part and one "
                "emotion: remove one of the links"
            )
    if len(again):
        log.warning(
            "%d images are reached twice through links and count once, such as %s, which is %s",
            len(again),
            paths[again[0]],
            paths[first[again[0]]],
        )
    return once


def _require_separate(folders: dict[str, Path]) -> None:
    """Refuse a folder within another one: its faces would be in two parts."""
    for (part, folder), (other_part, other) in combinations(folders.items(), 2):
        here, there = folder.resolve(), other.resolve()
        if here.is_relative_to(there) or there.is_relative_to(here):
            raise DataError(
                f"{part}={folder} and {other_part}={other} overlap; each face belongs to one of them"
            )
