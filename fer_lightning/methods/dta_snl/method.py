"""DTA+SNL, a reconstruction: dynamic thresholds, selective negative learning and local attention."""

from typing import Any, Literal

import torch
from torch import Tensor

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.distributed import total
from fer_lightning.errors import InputError
from fer_lightning.methods.about import About
from fer_lightning.methods.base import Optimizer, SemiSupervised
from fer_lightning.methods.dta_snl.complementary import (
    improbable,
    outside_mass,
    outside_top,
    places,
    smallest_k,
)
from fer_lightning.methods.dta_snl.dynamic_threshold import DynamicThreshold
from fer_lightning.methods.dta_snl.local_attention import Drop, LocalAttention
from fer_lightning.methods.dta_snl.negative_learning import negative_learning
from fer_lightning.methods.schedules import Schedule
from fer_lightning.methods.step_losses import Losses
from fer_lightning.models.network import FaceNetwork
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.ranges import Momentum, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Share
from fer_lightning.task import Output


class DTASNL(SemiSupervised):
    """DTA+SNL, a reconstruction: dynamic thresholds, selective negative learning and local attention.

    After Cai et al., "Semi-Supervised Facial Expression Recognition based on Dynamic Threshold and Negative
    Learning", 2026, https://arxiv.org/abs/2601.05556. Only the abstract was available. It names the three
    parts; the EMA teacher and the balanced sampling are known from second hand; every formula is that of the
    nearest published work, so no number of this class is a number of the paper::

        abstract                                    here
        local attention, random dropout of maps     LANets, one of whose maps is dropped (TransFER)
        dynamic threshold adjustment                Ada-CM's margin of running means: ``DynamicThreshold``
        selective negative learning: complementary  emotions whose probability is below ``negative_threshold``
          labels of faces of low confidence         (UPS), of the faces below the threshold

    The loss is ``lambda_x CE(labeled) + lambda_u CE(accepted) + lambda_n NL(rejected)`` on strong views; the
    teacher makes the pseudo-labels on weak views. The running means are of the batches before. Each part can
    be switched off (``attention`` 0, ``dta`` false, ``snl`` false): without them it is FixMatch with the
    teacher's pseudo-labels. Optimizer, dropout and unit features are Ada-CM's, whose batches are 16 labeled
    and 16 unlabeled faces in 20 epochs of 800 steps.

    Args:
        attention: number of LANets; 0 for plain pooling.
        reduction: of the width inside a LANet.
        drop: in training, ``maps`` drops one attention map of a face, ``channel`` channels, ``none`` nothing.
        drop_rate: probability that a face loses a map (0.6 in TransFER) or a channel (0.1 is usual).
        residual: multiply features by 1 + attention.
        dta: whether the threshold moves.
        threshold: without ``dta`` (tau).
        statistic: what moves the threshold: ``labeled`` faces, or ``unlabeled`` ones as in FreeMatch.
        scope: a threshold per ``class``, or one for all (``global``).
        update: of the threshold, after each ``iteration`` or each ``epoch`` (then Ada-CM's).
        max_threshold: highest threshold of ``labeled`` (Ada-CM's beta).
        min_threshold: lowest threshold of ``labeled``; 0.6 was better on validation faces than Ada-CM's 0.8.
        momentum: of the running means.
        snl: whether to learn from complementary labels.
        select: which emotions are complementary: those below ``negative_threshold`` (``probability``), those
            outside the teacher's k most likely (``top_k``; k as in FullMatch, of the batch before), the
            ``lowest`` ones, or those outside the fewest that hold a ``mass`` of 0.90 (LEAF).
        samples: of which faces: of ``low`` confidence, or ``all``.
        negative_threshold: probability below which an emotion is complementary (tau_n); 1 / C is the natural
            upper bound.
        lowest: number of complementary emotions of ``lowest``.
        guard: an emotion to which the student gives more is not learned as complementary; 1 for no guard.
        start_epoch: first epoch, from 1, that learns from unlabeled faces; before, the teacher is too young.
        supervised_weight: weight of the supervised loss (lambda_x).
        unlabeled_weight: weight of the unlabeled loss (lambda_u).
        negative_weight: weight of negative learning (lambda_n).
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
        name="DTA+SNL (reconstruction)",
        paper="Cai et al. 2026",
        url="https://arxiv.org/abs/2601.05556",
        pseudo_labels="the teacher's prediction on the weak view, from its emotion's threshold on",
        learns="the strong view; of rejected faces, the emotions that they do not show",
        state="a threshold per emotion, from the teacher's confidence on labeled faces",
    )
    views = Views(labeled=1, weak=1, strong=1)
    class_balanced = True
    k: Tensor

    def __init__(
        self,
        attention: NonNegativeInt = 2,
        reduction: PositiveInt = 16,
        drop: Drop = "maps",
        drop_rate: Share = 0.6,
        residual: bool = False,
        dta: bool = True,
        threshold: Share = 0.95,
        statistic: Literal["labeled", "unlabeled"] = "labeled",
        scope: Literal["class", "global"] = "class",
        update: Literal["iteration", "epoch"] = "iteration",
        max_threshold: Share = 0.97,
        min_threshold: Share = 0.6,
        momentum: Momentum = 0.99,
        snl: bool = True,
        select: Literal["probability", "top_k", "lowest", "mass"] = "probability",
        samples: Literal["low", "all"] = "low",
        negative_threshold: Share = 0.05,
        lowest: PositiveInt = 3,
        guard: Share = 0.9,
        start_epoch: PositiveInt = 2,
        supervised_weight: NonNegativeFloat = 1.0,
        unlabeled_weight: NonNegativeFloat = 1.0,
        negative_weight: NonNegativeFloat = 1.0,
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
            raise InputError("ema_decay is 0; DTA+SNL needs a teacher", option="model.ema_decay")
        self.threshold, self.snl, self.start_epoch = threshold, snl, start_epoch
        self.select, self.samples, self.guard = select, samples, guard
        self.negative_threshold, self.lowest = negative_threshold, lowest
        self.supervised_weight, self.unlabeled_weight = supervised_weight, unlabeled_weight
        self.negative_weight = negative_weight
        classes = self.task.classes
        self.dta = None
        if dta:
            bounds = min_threshold, max_threshold
            self.dta = DynamicThreshold(classes, statistic, scope, update, *bounds, momentum)
        self.register_buffer("k", torch.tensor(classes))

    def build_network(self) -> FaceNetwork:
        """Build the student with local attention before the pooling."""
        backbone, h = self.build_backbone(), self.hparams
        if not h.attention:
            return self.make_network(backbone)
        attention = h.attention, h.reduction, h.drop, h.drop_rate, h.residual
        neck = LocalAttention(backbone, *attention, h.dropout, h.unit_features)
        return self.make_network(backbone, neck)

    @property
    def learns_from_unlabeled(self) -> bool:
        """Whether this step learns from unlabeled faces: from the epoch ``start_epoch`` on."""
        begun = self._attached is None or self.current_epoch + 1 >= self.start_epoch
        return super().learns_from_unlabeled and begun

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Accept the teacher's most likely emotion from its threshold on; reject others with negatives."""
        output = self.inference_network(unlabeled.weak[0])
        q = self.task.predict(output)
        threshold = self.threshold if self.dta is None else self.dta.current(q.emotion)
        pseudo = make_pseudo_labels(
            unlabeled.index, q.emotion, q.valence_arousal, threshold, outputs=(output,)
        )
        if self.snl:
            pseudo = pseudo._replace(negative=self.complementary(q.emotion, pseudo.weight))
        return pseudo

    def complementary(self, q: Tensor, weight: Tensor) -> Tensor:
        """Return the (B, C) complementary labels N_j of (B, C) probabilities with (B,) weights."""
        if self.select == "probability":
            negative = improbable(q, self.negative_threshold)
        elif self.select == "mass":
            negative = outside_mass(q)
        else:
            negative = outside_top(q, self.k if self.select == "top_k" else q.shape[-1] - self.lowest)
        return negative & (weight == 0)[:, None] if self.samples == "low" else negative

    def losses(self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels) -> Losses:
        """Return CE of labeled faces, CE of accepted ones and negative learning of the rejected."""
        x, s = self.forward_views(labeled.weak[0], unlabeled.strong[0])
        terms = Losses(
            (x, s),
            supervised=self.supervised_weight * self.task.supervised(x, labeled.target),
            unlabeled=self.unlabeled_weight * self.task.consistency(s, pseudo.target, pseudo.weight),
        )
        if pseudo.negative is not None:
            terms["negative"] = self.negative_weight * negative_learning(
                s.logits, pseudo.negative, self.guard
            )
        return terms

    def labeled_losses(self, labeled: Labeled) -> Losses:
        """Return the weighted CE of labeled faces."""
        x = self.student(labeled.weak[0])
        return Losses((x,), supervised=self.supervised_weight * self.task.supervised(x, labeled.target))

    def update_state(
        self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels, outputs: tuple[Output, ...]
    ) -> None:
        """Move the threshold, and k of ``top_k``."""
        if self.dta is not None:
            self.dta.update_unlabeled(pseudo.outputs[0].logits.softmax(-1))
        if self.snl and self.select == "top_k":
            (count,) = total(places(outputs[1].logits, pseudo.target.label))
            self.k.copy_(smallest_k(count))
        self.update_labeled_state(labeled, outputs)

    def update_labeled_state(self, labeled: Labeled, outputs: tuple[Output, ...]) -> None:
        """Move the threshold by the teacher's confidence on the labeled faces of the batch."""
        if self.dta is not None and self.dta.reads_labeled_batches:
            p = self(labeled.weak[0]).emotion
            self.dta.update_labeled(p, labeled.target.label, self.current_epoch + 1)

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """Move a threshold that is updated by epochs."""
        if self.dta is not None:
            predictions = ((self(face.image).emotion, face.target.label) for face in self.labeled_faces())
            self.dta.end_epoch(predictions, self.current_epoch + 1)
