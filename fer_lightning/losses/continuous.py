"""Losses for valence and arousal; unknown values (NaN) never count. Half precision is computed in float32."""

from typing import NamedTuple

import torch
from torch import Tensor


def squared_error(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error, averaged over the dimensions.

    Args:
        prediction: (B, 2) in [-1, 1].
        target: (B, 2) in [-1, 1], NaN where unknown.
        weight: (B,) in [0, 1], then the mean is over all B rows; None for the mean over the known values.

    Returns:
        Scalar, float32 or better; 0 if nothing is known.
    """
    known = ~target.isnan()
    error = torch.where(known, _full(prediction) - target.nan_to_num(), 0.0).square()
    if weight is None:
        return error.sum() / known.sum().clamp(min=1)
    return (error * weight[:, None]).sum() / max(error.numel(), 1)


def concordance(prediction: Tensor, target: Tensor) -> Tensor:
    """Lin's concordance correlation coefficient (CCC) per dimension, over the rows where the target is known.

    ``2 cov(x, y) / (var(x) + var(y) + (mean(x) - mean(y))**2)`` with population moments (Lin, Biometrics
    1989).

    Args:
        prediction: (B, K).
        target: (B, K), NaN where unknown.

    Returns:
        (K,) float32 or better, in [-1, 1]; 0 for a dimension with fewer than two known rows or no spread.
    """
    m = _moments(prediction, target)
    spread = m.variance_x + m.variance_y + m.shift.square()
    # The floor keeps a batch without spread at 0 with a finite gradient.
    return torch.where(m.rows > 1, 2 * m.covariance / spread.clamp(min=1e-8), 0.0)


def pearson(prediction: Tensor, target: Tensor) -> Tensor:
    """Pearson's correlation coefficient (PCC) per dimension, over the rows where the target is known.

    Args:
        prediction: (B, K).
        target: (B, K), NaN where unknown.

    Returns:
        (K,) float32 or better, in [-1, 1]; 0 for a dimension where one side does not vary.
    """
    m = _moments(prediction, target)
    return m.covariance / (m.variance_x * m.variance_y).clamp(min=1e-8).sqrt()


def concordance_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """``1 - concordance``, averaged over the dimensions that have at least two known rows; 0 if none has."""
    counted = (~target.isnan()).sum(0) > 1
    return ((1 - concordance(prediction, target)) * counted).sum() / counted.sum().clamp(min=1)


class _Moments(NamedTuple):
    """Population moments of known rows, all (K,)."""

    rows: Tensor
    shift: Tensor
    variance_x: Tensor
    variance_y: Tensor
    covariance: Tensor


def _moments(prediction: Tensor, target: Tensor) -> _Moments:
    known = ~target.isnan()
    count = known.sum(0)
    rows = count.clamp(min=1)
    x = torch.where(known, _full(prediction), 0.0)
    y = torch.where(known, _full(target), 0.0)
    mean_x, mean_y = x.sum(0) / rows, y.sum(0) / rows
    dx, dy = (x - mean_x) * known, (y - mean_y) * known
    return _Moments(
        count,
        mean_x - mean_y,
        dx.square().sum(0) / rows,
        dy.square().sum(0) / rows,
        (dx * dy).sum(0) / rows,
    )


def _full(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
