"""The typed batches that every method receives.

Images travel as uint8 and are normalized by the network that reads them: a quarter of the bytes between
worker, host and device, and the pre-processing is saved with the weights. Axes: V views, B faces, C emotions,
N faces of a set.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Target(NamedTuple):
    """Labels or pseudo-labels of a batch of faces. NaN means unknown."""

    emotion: Tensor
    """(B, C) float32 probabilities; a hard label is one-hot; a row of NaN is an unknown emotion."""
    valence_arousal: Tensor
    """(B, 2) float32 in [-1, 1]; NaN is unknown."""

    @property
    def label(self) -> Tensor:
        """(B,) int64, the most likely emotion, -1 where the emotion is unknown or the task has none."""
        if self.emotion.shape[-1] == 0:
            return self.emotion.new_full(self.emotion.shape[:-1], -1, dtype=torch.int64)
        known = ~self.emotion.isnan().any(-1)
        return torch.where(known, self.emotion.nan_to_num().argmax(-1), -1)


class Labeled(NamedTuple):
    """Labeled faces of a training batch."""

    weak: Tensor
    """(V, B, 3, H, W) uint8 RGB, weakly augmented."""
    target: Target
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which has no use here
    """(B,) int64 index in the labeled set, for memories and relabeled targets."""


class Unlabeled(NamedTuple):
    """Unlabeled faces of a training batch. Their true labels never enter a batch."""

    weak: Tensor
    """(V, B, 3, H, W) uint8 RGB, weakly augmented."""
    strong: Tensor
    """(V, B, 3, H, W) uint8 RGB, strongly augmented."""
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which has no use here
    """(B,) int64 index in the unlabeled set, for memories, histories and the audit."""


class Evaluated(NamedTuple):
    """Faces to validate, test or predict on, not augmented."""

    image: Tensor
    """(B, 3, H, W) uint8 RGB."""
    target: Target
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which has no use here
    """(B,) int64 index in the evaluated set; -1 fills a batch and must be left out."""
    group: Tensor
    """(B,) int64 number of the group in ``DataInfo.groups``; -1 where unknown."""


class Views(NamedTuple):
    """Number of views of each face that a method learns from: it declares them, the datamodule makes them."""

    labeled: int = 1
    """Weak views of each labeled face."""
    weak: int = 1
    """Weak views of each unlabeled face."""
    strong: int = 1
    """Strong views of each unlabeled face."""
    mirrored: bool = False
    """Whether every second weak view of an unlabeled face is mirrored and the others never are."""

    @property
    def unlabeled(self) -> bool:
        """Whether the method learns from unlabeled faces at all."""
        return self.weak + self.strong > 0


@dataclass(frozen=True)
class DataInfo:
    """The facts about its data that a method is given at setup; of unlabeled faces nothing but how many."""

    labeled: Target
    """(N, C) and (N, 2) labels of the run, in the order of ``Labeled.index``; with the label noise if any."""
    unlabeled_count: int
    """Number of unlabeled faces."""
    batch_size: int
    """Labeled faces of a global batch."""
    unlabeled_ratio: int
    """Unlabeled faces per labeled face in a batch."""
    labeled_loader: Callable[[], Iterable[Evaluated]]
    """Makes a loader over the labeled faces, once each, not augmented; each rank gets its part."""
    groups: tuple[str, ...] = ()
    """Names of the groups of people by which results are compared."""
    image_size: int | None = None
    """Side of the images in the batches, in pixels."""

    @property
    def counts(self) -> Tensor:
        """(C,) float32, labeled faces of each emotion; soft labels count by their probabilities."""
        return self.labeled.emotion.nan_to_num().sum(0)

    @property
    def prior(self) -> Tensor:
        """(C,) float32 shares of the emotions among the labels, with one more face of each."""
        return (self.counts + 1) / (self.counts + 1).sum()
