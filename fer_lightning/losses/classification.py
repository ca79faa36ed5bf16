"""Cross-entropy against distributions."""

import torch
from torch import Tensor


def soft_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over the batch of ``-weight * sum_c target_c log softmax(logits)_c``.

    The mean is taken over all B rows after weighting, so rejected faces dilute the loss; FixMatch (Sohn et
    al. 2020, arXiv 2001.07685, eq. 4) divides so, and a few early pseudo-labels weigh little. Rows whose
    target is unknown (NaN) count as rejected when weighted; in the unweighted, supervised case they are left
    out of the mean.

    Args:
        logits: (B, C) any float type; half precision is computed in float32.
        target: (B, C) probabilities; NaN rows are unknown.
        weight: (B,) in [0, 1], or None for the supervised mean over known rows.

    Returns:
        Scalar, float32 or better; 0 with a gradient of 0 if no row counts.
    """
    known = ~target.isnan().any(-1)
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    row = -(torch.where(known[:, None], target, 0.0) * log_p).sum(-1)
    if weight is None:
        return row.sum() / known.sum().clamp(min=1)
    return (row * weight * known).sum() / max(len(row), 1)
