"""Entropy of predictions, for entropy minimization."""

import torch
from torch import Tensor


def entropy(logits: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over the batch of ``weight H(p)``, ``H(p) = -sum_c p_c log p_c``, p the softmax of the logits.

    Grandvalet and Bengio, "Semi-supervised Learning by Entropy Minimization", NeurIPS 2004. The mean is over
    all B rows after weighting, so that rejected faces dilute the loss.

    Args:
        logits: (B, C) any float type; half precision is computed in float32.
        weight: (B,) in [0, 1]; None for 1.

    Returns:
        Scalar, float32 or better, in [0, log C]; 0 for an empty batch.
    """
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    row = -(log_p.exp() * log_p).sum(-1)
    return (row if weight is None else row * weight).sum() / max(len(row), 1)
