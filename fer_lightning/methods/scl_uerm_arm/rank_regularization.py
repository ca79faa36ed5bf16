"""Rank regularization: the faces of a batch in two groups by the certainty of the network."""

import torch
from torch import Tensor


def high_group(certainty: Tensor, certain_share: float) -> Tensor:
    """Mark the ``M = int(beta N)`` most certain of N faces, (N,) bool.

    Self-Cure Network (Wang et al., CVPR 2020), https://arxiv.org/abs/2002.10392. If N > 1, neither group is
    ever empty; of equal faces the earlier ones are in the group.

    Args:
        certainty: (N,), higher for a more certain face.
        certain_share: beta, in [0, 1].
    """
    n = len(certainty)
    high = min(max(int(certain_share * n), 1), max(n - 1, 1))
    order = certainty.argsort(descending=True, stable=True)
    return torch.zeros_like(certainty, dtype=torch.bool).index_fill(0, order[:high], True)


def rank_regularization(certainty: Tensor, certain_share: float, margin: float) -> Tensor:
    """Penalize a certain group that is not more certain by a margin: ``max(0, delta_1 - (mean_H - mean_L))``.

    It keeps the importance weights of the Self-Cure Network from all becoming the same.

    Args:
        certainty: (N,) any float type.
        certain_share: beta, as in ``high_group``.
        margin: delta_1, between the means of the groups.

    Returns:
        Scalar, float32 or better; 0 with a gradient of 0 for fewer than two faces.
    """
    a = certainty.to(torch.promote_types(certainty.dtype, torch.float32))
    if len(a) < 2:
        return a.sum() * 0.0
    high = high_group(a, certain_share)
    mean_high = (a * high).sum() / high.sum()
    mean_low = (a * ~high).sum() / (~high).sum()
    return (margin - (mean_high - mean_low)).clamp(min=0)
