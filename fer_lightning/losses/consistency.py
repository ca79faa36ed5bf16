"""Squared difference of two distributions over the emotions (MSE consistency)."""

import torch
from torch import Tensor


def squared_difference(p: Tensor, q: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over the batch of ``weight * mean_c (p_c - q_c)^2``.

    The consistency loss of Mean Teacher (Tarvainen and Valpola 2017, https://arxiv.org/abs/1703.01780) and
    the unlabeled loss of MixMatch (Berthelot et al. 2019, https://arxiv.org/abs/1905.02249, eq. 4). The mean
    is over all B rows after weighting; a row whose target is unknown (NaN) counts as rejected.

    Args:
        p: (B, C) probabilities, any float type; computed in float32 or better.
        q: (B, C) probabilities, the target; NaN rows are unknown.
        weight: (B,) in [0, 1]; None for 1 everywhere.

    Returns:
        Scalar, float32 or better; 0 with a gradient of 0 if no row counts.
    """
    p = p.to(torch.promote_types(p.dtype, torch.float32))
    known = ~q.isnan().any(-1, keepdim=True)
    error = torch.where(known, p - torch.where(known, q, 0.0), 0.0).square()
    if weight is not None:
        error = error * weight[:, None]
    return error.sum() / max(error.numel(), 1)
