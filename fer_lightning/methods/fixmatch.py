"""FixMatch: pseudo-labels of confident weak views, learned on strong views."""

from typing import Any

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.step_losses import Losses
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.ranges import NonNegativeFloat, Share


class FixMatch(SemiSupervised):
    """FixMatch: pseudo-labels of confident weak views, learned on strong views.

    Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence", NeurIPS
    2020, https://arxiv.org/abs/2001.07685, eqs. (3)-(4): ``l_s + lambda_u l_u``, where ``l_u`` is the mean
    over the whole unlabeled batch of ``1[max q >= tau] H(argmax q, p(strong))`` and ``q`` are the student's
    probabilities on the weak view.

    Checked against the code of microsoft/Semi-supervised-learning (USB): its step and this one, side by side
    on random batches for 40 to 80 steps, gave losses and weights equal to 1e-8. Differences, paper / USB /
    here:

    - forward of the weak view: one batch with the others / the same / a pass of its own without gradient,
      which does not share their batch statistics and costs 1.4 times less
    - strong view: RandAugment or CTAugment / RandAugment and Cutout / the face-safe one of the data options
    - batch statistics of the teacher: not stated / copied from the student / averaged like the weights
    - decay of the teacher: 0.999 / 0.999 / grows to 0.999, unless ``ema_warmup`` is false
    - length: 2^20 steps / the same / ``trainer.max_steps``; batches: 64 + 448 faces / the same / data options

    With ``targets: both``, valence and arousal are accepted wherever the emotion is, and weighted alike.

    Args:
        threshold: confidence from which a pseudo-label is accepted (tau).
        unlabeled_weight: weight of the unlabeled loss (lambda_u).
        **kwargs: options of every method.
    """

    about = About(
        name="FixMatch",
        paper="Sohn et al. 2020",
        url="https://arxiv.org/abs/2001.07685",
        pseudo_labels="the student's prediction on the weak view, accepted from `threshold` on",
        learns="the strong view",
        state="",
    )
    views = Views(labeled=1, weak=1, strong=1)

    def __init__(
        self, threshold: Share = 0.95, unlabeled_weight: NonNegativeFloat = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.threshold, self.unlabeled_weight = threshold, unlabeled_weight

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Accept the student's most likely emotion wherever it reaches the threshold."""
        q = self.task.predict(self.student(unlabeled.weak[0]))
        return make_pseudo_labels(unlabeled.index, q.emotion, q.valence_arousal, self.threshold)

    def losses(self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels) -> Losses:
        """Return ``l_s`` on weak labeled views and ``lambda_u l_u`` on strong unlabeled ones."""
        x, s = self.forward_views(labeled.weak[0], unlabeled.strong[0])
        return Losses(
            (x, s),
            supervised=self.task.supervised(x, labeled.target),
            unlabeled=self.unlabeled_weight * self.task.consistency(s, pseudo.target, pseudo.weight),
        )
