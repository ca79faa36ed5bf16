"""What text and labeled faces say of a face beside the classifier, and how SIT-FER weighs the three."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fer_lightning.errors import InputError
from fer_lightning.models.memory import FaceMemory, Queue, aggregate, similarity, similarity_logits

LEVELS = ("semantic", "text", "instance")
"""The classifier, the anchors of the classes, the memory of labeled faces."""


def nearest_by_class(query: Tensor, features: Tensor, label: Tensor) -> Tensor:
    """Cosine of the most similar face of each class, never below 0.

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
    """Cosines with an anchor per emotion.

    Args:
        classes: C.
        width: D, of features and anchors.
        temperature: over 0.
        learned: turn and stretch the anchors by a linear map that is trained, from the identity on.
    """

    anchors: Tensor
    """(C, D) of unit length; 0 until someone writes them, and then every emotion is equally likely."""

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
    """Labels of similar faces: of the labeled ones, by number, and of the last ones with a sure pseudo-label.

    Args:
        classes: C.
        width: D, of the features.
        temperature: T, over 0.
        nearest: the logits are ``nearest_by_class`` over T instead of the logarithm of the labels' mean,
            weighted by similarity: ``sum_k softmax_k(q . b_k / T) l_k``, as SimMatch passes labels on
            (Zheng et al., CVPR 2022, https://arxiv.org/abs/2203.06915).
    """

    def __init__(self, classes: int, width: int, temperature: float, nearest: bool = False) -> None:
        super().__init__()
        self.temperature, self.nearest = temperature, nearest
        self.labeled, self.accepted = FaceMemory(width, classes), Queue(0, width, classes)

    def forward(self, q: Tensor) -> Tensor:
        """Map (B, D) features of unit length to (B, C) logits; all alike if nothing is known of any face."""
        features = torch.cat([self.labeled.features, self.accepted.features])
        label = torch.cat([self.labeled.probability, self.accepted.probability])
        if self.nearest:
            return nearest_by_class(q, features, label) / self.temperature
        known = label.sum(-1) > 0
        p = aggregate(similarity(q, features, self.temperature, known), label)
        return p.clamp(min=torch.finfo(p.dtype).tiny).log()


class Setting(NamedTuple):
    """How much each level and loss counts; levels in the order of ``LEVELS``."""

    w: tuple[float, ...]
    """Of the levels in p^ once the instances have a say."""
    v: tuple[float, ...]
    """Before."""
    start: float
    """Share of the run after which the instances have a say."""
    tau: float
    """Confidence from which a pseudo-label is believed."""
    a: tuple[float, ...]
    """Of the losses: supervised, text, unlabeled."""
    tested_w: tuple[float, ...]
    """Of the levels in the test once the instances have a say there."""
    tested_v: tuple[float, ...]
    """Before."""
    tested_start: float
    """Share of the run after which the instances have a say in the test."""

    def as_in_paper(self) -> "Setting":
        """Levels that count alike in training and test, and losses in units of the supervised one."""
        thirds, halves, start = (1 / 3, 1 / 3, 1 / 3), (0.5, 0.5, 0.0), 15 / 60
        a = tuple(each / self.a[0] for each in self.a)
        return Setting(thirds, halves, start, self.tau, a, thirds, halves, start)

    def only(self, levels: Sequence[str]) -> "Setting":
        """Leave levels out of p^ and of the test; what is left keeps its proportions.

        Raises:
            InputError: if none is left or one is unknown.
        """
        if not levels or not set(levels) <= set(LEVELS):
            raise InputError(f"--model.levels must be one or more of {', '.join(LEVELS)}, not {list(levels)}")

        def kept(weights: tuple[float, ...], otherwise: tuple[float, ...] = ()) -> tuple[float, ...]:
            left = [w * (level in levels) for w, level in zip(weights, LEVELS, strict=True)]
            return tuple(left) if any(left) else kept(otherwise)  # instances alone have a say at once

        return self._replace(
            w=kept(self.w),
            v=kept(self.v, self.w),
            tested_w=kept(self.tested_w),
            tested_v=kept(self.tested_v, self.tested_w),
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
