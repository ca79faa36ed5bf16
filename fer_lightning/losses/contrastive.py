"""Supervised contrastive loss of projections."""

import torch
from torch import Tensor


def supervised_contrastive(
    projection: Tensor, label: Tensor, temperature: float, member: Tensor | None = None
) -> Tensor:
    """Mean over the members of the supervised contrastive loss: rows of one label attract each other.

    ``-1 / |P(i)| sum_{p in P(i)} log(exp(z_i . z_p / T) / sum_{a != i} exp(z_i . z_a / T))`` of a row i with
    positives P(i), the other members of its label.

    Khosla et al., NeurIPS 2020 (SupCon), https://arxiv.org/abs/2004.11362, eq. 2 (the mean over the positives
    outside the logarithm), without their factor of temperature over base temperature. Several views of a face
    are several rows of one label; NT-Xent (SimCLR) is this with the number of the face as label.

    Args:
        projection: (N, P) rows of unit length, P at least 1, any float type; computed in float32 or better.
        label: (N,) integers; rows of the same label are each other's positives.
        temperature: over 0.
        member: (N,) bool, the rows that take part as anchor, positive or negative; None for all.

    Returns:
        Scalar, float32 or better. A member without positives counts as 0; 0 with a gradient of 0 if no row
        has positives.

    Raises:
        ValueError: if the projection has no columns: the loss would be a constant that learns nothing.
    """
    if projection.shape[-1] == 0:
        raise ValueError("supervised_contrastive got a projection of width 0; give the network a projection")
    member = torch.ones_like(label, dtype=torch.bool) if member is None else member
    # Autocast would multiply in half precision, where similarities over a temperature are too coarse.
    with torch.autocast(projection.device.type, enabled=False):
        h = projection.to(torch.promote_types(projection.dtype, torch.float32))
        similarity = h @ h.T / temperature
    itself = torch.eye(len(h), dtype=torch.bool, device=h.device)
    others = member & member[:, None] & ~itself
    # The lowest number instead of -inf: a row without others has a finite gradient, of 0 below.
    log_p = similarity.masked_fill(~others, torch.finfo(h.dtype).min).log_softmax(-1)
    positive = others & (label == label[:, None])
    row = -torch.where(positive, log_p, 0.0).sum(-1) / positive.sum(-1).clamp(min=1)
    return row.sum() / member.sum().clamp(min=1)
