"""SCL+UERM+ARM, a reconstruction: supervised contrast, uncertainty-guided relabeling, amending."""

from typing import Any, Literal

import torch
from torch import Tensor

from fer_lightning.data.batch import DataInfo, Labeled, Target, Unlabeled, Views
from fer_lightning.losses.contrastive import supervised_contrastive
from fer_lightning.methods.about import About
from fer_lightning.methods.fixmatch import FixMatch
from fer_lightning.methods.scl_uerm_arm.amending import Amending, Sharing
from fer_lightning.methods.scl_uerm_arm.rank_regularization import high_group, rank_regularization
from fer_lightning.methods.scl_uerm_arm.relabeling import Relabeling
from fer_lightning.methods.scl_uerm_arm.uncertainty import Uncertainty, mixed_with_partners, uncertain_head
from fer_lightning.methods.step_losses import Losses
from fer_lightning.models.network import FaceNetwork, Pool, Projection
from fer_lightning.pseudo_labels import PseudoLabels
from fer_lightning.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    OpenShare,
    PositiveFloat,
    PositiveInt,
    Share,
)
from fer_lightning.task import Output


class SCLUERMARM(FixMatch):
    """SCL+UERM+ARM, a reconstruction: supervised contrast, uncertainty-guided relabeling, amending.

    Yang et al., "Facial Expression Recognition with Contrastive Learning and Uncertainty-Guided Relabeling",
    Int. J. Neural Systems 2023, https://doi.org/10.1142/S0129065723500326. Of the paper only the abstract is
    public, and no code; the three parts are those of the works it builds on, SupCon, the Self-Cure Network
    (SCN) and the Amend Representation Module (ARM). On the current labels y~:
    ``L_WCE(a z, y~) + lambda_rr L_RR(a) + lambda_scl L_SCL(h, y~)``, and from epoch ``relabel_epoch`` on y~
    changes at the end of an epoch for uncertain faces with ``P_max - P_y~ > delta_2``.

    Differences from the works it builds on (SupCon, SCN, ARM / here):

    - mean feature in evaluation (ARM): of the batch, which leaks labels of sorted test sets / running average
    - relabeled (SCN): all faces in the code, uncertain ones in the paper / ``low_only``, as in the paper
    - probabilities and certainty for that (SCN): of one view / of both, averaged
    - contrast (SupCon): a stage of its own / a term, with strong crops replaced by two weak views
    - unlabeled faces: none / the loss of FixMatch if ``semi_supervised``; there and in inference, logits are
      weighted as in training, so that an uncertain face is rejected (the most likely emotion is the same)

    Pseudo-labels from the first step on spoiled it: half of the accepted ones were right, and seven in ten
    after a start on the labels alone, so it starts with ``labeled_only_steps`` of 1,000. With 10 or 100
    labels an emotion each of the parts cost accuracy (``experiments/results``): they are made for thousands
    of labels. Valence and arousal keep their labels and are not weighted.

    Args:
        amending: ARM in the place of the pooling.
        sharing: of ARM: ``ema``, ``ema_train``, ``batch`` (transductive) or ``off``, see ``Amending``.
        shuffle: of ARM: r, whose square divides the channels; None for the largest power of two up to 16.
        uncertainty: ``scn``: importance weights with rank regularization; ``rul``: relative uncertainty;
            ``entropy`` of the prediction; ``none``: plain cross-entropy and labels as they are.
        certain_share: share of the certain faces of a batch (beta of SCN).
        rank_margin: between the groups (delta_1 of SCN: 0.07 for 64 faces a batch, 0.15 for 1024).
        rank_weight: weight of rank regularization, for ``scn`` alone (lambda_rr; SCN's code: 1).
        relabel: change labels.
        relabel_epoch: first epoch that does, counted from 1 (SCN).
        relabel_margin: by which an emotion must be more probable than the label (delta_2 of SCN).
        low_only: change labels of uncertain faces alone.
        max_flips: how often the label of a face may change; None for any number of times.
        contrast_weight: weight of the contrast; 0 for none (lambda_scl; the paper's is unknown).
        temperature: of the contrast (SupCon's code).
        projection: width of the contrasted projections (SupCon).
        contrast_source: what is contrasted: the features (``neck``) or the pooled feature maps (``maps``).
        labeled_views: weak views of each labeled face.
        semi_supervised: learn from unlabeled faces too; the paper does not.
        threshold: confidence from which a pseudo-label is accepted.
        unlabeled_weight: weight of the unlabeled loss.
        labeled_only_steps: see the base.
        **kwargs: options of every method.
    """

    about = About(
        name="SCL+UERM+ARM (reconstruction)",
        paper="Yang et al. 2023",
        url="https://doi.org/10.1142/S0129065723500326",
        pseudo_labels="the student's prediction on the weak view, accepted from `threshold` on",
        learns="the strong view; labeled faces by contrast, with uncertain labels replaced",
        state="labels, mean feature",
    )
    views = Views(labeled=2, weak=1, strong=1)

    def __init__(
        self,
        amending: bool = True,
        sharing: Sharing = "ema",
        shuffle: PositiveInt | None = None,
        uncertainty: Uncertainty = "scn",
        certain_share: OpenShare = 0.7,
        rank_margin: NonNegativeFloat = 0.07,
        rank_weight: NonNegativeFloat = 1.0,
        relabel: bool = True,
        relabel_epoch: PositiveInt = 10,
        relabel_margin: Share = 0.2,
        low_only: bool = True,
        max_flips: NonNegativeInt | None = None,
        contrast_weight: NonNegativeFloat = 0.1,
        temperature: PositiveFloat = 0.07,
        projection: PositiveInt = 128,
        contrast_source: Literal["neck", "maps"] = "neck",
        labeled_views: Literal[1, 2] = 2,
        semi_supervised: bool = True,
        threshold: Share = 0.95,
        unlabeled_weight: NonNegativeFloat = 1.0,
        labeled_only_steps: NonNegativeInt = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            threshold=threshold,
            unlabeled_weight=unlabeled_weight,
            labeled_only_steps=labeled_only_steps,
            projection=projection,
            **kwargs,
        )
        self.views = Views(labeled=labeled_views, weak=int(semi_supervised), strong=int(semi_supervised))
        self.uncertainty, self.certain_share = uncertainty, certain_share
        self.rank_margin, self.rank_weight = rank_margin, rank_weight
        self.relabel_epoch, self.contrast_weight, self.temperature = (
            relabel_epoch,
            contrast_weight,
            temperature,
        )
        self.relabeling: Relabeling | None = None
        if relabel and uncertainty != "none":
            self.relabeling = Relabeling(certain_share, relabel_margin, low_only, max_flips)
        width: int = self.student.backbone.num_features  # type: ignore[assignment]
        self.map_projection: Projection | None = None
        if contrast_weight and contrast_source == "maps":
            self.map_projection = Projection(width, projection)

    def build_network(self) -> FaceNetwork:
        """Build the student with ARM as its neck and a head that estimates its certainty."""
        h, backbone = self.hparams, self.build_backbone()
        neck: Amending | Pool = Pool(backbone, h.dropout, h.unit_features)
        if h.amending:
            neck = Amending(backbone.num_features, h.sharing, h.shuffle, dropout=h.dropout)  # type: ignore[arg-type]
        head = uncertain_head(h.uncertainty, neck.width, self.task)
        contrasts_features = h.contrast_weight and h.contrast_source == "neck"
        return self.make_network(backbone, neck, head, projection=None if contrasts_features else 0)

    def prepare(self, data: DataInfo) -> None:
        """Start from the labels of the data."""
        if self.relabeling is not None:
            self.relabeling.start(data.labeled.label)

    def losses(self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels) -> Losses:
        """Return ``L_WCE``, ``lambda_scl L_SCL``, ``lambda_rr L_RR`` and the unlabeled term of FixMatch."""
        x, s = self.forward_views(labeled.weak.flatten(0, 1), unlabeled.strong[0])
        terms = self._labeled_terms(x, labeled)
        terms["unlabeled"] = self.unlabeled_weight * self.task.consistency(s, pseudo.target, pseudo.weight)
        return terms

    def labeled_losses(self, labeled: Labeled) -> Losses:
        """Return ``L_WCE``, ``lambda_scl L_SCL`` and ``lambda_rr L_RR``: the whole loss of the paper."""
        return self._labeled_terms(self.student(labeled.weak.flatten(0, 1)), labeled)

    def _labeled_terms(self, x: Output, labeled: Labeled) -> Losses:
        """Return the terms of the (V B, ...) outputs on the views of the labeled faces."""
        y = (
            labeled.target
            if self.relabeling is None
            else self.relabeling.target(labeled.target, labeled.index)
        )
        target = Target(*(each.repeat(len(labeled.weak), 1) for each in y))
        certainty = None
        if self.uncertainty != "none":
            certainty = self.student.head.certainty(x)
            x = x._replace(certainty=certainty)
        learned = x, target
        if self.uncertainty == "rul" and certainty is not None:
            learned = mixed_with_partners(x, target, certainty)
        terms = Losses((x,), supervised=self.task.supervised(*learned))
        if self.contrast_weight:
            h, label = self._projection(x), target.label
            contrast = supervised_contrastive(h, label, self.temperature, label >= 0)
            terms["contrast"] = self.contrast_weight * contrast
        if certainty is not None:
            a = certainty.unflatten(0, (len(labeled.weak), -1)).mean(0)
            if self.uncertainty == "scn" and self.rank_weight:
                terms["rank"] = self.rank_weight * rank_regularization(
                    a, self.certain_share, self.rank_margin
                )
            self._log_certainty(a.detach())
        return terms

    def update_state(
        self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels, outputs: tuple[Output, ...]
    ) -> None:
        """Propose labels for the next epoch."""
        self.update_labeled_state(labeled, outputs)

    def update_labeled_state(self, labeled: Labeled, outputs: tuple[Output, ...]) -> None:
        """Propose labels for the next epoch, from both views of each face."""
        (x,), views = outputs, (len(labeled.weak), -1)
        if self.relabeling is None or x.certainty is None or self.current_epoch + 1 < self.relabel_epoch:
            return
        p = x.logits.softmax(-1).unflatten(0, views).mean(0)
        self.relabeling.propose(labeled.index, p, x.certainty.unflatten(0, views).mean(0))

    def on_train_epoch_end(self) -> None:
        """Make the proposed labels the current ones."""
        if self.relabeling is not None:
            self.relabeling.commit()

    def _projection(self, x: Output) -> Tensor:
        """Return the (V B, P) rows of unit length to contrast."""
        if self.map_projection is None:
            return x.projected
        with torch.autocast(x.maps.device.type, enabled=False):
            projected: Tensor = self.map_projection(x.maps.float().mean((2, 3)))
        return projected

    def _log_certainty(self, a: Tensor) -> None:
        """Log the means of the two groups: certainty is useless if they meet, or reach 0 or 1."""
        if self.logging_now:
            high = high_group(a, self.certain_share)
            self.log("train/certainty_high", a[high].mean())
            self.log("train/certainty_low", a[~high].mean())
