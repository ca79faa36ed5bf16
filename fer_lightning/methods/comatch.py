"""CoMatch: beliefs smoothed by what similar faces were believed to show, and embeddings that follow them."""

from typing import Any, Literal

import torch
from torch import Tensor

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.errors import InputError
from fer_lightning.losses.graph import graph_contrastive, pseudo_label_graph
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.models.memory import Queue, aggregate, similarity
from fer_lightning.models.network import FaceNetwork
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.pseudo_labels.alignment import DistributionAlignment


class CoMatch(SemiSupervised):
    """CoMatch: beliefs smoothed by what similar faces were believed to show, and embeddings that follow them.

    Li, Xiong and Hoi, "CoMatch: Semi-Supervised Learning with Contrastive Graph Regularization", ICCV 2021,
    https://arxiv.org/abs/2011.11183, eqs. (1)-(11): ``l_s + lambda_u l_u + lambda_c l_c``. The student's
    answer p to the weak view is aligned (DA), then smoothed by a queue of the last faces' embeddings and
    beliefs: ``alpha p + (1 - alpha) sum_j softmax_j(z . z_j / t) p_j``. ``l_u`` is the mean over the whole
    unlabeled batch of ``1[max p >= tau] H(p, p(strong 1))``, with the soft p; ``l_c`` makes the graph of the
    embeddings of two strong views that of the beliefs, whose edges have ``p_i . p_j >= tau_c``.

    =========  =================================  ===================================================
    what       their code (CIFAR)                 ours
    =========  =================================  ===================================================
    smoothing  after `queue_batches` steps        once the queue is full, so then too
    DA         to uniform                         to the labels' shares; `da_target: uniform`
    weak pass  in the joint batch                 of its own, without gradient
    L_c        log (S + 1e-7)                     log S, as in the paper
    devices    one                                a graph of each device's batch; the queue and the
                                                  alignment are of all devices
    =========  =================================  ===================================================

    USB's configurations average three projection heads (EPASS), which is another paper. With ``targets:
    both``, valence and arousal are believed, unsmoothed, wherever the emotion is.

    Args:
        tau: confidence from which a belief is learnt.
        lambda_u: weight of the unlabeled loss.
        lambda_c: weight of the contrast of graphs.
        tau_c: similarity of two beliefs from which their faces are connected, in [0, 1].
        alpha: share of a belief that smoothing leaves as it is, in [0, 1]; 1 for no smoothing.
        t: temperature of the similarities, over 0.
        projection: width of the embeddings.
        queue_batches: length of the queue, in batches of ``(mu + 1) B`` faces.
        da_length: of the distribution alignment's queue, in batches.
        da_target: the shares of the emotions that alignment aims at: ``labeled``, those of the labels, or
            ``uniform``.
        **kwargs: options of every method.
    """

    about = About(
        name="CoMatch",
        paper="Li et al. 2021",
        url="https://arxiv.org/abs/2011.11183",
        believes="the student's aligned weak view, smoothed by similar faces, if surer than `tau`",
        learns="a strong view; the graph of the beliefs between two",
        state="queue of embeddings and beliefs; mean beliefs",
    )
    views = Views(labeled=1, weak=1, strong=2)

    def __init__(
        self,
        tau: float = 0.95,
        lambda_u: float = 1.0,
        lambda_c: float = 1.0,
        tau_c: float = 0.8,
        alpha: float = 0.9,
        t: float = 0.2,
        projection: int = 64,
        queue_batches: int = 5,
        da_length: int = 32,
        da_target: Literal["labeled", "uniform"] = "labeled",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if t <= 0:
            raise InputError(f"--model.t is {t}; give a temperature over 0, 0.2 is usual")
        self.tau, self.lambda_u, self.lambda_c = tau, lambda_u, lambda_c
        self.tau_c, self.alpha, self.t = tau_c, alpha, t
        self.alignment = DistributionAlignment(self.task.classes, form="queue", length=da_length)
        self.queue = Queue(0, projection, self.task.classes)

    def build_network(self) -> FaceNetwork:
        """Build the student with a projection head."""
        options = self.network_options | {"projection": self.hparams.projection}
        return FaceNetwork(self.build_backbone(), self.task, **options)

    def setup(self, stage: str) -> None:
        """Size the queue and aim the alignment."""
        super().setup(stage)
        if stage == "fit":
            data = self.datamodule
            self.queue.resize(self.hparams.queue_batches * (data.mu + 1) * data.batch_size)
            if self.hparams.da_target == "labeled":
                self.alignment.aim(self.labeled_prior())

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Align and smooth the student's answer; remember it as it was before the smoothing."""
        q = self.student(unlabeled.weak)
        aligned = self.alignment(q.logits.softmax(-1))
        near = aggregate(
            similarity(q.projection, self.queue.features, self.t, self.queue.written), self.queue.probability
        )
        alpha = torch.where(self.queue.written.all(), self.alpha, 1.0)
        p = alpha * aligned + (1 - alpha) * near
        if self.training:
            self.queue.push(q.projection, aligned)
        return make_pseudo_labels(unlabeled.index, p, q.valence_arousal, self.tau, soft=p)

    def losses(
        self, labeled: Labeled, unlabeled: Unlabeled | None, pseudo: PseudoLabels | None
    ) -> dict[str, Tensor]:
        """Return ``l_s``, ``lambda_u l_u`` and ``lambda_c l_c``; remember the labeled faces."""
        if unlabeled is None or pseudo is None:
            return super().losses(labeled, unlabeled, pseudo)
        x, first, second = self.forward_views(labeled.image, *unlabeled.strong)
        if self.training:
            known = ~labeled.target.emotion.isnan().any(-1)
            self.queue.push(x.projection, labeled.target.emotion, known)
        graph = pseudo_label_graph(pseudo.target.emotion, self.tau_c)
        return {
            "supervised": self.task.supervised(x, labeled.target),
            "unlabeled": self.lambda_u * self.task.consistency(first, pseudo.target, pseudo.weight),
            "contrast": self.lambda_c * graph_contrastive(first.projection, second.projection, graph, self.t),
        }
