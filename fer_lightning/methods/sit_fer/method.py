"""SIT-FER: believe what the classifier, text and labeled faces say together."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.losses.classification import soft_cross_entropy
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.sit_fer.fusion import Fusion, unit
from fer_lightning.methods.sit_fer.levels import LEVELS, SETTINGS
from fer_lightning.methods.sit_fer.text_anchors import TextAnchor, check_encoder, text_anchors
from fer_lightning.models.network import FaceNetwork, Pool
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.task import Output, Prediction


class SITFER(SemiSupervised):
    """SIT-FER: believe what the classifier, text and labeled faces say together.

    Ding et al., "SIT-FER: Integration of Semantic-, Instance-, Text-level Information for Semi-supervised
    Facial Expression Recognition", 2025, https://arxiv.org/abs/2503.18463. With features q of unit length,
    ``p_sem = softmax g``, ``p_text = softmax q.t / T``, ``p_ins = sum_k softmax_k(q.b_k / T) l_k`` and
    ``p^ = (p_sem + p_text + p_ins) / 3`` of the weak view; the loss is ``L_s + lambda_t L_t + lambda_u L_u``,
    where ``L_t`` teaches the labels to p_text. The forms of p^ and the loss are the paper's; temperatures,
    instance score and numbers of ``paper`` are a reconstruction. ``code``: github.com/PatrickStarL/SIT-FER.

    ==============  ==============================  ==================================================
    .               ``paper``                       ``code``
    ==============  ==============================  ==================================================
    text encoder    CLIP (``open_clip``)            untrained transformer (``random``)
    p^              mean of probabilities           softmax of weighted logits and cosines, without T
    memory          all labeled faces at the start, labeled faces once seen, with the noise of dropout
                    and a queue of accepted p^
    instance score  labels of similar faces         highest cosine of each class, at least 0
    accepted        p^ >= tau; mean of the batch    p^ > tau; mean of the accepted faces
    test            p^                              weighted mean of probabilities
    ==============  ==============================  ==================================================

    Differences: the default anchors are a ``simplex``, which needs no download; for the paper's, take
    ``open_clip``. In ``code``, unlabeled faces ask the memory before the labeled faces of the step are in it.
    The student fills the memory; an EMA teacher (the paper has none) asks it when served, as the average
    of the students that wrote it. Features of unit length have logits no longer than the weights of the head,
    so acceptance begins once those have grown. Labels alone (``labeled_only_steps``) teach the text as well.

    Args:
        mode: ``paper`` or ``code``; set ``text_anchor`` beside it.
        setting: whose tau and weights: ``sfew400``, ``rafdb4000``, ``rafdb2000`` or ``rafdb5000``.
        levels: which of semantic, text and instance p^ and the test consist of.
        tau: confidence from which a pseudo-label is believed; None for the setting's.
        lambda_t: weight of the text loss relative to the supervised one; None for the setting's.
        lambda_u: of the unlabeled loss, likewise.
        start: share of the run before p^ has p_ins; None for 0.25 (``paper``) or the setting's.
        temperature_text: T of p_text, over 0; only in ``paper``, as the next three.
        temperature_instance: T of p_ins.
        instance_score: ``labels``, or ``nearest`` for the score of ``code``, over T.
        queue: length of the queue; None for as many as there are labeled faces.
        unit_features: whether the head reads features of unit length, as in paper and code.
        inference: what validation, test and prediction answer: ``fused`` p^, or ``semantic``, p_sem alone.
        text_anchor: ``open_clip``, ``sentence``, ``random`` or ``simplex``; the last two need no weights.
        text_encoder: options of ``text_anchors``: model, pretrained, prompts, phrases.
        center_anchors: subtract the mean of the anchors.
        anchor_projection: ``isometry`` to the width of the features, or ``learned`` from there on.
        **kwargs: options of every method.
    """

    about = About(
        name="SIT-FER",
        paper="Ding et al. 2025",
        url="https://arxiv.org/abs/2503.18463",
        believes="the mean of classifier, text anchors and labels of similar faces, if surer than `tau`",
        learns="the strong view",
        state="memory of labeled faces, queue of accepted ones",
    )
    views = Views(labeled=1, weak=1, strong=1)

    def __init__(
        self,
        mode: Literal["paper", "code"] = "paper",
        setting: Literal["sfew400", "rafdb4000", "rafdb2000", "rafdb5000"] = "rafdb4000",
        levels: Sequence[str] = LEVELS,
        tau: float | None = None,
        lambda_t: float | None = None,
        lambda_u: float | None = None,
        start: float | None = None,
        temperature_text: float = 0.1,
        temperature_instance: float = 0.1,
        instance_score: Literal["labels", "nearest"] = "labels",
        queue: int | None = None,
        unit_features: bool = True,
        inference: Literal["fused", "semantic"] = "fused",
        text_anchor: TextAnchor = "simplex",
        text_encoder: dict[str, Any] | None = None,
        center_anchors: bool = False,
        anchor_projection: Literal["isometry", "learned"] = "isometry",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_encoder(text_encoder or {})
        self.paper, self.inference = mode == "paper", inference
        self.setting = (SETTINGS[setting].as_in_paper() if self.paper else SETTINGS[setting]).only(levels)
        if start is not None:
            self.setting = self.setting._replace(start=start, tested_start=start)
        self.tau = self.setting.tau if tau is None else tau
        self.a_s, a_t, a_u = self.setting.a
        self.a_t = a_t if lambda_t is None else self.a_s * lambda_t
        self.a_u = a_u if lambda_u is None else self.a_s * lambda_u
        self.levels = Fusion(
            self.task.classes,
            self.student.head.in_features,
            self.setting,
            self.paper,
            temperature_text,
            temperature_instance,
            nearest=instance_score == "nearest",
            learned=anchor_projection == "learned",
        )

    def build_network(self) -> FaceNetwork:
        """Pool to features of unit length."""
        backbone, h = self.build_backbone(), self.hparams
        neck = Pool(backbone, h.dropout, unit=h.unit_features)
        return FaceNetwork(backbone, self.task, neck, **self.network_options)

    def forward(self, images: Tensor) -> Prediction:
        """Recognise faces by the mean over the levels."""
        output: Output = self.inference_network(images)
        prediction = self.task.predict(output)
        if self.inference == "semantic":
            return prediction
        return prediction._replace(emotion=self.levels.answer(self.levels(output)))

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Believe the most likely emotion of p^ wherever it is sure enough, and remember what is believed."""
        output: Output = self.student(unlabeled.weak)
        levels = self.levels(output)
        p = self.levels.believe(levels)
        pseudo = make_pseudo_labels(unlabeled.index, p, output.valence_arousal, self.tau)
        if not self.paper:
            pseudo = pseudo._replace(weight=(pseudo.confidence > self.tau).to(p))
        elif self.training and self.levels.remembers:
            self.levels.instance.accepted.push(self._key(output), p, pseudo.weight > 0)
        if self._logged_now():
            for level, said in zip(LEVELS, levels, strict=True):
                self.log(f"train/confidence/{level}", said.softmax(-1).amax(-1).mean())
        return pseudo

    def losses(
        self, labeled: Labeled, unlabeled: Unlabeled | None, pseudo: PseudoLabels | None
    ) -> dict[str, Tensor]:
        """Return ``L_s``, ``L_t`` and ``L_u``, and remember the labeled faces."""
        images = [labeled.image] if unlabeled is None else [labeled.image, unlabeled.strong]
        x, *s = self.forward_views(*images)
        if self.training and self.levels.remembers:
            y = labeled.target.emotion.nan_to_num()
            self.levels.instance.labeled.write(labeled.index, self._key(x), y)
        text = soft_cross_entropy(self.levels.text(unit(x.features)), labeled.target.emotion)
        terms = {
            "supervised": self.a_s * self.task.supervised(x, labeled.target),
            "text": self.a_t * text,
        }
        if pseudo is not None:
            weight = pseudo.weight
            if not self.paper:  # a mean over the accepted faces alone
                weight = weight * len(weight) / weight.sum().clamp(min=1)
            terms["unlabeled"] = self.a_u * self.task.consistency(s[0], pseudo.target, weight)
        return terms

    def setup(self, stage: str) -> None:
        """Make room for the labeled faces, and in ``paper`` for as many accepted ones."""
        super().setup(stage)
        if stage == "fit" and self.levels.remembers:
            faces, length = len(self.datamodule.labeled), self.hparams.queue
            self.levels.instance.labeled.resize(faces)
            if self.paper:
                self.levels.instance.accepted.resize(faces if length is None else length)

    def on_fit_start(self) -> None:
        """Ask for the text, unless a checkpoint has brought the anchors."""
        h, anchors = self.hparams, self.levels.text.anchors
        if not anchors.any():
            encoder, width = h.text_encoder or {}, anchors.shape[1]
            anchors.copy_(
                text_anchors(h.text_anchor, self.task.emotions, width, center=h.center_anchors, **encoder)
            )

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Remember every labeled face, unless a checkpoint did; only in ``paper``."""
        super().on_train_start()
        if self.paper and self.levels.remembers and not self.levels.instance.labeled.written.any():
            self.student.eval()
            self.levels.instance.labeled.fill(self.labeled_faces(), lambda x: self._key(self.student(x)))
            self.student.train()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Note how far the run is, so that a checkpoint answers as the run did."""
        self.levels.done.fill_(self.progress)

    def _key(self, output: Output) -> Tensor:
        """(B, D) rows of the memory: without the noise of dropout in ``paper``."""
        neck = cast(Pool, self.student.neck)
        return unit(neck.pool(output.maps) if self.paper else output.features)
