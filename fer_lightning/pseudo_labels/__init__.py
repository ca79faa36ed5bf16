"""What a method believes about the unlabeled faces of a batch."""

from typing import NamedTuple

import torch
from torch import Tensor

from fer_lightning.data.batch import Target


class PseudoLabels(NamedTuple):
    """Beliefs about B unlabeled faces: the method learns them, the audit holds them against the truth."""

    target: Target
    """What each face is believed to show; one-hot for a hard pseudo-label."""
    weight: Tensor
    """(B,) float32 in [0, 1]: how much each belief counts; 0 is rejected."""
    confidence: Tensor
    """(B,) float32 in [0, 1]: probability the method gives to its own belief being right."""
    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    """(B,) int64 position in the unlabeled pool."""
    threshold: Tensor
    """(C,) float32: confidence a belief in each emotion had to reach; NaN where there is no threshold."""
    negative: Tensor | None = None
    """(B, C) bool: the emotions a face is believed not to show; None for a method without such beliefs."""


def hard_labels(probability: Tensor, threshold: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Believe the most likely emotion wherever it is likely enough.

    Args:
        probability: (B, C) float32.
        threshold: one number, or (C,) one per emotion; reached at equality.

    Returns:
        (B, C) one-hot label, (B,) weight of 0 or 1, (B,) confidence.
    """
    confidence, label = probability.max(-1)
    thresholds = torch.as_tensor(threshold, device=probability.device, dtype=probability.dtype)
    needed = thresholds.expand(probability.shape[-1])[label]
    one_hot = torch.nn.functional.one_hot(label, probability.shape[-1]).to(probability.dtype)
    return one_hot, (confidence >= needed).to(probability.dtype), confidence


def sharpen(probability: Tensor, temperature: float) -> Tensor:
    """Return ``p_c^(1/T) / sum_k p_k^(1/T)``, lower in entropy the lower the temperature.

    MixMatch (Berthelot et al. 2019, https://arxiv.org/abs/1905.02249, eq. 7).

    Args:
        probability: (B, C) float32.
        temperature: T, over 0; 1 changes nothing.
    """
    # As a softmax of logarithms nothing underflows, whatever the temperature.
    return (probability.clamp(min=torch.finfo(probability.dtype).tiny).log() / temperature).softmax(-1)
