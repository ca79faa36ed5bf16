"""FreeMatch: thresholds that follow the model's own confidence, and a term that keeps its answers fair."""

from typing import Any

from torch import Tensor

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.losses.fairness import self_adaptive_fairness
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.pseudo_labels.thresholds import SelfAdaptiveThreshold


class FreeMatch(SemiSupervised):
    """FreeMatch: thresholds that follow the model's own confidence, and a term that keeps its answers fair.

    Wang et al., "FreeMatch: Self-adaptive Thresholding for Semi-supervised Learning", ICLR 2023,
    https://arxiv.org/abs/2205.07246: ``l_s + lambda_u l_u + lambda_e l_f``. ``l_u`` is FixMatch's with
    ``1[max q >= tau_c]``, c the believed class and ``tau_c = tau p_c / max p`` of running means of the
    confidence and of the probabilities (see ``SelfAdaptiveThreshold``), which take in a batch before it is
    judged; ``l_f`` is the self-adaptive fairness of the believed faces' strong views.

    Paper (recalled, not re-read) / code (USB, microsoft/Semi-supervised-learning) / ours, where they differ:

    - ``lambda_e``: not recalled / 0.01 by default, 0.001 in its configurations for images / 0.001
    - running means, with several processes: not said / of each for itself / of all
    - options to clip the threshold and to follow a quantile: none / there, both off / none
    - fairness of a class that no accepted face is answered with: not said / 0 / as USB
    - weak view and its forward: as in FixMatch

    With ``targets: both``, valence and arousal are believed wherever the emotion is, and weighted alike.

    Args:
        lambda_u: weight of the unlabeled loss.
        lambda_e: weight of the fairness.
        momentum: of the running means, in [0, 1).
        **kwargs: options of every method.
    """

    about = About(
        name="FreeMatch",
        paper="Wang et al. 2023",
        url="https://arxiv.org/abs/2205.07246",
        believes="the student's weak view, if surer than it is of the class on average",
        learns="the strong view; answers spread over the classes",
        state="running means of confidence, probabilities and beliefs",
    )
    views = Views(labeled=1, weak=1, strong=1)

    def __init__(
        self, lambda_u: float = 1.0, lambda_e: float = 0.001, momentum: float = 0.999, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.lambda_u, self.lambda_e = lambda_u, lambda_e
        self.adaptive = SelfAdaptiveThreshold(self.task.classes, momentum)

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Believe the student's most likely emotion wherever it reaches the emotion's threshold."""
        q = self.task.predict(self.student(unlabeled.weak))
        self.adaptive.update(q.emotion)
        return make_pseudo_labels(unlabeled.index, q.emotion, q.valence_arousal, self.adaptive.per_class())

    def losses(
        self, labeled: Labeled, unlabeled: Unlabeled | None, pseudo: PseudoLabels | None
    ) -> dict[str, Tensor]:
        """Return ``l_s`` on weak labeled views, ``lambda_u l_u`` and ``lambda_e l_f`` on strong ones."""
        if unlabeled is None or pseudo is None:
            return super().losses(labeled, unlabeled, pseudo)
        x, s = self.forward_views(labeled.image, unlabeled.strong)
        fairness = self_adaptive_fairness(s.logits, pseudo.weight, self.adaptive.p, self.adaptive.h)
        return {
            "supervised": self.task.supervised(x, labeled.target),
            "unlabeled": self.lambda_u * self.task.consistency(s, pseudo.target, pseudo.weight),
            "fairness": self.lambda_e * fairness,
        }
