"""Pseudo-labels of a batch of unlabeled faces, and what methods share to make them."""

from typing import NamedTuple

import torch
from torch import Tensor

from fer_lightning.data.batch import Target
from fer_lightning.task import Output, as_target


class PseudoLabels(NamedTuple):
    """Pseudo-labels of B unlabeled faces, learned by the method and compared with the truth by the audit."""

    target: Target
    """Pseudo-label of each face; one-hot for a hard one."""
    weight: Tensor
    """(B,) float32 in [0, 1]: weight of each pseudo-label in the loss; 0 is rejected."""
    confidence: Tensor
    """(B,) float32 in [0, 1]: probability that the method gives to its own pseudo-label."""
    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    """(B,) int64 index in the unlabeled set."""
    threshold: Tensor
    """(C,) float32: confidence that a pseudo-label of each emotion had to reach; NaN where there is none."""
    negative: Tensor | None = None
    """(B, C) bool: complementary labels, the emotions a face is taken not to show; None for other methods."""
    outputs: tuple[Output, ...] = ()
    """Outputs on the weak views, for methods that learn or keep something from them; with gradient only if
    the method's ``gradient_through_weak_views`` is set."""
    similarity: Tensor | None = None
    """(B, N) float32: target distribution over the N labeled faces (SimMatch); None for other methods."""


def make_pseudo_labels(
    index: Tensor,
    probability: Tensor,
    valence_arousal: Tensor,
    threshold: float | Tensor | None,
    soft: Tensor | None = None,
    outputs: tuple[Output, ...] = (),
) -> PseudoLabels:
    """Make pseudo-labels of the most likely emotions, accepted where their probability reaches a threshold.

    Args:
        index: (B,) int64 indices of the faces in the unlabeled set.
        probability: (B, C) float32.
        valence_arousal: (B, 2) float32, accepted wherever the emotion is; (B, 0) for a task without them.
        threshold: one number, or (C,) one per emotion; reached at equality. None accepts every face.
        soft: (B, C) float32, a soft pseudo-label to learn in the place of the one-hot one.
        outputs: kept in the result.
    """
    confidence, label = probability.max(-1)
    classes = probability.shape[-1]
    needed = torch.as_tensor(torch.nan if threshold is None else threshold).to(probability).expand(classes)
    weight = confidence >= (0.0 if threshold is None else needed[label])
    target = torch.nn.functional.one_hot(label, classes) if soft is None else soft
    return PseudoLabels(
        as_target(target, valence_arousal),
        weight.to(probability),
        confidence,
        index,
        needed.clone(),
        outputs=outputs,
    )


def sharpen(probability: Tensor, temperature: float) -> Tensor:
    """Sharpen probabilities: ``p_c^(1/T) / sum_k p_k^(1/T)``, lower in entropy the lower the temperature.

    MixMatch (Berthelot et al. 2019, https://arxiv.org/abs/1905.02249, eq. 7).

    Args:
        probability: (B, C) float32.
        temperature: T, above 0; 1 changes nothing.
    """
    # As a softmax of logarithms nothing underflows, whatever the temperature.
    return (probability.clamp(min=torch.finfo(probability.dtype).tiny).log() / temperature).softmax(-1)
