"""Confidence margins per emotion, set by the labeled faces that are predicted correctly and by the epochs."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from fer_lightning.distributed import total

Predictions = Iterable[tuple[Tensor, Tensor]]
"""Batches of (B, C) float32 probabilities and (B,) int64 labels."""


def correct_confidence(predictions: Predictions) -> tuple[Tensor, Tensor]:
    """Sum up the confidence in the labeled faces that are predicted correctly, over batches and ranks.

    Args:
        predictions: for labeled faces; a label of -1 is never predicted correctly.

    Returns:
        (C,) sums of the highest probability over ``S_c = {i : argmax p_i = y_i = c}``, and the (C,) sizes of
        ``S_c``; equal on all ranks.
    """
    parts = []
    for p, label in predictions:
        confidence, predicted = p.max(-1)
        right = torch.nn.functional.one_hot(predicted, p.shape[-1]) * (predicted == label)[:, None]
        parts.append(torch.stack([(right * confidence[:, None]).sum(0), right.sum(0).to(p.dtype)]))
    sums, counts = total(torch.stack(parts).sum(0))[0]
    return sums, counts


def ramp(epoch: int, max_margin: float = 0.97, base: float = math.e) -> float:
    """Return ``beta / (1 + gamma**-t)``, which rises over the epochs t = 1, 2, ... to ``beta``.

    Li et al., CVPR 2022 (Ada-CM), https://arxiv.org/abs/2203.12341, and its code.

    Args:
        epoch: t, from 1.
        max_margin: beta.
        base: gamma, above 1.
    """
    return max_margin / (1 + base**-epoch)


def class_margin(
    confidence: Tensor,
    epoch: int,
    max_margin: float = 0.97,
    base: float = math.e,
    min_margin: float = 0.8,
) -> Tensor:
    """Return ``max(min_margin, beta / (1 + gamma**-t) confidence)`` per emotion (Ada-CM).

    Args:
        confidence: (C,) in [0, 1], mean confidence in the faces predicted correctly; 0 for an emotion without
            any.
        epoch: t, from 1.
        max_margin: beta, the highest margin, of full confidence after many epochs, in [0, 1].
        base: gamma, how fast the ramp rises; above 1.
        min_margin: the lowest margin, in [0, 1].
    """
    return (confidence * ramp(epoch, max_margin, base)).clamp(min=min_margin)
