"""Negative learning from complementary labels, the emotions that a face does not show."""

import torch
from torch import Tensor


def negative_learning(logits: Tensor, negative: Tensor, guard: float = 1.0) -> Tensor:
    """Mean over the batch of ``-1 / |N_j| sum_{c in N_j} log(1 - p_jc)``.

    Rizve et al., ICLR 2021 (UPS), https://arxiv.org/abs/2101.06329, and the lower bound of 1e-7 in the
    logarithm of its code; a face without complementary labels adds nothing but counts in the mean.

    Args:
        logits: (B, C) any float type; half precision is computed in float32.
        negative: (B, C) bool, the complementary labels N_j.
        guard: labels whose probability exceeds it are left out of N_j; 1 leaves none out.

    Returns:
        Scalar, float32 or better; 0 with a gradient of 0 if there is no complementary label.
    """
    p = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
    # where, not a product with the mask: an unused p of 1 would give 0 times a huge gradient.
    counted = negative & (p.detach() <= guard)
    log_not = (1 - torch.where(counted, p, 0.0)).clamp(min=1e-7).log()
    return -(log_not.sum(-1) / counted.sum(-1).clamp(min=1)).sum() / max(len(p), 1)
