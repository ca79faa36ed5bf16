"""SCL + UERM + ARM: contrast the labels, doubt some of them, trust the border of the maps less."""

from typing import Any, Literal

import torch
from torch import Tensor

from fer_lightning.data.batch import Labeled, Target, Unlabeled, Views
from fer_lightning.errors import InputError
from fer_lightning.losses.contrastive import supervised_contrastive
from fer_lightning.methods.about import About
from fer_lightning.methods.fixmatch import FixMatch
from fer_lightning.methods.scl_uerm_arm.amending import Amending, Sharing
from fer_lightning.methods.scl_uerm_arm.rank_regularization import high_group, rank_regularization
from fer_lightning.methods.scl_uerm_arm.relabeling import Relabeling
from fer_lightning.methods.scl_uerm_arm.uncertainty import Uncertainty, mixed_with_partners, uncertain_head
from fer_lightning.models.network import FaceNetwork, Pool, Projection
from fer_lightning.pseudo_labels import PseudoLabels
from fer_lightning.task import Output

PROJECTION = 128
"""Width of what is contrasted (SupCon)."""


class SCLUERMARM(FixMatch):
    """SCL + UERM + ARM: supervised contrast, uncertain faces relabeled, padding erosion amended.

    Yang et al., "Facial Expression Recognition with Contrastive Learning and Uncertainty-Guided Relabeling",
    Int. J. Neural Systems 2023, https://doi.org/10.1142/S0129065723500326. A reconstruction: of the paper
    only the abstract is public, and no code; the three parts are those of the works it builds on, SupCon,
    the Self-Cure Network (SCN) and the Amend Representation Module (ARM). On the current labels y~:
    ``L_WCE(a z, y~) + lambda_rr L_RR(a) + lambda_scl L_SCL(h, y~)``, and from epoch ``relabel_epoch`` on y~
    changes at the end of an epoch for uncertain faces with ``P_max - P_y~ > delta_2``.

    Where the works it builds on differ from it (SupCon, SCN, ARM / ours):

    - mean feature in evaluation (ARM): of the batch, which leaks labels of sorted test sets / running average
    - relabeled (SCN): all faces in the code, uncertain ones in the paper / ``low_only``, as in the paper
    - probabilities and certainty for that (SCN): of one view / of both, averaged
    - contrast (SupCon): a stage of its own / a term, with strong crops replaced by two weak views
    - unlabeled faces: none / the loss of FixMatch if ``semi_supervised``; there and in inference, logits are
      weighted as in training, so that an uncertain face is not believed (the likeliest emotion is the same)

    Faces believed from the first step on spoiled it: half of the beliefs were right, and seven in ten after a
    start on the labels alone (``labeled_only_steps``; ``experiments/choices.yaml``).

    With 10 or 100 labels an emotion each of the parts cost accuracy (``experiments/results``): they are
    made for thousands of labels. Valence and arousal keep their labels and are not weighted.

    Args:
        amending: ARM in the place of the pooling.
        sharing: of ARM: ``ema``, ``ema_train``, ``batch`` (transductive) or ``off``, see ``Amending``.
        shuffle: of ARM: r, whose square divides the channels; None for the largest power of two up to 16.
        uncertainty: ``scn``: importance weights with rank regularisation; ``rul``: relative uncertainty;
            ``entropy`` of the prediction; ``none``: plain cross-entropy and labels as they are.
        beta: share of the certain faces of a batch, in (0, 1) (SCN).
        delta_1: margin between the groups (SCN: 0.07 for 64 faces a batch, 0.15 for 1024).
        lambda_rr: weight of rank regularisation, for ``scn`` alone (SCN's code: 1).
        relabel: change labels.
        relabel_epoch: first epoch that does, counted from 1 (SCN).
        delta_2: how much likelier than the label an emotion must be (SCN).
        low_only: change labels of uncertain faces alone.
        max_flips: how often the label of a face may change; None for any number of times.
        lambda_scl: weight of the contrast; 0 for none (the paper's is unknown).
        temperature: of the contrast (SupCon's code).
        scl_source: what is contrasted: the features (``neck``) or the pooled feature maps (``gap``).
        labeled_views: weak views of each labeled face.
        semi_supervised: learn from unlabeled faces too; the paper does not.
        tau: confidence from which a pseudo-label is believed.
        lambda_u: weight of the unlabeled loss.
        **kwargs: options of every method.
    """

    about = About(
        name="SCL+UERM+ARM (reconstruction)",
        paper="Yang et al. 2023",
        url="https://doi.org/10.1142/S0129065723500326",
        believes="the student's weak view, if surer than `tau`",
        learns="the strong view; labeled faces by contrast, with uncertain labels replaced",
        state="labels, mean feature",
    )
    views = Views(labeled=2, weak=1, strong=1)

    def __init__(
        self,
        amending: bool = True,
        sharing: Sharing = "ema",
        shuffle: int | None = None,
        uncertainty: Uncertainty = "scn",
        beta: float = 0.7,
        delta_1: float = 0.07,
        lambda_rr: float = 1.0,
        relabel: bool = True,
        relabel_epoch: int = 10,
        delta_2: float = 0.2,
        low_only: bool = True,
        max_flips: int | None = None,
        lambda_scl: float = 0.1,
        temperature: float = 0.07,
        scl_source: Literal["neck", "gap"] = "neck",
        labeled_views: Literal[1, 2] = 2,
        semi_supervised: bool = True,
        tau: float = 0.95,
        lambda_u: float = 1.0,
        **kwargs: Any,
    ) -> None:
        for name, value, least in (
            ("relabel_epoch", relabel_epoch, 1),
            ("max_flips", max_flips, 0),
            ("lambda_rr", lambda_rr, 0),
            ("lambda_scl", lambda_scl, 0),
        ):
            if value is not None and value < least:
                raise InputError(f"--model.{name} is {value}; it must be at least {least}")
        if not 0 < beta < 1:
            raise InputError(f"--model.beta is {beta}; it is a share, between 0 and 1")
        if temperature <= 0:
            raise InputError(f"--model.temperature is {temperature}; it must be above 0")
        super().__init__(tau=tau, lambda_u=lambda_u, **kwargs)
        self.views = Views(labeled=labeled_views, weak=int(semi_supervised), strong=int(semi_supervised))
        self.uncertainty, self.beta, self.delta_1, self.lambda_rr = uncertainty, beta, delta_1, lambda_rr
        self.relabel_epoch, self.lambda_scl, self.temperature = relabel_epoch, lambda_scl, temperature
        relabels = relabel and uncertainty != "none"
        self.relabeling = Relabeling(beta, delta_2, low_only, max_flips) if relabels else None
        width: int = self.student.backbone.num_features  # type: ignore[assignment]
        self.projection = Projection(width, PROJECTION) if lambda_scl and scl_source == "gap" else None

    def build_network(self) -> FaceNetwork:
        """Build the student with ARM as its neck and a head that knows how certain it is."""
        h, backbone = self.hparams, self.build_backbone()
        neck: Amending | Pool = Pool(backbone, h.dropout)
        if h.amending:
            neck = Amending(backbone.num_features, h.sharing, h.shuffle, dropout=h.dropout)  # type: ignore[arg-type]
        projection = PROJECTION if h.lambda_scl and h.scl_source == "neck" else 0
        network = FaceNetwork(backbone, self.task, neck=neck, projection=projection, **self.network_options)
        network.head = uncertain_head(h.uncertainty, neck.width, self.task)  # type: ignore[assignment]
        return network

    def setup(self, stage: str) -> None:
        """Begin with the labels of the data."""
        super().setup(stage)
        if stage == "fit" and self.relabeling is not None:
            self.relabeling.start(self.datamodule.labeled_target.label)

    def losses(
        self, labeled: Labeled, unlabeled: Unlabeled | None, pseudo: PseudoLabels | None
    ) -> dict[str, Tensor]:
        """Return ``L_WCE``, ``lambda_scl L_SCL``, ``lambda_rr L_RR`` and the unlabeled term of FixMatch."""
        y = labeled.target
        if self.relabeling is not None:
            y = self.relabeling.target(y, labeled.index)
        views = labeled.image.reshape(-1, *labeled.image.shape[-3:])
        count = len(views) // len(labeled.index)
        target = Target(*(each.repeat(count, 1) for each in y))
        x, *s = self.forward_views(views, *([] if unlabeled is None else [unlabeled.strong]))
        certainty: Tensor | None = None
        if self.uncertainty != "none":
            certainty = self.student.head.certainty(x)  # type: ignore[operator]
        learnt = x, target
        if self.uncertainty == "rul" and certainty is not None:
            learnt = mixed_with_partners(x, target, certainty)
        terms = {"supervised": self.task.supervised(*learnt)}
        if self.lambda_scl:
            h, label = self._projection(x), target.label
            terms["scl"] = self.lambda_scl * supervised_contrastive(h, label, self.temperature, label >= 0)
        if certainty is not None:
            a = certainty.view(count, -1).mean(0)
            if self.uncertainty == "scn" and self.lambda_rr:
                terms["rank"] = self.lambda_rr * rank_regularization(a, self.beta, self.delta_1)
            if self.relabeling is not None and self.current_epoch + 1 >= self.relabel_epoch:
                p = x.logits.detach().softmax(-1).unflatten(0, (count, -1)).mean(0)
                self.relabeling.propose(labeled.index, p, a)
            self._log_certainty(a.detach())
        if pseudo is not None:
            terms["unlabeled"] = self.lambda_u * self.task.consistency(s[0], pseudo.target, pseudo.weight)
        return terms

    def on_train_epoch_end(self) -> None:
        """Let the labels of the next epoch take effect."""
        if self.relabeling is not None:
            self.relabeling.commit()

    def _projection(self, x: Output) -> Tensor:
        """Return the (B, P) rows of unit length to contrast."""
        if self.projection is None:
            return x.projection
        with torch.autocast(x.maps.device.type, enabled=False):
            projected: Tensor = self.projection(x.maps.float().mean((2, 3)))
        return projected

    def _log_certainty(self, a: Tensor) -> None:
        """Log the means of the two groups: if they meet, or reach 0 or 1, certainty says nothing."""
        if self._logged_now():
            high = high_group(a, self.beta)
            self.log("train/certainty_high", a[high].mean())
            self.log("train/certainty_low", a[~high].mean())
