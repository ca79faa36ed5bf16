"""The form of every data set: an index of faces, and their pixels, held once."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fer_lightning.emotions import Taxonomy
from fer_lightning.errors import InputError

Partition = Literal["train", "val", "test", "unlabeled"]
"""The data set's own part of a face. ``train`` faces may carry a label, ``unlabeled`` ones never do."""

Texts = npt.NDArray[np.object_]
"""(N,) str each. Of dtype object: a row of fixed width is as wide as the longest text of all, and NumPy's
``StringDType`` cannot hold the names of files that are not valid Unicode."""


class DataError(InputError):
    """The data on disk do not fit the options; the message names the file or row, and the remedy."""


class Images(Protocol):
    """Pixels by row of the index."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, row: int) -> npt.NDArray[np.uint8]:
        """Return one image, (H, W, 3) uint8 RGB."""
        ...


class ArrayImages:
    """Decoded images of one size in one uint8 tensor, (N, H, W) gray or (N, H, W, 3) RGB.

    A tensor rather than an array because torch moves a tensor into shared memory when it crosses into a
    worker: every worker reads the same bytes, whether it was forked or spawned.
    """

    def __init__(self, pixels: npt.NDArray[np.uint8] | Tensor) -> None:
        self.pixels = torch.as_tensor(pixels)
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim not in (3, 4):
            raise ValueError(
                f"expected uint8 (N, H, W) or (N, H, W, 3), got {pixels.dtype} {tuple(pixels.shape)}"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pixels)

    def __getitem__(self, row: int) -> npt.NDArray[np.uint8]:
        """Return one image, (H, W, 3) uint8 RGB; gray is repeated over the channels."""
        image: npt.NDArray[np.uint8] = self.pixels[row].numpy()
        return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image


@dataclass
class Faces:
    """An index of faces. Row ``i`` of every field is the same face."""

    dataset: str
    """Name of the data set, with all that changes its labels: ``"ferplus-majority-8"``."""
    taxonomy: Taxonomy
    """The order of the columns of ``emotion``."""
    names: Texts
    """(N,) unique and stable: a split manifest stores them."""
    partition: npt.NDArray[np.str_]
    """(N,) one of ``Partition``."""
    emotion: npt.NDArray[np.float32]
    """(N, C) probabilities, one-hot for hard labels; a NaN row has no label."""
    images: Images
    valence_arousal: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 2), np.float32))
    """(N, 2) in [-1, 1]; NaN where unknown (all of it by default)."""
    subject: Texts = field(default_factory=lambda: np.empty(0, np.object_))
    """(N,) person in the image, "" where unknown (the default)."""
    group: Texts = field(default_factory=lambda: np.empty(0, np.object_))
    """(N,) attribute by which results of groups of people are compared, "" where unknown (the default)."""
    clip: Texts = field(default_factory=lambda: np.empty(0, np.object_))
    """(N,) sequence or video clip that the image is a frame of, "" where unknown (the default)."""
    source: Texts = field(default_factory=lambda: np.empty(0, np.object_))
    """(N,) film or video that the clip was cut from, "" where unknown (the default)."""

    def __post_init__(self) -> None:
        """Fill the optional columns and require that every column has a row for each face."""
        n = len(self.names)
        if not len(self.valence_arousal):
            self.valence_arousal = np.full((n, 2), np.nan, np.float32)
        for name in ("subject", "group", "clip", "source"):
            if not len(getattr(self, name)):
                setattr(self, name, np.full(n, ""))
        for name in ("names", "subject", "group", "clip", "source"):
            setattr(self, name, np.asarray(getattr(self, name), np.object_))
        columns = [name for name in self.__dataclass_fields__ if name not in _NOT_COLUMNS]
        lengths = {name: len(getattr(self, name)) for name in columns}
        if set(lengths.values()) != {n}:
            raise DataError(f"{self.dataset}: columns of different length: {lengths}")
        if self.emotion.shape != (n, len(self.taxonomy)):
            raise DataError(f"{self.dataset}: emotion is {self.emotion.shape}, not {(n, len(self.taxonomy))}")
        if n == 0:
            raise DataError(f"{self.dataset}: no faces")
        unique, count = np.unique(self.names, return_counts=True)
        if len(unique) != n:
            raise DataError(
                f"{self.dataset}: the name {str(unique[count.argmax()])!r} names {count.max()} faces"
            )

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.names)

    @property
    def label(self) -> npt.NDArray[np.int64]:
        """(N,) number of the most likely emotion in the taxonomy, -1 for a face without a label."""
        known = ~np.isnan(self.emotion).any(1)
        if not len(self.taxonomy):
            return np.full(len(self), -1)
        return np.where(known, np.nan_to_num(self.emotion).argmax(1), -1)

    def emotion_in(self, taxonomy: Taxonomy) -> npt.NDArray[np.float32]:
        """Return ``emotion`` with its columns in the order of another taxonomy, matched by name.

        Raises:
            UnknownEmotion: if a face carries an emotion the other taxonomy does not hold.
        """
        moved = np.zeros((len(self), len(taxonomy)), np.float32)
        moved[np.isnan(self.emotion).any(1)] = np.nan
        for column, emotion in enumerate(self.taxonomy.emotions):
            if emotion in taxonomy.emotions:
                known = ~np.isnan(self.emotion[:, column])
                moved[known, taxonomy.index(emotion)] = self.emotion[known, column]
            elif len(taxonomy) and np.nansum(self.emotion[:, column]) > 0:
                taxonomy.index(emotion)  # raises, naming both
        return moved


_NOT_COLUMNS = {"dataset", "taxonomy", "images"}


class FaceDataset(ABC):
    """A data set in its official layout on disk: options in ``__init__``, all reading in ``load``."""

    license: str = "unknown"
    """Terms under which the faces may be used; the record of a run holds them."""
    page: str = ""
    """Where their owners give them out or are asked for them; "" for faces of your own."""

    @abstractmethod
    def load(self, image_size: int) -> Faces:
        """Read the index; decode small sets into memory, once.

        Args:
            image_size: side in pixels that images of mixed sizes are decoded to.

        Raises:
            DataError: naming the file or row that is wrong, and what to do.
        """


def one_hot(label: npt.NDArray[np.integer] | Sequence[int], classes: int) -> npt.NDArray[np.float32]:
    """Turn (N,) labels into (N, C) probabilities; a negative label becomes a row of NaN."""
    label = np.asarray(label)
    rows: npt.NDArray[np.float32] = np.eye(classes, dtype=np.float32)[label.clip(0)]
    rows[label < 0] = np.nan
    return rows


def require(path: Path, what: str) -> Path:
    """Return ``path`` if it exists.

    Raises:
        DataError: if it does not, naming what was expected there.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; expected {what} there")
    return path
