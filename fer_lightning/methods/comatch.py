"""CoMatch: pseudo-labels smoothed by similar faces, and embeddings whose graph follows theirs."""

from typing import Any, Literal

import torch
from torch import Tensor

from fer_lightning.data.batch import DataInfo, Labeled, Unlabeled, Views
from fer_lightning.losses.classification import soft_cross_entropy
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.step_losses import Losses
from fer_lightning.models.memory import Queue, aggregate, similarity
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.pseudo_labels.alignment import DistributionAlignment
from fer_lightning.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, Share
from fer_lightning.task import Output


class CoMatch(SemiSupervised):
    """CoMatch: pseudo-labels smoothed by similar faces, and embeddings whose graph follows theirs.

    Li, Xiong and Hoi, "CoMatch: Semi-Supervised Learning with Contrastive Graph Regularization", ICCV 2021,
    https://arxiv.org/abs/2011.11183, eqs. (1)-(11): ``l_s + lambda_u l_u + lambda_c l_c``. The student's
    probabilities p on the weak view are aligned (DA), then smoothed by a queue of the last faces' embeddings
    and probabilities: ``alpha p + (1 - alpha) sum_j softmax_j(z . z_j / t) p_j``. ``l_u`` is the mean over
    the whole unlabeled batch of ``1[max p >= tau] H(p, p(strong 1))``, with the soft p; ``l_c`` makes the
    graph of the embeddings of two strong views that of the pseudo-labels, whose edges have ``p_i . p_j >=
    tau_c``.

    Checked against the code of microsoft/Semi-supervised-learning (USB): its step and this one, side by side
    on random batches for 40 to 80 steps, gave losses and weights equal to 1e-8. Differences:

    =========  =================================  ===================================================
    what       their code (CIFAR)                 here
    =========  =================================  ===================================================
    smoothing  after `queue_batches` steps        once the queue is full, one step earlier
    DA         to uniform                         to the labels' shares; `alignment_target: uniform`
    weak pass  in the joint batch                 of its own, without gradient
    L_c        log (S + 1e-7)                     log S, as in the paper
    devices    one                                a graph of each device's batch; the queue and the
                                                  alignment are of all devices
    =========  =================================  ===================================================

    USB's configurations average three projection heads (EPASS), which is another paper. With ``targets:
    both``, valence and arousal are accepted, unsmoothed, wherever the emotion is.

    Args:
        threshold: confidence from which a pseudo-label is accepted (tau).
        unlabeled_weight: weight of the unlabeled loss (lambda_u).
        contrast_weight: weight of the contrast of graphs (lambda_c).
        graph_threshold: similarity of two pseudo-labels from which their faces are connected (tau_c).
        model_share: share of the model in a pseudo-label, the rest is its neighbors' (alpha); 1 for no
            smoothing.
        temperature: of the similarities (t).
        projection: width of the embeddings.
        queue_batches: length of the queue, in batches of ``(mu + 1) B`` faces.
        alignment_length: of the distribution alignment's queue, in batches.
        alignment_target: the shares of the emotions to which predictions are aligned: ``labeled``, those of
            the labels, or ``uniform``.
        **kwargs: options of every method.
    """

    about = About(
        name="CoMatch",
        paper="Li et al. 2021",
        url="https://arxiv.org/abs/2011.11183",
        pseudo_labels="the student's aligned weak view, smoothed by similar faces, from `threshold` on",
        learns="a strong view; the graph of the pseudo-labels between two",
        state="queue of embeddings and probabilities; mean probabilities",
    )
    views = Views(labeled=1, weak=1, strong=2)

    def __init__(
        self,
        threshold: Share = 0.95,
        unlabeled_weight: NonNegativeFloat = 1.0,
        contrast_weight: NonNegativeFloat = 1.0,
        graph_threshold: NonNegativeFloat = 0.8,
        model_share: Share = 0.9,
        temperature: PositiveFloat = 0.2,
        projection: PositiveInt = 64,
        queue_batches: PositiveInt = 5,
        alignment_length: PositiveInt = 32,
        alignment_target: Literal["labeled", "uniform"] = "labeled",
        **kwargs: Any,
    ) -> None:
        super().__init__(projection=projection, **kwargs)
        self.threshold, self.graph_threshold = threshold, graph_threshold
        self.unlabeled_weight, self.contrast_weight = unlabeled_weight, contrast_weight
        self.model_share, self.temperature = model_share, temperature
        self.alignment = DistributionAlignment(self.task.classes, form="queue", length=alignment_length)
        self.queue = Queue(0, projection, self.task.classes)

    def prepare(self, data: DataInfo) -> None:
        """Size the queue, and align to the labels if that is the target."""
        self.queue.resize(self.hparams.queue_batches * (data.unlabeled_ratio + 1) * data.batch_size)
        if self.hparams.alignment_target == "labeled":
            self.alignment.aim(data.prior)

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Align and smooth the student's probabilities."""
        q = self.student(unlabeled.weak[0])
        near = similarity(q.projected, self.queue.features, self.temperature, self.queue.written)
        alpha = torch.where(self.queue.written.all(), self.model_share, 1.0)
        p = alpha * self.alignment(q.logits.softmax(-1))
        p = p + (1 - alpha) * aggregate(near, self.queue.probability)
        return make_pseudo_labels(unlabeled.index, p, q.valence_arousal, self.threshold, soft=p, outputs=(q,))

    def losses(self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels) -> Losses:
        """Return ``l_s``, ``lambda_u l_u`` and ``lambda_c l_c``."""
        x, first, second = self.forward_views(labeled.weak[0], *unlabeled.strong)
        graph = pseudo_label_graph(pseudo.target.emotion, self.graph_threshold)
        contrast = graph_contrastive(first.projected, second.projected, graph, self.temperature)
        return Losses(
            (x, first, second),
            supervised=self.task.supervised(x, labeled.target),
            unlabeled=self.unlabeled_weight * self.task.consistency(first, pseudo.target, pseudo.weight),
            contrast=self.contrast_weight * contrast,
        )

    def update_state(
        self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels, outputs: tuple[Output, ...]
    ) -> None:
        """Queue the unlabeled faces with their unsmoothed probabilities, then the labeled ones."""
        (q,), x = pseudo.outputs, outputs[0]
        p = q.logits.softmax(-1)
        self.queue.push(q.projected, self.alignment(p))
        self.alignment.update(p)
        known = ~labeled.target.emotion.isnan().any(-1)
        self.queue.push(x.projected, labeled.target.emotion, known)


def pseudo_label_graph(probability: Tensor, threshold: float) -> Tensor:
    """Connect faces whose pseudo-labels are similar.

    ``W_ij = p_i . p_j`` where it reaches the threshold, else 0, and ``W_ii = 1``; rows are normalized. Li et
    al., ICCV 2021 (CoMatch), https://arxiv.org/abs/2011.11183, eq. 8.

    Args:
        probability: (B, C) float32.
        threshold: in [0, 1]; above 1 every face is connected to itself alone.

    Returns:
        (B, B), rows of a sum of 1.
    """
    with torch.autocast(probability.device.type, enabled=False):
        w = probability @ probability.T
    itself = torch.eye(len(w), dtype=torch.bool, device=w.device)
    w = torch.where(w >= threshold, w, 0.0).masked_fill(itself, 1.0)
    return w / w.sum(-1, keepdim=True)


def graph_contrastive(first: Tensor, second: Tensor, graph: Tensor, temperature: float) -> Tensor:
    """Mean over the faces of the cross-entropy between the graph and that of two views' embeddings.

    ``-1/B sum_i sum_j Q_ij log S_ij`` with ``S_ij = softmax_j(z_i . z'_j / t)``; Li et al., ICCV 2021
    (CoMatch), https://arxiv.org/abs/2011.11183, eqs. 9-11. Their code adds 1e-7 inside the logarithm, which a
    logarithm of the softmax does not need.

    Args:
        first: (B, P) embeddings of one view, of unit length, any float type; computed in float32 or better.
        second: (B, P) of the other view.
        graph: (B, B), rows of a sum of 1; without gradient.
        temperature: t, above 0.

    Returns:
        Scalar, float32 or better; 0 without faces.
    """
    # Autocast would multiply in half precision, where similarities over a temperature are too coarse.
    with torch.autocast(first.device.type, enabled=False):
        dtype = torch.promote_types(first.dtype, torch.float32)
        similarity = first.to(dtype) @ second.to(dtype).T / temperature
    return soft_cross_entropy(similarity, graph)
