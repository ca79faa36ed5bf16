"""Data sets as their owners publish them: an index of labels and files first, pixels after."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.base import DataError, FaceDataset, Faces, Images
from fer_lightning.data.datasets.crops import Boxes, open_crops
from fer_lightning.data.datasets.decode import OnBadImage, decode_all
from fer_lightning.data.datasets.expected import Comparison, Variant, compare, count
from fer_lightning.emotions import Taxonomy

log = logging.getLogger(__name__)


@dataclass
class Index:
    """All that a reader knows about the faces before it opens an image. Row ``i`` is one face."""

    dataset: str
    """See ``Faces.dataset``."""
    taxonomy: Taxonomy
    names: list[str]
    paths: list[str]
    """(N,) image files."""
    partition: npt.NDArray[np.str_]
    emotion: npt.NDArray[np.float32]
    """(N, C), see ``Faces.emotion``."""
    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Those of the optional columns of ``Faces`` that are known."""
    images: Images | None = None
    """The faces, if they were read with the labels; then there are no ``paths``."""
    boxes: Boxes | None = None
    """(N, 4) of the faces in the pictures; None if the pictures are faces."""
    variants: Sequence[Variant] = ()
    """The published counts of this form."""
    notes: list[str] = field(default_factory=list)
    """What is unusual about this copy, in words."""

    def compare(self) -> Comparison:
        """Compare the counts with the published ones."""
        label = np.where(np.isnan(self.emotion).any(1), -1, np.nan_to_num(self.emotion).argmax(1))
        return compare(count(self.partition, label, self.taxonomy.emotions), self.variants)

    def with_unlabeled(self, names: list[str], paths: list[str], boxes: Boxes | None = None) -> "Index":
        """Return the index with a pool of unlabeled faces after its own."""
        more = len(names)
        columns = {}
        for name, values in self.columns.items():
            filler = np.full((more, *values.shape[1:]), np.nan if values.dtype.kind == "f" else "")
            columns[name] = np.concatenate([values, filler.astype(values.dtype)])
        if self.boxes is not None and boxes is not None:
            boxes = np.concatenate([self.boxes, boxes])
        return replace(
            self,
            names=self.names + names,
            paths=self.paths + paths,
            partition=np.concatenate([self.partition, np.full(more, "unlabeled")]),
            emotion=np.concatenate([self.emotion, np.full((more, len(self.taxonomy)), np.nan, np.float32)]),
            columns=columns,
            boxes=boxes,
        )


class ArchiveDataset(FaceDataset):
    """A data set that its owners publish; subclasses read its ``index``.

    Args:
        root: the unpacked archive, itself or in a wrapper.
        on_bad_image: ``stop`` at images that are missing or do not decode, or ``skip`` them with a warning.
        strict: whether other counts than the published ones are an error, and not a warning.
    """

    def __init__(self, root: str | Path, on_bad_image: OnBadImage = "stop", strict: bool = False) -> None:
        self.root = root
        self.on_bad_image = on_bad_image
        self.strict = strict

    @abstractmethod
    def index(self) -> Index:
        """Read labels and find files, without opening an image for its pixels.

        Raises:
            DataError: naming the file or line that is wrong, and what to do.
        """

    def load(self, image_size: int) -> Faces:
        """Read the index and the images, in memory if they fit and lazily otherwise.

        Args:
            image_size: side in pixels that every face is decoded to.

        Raises:
            DataError: naming the file or line that is wrong; with ``strict`` also if counts differ from the
                published ones.
        """
        index = self.index()
        warnings = index.compare().warnings
        if warnings and self.strict:
            raise DataError(f"{index.dataset}: {'; '.join(warnings)}", option="data.dataset.strict")
        for message in (*index.notes, *warnings):
            log.warning("%s: %s", index.dataset, message)
        kept: npt.NDArray[np.bool_] = np.ones(len(index.names), np.bool_)
        if index.images is not None:
            images = index.images
        elif index.boxes is None:
            images, kept = decode_all(index.paths, image_size, self.on_bad_image)
        else:
            images, kept = open_crops(index.paths, index.boxes, image_size, self.on_bad_image)
        return Faces(
            dataset=index.dataset,
            taxonomy=index.taxonomy,
            names=np.array(index.names)[kept],
            partition=index.partition[kept],
            emotion=index.emotion[kept],
            images=images,
            **{name: values[kept] for name, values in index.columns.items()},
        )
