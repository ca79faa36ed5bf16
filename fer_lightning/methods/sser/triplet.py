"""Triplet loss on activation matrices: distances of images follow the distances of their labels."""

from typing import Literal

import torch
from torch import Tensor

Form = Literal["activation", "gram", "pooled"]
Mining = Literal["all", "hard"]

BATCH_ALL = 192
"""Number of images up to which all triplets of labels with distances are computed, as many as its cube."""


def activation_matrix(maps: Tensor, form: Form = "activation") -> Tensor:
    """Encode the activation channels of each image as one matrix of Frobenius norm 1, flattened to a row.

    Args:
        maps: (B, K, h, w) activations of any float type; half precision is computed in float32.
        form: ``activation`` is the K x hw matrix whose rows are the channels; ``gram`` its K x K product with
            its own transpose, which forgets where a channel fires; ``pooled`` the K means of the channels.

    Returns:
        (B, D) float32 or better, D = K h w, K K or K; zeros for an image without any activation.
    """
    with torch.autocast(maps.device.type, enabled=False):
        matrix = maps.to(torch.promote_types(maps.dtype, torch.float32)).flatten(2)
        if form == "gram":
            matrix = matrix @ matrix.mT
        elif form == "pooled":
            matrix = matrix.mean(2)
        return torch.nn.functional.normalize(matrix.flatten(1), dim=1, eps=1e-6)


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return squared Euclidean distances between rows of length 1, by one matrix product.

    Args:
        a: (N, D) rows of length 1, float32 or better.
        b: (M, D) rows of length 1, any float type; computed in that of ``a``.

    Returns:
        (N, M) in [0, 4]; in [0, 2] where all activations are at least 0, as after a ReLU.
    """
    with torch.autocast(a.device.type, enabled=False):
        return (2 - 2 * a @ b.to(a.dtype).mT).clamp(min=0)


def class_distance(label: Tensor) -> Tensor:
    """Return the distance between classes: 0 if they are the same and 1 if not.

    Args:
        label: (N,) int64, -1 for an unknown class.

    Returns:
        (N, N) float32, NaN for a pair with an unknown class.
    """
    known = label >= 0
    rho = (label[:, None] != label).float()
    return rho.masked_fill(~(known[:, None] & known), torch.nan)


def triplet_loss(
    distance: Tensor,
    rho: Tensor,
    margin: float = 0.2,
    eps_rho: float = 0.05,
    mining: Mining | None = None,
    classes: bool = False,
) -> Tensor:
    """Mean over the active triplets of ``[d_ap - d_an + margin (rho_an - rho_ap)]_+``.

    A triplet is an anchor a and two other images p and n with ``rho_an - rho_ap > eps_rho``; it is active if
    its value is above 0. For classes (rho of 0 or 1) this is the triplet loss of FaceNet (Schroff et al.,
    CVPR 2015, https://arxiv.org/abs/1503.03832, eq. 1); for labels with distances the margin grows with
    their gap. All triplets of the batch take part, or for each anchor the one of the largest value, as in
    the batch-all and batch-hard losses of Hermans et al. 2017, https://arxiv.org/abs/1703.07737.

    Args:
        distance: (N, N) between images.
        rho: (N, N) between labels, in [0, 1], without gradient; NaN for pairs in no triplet.
        margin: of labels at distance 1, at least 0.
        eps_rho: gap between labels that must be exceeded.
        mining: ``all`` takes 3 N^3 bytes, ``hard`` a few matrices of N x N; None for ``all`` up to
            ``BATCH_ALL`` images and ``hard`` above.
        classes: rho is 0, 1 or NaN and ``eps_rho`` below 1. All triplets are then counted by sorting, in
            N^2 log N steps and a few matrices of N x N, and None is ``all`` with any number of images.

    Returns:
        Scalar; 0 with a gradient of 0 if no triplet is active.
    """
    rho = _without_self(rho)
    # The value of a triplet is s_ap - s_an.
    s = torch.where(rho.isnan(), 0.0, distance - margin * rho)
    if (mining or ("all" if classes or len(rho) <= BATCH_ALL else "hard")) == "hard":
        value = _hardest(s, rho, eps_rho)
        return value.sum() / (value > 0).sum().clamp(min=1)
    with torch.no_grad():
        # Each s counts as often as it stands for a positive less as often as for a negative: nothing of
        # size N^3 is kept for the backward pass.
        as_positive, as_negative = _active_of_classes(s, rho) if classes else _active(s, rho, eps_rho)
        count = as_positive.sum().clamp(min=1)
    return (s * (as_positive - as_negative)).sum() / count


def active_share(
    distance: Tensor, rho: Tensor, margin: float = 0.2, eps_rho: float = 0.05, classes: bool = False
) -> Tensor:
    """Return the share of all triplets that is active, a scalar; 0 if there are none.

    Args:
        distance: see ``triplet_loss``, as all of the next.
        rho: between labels.
        margin: of labels at distance 1.
        eps_rho: gap between labels that must be exceeded.
        classes: rho is 0, 1 or NaN.
    """
    rho = _without_self(rho)
    s = distance - margin * rho
    if classes:
        active, _ = _active_of_classes(s, rho)
        triplets = (rho == 0).sum(1) * (rho == 1).sum(1)
    else:
        active, _ = _active(s, rho, eps_rho)
        triplets = _triplets(rho, eps_rho)
    return active.sum() / triplets.sum().clamp(min=1)


def _without_self(rho: Tensor) -> Tensor:
    """Return rho with NaN on its diagonal: no image is its own positive or negative."""
    return rho.clone().fill_diagonal_(torch.nan)


def _triplets(rho: Tensor, eps_rho: float) -> Tensor:
    """Return (N, N, N) bool: whether anchor, positive and negative are a triplet; a NaN compares as false."""
    return rho[:, None, :] > (rho + eps_rho)[:, :, None]


def _active(s: Tensor, rho: Tensor, eps_rho: float) -> tuple[Tensor, Tensor]:
    """Count the active triplets of each anchor with each image as positive, and as negative: (N, N) int64."""
    active = _triplets(rho, eps_rho) & (s[:, :, None] > s[:, None, :])
    return active.sum(2), active.sum(1)


def _active_of_classes(s: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    """Count as ``_active`` where rho is 0, 1 or NaN: nearer negatives and farther positives, by sorting."""
    positive, negative = rho == 0, rho == 1
    s = s.nan_to_num()
    nearer = torch.searchsorted(s.masked_fill(~negative, torch.inf).sort(1).values, s)
    not_farther = torch.searchsorted(s.masked_fill(~positive, -torch.inf).sort(1).values, s, right=True)
    return nearer * positive, (len(s) - not_farther) * negative


def _hardest(s: Tensor, rho: Tensor, eps_rho: float) -> Tensor:
    """Return (N,), for each anchor the largest value of its triplets; 0 where that is not above 0."""
    rho, order = rho.nan_to_num(nan=torch.inf).sort(1)
    s = s.gather(1, order)
    # Of the labels nearer than that of a negative by more than the gap, the image that is farthest.
    nearer = torch.searchsorted(rho, rho - eps_rho)
    farthest = s.cummax(1).values.gather(1, (nearer - 1).clamp(min=0))
    return torch.where((nearer > 0) & rho.isfinite(), farthest - s, 0.0).relu().amax(1)
