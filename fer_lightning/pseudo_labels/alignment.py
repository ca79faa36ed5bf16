"""Distribution alignment: beliefs are tilted until on average they name the emotions as often as expected."""

from typing import Literal

import torch
from torch import Tensor, nn

from fer_lightning.distributed import total

_FLOOR = 1e-6  # as in USB; keeps a class that is never believed from dividing by zero


class DistributionAlignment(nn.Module):
    """Multiply probabilities by ``target / mean`` and normalise them, where ``mean`` is a running mean.

    ``DA(p) = Norm(p (target + 1e-6) / (mean + 1e-6))``; Berthelot et al., ICLR 2020 (ReMixMatch),
    https://arxiv.org/abs/1911.09785, section 3.1. The running mean comes in the two forms of USB (Wang et
    al. 2022, https://arxiv.org/abs/2208.07204): ``ema``, ``mean <- m mean + (1 - m) mean of the batch``
    that begins with the first batch (SoftMatch), or ``queue``, the mean of the last batches' means (CoMatch,
    SimMatch); places of the queue that are still empty do not count.

    In train mode a forward first takes the batch, that of all ranks, into the running mean; in eval mode it
    changes nothing. Before the first batch probabilities are left as they are.

    Args:
        classes: C.
        form: of the running mean.
        momentum: m of the ``ema``, in [0, 1).
        length: of the ``queue``, in batches.
    """

    target: Tensor
    """(C,) shares the emotions should have; uniform until ``aim``."""
    means: Tensor
    """(length, C) means of the last batches, the newest last, or (1, C) their average; 0 before the first."""

    def __init__(
        self, classes: int, form: Literal["ema", "queue"] = "ema", momentum: float = 0.999, length: int = 32
    ) -> None:
        super().__init__()
        self.form, self.momentum = form, momentum
        self.register_buffer("target", torch.full((classes,), 1 / classes))
        self.register_buffer("means", torch.zeros(length if form == "queue" else 1, classes))

    def aim(self, prior: Tensor) -> None:
        """Set the shares to be reached.

        Args:
            prior: (C,) of a sum of 1.
        """
        self.target.copy_(prior)

    def forward(self, p: Tensor) -> Tensor:
        """Align probabilities.

        Args:
            p: (B, C) float32, rows of a sum of 1.

        Returns:
            (B, C), rows of a sum of 1.
        """
        if self.training:
            self._observe(p)
        seen = self.means.sum(0)  # rows sum to 1 or, where nothing was seen, to 0
        mean = torch.where(seen.sum() > 0, seen / seen.sum().clamp(min=0.5), self.target)
        aligned = p * (self.target + _FLOOR) / (mean + _FLOOR)
        return aligned / aligned.sum(-1, keepdim=True)

    @torch.no_grad()
    def _observe(self, p: Tensor) -> None:
        (mass,) = total(p.sum(0))
        batch = mass / mass.sum()
        if self.form == "queue":
            self.means.copy_(torch.cat([self.means[1:], batch[None]]))
        else:
            began = self.means.sum() > 0
            self.means.copy_(torch.where(began, self.means.lerp(batch, 1 - self.momentum), batch))
