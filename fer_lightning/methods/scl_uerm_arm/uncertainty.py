"""Heads that also estimate the certainty of a prediction; higher is more certain."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from fer_lightning.data.batch import Target
from fer_lightning.data.mixup import mix
from fer_lightning.task import Output, Task

Uncertainty = Literal["scn", "rul", "entropy", "none"]


def uncertain_head(uncertainty: Uncertainty, inside: int, task: Task) -> nn.Module:
    """Build the head of a kind of uncertainty; that of ``none`` has no ``certainty``."""
    if uncertainty == "scn":
        return ImportanceHead(inside, task.width, task.classes)
    if uncertainty == "rul":
        return RelativeHead(inside, task.width)
    return (EntropyHead if uncertainty == "entropy" else nn.Linear)(inside, task.width)


class ImportanceHead(nn.Module):
    """Logits times the importance weight of the face, ``a = sigmoid(w x + b)``.

    Self-Cure Network (Wang et al., CVPR 2020), https://arxiv.org/abs/2002.10392, and the code of its
    authors, where the bias of the classifier is inside the product. The most likely emotion is that of the
    classifier alone; a small importance lowers the confidence.

    Args:
        inside: D, width of the features.
        outside: outputs, logits first.
        classes: C, how many of them are logits; the others are not weighted.
    """

    def __init__(self, inside: int, outside: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.classify = nn.Linear(inside, outside)
        self.importance = nn.Linear(inside, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, D) features to (B, outside)."""
        raw = self.classify(features)
        weighted = self.importance(features).sigmoid() * raw[:, : self.classes]
        return torch.cat([weighted, raw[:, self.classes :]], 1)

    def certainty(self, output: Output) -> Tensor:
        """Return the (B,) importance of the faces, in (0, 1)."""
        with torch.autocast(output.features.device.type, enabled=False):
            a: Tensor = self.importance(output.features).sigmoid()[:, 0]
        return a


class RelativeHead(nn.Module):
    """A classifier of the mean of a Gaussian in a latent space, whose variance is the uncertainty.

    Relative Uncertainty Learning (Zhang et al., NeurIPS 2021), zyh-uaiaaaa/Relative-Uncertainty-Learning: the
    variance is learnt by ``relative_share``. Mean and log-variance are read off the features, where the
    authors read them off the feature maps.

    Args:
        inside: D, width of the features.
        outside: outputs, logits first.
        latent: K, of the latent space.
    """

    def __init__(self, inside: int, outside: int, latent: int = 64) -> None:
        super().__init__()
        self.mu = nn.Sequential(nn.Linear(inside, latent), nn.BatchNorm1d(latent))
        self.log_variance = nn.Sequential(nn.Linear(inside, latent), nn.BatchNorm1d(latent))
        self.classify = nn.Linear(latent, outside)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, D) features to (B, outside)."""
        raw: Tensor = self.classify(self.mu(features))
        return raw

    def certainty(self, output: Output) -> Tensor:
        """Return the (B,) ``-log s`` of the faces, s the mean variance over the latent space."""
        with torch.autocast(output.features.device.type, enabled=False):
            log_variance: Tensor = self.log_variance(output.features)
        return math.log(log_variance.shape[-1]) - log_variance.logsumexp(-1)


class EntropyHead(nn.Linear):
    """A classifier whose certainty is high where the entropy of its prediction is low."""

    def certainty(self, output: Output) -> Tensor:
        """Return the (B,) ``1 - H(p) / log C`` of the faces, in [0, 1]."""
        log_p = output.logits.log_softmax(-1)
        return 1 + (log_p.exp() * log_p).sum(-1) / math.log(log_p.shape[-1])


def relative_share(certainty: Tensor, order: Tensor) -> Tensor:
    """Return the share of each face in its mixture with a partner: ``lambda_i = s_i / (s_i + s_j)``.

    Relative Uncertainty Learning: a mixture is to be classified as both, so the harder of the two gets the
    larger share, and its uncertainty s grows. The authors mix the latent means; since the classifier is
    linear and the shares add up to 1, mixing its logits is the same.

    Args:
        certainty: (B,) ``-log s``.
        order: (B,) int64, the partner j of each row.

    Returns:
        (B,) in (0, 1).
    """
    return (certainty[order] - certainty).sigmoid()


def mixed_with_partners(output: Output, target: Target, certainty: Tensor) -> tuple[Output, Target]:
    """Mix the logits of each face with those of another, drawn at random, by ``relative_share``.

    Relative Uncertainty Learning: half of the target of a mixture is the one's and half the other's.

    Args:
        output: of B faces; what is not a logit stays as it is.
        target: of the same faces.
        certainty: (B,) ``-log s``.
    """
    order = torch.randperm(len(certainty), device=certainty.device)
    share = relative_share(certainty, order)[:, None]
    half = torch.full_like(share, 0.5)
    return (
        output._replace(logits=mix(output.logits, share, order)),
        target._replace(emotion=mix(target.emotion, half, order)),
    )
