"""Thresholds that follow the training: per class (FlexMatch, FreeMatch), or soft (SoftMatch)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from fer_lightning.distributed import gather, total
from fer_lightning.models.memory import ResizedOnLoad


class CurriculumThreshold(ResizedOnLoad):
    """Curriculum pseudo-labeling: the fewer faces were ever sure of a class, the lower its threshold.

    Zhang et al., NeurIPS 2021 (FlexMatch), https://arxiv.org/abs/2110.08263. ``sigma_c`` counts the faces of
    the whole unlabeled pool whose last confident belief was class c, ``beta_c`` is ``sigma_c`` over the
    largest of them, and the threshold ``tau M(beta_c)`` with ``M(beta) = beta / (2 - beta)``. With
    ``warmup`` the largest is also held against the number of faces never sure of anything, so that all
    thresholds start low. ``beta`` begins at 0, where every belief is accepted, and rests while all faces of
    the pool say the same, as in USB (https://arxiv.org/abs/2208.07204).

    Args:
        classes: C.
        tau: fixed confidence from which a belief counts as sure, and the highest threshold.
        warmup: whether faces never sure of anything lower all thresholds.
    """

    selected: Tensor
    """(N,) int64, the class each face of the pool was last sure of; -1 for none yet."""
    beta: Tensor
    """(C,) float32 in [0, 1], the learning status."""

    def __init__(self, classes: int, tau: float = 0.95, warmup: bool = True) -> None:
        super().__init__()
        self.tau, self.warmup = tau, warmup
        self.register_buffer("selected", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("beta", torch.zeros(classes))

    def resize(self, faces: int) -> None:
        """Forget everything and make room for a pool of so many faces."""
        self.selected = self.selected.new_full((faces,), -1)
        self.beta.zero_()

    def per_class(self) -> Tensor:
        """Return the (C,) thresholds."""
        return self.tau * self.beta / (2 - self.beta)

    @torch.no_grad()
    def update(self, p: Tensor, index: Tensor) -> None:
        """Note what the faces of all ranks' batches are sure of; in eval mode nothing is noted.

        Args:
            p: (B, C) float32 probabilities.
            index: (B,) int64 positions in the pool; the last sure row of a position counts.
        """
        if not self.training:
            return
        confidence, label = p.max(-1)
        index, label, sure = gather(index, label, (confidence >= self.tau).long())
        # The number of the last sure row of every position, counted from 1; a maximum does not depend on the
        # order in which a GPU writes.
        row = sure * torch.arange(1, len(index) + 1, device=index.device)
        last = torch.zeros_like(self.selected).scatter_reduce(0, index, row, "amax")
        self.selected.copy_(torch.where(last > 0, label[last - 1], self.selected))
        classes = torch.arange(-1, len(self.beta), device=index.device)
        count = (self.selected == classes[:, None]).sum(-1)  # bincount would wait for the GPU
        largest = count.max() if self.warmup else count[1:].max()
        undecided = count.max() == len(self.selected)
        self.beta.copy_(torch.where(undecided, self.beta, count[1:] / largest.clamp(min=1)))


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


class GaussianWeight(nn.Module):
    """A weight instead of a threshold: 1 from the mean confidence on, below it the flank of a Gaussian.

    Chen et al., ICLR 2023 (SoftMatch), https://arxiv.org/abs/2301.10921:
    ``exp(-min(c - mu, 0)^2 / (2 sigma^2 / n_sigma^2))`` of running means of the confidence's mean, which
    begins at 1 / C, and of its unbiased variance, which begins at 1. In train mode a forward first takes the
    batch, that of all ranks, into them; in eval mode it changes nothing.

    Args:
        classes: C.
        momentum: of the running means, in [0, 1).
        n_sigma: how much narrower than the confidences the flank is, over 0.
    """

    mu: Tensor
    """Scalar float32."""
    variance: Tensor
    """Scalar float32, ``sigma^2``."""

    def __init__(self, classes: int, momentum: float = 0.999, n_sigma: float = 2.0) -> None:
        super().__init__()
        self.momentum, self.n_sigma = momentum, n_sigma
        self.register_buffer("mu", torch.tensor(1 / classes))
        self.register_buffer("variance", torch.tensor(1.0))

    @torch.no_grad()
    def forward(self, confidence: Tensor) -> Tensor:
        """Map (B,) float32 confidences to (B,) weights in [0, 1]."""
        if self.training:
            (everybody,) = gather(confidence)
            # One face has no unbiased variance, and a NaN would never leave the running mean.
            variance, mean = torch.var_mean(everybody, correction=min(1, len(everybody) - 1))
            self.mu.lerp_(mean, 1 - self.momentum)
            self.variance.lerp_(variance, 1 - self.momentum)
        below = (confidence - self.mu).clamp(max=0)
        # The floor keeps equal confidences, of a variance of 0, from dividing 0 by 0.
        return (-(below**2) * self.n_sigma**2 / (2 * self.variance).clamp(min=1e-12)).exp()
