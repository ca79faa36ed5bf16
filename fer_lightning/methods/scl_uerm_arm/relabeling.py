"""Uncertainty-guided relabeling: labels that training may change, face by face."""

import torch
from torch import Tensor

from fer_lightning.data.batch import Target
from fer_lightning.distributed import gather
from fer_lightning.methods.scl_uerm_arm.rank_regularization import high_group
from fer_lightning.models.memory import ResizedOnLoad, last_of_each


class Relabeling(ResizedOnLoad):
    """Replace the label of an uncertain face by an emotion that the network finds more probable.

    Self-Cure Network (Wang et al., CVPR 2020), https://arxiv.org/abs/2002.10392: where
    ``P_max - P_label > delta_2``, the most likely emotion becomes the label. A change
    proposed in an epoch takes effect when it ends. For a face drawn several times in an epoch the last
    proposal counts. All ranks hold the same labels.

    Args:
        certain_share: of a (global) batch (beta).
        margin: by which an emotion must be more probable than the label (delta_2).
        low_only: leave the certain faces alone, as in the paper; its code does not.
        max_flips: how often the label of a face may change; None for any number of times.
    """

    labels_original: Tensor
    """(N,) int64, -1 where the emotion is unknown: the labels of the data."""
    labels_current: Tensor
    """(N,) int64: the labels of this epoch."""
    pending: Tensor
    """(N,) int64: the labels of the next epoch."""
    flips: Tensor
    """(N,) int64: how often the label of each face has changed."""

    def __init__(
        self, certain_share: float, margin: float, low_only: bool = True, max_flips: int | None = None
    ) -> None:
        super().__init__()
        self.certain_share, self.margin = certain_share, margin
        self.low_only, self.max_flips = low_only, max_flips
        for name in ("labels_original", "labels_current", "pending", "flips"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.long))

    def start(self, label: Tensor) -> None:
        """Start from the (N,) labels of the data, -1 where there is none."""
        label = label.to(self.pending.device)
        self.labels_original, self.labels_current = label.clone(), label.clone()
        self.pending, self.flips = label.clone(), torch.zeros_like(label)

    def target(self, target: Target, index: Tensor) -> Target:
        """Put the current labels of the (B,) faces into their target; labels that never changed stay soft."""
        label = self.labels_current[index]
        one_hot = torch.nn.functional.one_hot(label.clamp(min=0), target.emotion.shape[-1])
        changed = (label != self.labels_original[index])[:, None]
        return target._replace(emotion=torch.where(changed, one_hot.to(target.emotion.dtype), target.emotion))

    @torch.no_grad()
    def propose(self, index: Tensor, probability: Tensor, certainty: Tensor) -> None:
        """Propose labels for the next epoch, for the faces of all ranks' batches.

        Args:
            index: (B,) int64 indices in the labeled set.
            probability: (B, C) of the emotions.
            certainty: (B,), higher for a more certain face.
        """
        index, p, a = gather(index, probability, certainty)
        y = self.labels_current[index]
        p_max, likeliest = p.max(-1)
        change = (y >= 0) & (p_max - p.gather(-1, y.clamp(min=0)[:, None])[:, 0] > self.margin)
        if self.low_only:
            change = change & ~high_group(a, self.certain_share)
        if self.max_flips is not None:
            change = change & (self.flips[index] < self.max_flips)
        last = last_of_each(index, len(self.pending))
        self.pending[index] = torch.where(change, likeliest, y)[last]

    def commit(self) -> None:
        """Make the proposed labels the current ones."""
        self.flips += self.pending != self.labels_current
        self.labels_current.copy_(self.pending)
