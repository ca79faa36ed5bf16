"""SoftMatch: every pseudo-label counts, the more the higher its confidence."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fer_lightning.data.batch import DataInfo, Labeled, Unlabeled, Views
from fer_lightning.distributed import gather
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.step_losses import Losses
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.pseudo_labels.alignment import DistributionAlignment
from fer_lightning.ranges import Momentum, NonNegativeFloat, PositiveFloat
from fer_lightning.task import Output


class SoftMatch(SemiSupervised):
    """SoftMatch: every pseudo-label counts, the more the higher its confidence.

    Chen et al., "SoftMatch: Addressing the Quantity-Quality Trade-off in Semi-supervised Learning", ICLR
    2023, https://arxiv.org/abs/2301.10921: ``l_s + lambda_u l_u``, where ``l_u`` is the mean over the whole
    unlabeled batch of ``w H(argmax q, p(strong))``, ``w`` a Gaussian of the confidence below its running
    mean and 1 above (see ``GaussianWeight``). The confidence is that of the aligned probabilities ``DA(q)``,
    while the pseudo-label is that of ``q`` itself.

    Checked against the code of microsoft/Semi-supervised-learning (USB): its step and this one, side by side
    on random batches for 40 to 80 steps, gave losses and weights equal to 1e-8. Differences from the code
    of USB, which the paper's authors maintain (USB / here), beside those of FixMatch:

    - target of the alignment: uniform / the shares of the labels, because expressions are far from balanced
      and a uniform target moves weight from happy faces to fear and disgust; see ``alignment_target``
    - mean, variance and alignment, with several processes: of each for itself / of all
    - option of a mean and variance per class: there, off / none

    With ``targets: both``, valence and arousal are accepted wherever the emotion is, and weighted alike.

    Args:
        unlabeled_weight: weight of the unlabeled loss (lambda_u).
        momentum: of all running means.
        n_sigma: how much narrower than the confidences the Gaussian is.
        alignment_target: shares of the emotions to which predictions are aligned: of the labels (with one
            more face of each), or ``uniform``.
        **kwargs: options of every method.
    """

    about = About(
        name="SoftMatch",
        paper="Chen et al. 2023",
        url="https://arxiv.org/abs/2301.10921",
        pseudo_labels="the student's prediction on the weak view, weighted by a Gaussian of its confidence",
        learns="the strong view",
        state="running mean and variance of the confidence, running mean of the probabilities",
    )
    views = Views(labeled=1, weak=1, strong=1)

    def __init__(
        self,
        unlabeled_weight: NonNegativeFloat = 1.0,
        momentum: Momentum = 0.999,
        n_sigma: PositiveFloat = 2.0,
        alignment_target: Literal["labeled", "uniform"] = "labeled",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.unlabeled_weight, self.alignment_target = unlabeled_weight, alignment_target
        self.alignment = DistributionAlignment(self.task.classes, "ema", momentum)
        self.gaussian = GaussianWeight(self.task.classes, momentum, n_sigma)

    def prepare(self, data: DataInfo) -> None:
        """Align to the labels, if that is the target."""
        if self.alignment_target == "labeled":
            self.alignment.aim(data.prior)

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Weight the student's most likely emotion by the confidence of its aligned probabilities."""
        output = self.student(unlabeled.weak[0])
        q = self.task.predict(output)
        weight = self.gaussian(self.alignment(q.emotion).amax(-1))
        pseudo = make_pseudo_labels(unlabeled.index, q.emotion, q.valence_arousal, None, outputs=(output,))
        return pseudo._replace(weight=weight)

    def losses(self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels) -> Losses:
        """Return ``l_s`` on weak labeled views and ``lambda_u l_u`` on strong unlabeled ones."""
        x, s = self.forward_views(labeled.weak[0], unlabeled.strong[0])
        return Losses(
            (x, s),
            supervised=self.task.supervised(x, labeled.target),
            unlabeled=self.unlabeled_weight * self.task.consistency(s, pseudo.target, pseudo.weight),
        )

    def update_state(
        self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels, outputs: tuple[Output, ...]
    ) -> None:
        """Move the running means of the alignment and of the Gaussian."""
        q = pseudo.outputs[0].logits.softmax(-1)
        self.gaussian.update(self.alignment(q).amax(-1))
        self.alignment.update(q)


class GaussianWeight(nn.Module):
    """Weights in the place of a threshold: 1 from the mean confidence on, below it the flank of a Gaussian.

    Chen et al., ICLR 2023 (SoftMatch), https://arxiv.org/abs/2301.10921:
    ``exp(-min(c - mu, 0)^2 / (2 sigma^2 / n_sigma^2))`` of running means of the confidence's mean, which
    begins at 1 / C, and of its unbiased variance, which begins at 1. In train mode the batch that is weighted
    counts in both.

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
    def after(self, confidence: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance with a batch, that of all ranks, counted in; as they are in eval mode.

        Args:
            confidence: (B,) float32.
        """
        if not self.training:
            return self.mu, self.variance
        (whole_batch,) = gather(confidence)
        # One face has no unbiased variance, and a NaN would never leave the running mean.
        variance, mean = torch.var_mean(whole_batch, correction=min(1, len(whole_batch) - 1))
        return self.mu.lerp(mean, 1 - self.momentum), self.variance.lerp(variance, 1 - self.momentum)

    def update(self, confidence: Tensor) -> None:
        """Take the (B,) confidences of a batch, that of all ranks, into the running means."""
        mu, variance = self.after(confidence)
        self.mu.copy_(mu)
        self.variance.copy_(variance)

    @torch.no_grad()
    def forward(self, confidence: Tensor) -> Tensor:
        """Map (B,) float32 confidences to (B,) weights in [0, 1]; changes nothing."""
        mu, variance = self.after(confidence)
        below = (confidence - mu).clamp(max=0)
        # The lower bound keeps equal confidences, of a variance of 0, from dividing 0 by 0.
        return (-(below**2) * self.n_sigma**2 / (2 * variance).clamp(min=1e-12)).exp()
