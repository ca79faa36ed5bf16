"""RAF-DB: 15,339 faces from the web in seven basic emotions, each labeled by some forty people."""

from pathlib import Path
from typing import Literal

import numpy as np

from fer_lightning.data.datasets import raf_db_files as files
from fer_lightning.data.datasets.archive import find_root, unpacked
from fer_lightning.data.datasets.base import DataError, one_hot
from fer_lightning.data.datasets.class_folders import in_order, numbered_files
from fer_lightning.data.datasets.decode import OnBadImage
from fer_lightning.data.datasets.expected import ALL, Variant, official
from fer_lightning.data.datasets.index import ArchiveDataset, Index
from fer_lightning.data.datasets.listed_images import copies
from fer_lightning.data.datasets.raf_db_images import find_images, official_names, size_notes
from fer_lightning.emotions import RAF_DB

TRAIN, TEST = (1290, 281, 717, 4772, 1982, 705, 2524), (329, 74, 160, 1185, 478, 162, 680)
"""Published counts in the order of the taxonomy."""
VARIANTS = (
    official("RAF-DB", RAF_DB.emotions, {"train": TRAIN, "test": TEST}),
    Variant(
        "a derived copy that leaves out faces a detector missed",
        {"train": {ALL: 12_175}, "test": {ALL: 3_031}},
        official=False,
    ),
)
_LAYOUT = (
    "EmoLabel/list_patition_label.txt and Image/aligned, or a copy of it in folders train/1 ... train/7 and "
    "test/1 ... test/7"
)


class RAFDB(ArchiveDataset):
    """RAF-DB's basic emotions, with the official training and test faces; there are none for val.

    Li, Deng and Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression Recognition
    in the Wild", CVPR 2017. Subjects are not published.

    The folder ``basic`` is read as its owners pack it, or as the common copy with the folders ``train/1`` ...
    ``train/7`` and ``test/1`` ... ``test/7``, whose numbers are those of the official list. Names are those
    of the official list, ``train_00001.jpg``, in both: a split made on one fits the other.

    Args:
        root: the folder ``basic``, itself or in a wrapper.
        images: ``aligned`` faces of 100 px, or faces cut out of the ``original`` pictures by the boxes in
            ``Annotation/boundingbox``.
        labels: the emotion of the list, or the share of the votes for each, from ``distribution_basic.txt``.
        group: attribute by which results of groups are compared.
        compound: the folder ``compound``, whose 3,954 aligned faces become unlabeled ones.
        class_order: what the numbers of a copy's folders mean: a taxonomy's name or a list of emotions.
            Needed for ``0`` ... ``6``, which some copies count like RAF-DB and some like AffectNet.
        on_bad_image: ``stop`` at images that are missing or do not decode, or ``skip`` them with a warning.
        strict: whether other counts than the published ones are an error, and not a warning.
    """

    license = "RAF-DB: for non-commercial research, on a signed request; pictures may not be passed on"
    page = "http://www.whdeng.cn/RAF/model1.html"

    def __init__(
        self,
        root: str | Path,
        images: Literal["aligned", "original"] = "aligned",
        labels: Literal["majority", "distribution"] = "majority",
        group: Literal["none", "gender", "race", "age"] = "none",
        compound: str | Path | None = None,
        class_order: str | list[str] | None = None,
        on_bad_image: OnBadImage = "stop",
        strict: bool = False,
    ) -> None:
        super().__init__(root, on_bad_image, strict)
        self.images, self.labels, self.group = images, labels, group
        self.compound, self.class_order = compound, class_order

    def index(self) -> Index:
        """Read the labels and find the images.

        Raises:
            DataError: naming the file or line that is wrong, and what to do.
        """
        root = find_root(self.root, (*files.LISTS, "train/[0-9]*"), _LAYOUT)
        listed = files.find_list(root)
        index = self._from_class_folders(root) if listed is None else self._from_list(root, listed)
        if self.compound is None:
            return index
        if self.images == "original":
            raise DataError(
                "the compound pool is aligned: it goes with images=aligned", option="data.dataset.images"
            )
        names, paths = _compound_faces(Path(self.compound), self.on_bad_image)
        return index.with_unlabeled(names, paths)

    def _from_list(self, root: Path, path: Path) -> Index:
        names, label, notes = files.read_list(path)
        folder = unpacked(root / "Image" / self.images, f"the {self.images} images")
        paths, kept, found = find_images(folder, names, self.images, self.on_bad_image)
        names = [name for name, keep in zip(names, kept, strict=True) if keep]
        emotion = one_hot(label[kept], len(RAF_DB))
        if self.labels == "distribution":
            emotion, differ = files.read_distributions(path.parent, names, label[kept])
            notes += differ
        columns = {}
        if self.group != "none":
            columns["group"] = files.read_group(root, names, self.group)
        return Index(
            dataset="raf_db" if self.labels == "majority" else "raf_db-distribution",
            taxonomy=RAF_DB,
            names=names,
            paths=paths,
            partition=np.array([name.partition("_")[0] for name in names]),
            emotion=emotion,
            columns=columns,
            boxes=files.read_boxes(root, names) if self.images == "original" else None,
            variants=VARIANTS,
            notes=notes + found,
        )

    def _from_class_folders(self, root: Path) -> Index:
        for option, usual in (("images", "aligned"), ("labels", "majority"), ("group", "none")):
            if getattr(self, option) != usual:
                raise DataError(
                    f"{root} is a copy in class folders, without annotations: leave {option}={usual}, or "
                    f"give the official archive ({self.page})",
                    option=f"data.dataset.{option}",
                )
        found = numbered_files(root)
        if self.class_order is not None:
            label = in_order(found.number, self.class_order, RAF_DB, root)
        elif found.number.min() == 0:
            raise DataError(
                f"{root}: class folders 0..{found.number.max()} are ambiguous (RAF-DB's order or AffectNet's)"
                ": give class_order, as raf_db or affectnet7",
                option="data.dataset.class_order",
            )
        else:
            label = in_order(found.number, RAF_DB.name, RAF_DB, root)
        paths = [f"{root}/{file}" for file in found.files]
        names, notes = official_names(found.files, found.partition)
        train, test = (
            [path for path, of in zip(paths, found.partition, strict=True) if of == part]
            for part in ("train", "test")
        )
        if len(train) > sum(TRAIN):
            notes.append(
                f"train has {len(train):,} files, RAF-DB {sum(TRAIN):,}; {copies(train, test):,} of them are "
                "byte-identical to test faces (drop_test_duplicates leaves those out; `fer-lightning splits "
                "verify` counts them): an augmented copy?"
            )
        return Index(
            dataset="raf_db",
            taxonomy=RAF_DB,
            names=names,
            paths=paths,
            partition=found.partition,
            emotion=one_hot(label, len(RAF_DB)),
            variants=VARIANTS,
            notes=notes + size_notes(paths),
        )


def _compound_faces(root: Path, on_bad_image: OnBadImage) -> tuple[list[str], list[str]]:
    """Return the names and files of the compound set's faces."""
    root = find_root(
        root, files.LISTS, "EmoLabel/list_patition_label.txt and Image/aligned of the compound set"
    )
    path = files.find_list(root)
    names = files.read_list(path, compound=True)[0] if path else []
    folder = unpacked(root / "Image/aligned", "the aligned images")
    paths, kept, _ = find_images(folder, names, "aligned", on_bad_image)
    return [f"compound/{name}" for name, keep in zip(names, kept, strict=True) if keep], paths
