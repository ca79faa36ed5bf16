"""Mean Teacher: agree with the average of yourself on another view of the face."""

from typing import Any

from torch import Tensor

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.errors import InputError
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.schedules import ramp_up
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels


class MeanTeacher(SemiSupervised):
    """Mean Teacher: agree with the average of yourself on another view of the face.

    Tarvainen and Valpola, "Mean Teachers Are Better Role Models: Weight-Averaged Consistency Targets Improve
    Semi-Supervised Deep Learning Results", NeurIPS 2017, https://arxiv.org/abs/1703.01780:
    ``l_s + lambda_u w(t) l_u``, where ``l_u`` is the mean over the unlabeled batch and over the emotions of
    ``(p(view 2; student) - p(view 1; teacher))^2``. Both views are weak. The teacher is the average of the
    weights that every method here has; no gradient reaches it.

    The gradient of ``l_u`` is the student's. (USB, as of 2025-09, puts the teacher's answer in both places,
    see its issues 102 and 226: there the term has no gradient and the method is supervised learning.)

    =========  ===========================  ======================  ===========================
    what       paper                        TorchSSL, USB           ours
    =========  ===========================  ======================  ===========================
    ramp       sigmoid, over 40000 steps    linear, 0.4 of the run  as USB; `ramp`
    labeled    consistency there too        unlabeled faces alone   as USB
    teacher's  statistics of its batch      likewise                the averaged ones
    BN                                                              (eval mode)
    student's  both passes move the         the labeled pass alone  both; one joint pass unless
    BN         running statistics                                   `joint_forward: false`
    =========  ===========================  ======================  ===========================

    With ``targets: both``, valence and arousal agree as well, by their squared error.

    Args:
        lambda_u: weight of the unlabeled loss, reached after the ramp.
        ramp: share of the run over which the weight rises linearly from 0, in [0, 1].
        **kwargs: options of every method; ``ema_decay`` must not be 0.
    """

    about = About(
        name="Mean Teacher",
        paper="Tarvainen and Valpola 2017",
        url="https://arxiv.org/abs/1703.01780",
        believes="the teacher's probabilities on a weak view",
        learns="another weak view, by squared error",
        state="",
    )
    views = Views(labeled=1, weak=2, strong=0)

    def __init__(self, lambda_u: float = 50.0, ramp: float = 0.4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.teacher is None:
            raise InputError("--model.ema_decay is 0, but Mean Teacher needs a teacher; 0.999 is usual")
        self.lambda_u, self.ramp = lambda_u, ramp

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Believe the teacher's probabilities on the first view of every face."""
        q = self.task.predict(self.inference_network(unlabeled.weak[0]))
        return make_pseudo_labels(unlabeled.index, q.emotion, q.valence_arousal, None, soft=q.emotion)

    def losses(
        self, labeled: Labeled, unlabeled: Unlabeled | None, pseudo: PseudoLabels | None
    ) -> dict[str, Tensor]:
        """Return ``l_s`` and ``lambda_u w(t) l_u`` of the student on the second view."""
        if unlabeled is None or pseudo is None:
            return super().losses(labeled, unlabeled, pseudo)
        x, u = self.forward_views(labeled.image, unlabeled.weak[1])
        weight = self.lambda_u * ramp_up(self.progress, self.ramp)
        return {
            "supervised": self.task.supervised(x, labeled.target),
            "unlabeled": weight * self.task.mse_consistency(u, pseudo.target, pseudo.weight),
        }
