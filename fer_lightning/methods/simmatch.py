"""SimMatch: a face's emotion and its likeness to the labeled faces must agree, and be learnt together."""

from typing import Any, Literal

import torch
from torch import Tensor

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.errors import InputError
from fer_lightning.losses.classification import soft_cross_entropy
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.models.memory import FaceMemory, aggregate, similarity, similarity_logits, unfold
from fer_lightning.models.network import FaceNetwork
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.pseudo_labels.alignment import DistributionAlignment


class SimMatch(SemiSupervised):
    """SimMatch: a face's emotion and its likeness to the labeled faces must agree, and be learnt together.

    Zheng et al., "SimMatch: Semi-Supervised Learning with Similarity Matching", CVPR 2022,
    https://arxiv.org/abs/2203.06915: ``l_s + lambda_u l_u + lambda_in l_in``. The teacher sees the weak view:
    p are its aligned (DA) probabilities, ``s_n = softmax_n(z . z_n / t)`` its likeness to labeled face n,
    held in a bank. The two correct each other: ``s'_n ~ s_n p(y_n)`` (unfolding) and
    ``p' = alpha p + (1 - alpha) sum_n s_n y_n`` (aggregation). The student sees the strong view: ``l_in`` is
    the cross-entropy of its likeness against s', ``l_u`` the mean over the whole unlabeled batch of
    ``1[max p' >= tau] H(p', p(strong))``, with the soft p'.

    =========  ====================  ==========================  =========================================
    what       code of the paper     USB (CIFAR)                 ours
    =========  ====================  ==========================  =========================================
    teacher    EMA network (EMAN)    the student, its bank       the EMA teacher (eval mode); without
                                     smoothed (momentum 0.7)     `ema_decay` the student, bank unsmoothed
    bank       unit rows             normalised over the batch   unit rows
                                     (a bug without a teacher)
    begins     when a flag says so   after the first epoch       once every labeled face is in the bank
    DA         to uniform, 256       to uniform, 32 batches      to the labels' shares, 32 batches;
               batches, off by flag                              `da_target: uniform`
    tau,       0.7, 10 (ImageNet)    0.95, 1                     as USB
    lambda_u
    =========  ====================  ==========================  =========================================

    Labels may be soft: then y_n is a distribution, and ``p(y_n)`` an expectation. With ``targets: both``,
    valence and arousal of the teacher are believed wherever the emotion is.

    Args:
        tau: confidence from which a belief is learnt.
        lambda_u: weight of the unlabeled loss.
        lambda_in: weight of the loss of likenesses.
        alpha: share of the belief that aggregation leaves as it is, in [0, 1]; 1 for no aggregation.
        t: temperature of the likenesses, over 0.
        projection: width of the embeddings.
        da_length: of the distribution alignment's queue, in batches.
        da_target: the shares of the emotions that alignment aims at: ``labeled``, those of the labels, or
            ``uniform``.
        **kwargs: options of every method.
    """

    about = About(
        name="SimMatch",
        paper="Zheng et al. 2022",
        url="https://arxiv.org/abs/2203.06915",
        believes="the teacher's aligned weak view and the labels of similar faces, if surer than `tau`",
        learns="the strong view; its likeness to each labeled face",
        state="bank of labeled faces' embeddings; mean beliefs",
    )
    views = Views(labeled=1, weak=1, strong=1)

    def __init__(
        self,
        tau: float = 0.95,
        lambda_u: float = 1.0,
        lambda_in: float = 1.0,
        alpha: float = 0.9,
        t: float = 0.1,
        projection: int = 128,
        da_length: int = 32,
        da_target: Literal["labeled", "uniform"] = "labeled",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if t <= 0:
            raise InputError(f"--model.t is {t}; give a temperature over 0, 0.1 is usual")
        self.tau, self.lambda_u, self.lambda_in, self.alpha, self.t = tau, lambda_u, lambda_in, alpha, t
        self.alignment = DistributionAlignment(self.task.classes, form="queue", length=da_length)
        self.bank = FaceMemory(projection, self.task.classes)
        self._likeness: Tensor | None = None

    def build_network(self) -> FaceNetwork:
        """Build the student with a projection head; the teacher has its average."""
        options = self.network_options | {"projection": self.hparams.projection}
        return FaceNetwork(self.build_backbone(), self.task, **options)

    def setup(self, stage: str) -> None:
        """Size the bank and aim the alignment."""
        super().setup(stage)
        if stage == "fit":
            self.bank.resize(len(self.datamodule.labeled))
            if self.hparams.da_target == "labeled":
                self.alignment.aim(self.labeled_prior())

    @property
    def _labels(self) -> tuple[Tensor, Tensor]:
        """The (N,) bank rows that have an emotion, and whether it is time for the bank: a scalar."""
        return self.bank.probability.sum(-1) > 0, self.bank.written.all()

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Let the teacher's probabilities and its likenesses to the labeled faces correct each other."""
        q = self.inference_network(unlabeled.weak)
        p = self.alignment(q.logits.softmax(-1))
        known, begun = self._labels
        s = similarity(q.projection, self.bank.features, self.t, known)
        self._likeness = unfold(s, self.bank.probability, p)
        alpha = torch.where(begun, self.alpha, 1.0)
        p = alpha * p + (1 - alpha) * aggregate(s, self.bank.probability)
        return make_pseudo_labels(unlabeled.index, p, q.valence_arousal, self.tau, soft=p)

    def losses(
        self, labeled: Labeled, unlabeled: Unlabeled | None, pseudo: PseudoLabels | None
    ) -> dict[str, Tensor]:
        """Return ``l_s``, ``lambda_u l_u`` and ``lambda_in l_in``; then bank the labeled faces."""
        if unlabeled is None or pseudo is None or self._likeness is None:
            return super().losses(labeled, unlabeled, pseudo)
        x, strong = self.forward_views(labeled.image, unlabeled.strong)
        known, begun = self._labels
        # A clone: the bank is written before the backward pass.
        r = similarity_logits(strong.projection, self.bank.features.clone(), self.t, known)
        terms = {
            "supervised": self.task.supervised(x, labeled.target),
            "unlabeled": self.lambda_u * self.task.consistency(strong, pseudo.target, pseudo.weight),
            "likeness": self.lambda_in * begun * soft_cross_entropy(r, self._likeness),
        }
        if self.training:
            self._bank(labeled, x.projection)
        return terms

    @torch.no_grad()
    def _bank(self, labeled: Labeled, student: Tensor) -> None:
        """Renew the rows of a labeled batch; the teacher, if there is one, looks at them for itself."""
        z = student if self.teacher is None else self.inference_network(labeled.image).projection
        self.bank.write(labeled.index, z, labeled.target.emotion.nan_to_num())
