"""SIT-FER's text level and instance level, and the weights of the three levels in its settings."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fer_lightning.errors import InputError
from fer_lightning.models.memory import FaceMemory, Queue, aggregate, similarity, similarity_logits

LEVELS = ("semantic", "text", "instance")
"""The classifier, the text anchors of the classes, the memory of labeled faces."""


def nearest_by_class(query: Tensor, features: Tensor, label: Tensor) -> Tensor:
    """Return the cosine with the most similar face of each class, at least 0.

    ``max(0, max_{k: l_k = c} q . b_k)``, the instance score of SIT-FER's code, there by two loops.

    Args:
        query: (B, P) of unit length.
        features: (N, P) of unit length.
        label: (N, C) probabilities, of which the most likely class counts; rows of 0 are left out.

    Returns:
        (B, C) float32 or better.
    """
    with torch.autocast(query.device.type, enabled=False):
        cosine = (query @ features.to(query.dtype).T) * (label.sum(-1) > 0)
    lowest = cosine.new_zeros(len(query), label.shape[1])
    return lowest.scatter_reduce(1, label.argmax(-1).expand_as(cosine), cosine, "amax")


class TextLevel(nn.Module):
    """Logits of the text level: cosines with an anchor per emotion.

    Args:
        classes: C.
        width: D, of features and anchors.
        temperature: T, above 0.
        learned: map the anchors by a linear layer that is trained, from the identity on.
    """

    anchors: Tensor
    """(C, D) of unit length; 0 until they are written, which makes every emotion equally likely."""

    def __init__(self, classes: int, width: int, temperature: float, learned: bool = False) -> None:
        super().__init__()
        self.temperature = temperature
        self.register_buffer("anchors", torch.zeros(classes, width))
        self.map = nn.Linear(width, width, bias=False) if learned else None
        if self.map is not None:
            nn.init.eye_(self.map.weight)

    def forward(self, q: Tensor) -> Tensor:
        """Map (B, D) features of unit length to (B, C) logits."""
        with torch.autocast(q.device.type, enabled=False):
            anchors = self.anchors if self.map is None else nn.functional.normalize(self.map(self.anchors))
            return similarity_logits(q, anchors, self.temperature)


class InstanceLevel(nn.Module):
    """Logits of the instance level: labels of similar faces, labeled ones and the last accepted ones.

    Args:
        classes: C.
        width: D, of the features.
        temperature: T, above 0.
        nearest: the logits are ``nearest_by_class`` over T instead of the logarithm of the labels' mean,
            weighted by similarity: ``sum_k softmax_k(q . b_k / T) l_k``, as SimMatch passes labels on
            (Zheng et al., CVPR 2022, https://arxiv.org/abs/2203.06915).
    """

    def __init__(self, classes: int, width: int, temperature: float, nearest: bool = False) -> None:
        super().__init__()
        self.temperature, self.nearest = temperature, nearest
        self.labeled, self.accepted = FaceMemory(width, classes), Queue(0, width, classes)

    def forward(self, q: Tensor) -> Tensor:
        """Map (B, D) features of unit length to (B, C) logits; all equal while no face is in the memory."""
        features = torch.cat([self.labeled.features, self.accepted.features])
        label = torch.cat([self.labeled.probability, self.accepted.probability])
        if self.nearest:
            return nearest_by_class(q, features, label) / self.temperature
        written = label.sum(-1) > 0
        p = aggregate(similarity(q, features, self.temperature, written), label)
        return p.clamp(min=torch.finfo(p.dtype).tiny).log()


class Setting(NamedTuple):
    """Weights of the levels and the losses; levels in the order of ``LEVELS``."""

    weights: tuple[float, ...]
    """Of the levels in p^, with the instance level."""
    weights_before: tuple[float, ...]
    """Of the levels in p^, before the instance level starts."""
    start: float
    """Share of the run after which the instance level starts."""
    threshold: float
    """Confidence from which a pseudo-label is accepted (tau)."""
    loss_weights: tuple[float, ...]
    """Of the losses: supervised, text, unlabeled."""
    test_weights: tuple[float, ...]
    """Of the levels in the test, with the instance level."""
    test_weights_before: tuple[float, ...]
    """Of the levels in the test, before the instance level starts."""
    test_start: float
    """Share of the run after which the instance level starts in the test."""

    def as_in_paper(self) -> "Setting":
        """Return equal weights of the levels, and losses in units of the supervised one."""
        thirds, halves, start = (1 / 3, 1 / 3, 1 / 3), (0.5, 0.5, 0.0), 15 / 60
        losses = tuple(weight / self.loss_weights[0] for weight in self.loss_weights)
        return Setting(thirds, halves, start, self.threshold, losses, thirds, halves, start)

    def only(self, levels: Sequence[str]) -> "Setting":
        """Leave levels out of p^ and of the test; those that remain keep their proportions.

        Raises:
            InputError: if none is left or one is unknown.
        """
        if not levels or not set(levels) <= set(LEVELS):
            raise InputError(
                f"levels is {list(levels)}; it must be one or more of {', '.join(LEVELS)}",
                option="model.levels",
            )

        def kept(weights: tuple[float, ...], otherwise: tuple[float, ...] = ()) -> tuple[float, ...]:
            left = [w * (level in levels) for w, level in zip(weights, LEVELS, strict=True)]
            return tuple(left) if any(left) else kept(otherwise)  # the instance level alone starts at once

        return self._replace(
            weights=kept(self.weights),
            weights_before=kept(self.weights_before, self.weights),
            test_weights=kept(self.test_weights),
            test_weights_before=kept(self.test_weights_before, self.test_weights),
        )


# https://github.com/PatrickStarL/SIT-FER, main1.py to main4.py in its history (main4.py is today's main.py).
_V, _RAF2, _RAF4, _RAF5 = (0.5, 0.5, 0.0), (0.35, 0.35, 0.3), (0.4, 0.4, 0.2), (0.3, 0.2, 0.5)
_ONES, _TWO = (1.0, 1.0, 1.0), (1.0, 1.0, 0.0)
SETTINGS = {
    "sfew400": Setting((1.0, 0.4, 0.2), (0.7, 0.3, 0.0), 5 / 60, 0.72, (0.7, 0.2, 0.1), _ONES, _TWO, 10 / 60),
    "rafdb4000": Setting(_RAF4, _V, 10 / 60, 0.80, (0.4, 0.4, 0.2), _RAF4, _V, 10 / 60),
    "rafdb2000": Setting(_RAF2, _V, 15 / 60, 0.80, (0.3, 0.3, 0.4), _RAF2, _RAF2, 0.0),
    "rafdb5000": Setting(_RAF5, (0.6, 0.4, 0.0), 15 / 80, 0.75, (0.4, 0.4, 0.2), _RAF5, _RAF5, 0.0),
}
"""By name. For 100 or 400 labels of RAF-DB take ``rafdb2000``, for AffectNet ``rafdb4000``."""
