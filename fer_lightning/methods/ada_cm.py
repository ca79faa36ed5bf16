"""Ada-CM: adaptive confidence margins; faces under their margin are contrasted."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.errors import InputError
from fer_lightning.losses.contrastive import supervised_contrastive
from fer_lightning.methods.about import About
from fer_lightning.methods.base import Optimizer, SemiSupervised
from fer_lightning.methods.schedules import Schedule
from fer_lightning.methods.step_losses import Losses
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.pseudo_labels.margins import class_margin, correct_confidence
from fer_lightning.ranges import NonNegativeFloat, OverOne, PositiveFloat, Share


class AdaCM(SemiSupervised):
    """Ada-CM: adaptive confidence margins; faces under their margin are contrasted.

    Li et al., "Towards Semi-Supervised Deep Facial Expression Recognition with An Adaptive Confidence
    Margin", CVPR 2022, https://arxiv.org/abs/2203.12341; code https://github.com/hangyu94/Ada-CM. The
    pseudo-label is the student's mean probability over two weak views. Where it reaches the margin ``T_c`` of
    its emotion (subset I), the strong view learns it; the features of the other faces' weak views (subset II)
    are contrasted by NT-Xent. After epoch t the teacher predicts the labeled faces, and with ``S_c`` those of
    emotion c that it predicts correctly, ``T_c = max(min_margin, beta / (1 + gamma**-t) mean_{S_c} max p)``:
    ``lambda_x CE(labeled) + lambda_u CE(I) + lambda_s NT-Xent(II)``.

    Open points of the paper's text are as in its code; optimizer, dropout and unit features are its code's
    too, whose networks begin with weights of a face data set and whose batches are 16 labeled and 16
    unlabeled faces in 20 epochs of 800 steps. Differences from that code::

                            official code                  here
        gradient of NT-Xent none in the first release      through both weak views, as in its later fix
        margin pass         augmented, last batch dropped  every labeled face once, not augmented
        shrinking           also of BN's statistics        of parameters alone
        BN                  over 8 + 8 faces on 2 GPUs     over the batch of a device
        NT-Xent             over all 16 faces              over the batch of a device
        strong view         RandAugment variant, cutout    that of the data options
        reported epoch      the best on the test set       the last, and the best on the validation set

    Args:
        supervised_weight: weight of the supervised loss (lambda_x).
        unlabeled_weight: weight of the unlabeled loss, on subset I (lambda_u).
        contrast_weight: weight of the contrast, on subset II (lambda_s).
        temperature: of NT-Xent.
        max_margin: the highest margin (beta).
        ramp_base: base of the margin's ramp over the epochs (gamma); e in the code.
        min_margin: the lowest margin, and the margin of the first epoch.
        shrink: after each step and each move of the teacher, parameters are multiplied by 1 - shrink * lr.
        dropout: see the base, as all of the next.
        unit_features: the head reads features of unit length.
        optimizer: Adam, which AdamW is without weight decay.
        lr: learning rate.
        weight_decay: none.
        schedule: of the learning rate.
        ema_warmup: none.
        joint_forward: labeled and strong views have a forward each.
        **kwargs: options of every method; ``ema_decay`` must be above 0.
    """

    about = About(
        name="Ada-CM",
        paper="Li et al. 2022",
        url="https://arxiv.org/abs/2203.12341",
        pseudo_labels="the student's mean over two weak views, from its emotion's margin on",
        learns="the strong view; contrasts the weak views of rejected faces",
        state="a margin per emotion, from the teacher's confidence on labeled faces",
    )
    views = Views(labeled=1, weak=2, strong=1)
    margin: Tensor

    def __init__(
        self,
        supervised_weight: NonNegativeFloat = 0.5,
        unlabeled_weight: NonNegativeFloat = 1.0,
        contrast_weight: NonNegativeFloat = 0.1,
        temperature: PositiveFloat = 0.07,
        max_margin: Share = 0.97,
        ramp_base: OverOne = math.e,
        min_margin: Share = 0.8,
        shrink: NonNegativeFloat = 0.02,
        dropout: Share = 0.5,
        unit_features: bool = True,
        optimizer: Optimizer = "adamw",
        lr: PositiveFloat = 5e-4,
        weight_decay: NonNegativeFloat = 0.0,
        schedule: Schedule = "constant",
        ema_warmup: bool = False,
        joint_forward: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            dropout=dropout,
            unit_features=unit_features,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            schedule=schedule,
            ema_warmup=ema_warmup,
            joint_forward=joint_forward,
            **kwargs,
        )
        if self.teacher is None:
            raise InputError("ema_decay is 0; Ada-CM needs a teacher", option="model.ema_decay")
        self.supervised_weight, self.unlabeled_weight = supervised_weight, unlabeled_weight
        self.contrast_weight, self.temperature, self.shrink = contrast_weight, temperature, shrink
        self.max_margin, self.ramp_base, self.min_margin = max_margin, ramp_base, min_margin
        # The contrast learns from the outputs on the weak views; a second forward would count the faces twice
        # in the batch statistics.
        self.gradient_through_weak_views = contrast_weight > 0
        self.register_buffer("margin", torch.full((self.task.classes,), min_margin))

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Accept the mean over both weak views wherever it reaches the margin of its emotion."""
        outputs = tuple(self.forward_views(*unlabeled.weak))
        a, b = (self.task.predict(output) for output in outputs)
        p = (a.emotion + b.emotion).detach() / 2
        valence_arousal = (a.valence_arousal + b.valence_arousal).detach() / 2
        return make_pseudo_labels(unlabeled.index, p, valence_arousal, self.margin, outputs=outputs)

    def losses(self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels) -> Losses:
        """Return CE of labeled faces, CE of subset I and NT-Xent of subset II."""
        x, s = self.forward_views(labeled.weak[0], unlabeled.strong[0])
        z = normalize(torch.cat([view.features for view in pseudo.outputs]), dim=-1)
        rejected = (pseudo.weight == 0).repeat(2)
        contrast = supervised_contrastive(z, unlabeled.index.repeat(2), self.temperature, rejected)
        return Losses(
            (x, s),
            supervised=self.supervised_weight * self.task.supervised(x, labeled.target),
            unlabeled=self.unlabeled_weight * self.task.consistency(s, pseudo.target, pseudo.weight),
            contrast=self.contrast_weight * contrast,
        )

    def labeled_losses(self, labeled: Labeled) -> Losses:
        """Return the weighted CE of labeled faces."""
        x = self.student(labeled.weak[0])
        return Losses((x,), supervised=self.supervised_weight * self.task.supervised(x, labeled.target))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step and move the teacher, then shrink the student, in the order of the paper's code."""
        super().optimizer_step(*args, **kwargs)
        factor = 1 - self.shrink * self.trainer.optimizers[0].param_groups[0]["lr"]
        with torch.no_grad():
            torch._foreach_mul_(list(self.student.parameters()), factor)

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """Set the margins by the teacher's confidence in the labeled faces that it predicts correctly."""
        predictions = ((self(face.image).emotion, face.target.label) for face in self.labeled_faces())
        sums, counts = correct_confidence(predictions)
        confidence, t = sums / counts.clamp(min=1), self.current_epoch + 1
        margin = class_margin(confidence, t, self.max_margin, self.ramp_base, self.min_margin)
        self.margin.copy_(margin)
