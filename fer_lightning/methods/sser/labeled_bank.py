"""A bank of labeled faces as a network encodes them, whose labels are evidence for similar faces."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from fer_lightning.data.batch import Evaluated
from fer_lightning.distributed import gather
from fer_lightning.models.memory import ResizedOnLoad


class LabeledBank(ResizedOnLoad):
    """Rows and labels of chosen labeled faces; empty until filled.

    Args:
        classes: C.
    """

    rows: Tensor
    """(N, D) float16, in the order of the labeled set."""
    label: Tensor
    """(N, C) float32 probabilities."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(0, 0, dtype=torch.float16))
        self.register_buffer("label", torch.zeros(0, classes))

    @torch.no_grad()
    def fill(self, faces: Iterable[Evaluated], encode: Callable[[Tensor], Tensor], chosen: Tensor) -> None:
        """Replace the content by newly encoded labeled faces; to be called on all ranks together.

        Args:
            faces: all labeled faces in order, batch by batch; of several ranks, each gives its part of every
                batch, one rank's before the next one's, and indices of -1 are left out.
            encode: (B, 3, H, W) images to (B, D) rows.
            chosen: (N,) bool, the faces to keep.
        """
        kept = []
        for batch in faces:
            index, *each = gather(batch.index, encode(batch.image).half(), batch.target.emotion)
            keep = (index >= 0) & chosen[index]
            kept.append([part[keep] for part in each])
        self.rows, self.label = (torch.cat(parts) for parts in zip(*kept, strict=True))
