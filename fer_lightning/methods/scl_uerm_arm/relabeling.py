"""Labels that training may change, face by face."""

import torch
from torch import Tensor

from fer_lightning.data.batch import Target
from fer_lightning.distributed import gather
from fer_lightning.methods.scl_uerm_arm.rank_regularization import high_group
from fer_lightning.models.memory import ResizedOnLoad, last_of_each


class Relabeling(ResizedOnLoad):
    """Gives an uncertain face the emotion the network is surer of than of its label.

    Self-Cure Network (Wang et al., CVPR 2020), https://arxiv.org/abs/2002.10392: where
    ``P_max - P_label > delta_2``, the most likely emotion becomes the label. What is proposed in an epoch
    takes effect when it ends. A face that is seen several times in an epoch is decided upon anew each time;
    the last time counts. All ranks hold the same labels.

    Args:
        beta: share of the certain faces of a (global) batch.
        delta_2: how much likelier than the label an emotion must be.
        low_only: leave the certain faces alone, as the paper says; its code does not.
        max_flips: how often the label of a face may change; None for any number of times.
    """

    labels_original: Tensor
    """(N,) int64, -1 where the emotion is unknown: the labels of the data."""
    labels_current: Tensor
    """(N,) int64: those that are learnt in this epoch."""
    pending: Tensor
    """(N,) int64: those of the next epoch."""
    flips: Tensor
    """(N,) int64: how often the label of each face has changed."""

    def __init__(
        self, beta: float, delta_2: float, low_only: bool = True, max_flips: int | None = None
    ) -> None:
        super().__init__()
        self.beta, self.delta_2, self.low_only, self.max_flips = beta, delta_2, low_only, max_flips
        for name in ("labels_original", "labels_current", "pending", "flips"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.long))

    def start(self, label: Tensor) -> None:
        """Begin with the (N,) labels of the data, -1 where there is none."""
        label = label.to(self.pending.device)
        self.labels_original, self.labels_current = label.clone(), label.clone()
        self.pending, self.flips = label.clone(), torch.zeros_like(label)

    def target(self, target: Target, index: Tensor) -> Target:
        """Put the current labels of the (B,) faces into their target; those that never changed stay soft."""
        label = self.labels_current[index]
        one_hot = torch.nn.functional.one_hot(label.clamp(min=0), target.emotion.shape[-1])
        changed = (label != self.labels_original[index])[:, None]
        return target._replace(emotion=torch.where(changed, one_hot.to(target.emotion.dtype), target.emotion))

    @torch.no_grad()
    def propose(self, index: Tensor, probability: Tensor, certainty: Tensor) -> None:
        """Decide on the labels that the faces of all ranks' batches have from the next epoch on.

        Args:
            index: (B,) int64 positions.
            probability: (B, C) of the emotions.
            certainty: (B,), higher for a more certain face.
        """
        index, p, a = gather(index, probability, certainty)
        y = self.labels_current[index]
        p_max, likeliest = p.max(-1)
        change = (y >= 0) & (p_max - p.gather(-1, y.clamp(min=0)[:, None])[:, 0] > self.delta_2)
        if self.low_only:
            change = change & ~high_group(a, self.beta)
        if self.max_flips is not None:
            change = change & (self.flips[index] < self.max_flips)
        last = last_of_each(index, len(self.pending))
        self.pending[index] = torch.where(change, likeliest, y)[last]

    def commit(self) -> None:
        """Let what was proposed take effect."""
        self.flips += self.pending != self.labels_current
        self.labels_current.copy_(self.pending)
