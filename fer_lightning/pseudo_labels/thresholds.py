"""A threshold per class that follows the model's own confidence (FreeMatch, DTA+SNL)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from fer_lightning.distributed import total


class AdaptiveState(NamedTuple):
    """Running means of a ``SelfAdaptiveThreshold``."""

    tau: Tensor
    """Scalar float32, of the confidence."""
    p: Tensor
    """(C,) float32 of a sum of 1, of the probabilities."""
    h: Tensor
    """(C,) float32 of a sum of 1, the histogram of the predictions."""

    def per_class(self) -> Tensor:
        """Return the (C,) thresholds ``tau p_c / max p``."""
        return self.tau * self.p / self.p.max()


class SelfAdaptiveThreshold(nn.Module):
    """A threshold per class from running means of the predictions for unlabeled faces.

    Wang et al., ICLR 2023 (FreeMatch), https://arxiv.org/abs/2205.07246: ``tau`` is the running mean of the
    confidence, ``p`` that of the probabilities, and the threshold of class c ``tau p_c / max p``. The running
    histogram of the predictions ``h`` enters the fairness loss. All begin at 1 / C.

    Args:
        classes: C.
        momentum: of the running means, in [0, 1).
    """

    tau: Tensor
    p: Tensor
    h: Tensor

    def __init__(self, classes: int, momentum: float = 0.999) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("tau", torch.tensor(1 / classes))
        self.register_buffer("p", torch.full((classes,), 1 / classes))
        self.register_buffer("h", torch.full((classes,), 1 / classes))

    @property
    def state(self) -> AdaptiveState:
        """The running means as they are."""
        return AdaptiveState(self.tau, self.p, self.h)

    @torch.no_grad()
    def after(self, p: Tensor) -> AdaptiveState:
        """Return the running means with a batch, that of all ranks, counted in; changes nothing.

        In eval mode they are returned as they are: predictions of a trained model move no threshold.

        Args:
            p: (B, C) float32 probabilities.
        """
        if not self.training:
            return self.state
        confidence, label = p.max(-1)
        sums = confidence.sum(), p.sum(0), one_hot(label, p.shape[-1]).sum(0).float()
        confidences, mass, histogram = total(*sums)
        faces = histogram.sum()
        batch = (confidences, mass, histogram)
        means = zip(self.state, batch, strict=True)
        return AdaptiveState(*(mean.lerp(each / faces, 1 - self.momentum) for mean, each in means))

    @torch.no_grad()
    def update(self, p: Tensor) -> None:
        """Take a batch, that of all ranks, into the running means: (B, C) float32 probabilities."""
        for mean, moved in zip(self.state, self.after(p), strict=True):
            mean.copy_(moved)
