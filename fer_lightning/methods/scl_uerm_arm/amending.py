"""The Amend Representation Module: a neck that gives the border of the feature maps less weight."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d

from fer_lightning.errors import InputError

Sharing = Literal["ema", "ema_train", "batch", "off"]


class Amending(nn.Module):
    """A neck of feature arrangement, de-albino and sharing affinity, in the place of the pooling.

    Shi, Zhu and Liang, "Learning to Amend Facial Expression Representation via De-albino and Affinity",
    https://arxiv.org/abs/2103.10189, and the authors' code, JiaweiShiCV/Amend-Representation-Module.

    - Arrangement: the C channels of each site become a cluster of r x r pixels in one of C / r^2 planes.
    - De-albino: one kernel of 2r x 2r with a stride of r / 2 and no padding, the same for all planes. It
      visits the clusters of the border, whose values padding has eroded, less often: 2.25 times at a corner,
      6 times on an edge, 16 times inside. Then batch normalization over the planes.
    - Affinity: the mean over the planes, plus alpha times its mean over many faces.

    Maps of h x h give 2h - 3 numbers squared: 11 x 11 for the paper's 7 x 7. Maps of other sizes are amended
    as they are, and what comes of them is averaged (or repeated) to the same 11 x 11, as adaptive pooling
    does: so the width depends on neither image nor backbone.

    The mean over many faces (``sharing``):

    - ``ema``: of the batch in training, with gradient; its running average in evaluation, like the statistics
      of batch normalization. A reconstruction of the figure of the paper's third version.
    - ``ema_train``: the running average in training too, without gradient: the figure taken literally.
    - ``batch``: of the batch, always, as the released code does. A prediction then depends on the batch:
      results are transductive, and flattered where the faces of a batch are of one class.
    - ``off``: no mean at all.

    The running average is linear in the means of batches of equal size, so that averaging the buffers of the
    ranks after a step, as the base class does, makes it that of the global batch.

    Args:
        channels: C.
        sharing: see above.
        shuffle: cluster size r, whose square divides C; None for the largest power of two that does, up to
            the paper's 16 (512 or 2048 channels: 16, 64 or 128: 8).
        side: of the output, 11 in the paper.
        momentum: of the running average (not stated in the paper; that of batch normalization).
        dropout: of the features.

    Raises:
        InputError: if the square of ``shuffle`` does not divide ``channels``.
    """

    generic: Tensor
    known: Tensor

    def __init__(
        self,
        channels: int,
        sharing: Sharing = "ema",
        shuffle: int | None = None,
        side: int = 11,
        momentum: float = 0.9,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        r = next(2**k for k in (4, 3, 2, 1, 0) if channels % 4**k == 0) if shuffle is None else shuffle
        if r < 1 or channels % r**2:
            raise InputError(
                f"shuffle is {r}; the backbone has {channels} channels, which its square must divide",
                option="model.shuffle",
            )
        self.sharing, self.side, self.momentum, self.width = sharing, side, momentum, side**2
        self.arrange = nn.PixelShuffle(r)
        self.de_albino = nn.Conv2d(1, 1, 2 * r, max(r // 2, 1), bias=False)
        self.norm = nn.BatchNorm2d(channels // r**2)
        self.alpha = None if sharing == "off" else nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(dropout)
        if sharing in ("ema", "ema_train"):
            self.register_buffer("generic", torch.zeros(side, side))
            self.register_buffer("known", torch.tensor(False))

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, C, h, w) feature maps to (B, side^2) features.

        Raises:
            InputError: for maps of a single site, which have no border.
        """
        if min(maps.shape[-2:]) < 2:
            raise InputError(
                f"the feature maps are {maps.shape[-2]} x {maps.shape[-1]}, too small to amend: enlarge "
                "the images, or set stem small or amending false",
                option="data.image_size",
            )
        planes = self.arrange(maps)
        amended = self.de_albino(planes.flatten(0, 1)[:, None])
        amended = self.norm(amended.unflatten(0, planes.shape[:2]).squeeze(2))
        with torch.autocast(maps.device.type, enabled=False):
            unique = self._resized(amended.float().mean(1))
            expression = unique if self.alpha is None else unique + self.alpha * self._generic(unique)
        features: Tensor = self.dropout(expression.flatten(1))
        return features

    def _resized(self, planes: Tensor) -> Tensor:
        # Products with the matrices of the pooling, whose own backward pass is not deterministic on GPUs.
        for dim in (1, 2):
            if planes.shape[dim] != self.side:
                matrix = adaptive_avg_pool1d(
                    torch.eye(planes.shape[dim], device=planes.device)[None], self.side
                )
                planes = (planes.transpose(dim, 2) @ matrix[0]).transpose(dim, 2)
        return planes

    def _generic(self, unique: Tensor) -> Tensor:
        """Return F_generic, (side, side), of the F_unique of a batch; in training, go on averaging."""
        if self.sharing == "batch":
            return unique.mean(0)
        if not self.training:
            return self.generic
        batch = unique.mean(0)
        with torch.no_grad():
            # The first batch is taken whole.
            self.generic.lerp_(batch, torch.where(self.known, 1 - self.momentum, 1.0))
            self.known.fill_(True)
        # A copy: the buffer moves on before the backward pass.
        return batch if self.sharing == "ema" else self.generic.clone()
