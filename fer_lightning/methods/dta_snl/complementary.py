"""Complementary labels: the emotions that a face is taken not to show.

The nearest published relatives of selective negative learning for expressions are LION (IJCAI 2023) and LEAF
(https://arxiv.org/abs/2404.15041).
"""

import torch
from torch import Tensor


def improbable(q: Tensor, threshold: float) -> Tensor:
    """Return the emotions less likely than a threshold, never the most likely one.

    The negative labels of UPS (Rizve et al., ICLR 2021, https://arxiv.org/abs/2101.06329), without its
    uncertainty.

    Args:
        q: (B, C) probabilities.
        threshold: in [0, 1]; nothing is less likely than 0.

    Returns:
        (B, C) bool.
    """
    return (q < threshold) & ~_top(q)


def outside_top(q: Tensor, k: int | Tensor) -> Tensor:
    """Return the emotions that are not among the ``k`` most likely ones, never the most likely one.

    Args:
        q: (B, C) probabilities.
        k: a number, or a scalar tensor.

    Returns:
        (B, C) bool.
    """
    place: Tensor = q.argsort(descending=True, dim=-1, stable=True).argsort(-1)
    return (place >= k) & ~_top(q)


def outside_mass(q: Tensor, mass: float = 0.9, most: int = 3) -> Tensor:
    """Return the emotions outside the fewest that together reach a probability of ``mass``.

    The ambiguous labels of LEAF (https://arxiv.org/abs/2404.15041), read the other way round: the fewest
    emotions whose probabilities reach 0.90, at most 3, are kept as candidates, and the others are
    complementary. The authors' code (zfkarl/LEAF) differs where two or three emotions reach the mass: it
    leaves out the one that crosses it, and so keeps one fewer.

    Args:
        q: (B, C) probabilities.
        mass: in (0, 1], reached at equality.
        most: kept emotions, at most; at least 1.

    Returns:
        (B, C) bool; never the most likely emotion.
    """
    p, order = q.sort(descending=True, dim=-1, stable=True)
    # An emotion is kept if the more likely ones do not reach the mass without it.
    before = torch.nn.functional.pad(p.cumsum(-1)[:, :-1], (1, 0))
    kept = (before < mass) & (torch.arange(q.shape[-1], device=q.device) < most)
    return torch.zeros_like(kept).scatter(-1, order, ~kept)


def places(p: Tensor, label: Tensor) -> Tensor:
    """Count the rows by the rank of their label among the emotions, the most likely first.

    Args:
        p: (B, C) probabilities or logits.
        label: (B,) int64.

    Returns:
        (C,) int64.
    """
    place = (p > p.gather(-1, label[:, None])).sum(-1)
    return torch.nn.functional.one_hot(place, p.shape[-1]).sum(0)


def smallest_k(count: Tensor, share: float = 0.9999) -> Tensor:
    """Return the smallest k >= 2 for which more than ``share`` of the labels are among the k most likely.

    The adaptive negative learning of FullMatch, https://github.com/megvii-research/FullMatch.

    Args:
        count: (C,) as ``places`` returns it, of one batch or summed over several.
        share: in [0, 1).

    Returns:
        Scalar int64.
    """
    within = count.cumsum(0) / count.sum().clamp(min=1)
    return (1 + (within <= share).sum()).clamp(2, len(count))


def _top(q: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(q.argmax(-1), q.shape[-1]).bool()
