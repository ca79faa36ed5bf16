"""Losses for valence and arousal; unknown values (NaN) never count."""

import torch
from torch import Tensor


def squared_error(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error, averaged over the dimensions.

    Args:
        prediction: (B, 2) in [-1, 1].
        target: (B, 2) in [-1, 1], NaN where unknown.
        weight: (B,) in [0, 1], then the mean is over all B rows; None for the mean over the known values.

    Returns:
        Scalar float32; 0 if nothing is known.
    """
    known = ~target.isnan()
    error = torch.where(known, prediction.float() - target.nan_to_num(), 0.0).square()
    if weight is None:
        return error.sum() / known.sum().clamp(min=1)
    return (error * weight[:, None]).sum() / max(error.numel(), 1)


def concordance(prediction: Tensor, target: Tensor) -> Tensor:
    """Lin's concordance correlation coefficient per dimension, over the rows where both values are known.

    ``2 cov(x, y) / (var(x) + var(y) + (mean(x) - mean(y))**2)`` with population moments (Lin 1989).

    Args:
        prediction: (B, K).
        target: (B, K), NaN where unknown.

    Returns:
        (K,) float32 in [-1, 1]; 0 for a dimension with fewer than two known rows or no spread at all.
    """
    known = ~target.isnan()
    count = known.sum(0).clamp(min=1)
    x = torch.where(known, prediction.float(), 0.0)
    y = torch.where(known, target, 0.0).float()
    mean_x, mean_y = x.sum(0) / count, y.sum(0) / count
    dx, dy = (x - mean_x) * known, (y - mean_y) * known
    covariance = (dx * dy).sum(0) / count
    spread = (dx.square().sum(0) + dy.square().sum(0)) / count + (mean_x - mean_y).square()
    # The floor keeps a batch without spread at 0 with a finite gradient.
    return torch.where(known.sum(0) > 1, 2 * covariance / spread.clamp(min=1e-8), torch.zeros_like(spread))


def concordance_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """``1 - concordance``, averaged over the dimensions that have at least two known rows; 0 if none has."""
    counted = (~target.isnan()).sum(0) > 1
    return ((1 - concordance(prediction, target)) * counted).sum() / counted.sum().clamp(min=1)
