"""Ranking of the faces of a batch by how certain a network is of them."""

import torch
from torch import Tensor


def high_group(certainty: Tensor, beta: float) -> Tensor:
    """Return which of N faces are the ``M = int(beta N)`` most certain, (N,) bool.

    Self-Cure Network (Wang et al., CVPR 2020), https://arxiv.org/abs/2002.10392. If N > 1, neither group is
    ever empty; of equal faces the earlier ones are in the group.

    Args:
        certainty: (N,), higher for a more certain face.
        beta: in [0, 1].
    """
    n = len(certainty)
    high = min(max(int(beta * n), 1), max(n - 1, 1))
    order = certainty.argsort(descending=True, stable=True)
    return torch.zeros_like(certainty, dtype=torch.bool).index_fill(0, order[:high], True)


def rank_regularization(certainty: Tensor, beta: float, delta_1: float) -> Tensor:
    """Ask the certain group to be more certain than the other: ``max(0, delta_1 - (mean_H - mean_L))``.

    It keeps the importance weights of the Self-Cure Network from all becoming the same.

    Args:
        certainty: (N,) any float type.
        beta: share of the certain group, as in ``high_group``.
        delta_1: margin between the means of the groups.

    Returns:
        Scalar, float32 or better; 0 with a gradient of 0 for fewer than two faces.
    """
    a = certainty.to(torch.promote_types(certainty.dtype, torch.float32))
    if len(a) < 2:
        return a.sum() * 0.0
    high = high_group(a, beta)
    mean_high = (a * high).sum() / high.sum()
    mean_low = (a * ~high).sum() / (~high).sum()
    return (delta_1 - (mean_high - mean_low)).clamp(min=0)
