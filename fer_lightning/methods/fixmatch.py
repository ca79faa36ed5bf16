"""FixMatch: believe a confident weak view, and teach it to the strong one."""

from typing import Any

from torch import Tensor

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels


class FixMatch(SemiSupervised):
    """FixMatch: believe a confident weak view, and teach it to the strong one.

    Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence", NeurIPS
    2020, https://arxiv.org/abs/2001.07685, eqs. (3)-(4): ``l_s + lambda_u l_u``, where ``l_u`` is the mean
    over the whole unlabeled batch of ``1[max q >= tau] H(argmax q, p(strong))`` and ``q`` is the student's
    answer to the weak view.

    Paper / code (USB, microsoft/Semi-supervised-learning) / ours, where they differ:

    - forward of the weak view: one batch with the others / the same / a pass of its own without gradient,
      which does not share their batch statistics and costs 1.4 times less
    - strong view: RandAugment or CTAugment / RandAugment and Cutout / the face-safe one of the data options
    - length: 2^20 steps / the same / ``trainer.max_steps``

    With ``targets: both``, valence and arousal are believed wherever the emotion is, and weighted alike.

    Args:
        tau: confidence from which a pseudo-label is believed.
        lambda_u: weight of the unlabeled loss.
        **kwargs: options of every method.
    """

    about = About(
        name="FixMatch",
        paper="Sohn et al. 2020",
        url="https://arxiv.org/abs/2001.07685",
        believes="the student's weak view, if surer than `tau`",
        learns="the strong view",
        state="",
    )
    views = Views(labeled=1, weak=1, strong=1)

    def __init__(self, tau: float = 0.95, lambda_u: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tau, self.lambda_u = tau, lambda_u

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Believe the student's most likely emotion wherever it reaches ``tau``."""
        q = self.task.predict(self.student(unlabeled.weak))
        return make_pseudo_labels(unlabeled.index, q.emotion, q.valence_arousal, self.tau)

    def losses(
        self, labeled: Labeled, unlabeled: Unlabeled | None, pseudo: PseudoLabels | None
    ) -> dict[str, Tensor]:
        """Return ``l_s`` on weak labeled views and ``lambda_u l_u`` on strong unlabeled ones."""
        if unlabeled is None or pseudo is None:
            return super().losses(labeled, unlabeled, pseudo)
        x, s = self.forward_views(labeled.image, unlabeled.strong)
        return {
            "supervised": self.task.supervised(x, labeled.target),
            "unlabeled": self.lambda_u * self.task.consistency(s, pseudo.target, pseudo.weight),
        }
