"""FreeMatch: thresholds that follow the model's own confidence, and a fairness term over the classes."""

from typing import Any

import torch
from torch import Tensor

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.step_losses import Losses
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.pseudo_labels.thresholds import SelfAdaptiveThreshold
from fer_lightning.ranges import Momentum, NonNegativeFloat
from fer_lightning.task import Output


class FreeMatch(SemiSupervised):
    """FreeMatch: thresholds that follow the model's own confidence, and a fairness term over the classes.

    Wang et al., "FreeMatch: Self-adaptive Thresholding for Semi-supervised Learning", ICLR 2023,
    https://arxiv.org/abs/2205.07246: ``l_s + lambda_u l_u + lambda_e l_f``. ``l_u`` is FixMatch's with
    ``1[max q >= tau_c]``, c the predicted class and ``tau_c = tau p_c / max p`` of running means of the
    confidence and of the probabilities (see ``SelfAdaptiveThreshold``) in which the batch itself counts;
    ``l_f`` is the self-adaptive fairness of the accepted faces' strong views.

    Checked against the code of microsoft/Semi-supervised-learning (USB): its step and this one, side by side
    on random batches for 40 to 80 steps, gave losses and weights equal to 1e-8. Differences from the code
    of USB, which the paper's authors maintain (USB / here), beside those of FixMatch:

    - ``lambda_e``: 0.01 by default, 0.001 in its configurations for images / 0.001
    - running means, with several processes: of each for itself / of all
    - options to clip the threshold and to follow a quantile: there, both off / none

    With ``targets: both``, valence and arousal are accepted wherever the emotion is, and weighted alike.

    Args:
        unlabeled_weight: weight of the unlabeled loss (lambda_u).
        fairness_weight: weight of the fairness (lambda_e).
        momentum: of the running means.
        **kwargs: options of every method.
    """

    about = About(
        name="FreeMatch",
        paper="Wang et al. 2023",
        url="https://arxiv.org/abs/2205.07246",
        pseudo_labels="the student's prediction on the weak view, from the mean confidence of its class on",
        learns="the strong view; predictions spread over the classes",
        state="running means of confidence, probabilities and predictions",
    )
    views = Views(labeled=1, weak=1, strong=1)

    def __init__(
        self,
        unlabeled_weight: NonNegativeFloat = 1.0,
        fairness_weight: NonNegativeFloat = 0.001,
        momentum: Momentum = 0.999,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.unlabeled_weight, self.fairness_weight = unlabeled_weight, fairness_weight
        self.adaptive = SelfAdaptiveThreshold(self.task.classes, momentum)

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Accept the student's most likely emotion wherever it reaches the emotion's threshold."""
        output = self.student(unlabeled.weak[0])
        q = self.task.predict(output)
        threshold = self.adaptive.after(q.emotion).per_class()
        return make_pseudo_labels(unlabeled.index, q.emotion, q.valence_arousal, threshold, outputs=(output,))

    def losses(self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels) -> Losses:
        """Return ``l_s`` on weak labeled views, ``lambda_u l_u`` and ``lambda_e l_f`` on strong ones."""
        x, s = self.forward_views(labeled.weak[0], unlabeled.strong[0])
        means = self.adaptive.after(pseudo.outputs[0].logits.softmax(-1))
        fairness = self_adaptive_fairness(s.logits, pseudo.weight, means.p, means.h)
        return Losses(
            (x, s),
            supervised=self.task.supervised(x, labeled.target),
            unlabeled=self.unlabeled_weight * self.task.consistency(s, pseudo.target, pseudo.weight),
            fairness=self.fairness_weight * fairness,
        )

    def update_state(
        self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels, outputs: tuple[Output, ...]
    ) -> None:
        """Move the running means."""
        self.adaptive.update(pseudo.outputs[0].logits.softmax(-1))


def self_adaptive_fairness(logits: Tensor, weight: Tensor, p: Tensor, h: Tensor) -> Tensor:
    """Return the self-adaptive fairness: how the predictions for accepted faces spread over the classes.

    Wang et al., ICLR 2023 (FreeMatch), https://arxiv.org/abs/2205.07246:
    ``sum_c SumNorm(p / h)_c log(SumNorm(p_bar / h_bar)_c + 1e-12)`` with the mean probability ``p_bar`` and
    the histogram ``h_bar`` of the accepted faces. It is added to the loss, so the predictions are spread; the
    gradient flows through ``p_bar`` alone, and a class that is predicted for no accepted face is 0.

    Args:
        logits: (B, C) of the strong views; half precision is computed in float32.
        weight: (B,) of 0 or 1: the accepted faces.
        p: (C,) running mean of the probabilities.
        h: (C,) running histogram of the predictions.

    Returns:
        Scalar, float32 or better; 0 with a gradient of 0 if no face is accepted.
    """
    prediction = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
    named = torch.nn.functional.one_hot(prediction.argmax(-1), prediction.shape[-1]).to(prediction.dtype)
    accepted = weight.sum()
    faces = accepted.clamp(min=1)
    each = weight.to(prediction.dtype)[:, None]
    # A product and a sum, not a matrix product: autocast would compute that in half precision.
    p_bar, h_bar = (each * prediction).sum(0) / faces, (each * named).sum(0) / faces
    loss = (_share(p, h) * (_share(p_bar, h_bar) + 1e-12).log()).sum()
    return torch.where(accepted > 0, loss, 0.0)


def _share(p: Tensor, h: Tensor) -> Tensor:
    ratio = torch.where(h > 0, p / torch.where(h > 0, h, 1.0), 0.0)
    return ratio / ratio.sum().clamp(min=1e-6)
