"""SIT-FER: pseudo-labels from the classifier, text anchors and similar labeled faces together."""

import logging
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor

from fer_lightning.data.batch import DataInfo, Labeled, Unlabeled, Views
from fer_lightning.losses.classification import soft_cross_entropy
from fer_lightning.methods.about import About
from fer_lightning.methods.base import Optimizer, SemiSupervised
from fer_lightning.methods.schedules import Schedule
from fer_lightning.methods.sit_fer.fusion import Fusion, unit
from fer_lightning.methods.sit_fer.levels import LEVELS, SETTINGS
from fer_lightning.methods.sit_fer.text_anchors import TextAnchor, check_encoder, chosen_anchor, text_anchors
from fer_lightning.methods.step_losses import Losses
from fer_lightning.models.inputs import face_batch
from fer_lightning.models.network import Pool
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.ranges import Momentum, NonNegativeFloat, NonNegativeInt, PositiveFloat, Share
from fer_lightning.task import Output, Prediction

log = logging.getLogger(__name__)


class SITFER(SemiSupervised):
    """SIT-FER: pseudo-labels from the classifier, text anchors and similar labeled faces together.

    Ding et al., "SIT-FER: Integration of Semantic-, Instance-, Text-level Information for Semi-supervised
    Facial Expression Recognition", 2025, https://arxiv.org/abs/2503.18463. With features q of unit length,
    ``p_sem = softmax g``, ``p_text = softmax q.t / T``, ``p_ins = sum_k softmax_k(q.b_k / T) l_k`` and
    ``p^ = (p_sem + p_text + p_ins) / 3`` of the weak view; the loss is ``L_s + lambda_t L_t + lambda_u L_u``,
    where ``L_t`` is the cross-entropy of p_text on the labels. The forms of p^ and the loss are the paper's;
    temperatures, instance score and numbers of ``paper`` are a reconstruction. ``code`` is exactly that of
    github.com/PatrickStarL/SIT-FER.

    ==============  ==============================  ==================================================
    .               ``paper``                       ``code``
    ==============  ==============================  ==================================================
    text encoder    CLIP (``open_clip``)            untrained transformer (``random``)
    p^              mean of probabilities           softmax of weighted logits and cosines, without T
    memory          all labeled faces at the start, labeled faces once a batch has held them, with the
                    and a queue of accepted p^      noise of dropout
    instance score  labels of similar faces         highest cosine of each class, at least 0
    accepted        p^ >= tau; mean of the batch    p^ > tau; mean of the accepted faces
    test            p^                              weighted mean of probabilities
    ==============  ==============================  ==================================================

    Differences: where CLIP's weights are not on this machine, ``text_anchor: auto`` takes a ``simplex``,
    whose anchors are equally far apart and contain no text; a warning is logged. In ``code``, pseudo-labels
    of a step are made before its labeled faces enter the memory. The student fills the memory; an EMA teacher
    (the paper has none) queries it in inference, as the average of the students that wrote it. Features of
    unit length have logits no longer than the weights of the head, so acceptance begins once those have
    grown; without pretrained weights a higher ``lr`` (1e-3) lets them grow sooner. Steps on labels alone
    train the text loss as well. The code's batches are 16 labeled and 16 unlabeled faces.

    Args:
        mode: ``paper`` or ``code``; set ``text_anchor`` beside it.
        setting: whose threshold and weights: ``sfew400``, ``rafdb4000``, ``rafdb2000`` or ``rafdb5000``.
        levels: those of semantic, text and instance that p^ and the test consist of.
        threshold: confidence from which a pseudo-label is accepted (tau); None for the setting's.
        text_weight: of the text loss relative to the supervised one (lambda_t); None for the setting's.
        unlabeled_weight: of the unlabeled loss, relative to the supervised one too (lambda_u).
        start: share of the run before p^ has p_ins; None for 0.25 (``paper``) or the setting's.
        text_temperature: T of p_text; only in ``paper``, as the next three.
        instance_temperature: T of p_ins.
        instance_score: ``labels``, or ``nearest`` for the score of ``code``, over T.
        queue: length of the queue; None for as many as there are labeled faces.
        inference: what validation, test and prediction use: ``fused`` p^, or ``semantic``, p_sem alone.
        text_anchor: ``auto`` (``open_clip`` if its weights are on this machine, else ``simplex``),
            ``open_clip``, ``sentence``, ``random`` or ``simplex``; the last two need no weights.
        text_encoder: options of ``text_anchors``: model, pretrained, prompts, phrases.
        center_anchors: subtract the mean of the anchors.
        anchor_projection: ``isometry`` to the width of the features, or ``learned`` from there on.
        dropout: see the base, as all of the next; these defaults are the code's.
        unit_features: the head reads features of unit length, in paper and code.
        optimizer: Adam, which AdamW is without weight decay.
        lr: learning rate.
        weight_decay: none.
        schedule: of the learning rate.
        ema_decay: 0, no teacher.
        joint_forward: labeled and strong views have a forward each.
        **kwargs: options of every method.
    """

    about = About(
        name="SIT-FER",
        paper="Ding et al. 2025",
        url="https://arxiv.org/abs/2503.18463",
        pseudo_labels="classifier, text anchors and labels of similar faces, averaged, from `threshold` on",
        learns="the strong view",
        state="memory of labeled faces, queue of accepted ones",
    )
    views = Views(labeled=1, weak=1, strong=1)

    def __init__(
        self,
        mode: Literal["paper", "code"] = "paper",
        setting: Literal["sfew400", "rafdb4000", "rafdb2000", "rafdb5000"] = "rafdb4000",
        levels: Sequence[str] = LEVELS,
        threshold: Share | None = None,
        text_weight: NonNegativeFloat | None = None,
        unlabeled_weight: NonNegativeFloat | None = None,
        start: Share | None = None,
        text_temperature: PositiveFloat = 0.1,
        instance_temperature: PositiveFloat = 0.1,
        instance_score: Literal["labels", "nearest"] = "labels",
        queue: NonNegativeInt | None = None,
        inference: Literal["fused", "semantic"] = "fused",
        text_anchor: TextAnchor = "auto",
        text_encoder: dict[str, Any] | None = None,
        center_anchors: bool = False,
        anchor_projection: Literal["isometry", "learned"] = "isometry",
        dropout: Share = 0.5,
        unit_features: bool = True,
        optimizer: Optimizer = "adamw",
        lr: PositiveFloat = 1e-4,
        weight_decay: NonNegativeFloat = 0.0,
        schedule: Schedule = "constant",
        ema_decay: Momentum = 0.0,
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
            ema_decay=ema_decay,
            joint_forward=joint_forward,
            **kwargs,
        )
        check_encoder(text_encoder or {})
        self.paper, self.inference = mode == "paper", inference
        chosen = (SETTINGS[setting].as_in_paper() if self.paper else SETTINGS[setting]).only(levels)
        if start is not None:
            chosen = chosen._replace(start=start, test_start=start)
        self.threshold = chosen.threshold if threshold is None else threshold
        self.supervised_weight, text, unlabeled = chosen.loss_weights
        self.text_weight = text if text_weight is None else self.supervised_weight * text_weight
        self.unlabeled_weight = (
            unlabeled if unlabeled_weight is None else self.supervised_weight * unlabeled_weight
        )
        self.levels = Fusion(
            self.task.classes,
            self.student.head.in_features,
            chosen,
            self.paper,
            text_temperature,
            instance_temperature,
            nearest=instance_score == "nearest",
            learned=anchor_projection == "learned",
        )

    def forward(self, images: Tensor) -> Prediction:
        """Predict by the mean over the levels."""
        output: Output = self.inference_network(face_batch(images, self.image_size))
        prediction = self.task.predict(output)
        if self.inference == "semantic":
            return prediction
        return prediction._replace(emotion=self.levels.predict(self.levels(output)))

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Accept the most likely emotion of p^ wherever it reaches tau."""
        q: Output = self.student(unlabeled.weak[0])
        levels = self.levels(q)
        p = self.levels.p_hat(levels)
        pseudo = make_pseudo_labels(unlabeled.index, p, q.valence_arousal, self.threshold, outputs=(q,))
        if not self.paper:
            pseudo = pseudo._replace(weight=(pseudo.confidence > self.threshold).to(p))
        if self.logging_now:
            for name, level in zip(LEVELS, levels, strict=True):
                self.log(f"train/confidence/{name}", level.softmax(-1).amax(-1).mean())
        return pseudo

    def losses(self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels) -> Losses:
        """Return ``L_s``, ``lambda_t L_t`` and ``lambda_u L_u``."""
        x, s = self.forward_views(labeled.weak[0], unlabeled.strong[0])
        weight = pseudo.weight
        if not self.paper:  # a mean over the accepted faces alone
            weight = weight * len(weight) / weight.sum().clamp(min=1)
        terms = self._labeled_terms(x, labeled)
        terms["unlabeled"] = self.unlabeled_weight * self.task.consistency(s, pseudo.target, weight)
        return terms

    def labeled_losses(self, labeled: Labeled) -> Losses:
        """Return ``L_s`` and ``lambda_t L_t``."""
        return self._labeled_terms(self.student(labeled.weak[0]), labeled)

    def _labeled_terms(self, x: Output, labeled: Labeled) -> Losses:
        text = soft_cross_entropy(self.levels.text(unit(x.features)), labeled.target.emotion)
        return Losses(
            (x,),
            supervised=self.supervised_weight * self.task.supervised(x, labeled.target),
            text=self.text_weight * text,
        )

    def update_state(
        self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels, outputs: tuple[Output, ...]
    ) -> None:
        """Queue the accepted faces with their p^ (``paper``), and renew the labeled ones of the batch."""
        if self.paper and self.levels.remembers:
            (q,) = pseudo.outputs
            p = self.levels.p_hat(self.levels(q))
            self.levels.instance.accepted.push(self._key(q), p, pseudo.weight > 0)
        self.update_labeled_state(labeled, outputs)

    def update_labeled_state(self, labeled: Labeled, outputs: tuple[Output, ...]) -> None:
        """Renew the labeled faces of the batch in the memory."""
        if self.levels.remembers:
            y = labeled.target.emotion.nan_to_num()
            self.levels.instance.labeled.write(labeled.index, self._key(outputs[0]), y)

    def prepare(self, data: DataInfo) -> None:
        """Make room for the labeled faces, and in ``paper`` for as many accepted ones."""
        if self.levels.remembers:
            faces, length = len(data.labeled.emotion), self.hparams.queue
            self.levels.instance.labeled.resize(faces)
            if self.paper:
                self.levels.instance.accepted.resize(faces if length is None else length)

    def on_fit_start(self) -> None:
        """Encode the text, unless a checkpoint has brought the anchors."""
        h, anchors = self.hparams, self.levels.text.anchors
        if not anchors.any():
            encoder, width = h.text_encoder or {}, anchors.shape[1]
            kind = chosen_anchor(h.text_anchor, encoder.get("model"), encoder.get("pretrained"))
            if kind in ("simplex", "random"):
                log.warning(
                    "SIT-FER: the %s anchors of this run contain no text; for the paper's, set text_anchor "
                    "to open_clip, with its weights on this machine",
                    kind,
                )
            rows = text_anchors(kind, self.task.emotions, width, center=h.center_anchors, **encoder)
            anchors.copy_(rows)

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Put every labeled face into the memory, unless a checkpoint did; only in ``paper``."""
        super().on_train_start()
        if self.paper and self.levels.remembers and not self.levels.instance.labeled.written.any():
            self.student.eval()
            self.levels.instance.labeled.fill(self.labeled_faces(), lambda x: self._key(self.student(x)))
            self.student.train()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Keep the progress of the run, so that a checkpoint predicts as the run did."""
        self.levels.progress.fill_(self.progress)

    def _key(self, output: Output) -> Tensor:
        """(B, D) rows of the memory: without the noise of dropout in ``paper``."""
        neck = cast(Pool, self.student.neck)
        return unit(neck.pool(output.maps) if self.paper else output.features)
