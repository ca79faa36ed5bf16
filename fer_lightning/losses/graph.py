"""Contrast of two views by a graph of what is believed of the faces (CoMatch)."""

import torch
from torch import Tensor

from fer_lightning.losses.classification import soft_cross_entropy


def pseudo_label_graph(probability: Tensor, threshold: float) -> Tensor:
    """Connect faces believed to show the same emotion.

    ``W_ij = p_i . p_j`` where it reaches the threshold, else 0, and ``W_ii = 1``; rows are normalised. Li et
    al., ICCV 2021 (CoMatch), https://arxiv.org/abs/2011.11183, eq. 8.

    Args:
        probability: (B, C) float32.
        threshold: in [0, 1]; over 1 every face is connected to itself alone.

    Returns:
        (B, B), rows of a sum of 1.
    """
    with torch.autocast(probability.device.type, enabled=False):
        w = probability @ probability.T
    itself = torch.eye(len(w), dtype=torch.bool, device=w.device)
    w = torch.where(w >= threshold, w, 0.0).masked_fill(itself, 1.0)
    return w / w.sum(-1, keepdim=True)


def graph_contrastive(first: Tensor, second: Tensor, graph: Tensor, temperature: float) -> Tensor:
    """Mean over the faces of the cross-entropy between the graph and that of two views' embeddings.

    ``-1/B sum_i sum_j Q_ij log S_ij`` with ``S_ij = softmax_j(z_i . z'_j / t)``; Li et al., ICCV 2021
    (CoMatch), https://arxiv.org/abs/2011.11183, eqs. 9-11. Their code adds 1e-7 inside the logarithm, which a
    logarithm of the softmax does not need.

    Args:
        first: (B, P) embeddings of one view, of unit length, any float type; computed in float32 or better.
        second: (B, P) of the other view.
        graph: (B, B), rows of a sum of 1; without gradient.
        temperature: t, over 0.

    Returns:
        Scalar, float32 or better; 0 without faces.
    """
    # Autocast would multiply in half precision, where similarities over a temperature are too coarse.
    with torch.autocast(first.device.type, enabled=False):
        dtype = torch.promote_types(first.dtype, torch.float32)
        similarity = first.to(dtype) @ second.to(dtype).T / temperature
    return soft_cross_entropy(similarity, graph)
