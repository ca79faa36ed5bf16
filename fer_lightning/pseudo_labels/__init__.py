"""What a method believes about the unlabeled faces of a batch."""

from typing import NamedTuple

import torch
from torch import Tensor

from fer_lightning.data.batch import Target
from fer_lightning.task import as_target


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


def make_pseudo_labels(
    index: Tensor,
    probability: Tensor,
    valence_arousal: Tensor,
    threshold: float | Tensor | None,
    soft: Tensor | None = None,
) -> PseudoLabels:
    """Believe the most likely emotion of each face wherever it is likely enough.

    Args:
        index: (B,) int64 positions of the faces in the unlabeled pool.
        probability: (B, C) float32.
        valence_arousal: (B, 2) float32, believed wherever the emotion is; (B, 0) if nobody asks for it.
        threshold: one number, or (C,) one per emotion; reached at equality. None believes every face.
        soft: (B, C) float32, to be learnt in the place of the one-hot label.
    """
    confidence, label = probability.max(-1)
    classes = probability.shape[-1]
    needed = torch.as_tensor(torch.nan if threshold is None else threshold).to(probability).expand(classes)
    weight = confidence >= (0.0 if threshold is None else needed[label])
    target = torch.nn.functional.one_hot(label, classes) if soft is None else soft
    return PseudoLabels(
        as_target(target, valence_arousal), weight.to(probability), confidence, index, needed.clone()
    )


def sharpen(probability: Tensor, temperature: float) -> Tensor:
    """Return ``p_c^(1/T) / sum_k p_k^(1/T)``, lower in entropy the lower the temperature.

    MixMatch (Berthelot et al. 2019, https://arxiv.org/abs/1905.02249, eq. 7).

    Args:
        probability: (B, C) float32.
        temperature: T, over 0; 1 changes nothing.
    """
    # As a softmax of logarithms nothing underflows, whatever the temperature.
    return (probability.clamp(min=torch.finfo(probability.dtype).tiny).log() / temperature).softmax(-1)
