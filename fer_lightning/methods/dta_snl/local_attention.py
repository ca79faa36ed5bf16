"""Local attention over feature maps, with attention maps dropped at random."""

from typing import Literal

import torch
from torch import Tensor, nn

from fer_lightning.errors import InputError
from fer_lightning.models.network import Pool

Drop = Literal["maps", "channel", "none"]


class LocalAttention(nn.Module):
    """A neck: attention maps of several small networks, their maximum weights the features, then pooling.

    Xue et al., ICCV 2021 (TransFER), https://arxiv.org/abs/2108.11116: M LANets (1x1 convolution, norm, ReLU,
    1x1 convolution, norm, sigmoid) give one map each, their maximum weights the features, and in training one
    map of a face is sometimes set to 0, so that the network does not rely on one place alone.

    Args:
        backbone: gives the width.
        attention: M, number of LANets.
        reduction: of the width inside a LANet.
        drop: in training, ``maps`` drops one attention map of a face, ``channel`` channels of the weighted
            features (Tompson et al. 2015), ``none`` nothing.
        drop_rate: probability that a face loses a map, or that it loses a channel.
        residual: multiply the features by 1 + A instead of A.
        dropout: of the pooled features.
        unit: bring them to unit length.
    """

    def __init__(
        self,
        backbone: nn.Module,
        attention: int = 2,
        reduction: int = 16,
        drop: Drop = "maps",
        drop_rate: float = 0.6,
        residual: bool = False,
        dropout: float = 0.0,
        unit: bool = False,
    ) -> None:
        super().__init__()
        least = 2 if drop == "maps" and not residual else 1
        if attention < least:
            raise InputError(
                f"attention is {attention}; it must be at least {least}, or a face may lose all of it",
                option="model.attention",
            )
        self.pool = Pool(backbone, dropout, unit)
        self.width = self.pool.width
        self.maps, self.drop, self.drop_rate, self.residual = attention, drop, drop_rate, residual
        inside = max(1, self.width // reduction)
        # In the second convolution each LANet reads its own group of channels.
        self.attention = nn.Sequential(
            nn.Conv2d(self.width, attention * inside, 1, bias=False),
            nn.BatchNorm2d(attention * inside),
            nn.ReLU(),
            nn.Conv2d(attention * inside, attention, 1, groups=attention, bias=False),
            nn.BatchNorm2d(attention),
            nn.Sigmoid(),
        )
        self.channels = nn.Dropout2d(drop_rate if drop == "channel" else 0.0)

    def attend(self, maps: Tensor) -> Tensor:
        """Return the (B, M, h, w) attention maps in (0, 1) of (B, K, h, w) features, dropped ones 0."""
        attention: Tensor = self.attention(maps)
        if not self.training or self.drop != "maps":
            return attention
        rows, device = len(maps), maps.device
        loses = torch.rand(rows, device=device) < self.drop_rate
        which = torch.randint(self.maps, (rows,), device=device)
        dropped = loses[:, None] & nn.functional.one_hot(which, self.maps).bool()
        return attention.masked_fill(dropped[:, :, None, None], 0.0)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, K, h, w) feature maps to (B, K) features."""
        attention = self.attend(maps).amax(1, keepdim=True)
        weighted: Tensor = self.channels(maps * (1 + attention if self.residual else attention))
        pooled: Tensor = self.pool(weighted)
        return pooled
