"""FlexMatch: FixMatch with a lower threshold for the classes it is seldom sure of."""

from typing import Any

from fer_lightning.data.batch import Unlabeled
from fer_lightning.methods.about import About
from fer_lightning.methods.fixmatch import FixMatch
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.pseudo_labels.thresholds import CurriculumThreshold


class FlexMatch(FixMatch):
    """FlexMatch: FixMatch with a lower threshold for the classes it is seldom sure of.

    Zhang et al., "FlexMatch: Boosting Semi-Supervised Learning with Curriculum Pseudo Labeling", NeurIPS
    2021, https://arxiv.org/abs/2110.08263: the losses of FixMatch with ``1[max q >= tau_c]``, c the believed
    class, ``tau_c = tau beta_c / (2 - beta_c)`` and ``beta_c`` the number of faces of the pool that were last
    surer than ``tau`` of c, over the largest such number (see ``CurriculumThreshold``). In the first steps
    all thresholds are 0, so every face is believed.

    Paper (recalled, not re-read) / code (USB, microsoft/Semi-supervised-learning) / ours, where they differ:

    - ``beta`` is computed: at the start of the step, as in TorchSSL / after the masking / as USB
    - while all faces of the pool say the same: nothing is said / ``beta`` rests / as USB
    - what the pool is sure of, with several processes: not said / kept by each for itself / of all
    - weak view and its forward: as in FixMatch

    Args:
        tau: confidence from which a face counts as learnt, and the highest threshold.
        lambda_u: weight of the unlabeled loss.
        thresh_warmup: whether the number of faces never sure of anything also counts as the largest, which
            keeps all thresholds low at first.
        **kwargs: options of every method.
    """

    about = About(
        name="FlexMatch",
        paper="Zhang et al. 2021",
        url="https://arxiv.org/abs/2110.08263",
        believes="the student's weak view, if surer than the threshold of the class",
        learns="the strong view",
        state="what each unlabeled face was last surely believed to show; a threshold per class",
    )

    def __init__(
        self, tau: float = 0.95, lambda_u: float = 1.0, thresh_warmup: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(tau, lambda_u, **kwargs)
        self.curriculum = CurriculumThreshold(self.task.classes, tau, thresh_warmup)

    def setup(self, stage: str) -> None:
        """Make room for the unlabeled pool."""
        super().setup(stage)
        if stage == "fit":
            self.curriculum.resize(len(self.datamodule.unlabeled))

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Believe the student's most likely emotion wherever it reaches the emotion's threshold."""
        q = self.task.predict(self.student(unlabeled.weak))
        pseudo = make_pseudo_labels(
            unlabeled.index, q.emotion, q.valence_arousal, self.curriculum.per_class()
        )
        self.curriculum.update(q.emotion, unlabeled.index)
        return pseudo
