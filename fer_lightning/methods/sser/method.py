"""SSER, a reconstruction: activation-matrix triplets, complementary-information labels, stages."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.errors import InputError
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.schedules import ramp_up, stage_at
from fer_lightning.methods.sser.clusters import cluster_labels
from fer_lightning.methods.sser.coupling import Coupling, accept, couple
from fer_lightning.methods.sser.entropy import entropy
from fer_lightning.methods.sser.evidence import Evidence
from fer_lightning.methods.sser.triplet import (
    Form,
    activation_matrix,
    active_share,
    class_distance,
    squared_distance,
    triplet_loss,
)
from fer_lightning.methods.step_losses import Losses
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels, sharpen
from fer_lightning.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    OpenShare,
    PositiveFloat,
    PositiveInt,
    Share,
)


class SSER(SemiSupervised):
    """SSER, a reconstruction: activation-matrix triplets, complementary-information labels, stages.

    Pan, Shao, Xiong, Lei, Huang, Beckman, Hu, "SSER: Semi-Supervised Emotion Recognition Based on Triplet
    Loss and Pseudo Label", Knowledge-Based Systems 2024, https://www.aminer.org/pub/65e6c51313fb2c6cf6260b1f.
    Only the paper's abstract is public: no equation, number or code. So this is a reconstruction, clause by
    clause, and its scores are no results of the paper::

        paper's abstract                          here
        "multiple activation channels as a        last feature maps, K x hw, Frobenius norm 1; batch-all
          matrix", triplet loss (AMT)               triplets of squared distances, margin m
        "complementary information from images"   p_img: labels of the k nearest labeled faces by activation
                                                    matrix; two weak views, the second mirrored
        "the multi-stage model"                   p_mod: omega snapshot of the stage before + (1 - omega)
                                                    teacher; a new snapshot and bank at each stage
        "coupling effect", "high-confidence"      p_ci: p_mod, or p_mod p_img / prior; accepted if p_ci is at
                                                    least tau_ci and both predict the same emotion
        "entropy minimization and consistency     target p_ci^(1/T); lambda_u H(target, strong view) and
          regularization"                           lambda_e H(strong view), which rises over the first
                                                    fifth of stage 1

    Stage 0 learns from the labels alone: ``supervised + lambda_amt AMT``. Discrete emotions only; with
    ``targets: both``, valence and arousal are accepted wherever the emotion is, as the models predict them.
    Product confidences are inflated, as both sources share a trunk: compare couplings at equal coverage, each
    with its own ``threshold``. Labeled faces are drawn class by class, so that each has another of its class
    in the batch.

    An earlier patent of the same university (CN114529973A, 2022), a recurrent regressor with triplets from
    clusters of deep features, MixUp and temporal ensembling, is not followed but for the option
    ``triplets: clusters``; a model of single images is at most a part of what its authors may use.

    Args:
        threshold: confidence of the coupled label from which it is accepted (tau_ci).
        unlabeled_weight: weight of the unlabeled loss (lambda_u).
        triplet_weight: weight of the triplet loss (lambda_amt); 0 for none.
        margin: of the triplet loss (m).
        triplets: positives share a label (``labels``) or a cluster of the batch (``clusters``).
        max_triplet_pseudo_labels: accepted strong views, at most, that join the labeled faces in the triplet
            loss; of ``clusters``, accepted ones first.
        triplet_features: what a distance between images compares: ``activation`` matrices, their ``gram``
            matrices, or ``pooled`` features.
        coupling: ``agreement`` (the models, where images agree), the best at equal coverage in validation;
            ``product``, for which ``threshold`` is 0.98; ``mean``; and, to compare with, ``model`` or
            ``image`` alone.
        snapshot_share: share of the snapshot in the evidence of the models (omega).
        neighbors: labeled faces whose labels are the image evidence (k).
        neighbor_temperature: of their squared distances (t).
        smoothing: of both sources of evidence (epsilon).
        sharpening_temperature: of the coupled label (T); 1 leaves it as it is.
        entropy_weight: weight of the entropy minimization (lambda_e); 0 for none.
        entropy_on: minimize the entropy of ``accepted`` faces or of ``all``.
        stages: shares of the run's optimizer steps, of stage 0 and of each after it; they sum to 1.
        bank_size: labeled faces in the bank, at most, in the proportions of their classes.
        **kwargs: options of every method.
    """

    about = About(
        name="SSER (reconstruction)",
        paper="Pan et al. 2024",
        url="https://www.aminer.org/pub/65e6c51313fb2c6cf6260b1f",
        pseudo_labels="models of two stages, from `threshold` on, where similar labeled faces agree",
        learns="the strong view, its entropy, triplets of activation matrices",
        state="the network of the stage before, its bank of labeled faces",
    )
    views = Views(labeled=1, weak=2, strong=1, mirrored=True)
    class_balanced = True
    stage: Tensor

    def __init__(
        self,
        threshold: Share = 0.8,
        unlabeled_weight: NonNegativeFloat = 1.0,
        triplet_weight: NonNegativeFloat = 0.3,
        margin: NonNegativeFloat = 0.2,
        triplets: Literal["labels", "clusters"] = "labels",
        max_triplet_pseudo_labels: NonNegativeInt = 64,
        triplet_features: Form = "activation",
        coupling: Coupling = "agreement",
        snapshot_share: Share = 0.5,
        neighbors: PositiveInt = 10,
        neighbor_temperature: PositiveFloat = 0.1,
        smoothing: OpenShare = 0.01,
        sharpening_temperature: PositiveFloat = 0.5,
        entropy_weight: NonNegativeFloat = 0.1,
        entropy_on: Literal["accepted", "all"] = "accepted",
        stages: Sequence[Share] = (0.2, 0.4, 0.4),
        bank_size: PositiveInt = 4096,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if min(stages, default=0) <= 0 or abs(sum(stages) - 1) > 1e-6:
            raise InputError(f"stages is {list(stages)}; give shares of sum 1", option="model.stages")
        self.threshold, self.unlabeled_weight = threshold, unlabeled_weight
        self.triplet_weight, self.margin, self.triplets = triplet_weight, margin, triplets
        self.max_triplet_pseudo_labels, self.triplet_features = max_triplet_pseudo_labels, triplet_features
        self.coupling, self.smoothing = coupling, smoothing
        self.sharpening_temperature = sharpening_temperature
        self.entropy_weight, self.entropy_on, self.stages = entropy_weight, entropy_on, tuple(stages)
        self.evidence = Evidence(
            self.inference_network,
            triplet_features,
            snapshot_share,
            neighbors,
            neighbor_temperature,
            bank_size,
        )
        self.register_buffer("stage", torch.tensor(0))

    def on_train_start(self) -> None:
        """Read the stage, once: a resumed run goes on in its own."""
        super().on_train_start()
        self._stage = int(self.stage)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Begin the next stage at the first batch that is due: from there a run also resumes."""
        stage = stage_at(self.progress, self.stages)
        if stage > self._stage:
            self._stage = stage
            self.stage.fill_(stage)
            label, prior = self.data.labeled.label, self.data.prior.to(self.device)
            self.evidence.begin(self.inference_network, self.labeled_faces(), label, prior)

    @property
    def learns_from_unlabeled(self) -> bool:
        """Whether this step learns from unlabeled faces: not in stage 0, which has no bank."""
        return super().learns_from_unlabeled and self.evidence.begun

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Accept the coupled evidence of models and images from ``tau_ci`` on, where both agree."""
        p_mod, p_img, valence_arousal = self.evidence(unlabeled.weak, self.inference_network)
        p_ci = couple(p_mod, p_img, self.evidence.prior, self.coupling, self.smoothing)
        weight = accept(p_ci, p_mod, p_img, self.threshold, self.coupling).float()
        if self.logging_now:
            agreement = p_mod.argmax(-1) == p_img.argmax(-1)
            self.log("train/agreement", agreement.float().mean())
        soft = sharpen(p_ci, self.sharpening_temperature)
        pseudo = make_pseudo_labels(unlabeled.index, p_ci, valence_arousal, self.threshold, soft=soft)
        return pseudo._replace(weight=weight)

    def losses(self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels) -> Losses:
        """Return the supervised and the triplet loss, consistency and entropy."""
        x, s = self.forward_views(labeled.weak[0], unlabeled.strong[0])
        # The first accepted faces of the batch; their number is fixed, so that nothing waits for the device.
        first = pseudo.weight.argsort(descending=True, stable=True)[: self.max_triplet_pseudo_labels]
        accepted = torch.where(pseudo.weight > 0, pseudo.target.label, -1)[first]
        label = torch.cat([labeled.target.label, accepted])
        terms = Losses(
            (x, s),
            supervised=self.task.supervised(x, labeled.target),
            unlabeled=self.unlabeled_weight * self.task.consistency(s, pseudo.target, pseudo.weight),
            **self._triplet(torch.cat([x.maps, s.maps[first]]), label),
        )
        if self.entropy_weight:
            r = ramp_up(self.progress - self.stages[0], 0.2 * self.stages[1])
            on = pseudo.weight if self.entropy_on == "accepted" else None
            terms["entropy"] = self.entropy_weight * r * entropy(s.logits, on)
        return terms

    def labeled_losses(self, labeled: Labeled) -> Losses:
        """Return the supervised and the triplet loss of stage 0."""
        x, label = self.student(labeled.weak[0]), labeled.target.label
        supervised = self.task.supervised(x, labeled.target)
        return Losses((x,), supervised=supervised, **self._triplet(x.maps, label))

    def _triplet(self, maps: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Return the weighted triplet loss (AMT) of (N, K, h, w) maps; label -1 is none."""
        if not self.triplet_weight:
            return {}
        rows = activation_matrix(maps, self.triplet_features)
        if self.triplets == "clusters":
            label = cluster_labels(rows.detach(), label, self.task.classes)
        rho = class_distance(label)
        d = squared_distance(rows, rows)
        if self.logging_now:
            share = active_share(d.detach(), rho, self.margin, classes=True)
            self.log("train/active_triplets", share)
        return {"triplet": self.triplet_weight * triplet_loss(d, rho, self.margin, classes=True)}
