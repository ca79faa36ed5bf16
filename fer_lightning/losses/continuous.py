"""Losses for valence and arousal.

Unknown values (NaN) never count. Half precision is computed in float32.
"""

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
    rows, x, y, shift = _centered(prediction, target)
    # Both sides in units of their largest deviation: squares of small numbers underflow, and a floor under
    # them would depend on the unit. CCC does not, so neither does the gradient miss what is detached here.
    unit = torch.maximum(torch.maximum(_largest(x), _largest(y)), shift.detach().abs())
    counts = (rows > 1) & (unit > 0)
    unit = torch.where(counts, unit, 1.0)
    x, y, shift = x / unit, y / unit, shift / unit
    spread = (x.square() + y.square()).sum(0) / rows + shift.square()
    return torch.where(counts, 2 * (x * y).sum(0) / rows / torch.where(counts, spread, 1.0), 0.0)


def pearson(prediction: Tensor, target: Tensor) -> Tensor:
    """Pearson's correlation coefficient (PCC) per dimension, over the rows where the target is known.

    Args:
        prediction: (B, K).
        target: (B, K), NaN where unknown.

    Returns:
        (K,) float32 or better, in [-1, 1]; 0, with a gradient of 0, for a dimension where one side does not
        vary.
    """
    _, x, y, _ = _centered(prediction, target)
    unit_x, unit_y = _largest(x), _largest(y)
    varies = (unit_x > 0) & (unit_y > 0)
    x, y = x / torch.where(varies, unit_x, 1.0), y / torch.where(varies, unit_y, 1.0)
    product = torch.where(varies, x.square().sum(0) * y.square().sum(0), 1.0)
    return torch.where(varies, (x * y).sum(0) / product.sqrt(), 0.0)


def concordance_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of ``1 - concordance`` over the dimensions that have at least two known rows; 0 if none has."""
    counted = (~target.isnan()).sum(0) > 1
    return ((1 - concordance(prediction, target)) * counted).sum() / counted.sum().clamp(min=1)


def _centered(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Take the means of the known rows out of both sides.

    Returns:
        (K,) number of known rows, at least 1; (B, K) deviations of the prediction and of the target from
        their means, 0 in unknown rows; (K,) difference of the means.
    """
    known = ~target.isnan()
    rows = known.sum(0).clamp(min=1)
    x, lowest_x = _from_lowest(_full(prediction), known)
    y, lowest_y = _from_lowest(_full(target), known)
    mean_x, mean_y = x.sum(0) / rows, y.sum(0) / rows
    shift = lowest_x - lowest_y + mean_x - mean_y
    return rows, (x - mean_x) * known, (y - mean_y) * known, shift


def _from_lowest(x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, K) known values less the lowest of their dimension, and the (K,) lowest.

    So the deviations of equal values are exactly 0, where a rounded mean would leave a spread.
    """
    at_hand = torch.where(known, x.detach(), torch.inf)
    lowest = torch.cat([at_hand, at_hand.new_full((1, x.shape[1]), torch.inf)]).amin(0)
    lowest = torch.where(lowest.isinf(), 0.0, lowest)
    return torch.where(known, x - lowest, 0.0), lowest


def _largest(deviation: Tensor) -> Tensor:
    """Return the (K,) largest size of (B, K) deviations, without gradient; 0 if there is no row."""
    size = deviation.detach().abs()
    return torch.cat([size, size.new_zeros(1, size.shape[1])]).amax(0)


def _full(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
