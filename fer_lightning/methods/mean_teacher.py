"""Mean Teacher: consistency with the averaged network on another view of the face."""

from typing import Any

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.errors import InputError
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.schedules import ramp_up
from fer_lightning.methods.step_losses import Losses
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.ranges import NonNegativeFloat, Share


class MeanTeacher(SemiSupervised):
    """Mean Teacher: consistency with the averaged network on another view of the face.

    Tarvainen and Valpola, "Mean Teachers Are Better Role Models: Weight-Averaged Consistency Targets Improve
    Semi-Supervised Deep Learning Results", NeurIPS 2017, https://arxiv.org/abs/1703.01780:
    ``l_s + lambda_u w(t) l_u``, where ``l_u`` is the mean over the unlabeled batch and over the emotions of
    ``(p(view 2; student) - p(view 1; teacher))^2``. Both views are weak. The teacher is the average of the
    weights that every method here has; no gradient reaches it.

    The gradient of ``l_u`` is the student's. (USB, as of 2025-09, puts the teacher's prediction in both
    places, see its issues 102 and 226: there the term has no gradient and the method is supervised learning.)
    With that mended, its step and this one, side by side on random batches for 40 to 80 steps, gave losses
    and weights equal to 1e-8. Differences:

    =========  ===========================  ======================  ===========================
    what       paper                        TorchSSL, USB           ours
    =========  ===========================  ======================  ===========================
    ramp       sigmoid, over 40000 steps    linear, 0.4 of the run  as USB; `ramp`
    labeled    consistency there too        unlabeled faces alone   as USB
    teacher's  statistics of its batch      of its batch            the averaged ones
    BN                                                              (eval mode)
    student's  both passes move the         the labeled pass alone  both; one joint pass unless
    BN         running statistics                                   `joint_forward: false`
    =========  ===========================  ======================  ===========================

    With ``targets: both``, valence and arousal are learned as well, by their squared error.

    Args:
        unlabeled_weight: weight of the unlabeled loss, reached after the ramp (lambda_u).
        ramp: share of the run over which the weight rises linearly from 0.
        joint_forward: see the base; separate here, as in USB: jointly, its batch statistics cost accuracy.
        **kwargs: options of every method; ``ema_decay`` must be above 0.
    """

    about = About(
        name="Mean Teacher",
        paper="Tarvainen and Valpola 2017",
        url="https://arxiv.org/abs/1703.01780",
        pseudo_labels="the teacher's probabilities on a weak view",
        learns="another weak view, by squared error",
        state="",
    )
    views = Views(labeled=1, weak=2, strong=0)

    def __init__(
        self,
        unlabeled_weight: NonNegativeFloat = 50.0,
        ramp: Share = 0.4,
        joint_forward: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(joint_forward=joint_forward, **kwargs)
        if self.teacher is None:
            raise InputError("ema_decay is 0; Mean Teacher needs a teacher", option="model.ema_decay")
        self.unlabeled_weight, self.ramp = unlabeled_weight, ramp

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Take the teacher's probabilities on the first view of every face."""
        q = self.task.predict(self.inference_network(unlabeled.weak[0]))
        return make_pseudo_labels(unlabeled.index, q.emotion, q.valence_arousal, None, soft=q.emotion)

    def losses(self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels) -> Losses:
        """Return ``l_s`` and ``lambda_u w(t) l_u`` of the student on the second view."""
        x, u = self.forward_views(labeled.weak[0], unlabeled.weak[1])
        weight = self.unlabeled_weight * ramp_up(self.progress, self.ramp)
        return Losses(
            (x, u),
            supervised=self.task.supervised(x, labeled.target),
            unlabeled=weight * self.task.mse_consistency(u, pseudo.target, pseudo.weight),
        )
