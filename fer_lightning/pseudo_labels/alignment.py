"""Distribution alignment: probabilities scaled so that emotions have their expected shares on average."""

from typing import Literal

import torch
from torch import Tensor, nn

from fer_lightning.distributed import total

_LEAST = 1e-6  # as in USB; keeps a class that is never predicted from dividing by zero


class DistributionAlignment(nn.Module):
    """Multiply probabilities by ``target / mean`` and normalize them, where ``mean`` is a running mean.

    ``DA(p) = Norm(p (target + 1e-6) / (mean + 1e-6))``; Berthelot et al., ICLR 2020 (ReMixMatch),
    https://arxiv.org/abs/1911.09785, section 3.1. The running mean comes in the two forms of USB (Wang et
    al. 2022, https://arxiv.org/abs/2208.07204): ``ema``, ``mean <- m mean + (1 - m) mean of the batch``
    that begins with the first batch (SoftMatch), or ``queue``, the mean of the last batches' means (CoMatch,
    SimMatch). While the queue fills, the mean is that of the batches so far.

    In train mode the batch that is aligned, that of all ranks, counts in the running mean; ``update`` then
    writes it. In eval mode nothing changes. Before the first batch probabilities are left as they are.

    Args:
        classes: C.
        form: of the running mean.
        momentum: m of the ``ema``, in [0, 1).
        length: of the ``queue``, in batches.
    """

    target: Tensor
    """(C,) expected shares of the emotions; uniform until ``aim``."""
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
        """Set the expected shares.

        Args:
            prior: (C,) of a sum of 1.
        """
        self.target.copy_(prior)

    def forward(self, p: Tensor) -> Tensor:
        """Align probabilities; changes nothing.

        Args:
            p: (B, C) float32, rows of a sum of 1.

        Returns:
            (B, C), rows of a sum of 1.
        """
        total_mean = self._after(p).sum(0)  # rows sum to 1 or, before their first batch, to 0
        mean = torch.where(total_mean.sum() > 0, total_mean / total_mean.sum().clamp(min=0.5), self.target)
        aligned = p * (self.target + _LEAST) / (mean + _LEAST)
        return aligned / aligned.sum(-1, keepdim=True)

    def update(self, p: Tensor) -> None:
        """Take a batch, that of all ranks, into the running mean: (B, C) float32 before the alignment."""
        self.means.copy_(self._after(p))

    @torch.no_grad()
    def _after(self, p: Tensor) -> Tensor:
        """Return ``means`` with a batch counted in; as they are in eval mode."""
        if not self.training:
            return self.means
        (mass,) = total(p.sum(0))
        batch = mass / mass.sum()
        if self.form == "queue":
            return torch.cat([self.means[1:], batch[None]])
        began = self.means.sum() > 0
        return torch.where(began, self.means.lerp(batch, 1 - self.momentum), batch)
