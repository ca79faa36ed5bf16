"""Mixing of images and their targets (Zhang et al., ICLR 2018, https://arxiv.org/abs/1710.09412)."""

import torch
from torch import Tensor


def beta_share(alpha: float, device: torch.device | str = "cpu") -> Tensor:
    """Draw the share that a row keeps of itself, ``max(lambda, 1 - lambda)`` with ``lambda ~ Beta(a, a)``.

    The maximum keeps a mixed row nearer to itself than to its partner (MixMatch, Berthelot et al. 2019,
    https://arxiv.org/abs/1905.02249, eq. 9).

    Args:
        alpha: a, over 0; small values mix little.
        device: of the result; it is drawn on the host, where every device draws alike.

    Returns:
        Scalar float32 in [0.5, 1].
    """
    share = torch.distributions.Beta(torch.tensor(alpha), torch.tensor(alpha)).sample()
    return torch.maximum(share, 1 - share).to(device, non_blocking=True)


def mix(rows: Tensor, share: Tensor, order: Tensor) -> Tensor:
    """Return ``share * rows + (1 - share) * rows[order]``.

    Args:
        rows: (N, ...) float: images or targets; a target that is unknown (NaN) makes both its mixtures so.
        share: scalar in [0, 1].
        order: (N,) int64, the partner of each row.
    """
    return share * rows + (1 - share) * rows[order]
