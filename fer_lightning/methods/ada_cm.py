"""Ada-CM: a confidence margin per emotion; sure faces are believed, the others contrasted."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.errors import InputError
from fer_lightning.losses.contrastive import supervised_contrastive
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.models.network import FaceNetwork, Pool
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.pseudo_labels.margins import class_margin, recognised
from fer_lightning.task import Output


class AdaCM(SemiSupervised):
    """Ada-CM: a confidence margin per emotion; sure faces are believed, the others contrasted.

    Li et al., "Towards Semi-Supervised Deep Facial Expression Recognition with An Adaptive Confidence
    Margin", CVPR 2022, https://arxiv.org/abs/2203.12341; code https://github.com/hangyu94/Ada-CM. The
    student's mean probability over two weak views is the belief. Where it reaches the margin ``T_c`` of its
    emotion (subset I), the strong view learns it; the features of the other faces' weak views (subset II) are
    contrasted by NT-Xent. After epoch t the teacher answers the labeled faces, and with ``S_c`` those of
    emotion c that it recognises, ``T_c = max(floor, beta / (1 + gamma**-t) mean_{S_c} max p)``:
    ``lambda_x CE(labeled) + lambda_u CE(I) + lambda_s NT-Xent(II)``.

    What the paper's text leaves open is as in its code. Differences from that code::

                            official code                  ours
        gradient of NT-Xent none in the first release      through both weak views, as in its later fix
        margin pass         augmented, last batch dropped  every labeled face once, as it is
        shrinking           also of BN's statistics        of parameters alone
        BN and NT-Xent      over 8 + 8 faces on 2 GPUs     over the batch of a device
        strong view         RandAugment variant, cutout    that of the data options
        reported epoch      the best on the test set       the last, and the best on the validation set

    Args:
        lambda_x: weight of the supervised loss.
        lambda_u: weight of the unlabeled loss, on subset I.
        lambda_s: weight of the contrast, on subset II.
        temperature: of NT-Xent, over 0.
        beta: the highest margin, in [0, 1].
        gamma: base of the margin's ramp over the epochs, over 1; e in the code.
        floor: the lowest margin, and the margin of the first epoch, in [0, 1].
        shrink: after each step and each move of the teacher, parameters are multiplied by 1 - shrink * lr.
        unit_features: let the head read features of unit length.
        **kwargs: options of every method.
    """

    about = About(
        name="Ada-CM",
        paper="Li et al. 2022",
        url="https://arxiv.org/abs/2203.12341",
        believes="the student's mean over two weak views, if surer than its emotion's margin",
        learns="the strong view; contrasts the weak views of rejected faces",
        state="a margin per emotion, from the teacher's confidence in labeled faces",
    )
    views = Views(labeled=1, weak=2, strong=1)
    margin: Tensor

    def __init__(
        self,
        lambda_x: float = 0.5,
        lambda_u: float = 1.0,
        lambda_s: float = 0.1,
        temperature: float = 0.07,
        beta: float = 0.97,
        gamma: float = math.e,
        floor: float = 0.8,
        shrink: float = 0.02,
        unit_features: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.teacher is None:
            raise InputError("Ada-CM's teacher sets the margins: --model.ema_decay must be over 0")
        if temperature <= 0:
            raise InputError(f"--model.temperature is {temperature}; it must be over 0, e.g. 0.07")
        self.lambda_x, self.lambda_u, self.lambda_s = lambda_x, lambda_u, lambda_s
        self.temperature, self.shrink = temperature, shrink
        self.beta, self.gamma, self.floor = beta, gamma, floor
        self.register_buffer("margin", torch.full((self.task.classes,), floor))
        self._seen: list[Output] = []

    def build_network(self) -> FaceNetwork:
        """Pool to features of unit length."""
        backbone, h = self.build_backbone(), self.hparams
        neck = Pool(backbone, h.dropout, unit=h.unit_features)
        return FaceNetwork(backbone, self.task, neck, **self.network_options)

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Believe the mean over both weak views wherever it reaches the margin of its emotion."""
        # The contrast learns from these very passes; others would count the faces twice in the statistics.
        with torch.set_grad_enabled(self.training and self.lambda_s > 0):
            self._seen = self.forward_views(*unlabeled.weak)
        a, b = (self.task.predict(view) for view in self._seen)
        p, valence_arousal = (a.emotion + b.emotion) / 2, (a.valence_arousal + b.valence_arousal) / 2
        return make_pseudo_labels(unlabeled.index, p, valence_arousal, self.margin)

    def losses(
        self, labeled: Labeled, unlabeled: Unlabeled | None, pseudo: PseudoLabels | None
    ) -> dict[str, Tensor]:
        """Return CE of labeled faces, CE of subset I and NT-Xent of subset II."""
        if unlabeled is None or pseudo is None:
            x = self.student(labeled.image)
            return {"supervised": self.lambda_x * self.task.supervised(x, labeled.target)}
        weak, self._seen = self._seen or self.forward_views(*unlabeled.weak), []
        x, s = self.forward_views(labeled.image, unlabeled.strong)
        z = normalize(torch.cat([view.features for view in weak]), dim=-1)
        contrast = supervised_contrastive(
            z, unlabeled.index.repeat(2), self.temperature, (pseudo.weight == 0).repeat(2)
        )
        return {
            "supervised": self.lambda_x * self.task.supervised(x, labeled.target),
            "unlabeled": self.lambda_u * self.task.consistency(s, pseudo.target, pseudo.weight),
            "contrastive": self.lambda_s * contrast,
        }

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step and move the teacher, then shrink the student, in the order of the paper's code."""
        super().optimizer_step(*args, **kwargs)
        factor = 1 - self.shrink * self.trainer.optimizers[0].param_groups[0]["lr"]
        with torch.no_grad():
            torch._foreach_mul_(list(self.student.parameters()), factor)

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """Measure the margins anew with the teacher."""
        answers = ((self(face.image).emotion, face.target.label) for face in self.labeled_faces())
        sums, counts = recognised(answers)
        confidence = sums / counts.clamp(min=1)
        t = self.current_epoch + 1
        self.margin.copy_(class_margin(confidence, t, self.beta, self.gamma, self.floor))
