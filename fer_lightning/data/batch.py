"""The typed batches that every method receives.

Images travel as uint8 and are normalised by the network that reads them: a quarter of the bytes between
worker, host and device, and the pre-processing is saved with the weights. Axes: V views, B faces, C emotions.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Target(NamedTuple):
    """What a face shows, or is believed to show. NaN means unknown."""

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
    """Labeled faces."""

    image: Tensor
    """(B, 3, H, W) uint8 RGB, weakly augmented; (V, B, 3, H, W) if the method asks for several views."""
    target: Target
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    """(B,) int64 position in the labeled set: feeds memories and relabelled targets."""


class Unlabeled(NamedTuple):
    """Unlabeled faces. Their truth never enters a batch."""

    weak: Tensor
    """(B, 3, H, W) uint8 RGB, or (V, B, 3, H, W) if the method asks for several weak views."""
    strong: Tensor
    """(B, 3, H, W) uint8 RGB, or (V, B, 3, H, W) if the method asks for several strong views."""
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    """(B,) int64 position in the unlabeled pool: feeds memories, histories and the audit."""


class Evaluated(NamedTuple):
    """Faces to validate, test or predict on, not augmented."""

    image: Tensor
    """(B, 3, H, W) uint8 RGB."""
    target: Target
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    """(B,) int64 position in the evaluated set."""


class Views(NamedTuple):
    """How many views of each face a method learns from: the method declares it, the datamodule reads it."""

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
