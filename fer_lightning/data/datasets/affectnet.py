"""AffectNet: faces from the web with eight emotions, valence and arousal, labeled by one person each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets import affectnet_arrays as arrays
from fer_lightning.data.datasets import affectnet_lists as lists
from fer_lightning.data.datasets.archive import find_root
from fer_lightning.data.datasets.base import DataError, one_hot, require
from fer_lightning.data.datasets.decode import OnBadImage
from fer_lightning.data.datasets.expected import ALL, Variant
from fer_lightning.data.datasets.index import ArchiveDataset, Index
from fer_lightning.data.datasets.listed_images import distinct
from fer_lightning.data.datasets.repackaged import count_in_class_folders
from fer_lightning.emotions import AFFECTNET_7, AFFECTNET_8, Taxonomy

TRAIN = (74_874, 134_416, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750, 33_088)
"""Published counts of ``training.csv`` in the order of the taxonomy, and of faces with none of the eight."""
TEST = (500,) * 9
TRAIN_2021, TEST_2021 = (74_874, 134_415, *TRAIN[2:8], 0), (*TEST[:7], 499, 0)
NONE = 8
"""The number of an expression that is none of the eight."""
_LAYOUT = (
    "Manually_Annotated_file_lists/training.csv and Manually_Annotated_Images, or "
    "train_set/annotations/*_exp.npy and train_set/images"
)


class AffectNet(ArchiveDataset):
    """AffectNet with 7 or 8 emotions, valence and arousal; its validation faces are ``test``.

    Mollahosseini, Hasani and Mahoor, "AffectNet: A Database for Facial Expression, Valence, and Arousal
    Computing in the Wild", IEEE Transactions on Affective Computing 2019, https://arxiv.org/abs/1708.03985.

    Its test faces were never published: results are reported on the 500 validation faces of each emotion, and
    so they are ``test`` here; carve ``val`` out of training. Subjects are not published.

    Both forms of the archive are read. The lists ``training.csv`` and ``validation.csv`` name pictures, out
    of which faces are cut by their boxes. In the form of March 2021, ``train_set`` and ``val_set`` hold faces
    of 224 px, and small NumPy files that are read once and then remembered (see ``cache.remember``). A face
    is named as in its list, ``12/ab...ef.jpg``, or ``train_set/1234.jpg``: splits of one form do not fit the
    other.

    Args:
        root: the folder that holds the lists and images, or ``train_set`` and ``val_set``; or a wrapper.
        classes: 8 with contempt, 7 without.
        outside: whether faces with none of the emotions are left out (``drop``) or kept for their
            ``valence_arousal``. Uncertain faces and pictures without a face are always left out.
        automatic: whether the faces of ``automatically_annotated.csv`` become unlabeled ones; their labels,
            which a network gave, are not used.
        on_bad_image: ``stop`` at images that are missing or do not decode (``103/29a31e...jpg`` is broken in
            the archive), or ``skip`` them with a warning.
        strict: whether other counts than the published ones are an error, and not a warning.
    """

    license = "AffectNet: for non-commercial research, on a request by a faculty member"
    page = "https://mohammadmahoor.com/pages/databases/affectnet/"

    def __init__(
        self,
        root: str | Path,
        classes: Literal[7, 8] = 8,
        outside: Literal["drop", "valence_arousal"] = "drop",
        automatic: bool = False,
        on_bad_image: OnBadImage = "stop",
        strict: bool = False,
    ) -> None:
        super().__init__(root, on_bad_image, strict)
        self.classes, self.outside, self.automatic = classes, outside, automatic

    def index(self) -> Index:
        """Read the labels and find the images.

        Raises:
            DataError: naming the file or line that is wrong, and what to do.
        """
        given = require(Path(self.root).expanduser(), f"AffectNet: {_LAYOUT}")
        try:
            root = find_root(given, (*lists.MARKS, *arrays.MARKS), _LAYOUT)
        except DataError:
            count = count_in_class_folders(given) if given.is_dir() else 0
            if not count:
                raise
            raise DataError(
                f"{given}: {count:,} images in class folders: a re-packaged subset, such as Kaggle's "
                "noamsegal/affectnet-training-data (29,042), not AffectNet (287,651). Read it with "
                f"FaceFolder; its test is not AffectNet's. Ask for it at {self.page}"
            ) from None
        forms = [any(any(root.glob(mark)) for mark in form.MARKS) for form in (lists, arrays)]
        if all(forms):
            raise DataError(f"{root} holds both forms of AffectNet; give a folder with one: {_LAYOUT}")
        return self._from_lists(root) if forms[0] else self._from_arrays(root)

    def _from_lists(self, root: Path) -> Index:
        listed = lists.read(root, self._keeps)
        paths, kept, notes = lists.find_images(root, listed, self.on_bad_image)
        rows = np.flatnonzero(kept).tolist()
        index = Index(
            dataset=f"affectnet-{self._labels}",
            taxonomy=self._taxonomy,
            names=distinct([listed.files[row] for row in rows]),
            paths=[paths[row] for row in rows],
            partition=listed.partition[kept],
            emotion=self._emotion(listed.expression[kept]),
            columns={"valence_arousal": listed.valence_arousal[kept]},
            boxes=listed.boxes[kept],
            variants=[self._variant("the lists", TRAIN, TEST)],
            notes=listed.notes + notes,
        )
        if not self.automatic:
            return index
        files, paths, boxes, notes = lists.automatic_faces(root, self.on_bad_image)
        index = index.with_unlabeled([f"automatic/{name}" for name in distinct(files)], paths, boxes)
        index.notes += notes
        return index

    def _from_arrays(self, root: Path) -> Index:
        if self.automatic or self.outside != "drop":
            raise DataError(
                f"{root} is the form of March 2021, which has no automatic half and no faces outside its "
                "emotions: leave automatic=false and outside=drop",
                option="data.dataset.automatic" if self.automatic else "data.dataset.outside",
            )
        faces = arrays.read(root, self.on_bad_image)
        kept = self._keeps(faces.expression, faces.valence_arousal)
        rows = np.flatnonzero(kept).tolist()
        return Index(
            dataset=f"affectnet2021-{self._labels}",
            taxonomy=self._taxonomy,
            names=[faces.names[row] for row in rows],
            paths=[faces.paths[row] for row in rows],
            partition=faces.partition[kept],
            emotion=self._emotion(faces.expression[kept]),
            columns={"valence_arousal": faces.valence_arousal[kept]},
            variants=[self._variant("the form of March 2021", TRAIN_2021, TEST_2021)],
            notes=faces.notes,
        )

    @property
    def _taxonomy(self) -> Taxonomy:
        return {7: AFFECTNET_7, 8: AFFECTNET_8}[self.classes]

    @property
    def _labels(self) -> str:
        return f"{self.classes}" if self.outside == "drop" else f"{self.classes}-{self.outside}"

    def _keeps(
        self, expression: npt.NDArray[np.int64], valence_arousal: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.bool_]:
        """Return (N,) which faces have an emotion of the taxonomy, or are kept for valence and arousal."""
        if self.outside == "drop":
            return expression < self.classes
        return (expression < self.classes) | ((expression <= NONE) & ~np.isnan(valence_arousal).any(1))

    def _emotion(self, expression: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return one_hot(np.where(expression < self.classes, expression, -1), self.classes)

    def _variant(self, name: str, train: tuple[int, ...], test: tuple[int, ...]) -> Variant:
        counts: Mapping[str, tuple[int, ...]] = {"train": train, "test": test}
        kept = self.classes if self.outside == "drop" else NONE + 1
        return Variant(
            f"AffectNet, {name}",
            {
                part: dict(zip(self._taxonomy.emotions, of_each, strict=False)) | {ALL: sum(of_each[:kept])}
                for part, of_each in counts.items()
            },
        )
