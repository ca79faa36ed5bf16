"""DTA + SNL, reconstructed: a threshold that moves, and what an unsure face does not show."""

from typing import Any, Literal

import torch
from torch import Tensor

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.distributed import total
from fer_lightning.errors import InputError
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.dta_snl.complementary import improbable, outside_top, places, smallest_k
from fer_lightning.methods.dta_snl.local_attention import Drop, LocalAttention
from fer_lightning.methods.dta_snl.negative_learning import negative_learning
from fer_lightning.models.network import FaceNetwork, Pool
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.pseudo_labels.margins import DynamicThreshold


class DTASNL(SemiSupervised):
    """DTA + SNL, reconstructed: a threshold that moves, and what an unsure face does not show.

    After Cai et al., "Semi-Supervised Facial Expression Recognition based on Dynamic Threshold and Negative
    Learning", 2026, https://arxiv.org/abs/2601.05556. A reconstruction: only the abstract was to be had. From
    it are the three parts, from second hand the EMA teacher and the balanced sampling; every formula is taken
    from the nearest published work, and no number of this class is a number of the paper::

        abstract                                    ours
        local attention, random dropout of maps     LANets, one of whose maps is dropped (TransFER)
        dynamic threshold adjustment                Ada-CM's margin of running means: ``DynamicThreshold``
        selective negative learning: complementary  emotions the teacher finds less likely than ``tau_n``
          labels of faces of low confidence         (UPS), of the faces below the threshold

    ``lambda_x CE(labeled) + lambda_u CE(faces above the threshold) + lambda_n NL(faces below it)`` on strong
    views; the teacher believes, on weak views. The running means are of the batches before. Each part can be
    switched off (``attention`` 0, ``dta`` false, ``snl`` false): without them it is FixMatch by a teacher.

    Args:
        attention: number of LANets; 0 for plain pooling.
        reduction: of the width inside a LANet.
        drop: in training, ``maps`` drops one attention map of a face, ``channel`` channels, ``none`` nothing.
        drop_rate: probability that a face loses a map (0.6 in TransFER) or a channel (0.1 is usual).
        residual: multiply features by 1 + attention.
        unit_features: let the head read features of unit length.
        dta: whether the threshold moves.
        tau: threshold without ``dta``.
        stat: what moves it: ``labeled`` faces, or ``unlabeled`` ones as in FreeMatch.
        scope: a threshold per ``class``, or one for all (``global``).
        update: of the threshold, after each ``iteration`` or each ``epoch`` (then Ada-CM's).
        beta: highest threshold of ``labeled``.
        floor: lowest threshold of ``labeled`` (Ada-CM's is 0.8).
        momentum: of the running means.
        snl: whether to learn from complementary labels.
        select: which emotions are complementary: those below ``tau_n`` (``prob``), those outside the
            teacher's k likeliest (``topk``; k as in FullMatch, of the batch before) or the ``m`` ``lowest``.
        samples: of which faces: of ``low`` confidence, or ``all``.
        tau_n: probability below which an emotion is complementary; 1 / C is the natural upper bound.
        m: number of complementary emotions of ``lowest``.
        guard: an emotion to which the student gives more is not learnt as complementary; 1 for no guard.
        start: first epoch, from 1, that learns from unlabeled faces; before, the teacher is too young.
        lambda_x: weight of the supervised loss.
        lambda_u: weight of the unlabeled loss.
        lambda_n: weight of negative learning.
        **kwargs: options of every method.
    """

    about = About(
        name="DTA+SNL (reconstruction)",
        paper="Cai et al. 2026",
        url="https://arxiv.org/abs/2601.05556",
        believes="the teacher's weak view, if surer than its emotion's threshold; else what it does not show",
        learns="the strong view, both ways",
        state="a threshold per emotion, from the teacher's confidence in labeled faces",
    )
    views = Views(labeled=1, weak=1, strong=1)
    k: Tensor

    def __init__(
        self,
        attention: int = 2,
        reduction: int = 16,
        drop: Drop = "maps",
        drop_rate: float = 0.6,
        residual: bool = False,
        unit_features: bool = True,
        dta: bool = True,
        tau: float = 0.95,
        stat: Literal["labeled", "unlabeled"] = "labeled",
        scope: Literal["class", "global"] = "class",
        update: Literal["iteration", "epoch"] = "iteration",
        beta: float = 0.97,
        floor: float = 0.6,
        momentum: float = 0.99,
        snl: bool = True,
        select: Literal["prob", "topk", "lowest"] = "prob",
        samples: Literal["low", "all"] = "low",
        tau_n: float = 0.05,
        m: int = 3,
        guard: float = 0.9,
        start: int = 2,
        lambda_x: float = 1.0,
        lambda_u: float = 1.0,
        lambda_n: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.teacher is None:
            raise InputError("DTASNL believes its teacher: --model.ema_decay must be over 0")
        self.tau, self.snl, self.start = tau, snl, start
        self.select, self.samples, self.tau_n, self.m, self.guard = select, samples, tau_n, m, guard
        self.lambda_x, self.lambda_u, self.lambda_n = lambda_x, lambda_u, lambda_n
        classes = self.task.classes
        self.dta = DynamicThreshold(classes, stat, scope, update, beta, floor, momentum) if dta else None
        self.register_buffer("k", torch.tensor(classes))

    def build_network(self) -> FaceNetwork:
        """Look where the local attention says, and pool to features of unit length."""
        backbone, h = self.build_backbone(), self.hparams
        neck: torch.nn.Module = Pool(backbone, h.dropout, h.unit_features)
        if h.attention:
            attention = h.attention, h.reduction, h.drop, h.drop_rate, h.residual
            neck = LocalAttention(backbone, *attention, h.dropout, h.unit_features)
        return FaceNetwork(backbone, self.task, neck, **self.network_options)

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Believe the teacher wherever it is sure enough, and elsewhere what it finds improbable."""
        q = self(unlabeled.weak)
        if self.dta is not None:
            self.dta.see_unlabeled(q.emotion)
        threshold = self.tau if self.dta is None else self.dta.threshold
        pseudo = make_pseudo_labels(unlabeled.index, q.emotion, q.valence_arousal, threshold)
        if self.snl:
            pseudo = pseudo._replace(negative=self.complementary(q.emotion, pseudo.weight))
        return pseudo

    def complementary(self, q: Tensor, weight: Tensor) -> Tensor:
        """Return the (B, C) emotions N_j that faces of these (B, C) beliefs and (B,) weights do not show."""
        if self.select == "prob":
            negative = improbable(q, self.tau_n)
        else:
            negative = outside_top(q, self.k if self.select == "topk" else q.shape[-1] - self.m)
        return negative & (weight == 0)[:, None] if self.samples == "low" else negative

    def losses(
        self, labeled: Labeled, unlabeled: Unlabeled | None, pseudo: PseudoLabels | None
    ) -> dict[str, Tensor]:
        """Return CE of labeled faces, CE of believed ones and negative learning of the others."""
        epoch = self.current_epoch + 1
        if self.dta is not None and self.dta.reads_labeled_batches:
            with torch.no_grad():
                self.dta.see_labeled(self(labeled.image).emotion, labeled.target.label, epoch)
        if unlabeled is None or pseudo is None:
            x = self.student(labeled.image)
            return {"supervised": self.lambda_x * self.task.supervised(x, labeled.target)}
        x, s = self.forward_views(labeled.image, unlabeled.strong)
        begun = float(epoch >= self.start)
        terms = {
            "supervised": self.lambda_x * self.task.supervised(x, labeled.target),
            "unlabeled": begun * self.lambda_u * self.task.consistency(s, pseudo.target, pseudo.weight),
        }
        if pseudo.negative is not None:
            if self.training and self.select == "topk":
                (count,) = total(places(s.logits.detach(), pseudo.target.label))
                self.k.copy_(smallest_k(count))
            negative = negative_learning(s.logits, pseudo.negative, self.guard)
            terms["negative"] = begun * self.lambda_n * negative
        return terms

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """Let the threshold follow, if it moves by epochs."""
        if self.dta is not None:
            answers = ((self(face.image).emotion, face.target.label) for face in self.labeled_faces())
            self.dta.end_epoch(answers, self.current_epoch + 1)
