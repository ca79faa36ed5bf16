"""SoftMatch: every belief counts, the more the surer it is."""

from typing import Any, Literal

from torch import Tensor

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.errors import InputError
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.pseudo_labels.alignment import DistributionAlignment
from fer_lightning.pseudo_labels.thresholds import GaussianWeight


class SoftMatch(SemiSupervised):
    """SoftMatch: every belief counts, the more the surer it is.

    Chen et al., "SoftMatch: Addressing the Quantity-Quality Trade-off in Semi-supervised Learning", ICLR
    2023, https://arxiv.org/abs/2301.10921: ``l_s + lambda_u l_u``, where ``l_u`` is the mean over the whole
    unlabeled batch of ``w H(argmax q, p(strong))``, ``w`` a Gaussian of the confidence below its running
    mean and 1 above (see ``GaussianWeight``). The confidence is that of the aligned answer ``DA(q)``, while
    the belief is that of ``q`` itself.

    Paper (recalled, not re-read) / code (USB, microsoft/Semi-supervised-learning) / ours, where they differ:

    - target of the alignment: uniform / the same / the shares of the labels, because expressions are far
      from balanced and a uniform target moves weight from happy faces to fear and disgust; see ``da_target``
    - mean, variance and alignment, with several processes: not said / of each for itself / of all
    - option of a mean and variance per class: none / there, off / none
    - weak view and its forward: as in FixMatch

    With ``targets: both``, valence and arousal are believed wherever the emotion is, and weighted alike.

    Args:
        lambda_u: weight of the unlabeled loss.
        momentum: of all running means, in [0, 1).
        n_sigma: how much narrower than the confidences the Gaussian is, over 0.
        da_target: shares of the emotions that beliefs are aligned to: of the labels (with one more face of
            each), or ``uniform``.
        **kwargs: options of every method.
    """

    about = About(
        name="SoftMatch",
        paper="Chen et al. 2023",
        url="https://arxiv.org/abs/2301.10921",
        believes="the student's weak view, weighted by a Gaussian of its aligned confidence",
        learns="the strong view",
        state="running mean and variance of the confidence, running mean of the probabilities",
    )
    views = Views(labeled=1, weak=1, strong=1)

    def __init__(
        self,
        lambda_u: float = 1.0,
        momentum: float = 0.999,
        n_sigma: float = 2.0,
        da_target: Literal["labeled", "uniform"] = "labeled",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if n_sigma <= 0:
            raise InputError(f"--model.n_sigma is {n_sigma}; it must be over 0 (the paper: 2)")
        self.lambda_u, self.da_target = lambda_u, da_target
        self.alignment = DistributionAlignment(self.task.classes, "ema", momentum)
        self.gaussian = GaussianWeight(self.task.classes, momentum, n_sigma)

    def setup(self, stage: str) -> None:
        """Aim the alignment at the labels, if asked to."""
        super().setup(stage)
        if stage == "fit" and self.da_target == "labeled":
            self.alignment.aim(self.labeled_prior())

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Believe the student's most likely emotion, weighted by the confidence of its aligned answer."""
        q = self.task.predict(self.student(unlabeled.weak))
        weight = self.gaussian(self.alignment(q.emotion).max(-1).values)
        return make_pseudo_labels(unlabeled.index, q.emotion, q.valence_arousal, None)._replace(weight=weight)

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
