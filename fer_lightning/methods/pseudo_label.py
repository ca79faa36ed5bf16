"""Pseudo-Label: confident predictions on weak views, learned on the same views."""

from typing import Any

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.schedules import ramp_up
from fer_lightning.methods.step_losses import Losses
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.ranges import NonNegativeFloat, Share


class PseudoLabel(SemiSupervised):
    """Pseudo-Label: confident predictions on weak views, learned on the same views.

    Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks",
    ICML 2013 workshop, http://deeplearning.net/wp-content/uploads/2013/03/pseudo_label_final.pdf, in the
    form that USB (Wang et al. 2022, https://arxiv.org/abs/2208.07204) compares with:
    ``l_s + lambda_u w(t) l_u``, where ``l_u`` is the mean over the whole unlabeled batch of
    ``1[max p >= tau] H(argmax p, p)``, both of one weak view, and ``w(t) = clip(t / (ramp T), 0, 1)``.

    Checked against the code of microsoft/Semi-supervised-learning (USB): its step and this one, side by side
    on random batches for 40 to 80 steps, gave losses and weights equal to 1e-8. Differences (paper / USB /
    here):

    - threshold: none / ``tau`` of 0.95 / as USB
    - weight: 0, then rising to 3 / rising to 1 over 0.4 of the run / as USB
    - target and prediction: one forward / the same / two of the same view, equal but for dropout
    - running batch statistics: none / of the labeled forward alone / of every forward
    - batches: – / one unlabeled face per labeled face (``unlabeled_ratio`` 1) / that of the data options

    With ``targets: both``, valence and arousal learn from the labels alone: a target that equals the
    prediction leaves nothing to regress.

    Args:
        threshold: confidence from which a pseudo-label is accepted (tau).
        unlabeled_weight: highest weight of the unlabeled loss (lambda_u).
        ramp: share of the run over which that weight rises; 0 for none.
        joint_forward: see the base; separate here, as in USB.
        **kwargs: options of every method.
    """

    about = About(
        name="Pseudo-Label",
        paper="Lee 2013",
        url="http://deeplearning.net/wp-content/uploads/2013/03/pseudo_label_final.pdf",
        pseudo_labels="the student's prediction on the weak view, accepted from `threshold` on",
        learns="the same view",
        state="",
    )
    views = Views(labeled=1, weak=1, strong=0)

    def __init__(
        self,
        threshold: Share = 0.95,
        unlabeled_weight: NonNegativeFloat = 1.0,
        ramp: Share = 0.4,
        joint_forward: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(joint_forward=joint_forward, **kwargs)
        self.threshold, self.unlabeled_weight, self.ramp = threshold, unlabeled_weight, ramp

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Accept the student's most likely emotion wherever it reaches the threshold."""
        p = self.task.predict(self.student(unlabeled.weak[0]))
        return make_pseudo_labels(unlabeled.index, p.emotion, p.valence_arousal, self.threshold)

    def losses(self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels) -> Losses:
        """Return ``l_s`` and ``lambda_u w(t) l_u``, both on weak views."""
        x, u = self.forward_views(labeled.weak[0], unlabeled.weak[0])
        weight = self.unlabeled_weight * ramp_up(self.progress, self.ramp)
        return Losses(
            (x, u),
            supervised=self.task.supervised(x, labeled.target),
            unlabeled=weight * self.task.consistency(u, pseudo.target, pseudo.weight),
        )
