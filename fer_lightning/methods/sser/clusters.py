"""Clusters of the faces of a batch, in the place of labels for the triplet loss."""

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

ROUNDS = 5


def cluster_labels(rows: Tensor, label: Tensor, classes: int) -> Tensor:
    """Assign each face to the nearest of C cluster centers, by k-means that starts from the class means.

    Triplets from clusters of deep features are the idea of patent CN114529973A; k-means, its start and its
    ``ROUNDS`` rounds are ours. A class without a labeled face has no cluster.

    Args:
        rows: (N, D) of unit length, without gradient.
        label: (N,) int64 classes, -1 where unknown: such faces are assigned, but do not start a center.
        classes: C.

    Returns:
        (N,) int64 in [0, C); -1 everywhere if no label is known.
    """
    known = label >= 0
    member = one_hot(label.clamp(min=0), classes) * known[:, None]
    present = member.any(0)
    assigned = label
    for _ in range(ROUNDS):
        centers = normalize(member.to(rows).T @ rows, dim=1)
        # The nearest center of rows of unit length is that of the largest cosine.
        cosine = (rows @ centers.T).masked_fill(~present, -torch.inf)
        assigned = cosine.argmax(1)
        member = one_hot(assigned, classes)
        present = present & member.any(0)
    return torch.where(known.any(), assigned, -1)
