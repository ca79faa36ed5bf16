"""Fairness of the beliefs over the classes."""

import torch
from torch import Tensor


def self_adaptive_fairness(logits: Tensor, weight: Tensor, p: Tensor, h: Tensor) -> Tensor:
    """Return how unlike the running answers those of the accepted faces are spread over the classes.

    Wang et al., ICLR 2023 (FreeMatch), https://arxiv.org/abs/2205.07246, the self-adaptive fairness:
    ``sum_c SumNorm(p / h)_c log(SumNorm(p_bar / h_bar)_c + 1e-12)`` with the mean probability ``p_bar`` and
    the histogram ``h_bar`` of the accepted faces. It is added to the loss, so the answers are spread; the
    gradient flows through ``p_bar`` alone, and a class that no accepted face is answered with counts as 0.

    Args:
        logits: (B, C) of the strong views; half precision is computed in float32.
        weight: (B,) of 0 or 1: the accepted faces.
        p: (C,) running mean of the probabilities.
        h: (C,) running histogram of the beliefs.

    Returns:
        Scalar, float32 or better; 0 with a gradient of 0 if no face is accepted.
    """
    answer = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
    named = torch.nn.functional.one_hot(answer.argmax(-1), answer.shape[-1]).to(answer.dtype)
    accepted = weight.sum()
    faces = accepted.clamp(min=1)
    each = weight.to(answer.dtype)[:, None]
    # A product and a sum, not a matrix product: autocast would compute that in half precision.
    p_bar, h_bar = (each * answer).sum(0) / faces, (each * named).sum(0) / faces
    loss = (_share(p, h) * (_share(p_bar, h_bar) + 1e-12).log()).sum()
    return torch.where(accepted > 0, loss, 0.0)


def _share(p: Tensor, h: Tensor) -> Tensor:
    ratio = torch.where(h > 0, p / torch.where(h > 0, h, 1.0), 0.0)
    return ratio / ratio.sum().clamp(min=1e-6)
