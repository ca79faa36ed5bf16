"""SimMatch: pseudo-labels and similarities to the labeled faces, which correct each other."""

from typing import Any, Literal

import torch
from torch import Tensor

from fer_lightning.data.batch import DataInfo, Labeled, Unlabeled, Views
from fer_lightning.losses.classification import soft_cross_entropy
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.step_losses import Losses
from fer_lightning.models.memory import FaceMemory, aggregate, similarity, similarity_logits, unfold
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.pseudo_labels.alignment import DistributionAlignment
from fer_lightning.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, Share
from fer_lightning.task import Output


class SimMatch(SemiSupervised):
    """SimMatch: pseudo-labels and similarities to the labeled faces, which correct each other.

    Zheng et al., "SimMatch: Semi-Supervised Learning with Similarity Matching", CVPR 2022,
    https://arxiv.org/abs/2203.06915: ``l_s + lambda_u l_u + lambda_in l_in``. Of the teacher on the weak
    view, p are the aligned (DA) probabilities and ``s_n = softmax_n(z . z_n / t)`` the similarity to labeled
    face n, held in a bank. The two correct each other: ``s'_n ~ s_n p(y_n)`` (unfolding) and ``p' = alpha p +
    (1 - alpha) sum_n s_n y_n`` (aggregation). Of the student on the strong view, ``l_in`` is the
    cross-entropy of its similarities against s', ``l_u`` the mean over the whole unlabeled batch of ``1[max
    p' >= tau] H(p', p(strong))``, with the soft p'.

    Checked against the code of microsoft/Semi-supervised-learning (USB): its step and this one, side by side
    on random batches for 40 to 80 steps, gave losses and weights equal to 1e-8. Differences:

    =========  ====================  ==========================  =========================================
    what       code of the paper     USB (CIFAR)                 here
    =========  ====================  ==========================  =========================================
    teacher    EMA network (EMAN)    the student, its bank       the EMA teacher (eval mode); without
                                     smoothed (momentum 0.7)     `ema_decay` the student, bank unsmoothed
    bank       unit rows             normalized over the batch   unit rows
                                     (a bug without a teacher)
    begins     when a flag says so   after the first epoch       once every labeled face is in the bank
    DA         to uniform, 256       to uniform, 32 batches      to the labels' shares, 32 batches;
               batches, off by flag                              `alignment_target: uniform`
    tau,       0.7, 10 (ImageNet)    0.95, 1                     as USB
    lambda_u
    =========  ====================  ==========================  =========================================

    Labels may be soft: then y_n is a distribution, and ``p(y_n)`` an expectation. With ``targets: both``,
    valence and arousal of the teacher are accepted wherever the emotion is.

    Args:
        threshold: confidence from which a pseudo-label is accepted (tau).
        unlabeled_weight: weight of the unlabeled loss (lambda_u).
        similarity_weight: weight of the loss of similarities (lambda_in).
        model_share: share of the model in a pseudo-label, the rest is its neighbors' (alpha); 1 for no
            aggregation.
        temperature: of the similarities (t).
        projection: width of the embeddings.
        alignment_length: of the distribution alignment's queue, in batches.
        alignment_target: the shares of the emotions to which predictions are aligned: ``labeled``, those of
            the labels, or ``uniform``.
        **kwargs: options of every method.
    """

    about = About(
        name="SimMatch",
        paper="Zheng et al. 2022",
        url="https://arxiv.org/abs/2203.06915",
        pseudo_labels="the teacher's aligned weak view and labels of similar faces, from `threshold` on",
        learns="the strong view; its similarity to each labeled face",
        state="bank of labeled faces' embeddings; mean probabilities",
    )
    views = Views(labeled=1, weak=1, strong=1)

    def __init__(
        self,
        threshold: Share = 0.95,
        unlabeled_weight: NonNegativeFloat = 1.0,
        similarity_weight: NonNegativeFloat = 1.0,
        model_share: Share = 0.9,
        temperature: PositiveFloat = 0.1,
        projection: PositiveInt = 128,
        alignment_length: PositiveInt = 32,
        alignment_target: Literal["labeled", "uniform"] = "labeled",
        **kwargs: Any,
    ) -> None:
        super().__init__(projection=projection, **kwargs)
        self.threshold, self.unlabeled_weight = threshold, unlabeled_weight
        self.similarity_weight = similarity_weight
        self.model_share, self.temperature = model_share, temperature
        self.alignment = DistributionAlignment(self.task.classes, form="queue", length=alignment_length)
        self.bank = FaceMemory(projection, self.task.classes)

    def prepare(self, data: DataInfo) -> None:
        """Size the bank, and align to the labels if that is the target."""
        self.bank.resize(len(data.labeled.emotion))
        if self.hparams.alignment_target == "labeled":
            self.alignment.aim(data.prior)

    @property
    def _labels(self) -> tuple[Tensor, Tensor]:
        """The (N,) rows of the bank that have an emotion, and whether the bank is complete: a scalar."""
        return self.bank.probability.sum(-1) > 0, self.bank.written.all()

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Let the teacher's probabilities and its similarities to the labeled faces correct each other."""
        q = self.inference_network(unlabeled.weak[0])
        p = self.alignment(q.logits.softmax(-1))
        known, complete = self._labels
        s = similarity(q.projected, self.bank.features, self.temperature, known)
        alpha = torch.where(complete, self.model_share, 1.0)
        aggregated = alpha * p + (1 - alpha) * aggregate(s, self.bank.probability)
        pseudo = make_pseudo_labels(
            unlabeled.index, aggregated, q.valence_arousal, self.threshold, soft=aggregated, outputs=(q,)
        )
        return pseudo._replace(similarity=unfold(s, self.bank.probability, p))

    def losses(self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels) -> Losses:
        """Return ``l_s``, ``lambda_u l_u`` and ``lambda_in l_in``."""
        assert pseudo.similarity is not None
        x, s = self.forward_views(labeled.weak[0], unlabeled.strong[0])
        known, complete = self._labels
        # A clone: the bank is written before the backward pass.
        r = similarity_logits(s.projected, self.bank.features.clone(), self.temperature, known)
        return Losses(
            (x, s),
            supervised=self.task.supervised(x, labeled.target),
            unlabeled=self.unlabeled_weight * self.task.consistency(s, pseudo.target, pseudo.weight),
            similarity=self.similarity_weight * complete * soft_cross_entropy(r, pseudo.similarity),
        )

    def update_state(
        self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels, outputs: tuple[Output, ...]
    ) -> None:
        """Renew the labeled faces of the batch in the bank: of the teacher, or else of the student."""
        self.alignment.update(pseudo.outputs[0].logits.softmax(-1))
        x = outputs[0] if self.teacher is None else self.inference_network(labeled.weak[0])
        self.bank.write(labeled.index, x.projected, labeled.target.emotion.nan_to_num())
