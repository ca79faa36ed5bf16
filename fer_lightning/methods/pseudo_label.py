"""Pseudo-Label: believe a confident answer, and teach it to the very view it was given to."""

from typing import Any

from torch import Tensor

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.errors import InputError
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.schedules import ramp_up
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels


class PseudoLabel(SemiSupervised):
    """Pseudo-Label: believe a confident answer, and teach it to the very view it was given to.

    Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks",
    ICML 2013 workshop, http://deeplearning.net/wp-content/uploads/2013/03/pseudo_label_final.pdf, in the
    form that USB (Wang et al. 2022, https://arxiv.org/abs/2208.07204) compares with:
    ``l_s + lambda_u w(t) l_u``, where ``l_u`` is the mean over the whole unlabeled batch of
    ``1[max p >= tau] H(argmax p, p)``, both of one weak view, and ``w(t) = clip(t / (ramp T), 0, 1)``.

    Paper (recalled, not re-read) / code (USB, microsoft/Semi-supervised-learning) / ours, where they differ:

    - threshold: none / ``tau`` of 0.95 / as USB
    - weight: 0, then rising to 3 / rising to 1 over 0.4 of the run / as USB
    - target and prediction: one forward / the same / two of the same view, equal but for dropout
    - running batch statistics: none / of the labeled forward alone / of every forward

    With ``targets: both``, valence and arousal learn from the labels alone: a target that is one's own answer
    leaves nothing to regress.

    Args:
        tau: confidence from which a pseudo-label is believed.
        lambda_u: highest weight of the unlabeled loss.
        ramp: share of the run over which that weight rises, in [0, 1]; 0 for none.
        joint_forward: as in every method; separate here, as in USB.
        **kwargs: options of every method.
    """

    about = About(
        name="Pseudo-Label",
        paper="Lee 2013",
        url="http://deeplearning.net/wp-content/uploads/2013/03/pseudo_label_final.pdf",
        believes="the student's weak view, if surer than `tau`",
        learns="the same view",
        state="",
    )
    views = Views(labeled=1, weak=1, strong=0)

    def __init__(
        self,
        tau: float = 0.95,
        lambda_u: float = 1.0,
        ramp: float = 0.4,
        joint_forward: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(joint_forward=joint_forward, **kwargs)
        if not 0 <= ramp <= 1:
            raise InputError(f"--model.ramp is {ramp}; it is a share of the run, from 0 to 1")
        self.tau, self.lambda_u, self.ramp = tau, lambda_u, ramp

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Believe the student's most likely emotion wherever it reaches ``tau``."""
        p = self.task.predict(self.student(unlabeled.weak))
        return make_pseudo_labels(unlabeled.index, p.emotion, p.valence_arousal, self.tau)

    def losses(
        self, labeled: Labeled, unlabeled: Unlabeled | None, pseudo: PseudoLabels | None
    ) -> dict[str, Tensor]:
        """Return ``l_s`` and ``lambda_u w(t) l_u``, both on weak views."""
        if unlabeled is None or pseudo is None:
            return super().losses(labeled, unlabeled, pseudo)
        x, u = self.forward_views(labeled.image, unlabeled.weak)
        w = self.lambda_u * ramp_up(self.progress, self.ramp)
        return {
            "supervised": self.task.supervised(x, labeled.target),
            "unlabeled": w * self.task.consistency(u, pseudo.target, pseudo.weight),
        }
