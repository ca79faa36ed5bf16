"""Fusion of SIT-FER's three levels: p^ of the pseudo-labels, and the probabilities of the test."""

import torch
from torch import Tensor, nn

from fer_lightning.methods.sit_fer.levels import InstanceLevel, Setting, TextLevel
from fer_lightning.task import Output


class Fusion(nn.Module):
    """Classifier, text anchors and memory of faces, fused with weights that follow the run's progress.

    Ding et al. 2025 (SIT-FER), https://arxiv.org/abs/2503.18463, and its code, which differs::

        p^ of the paper            mean of the levels' probabilities
        p^ of the code             softmax of their weighted logits and cosines, without temperatures
        probabilities of the test  weighted mean of the levels' probabilities

    Args:
        classes: C.
        width: D, of the features.
        setting: weights of the levels.
        paper: whether p^ is that of the paper.
        text_temperature: of the cosines with the anchors, above 0; the code has none.
        instance_temperature: of the cosines with the faces, above 0; the code has none.
        nearest: see ``InstanceLevel``; always in the code.
        learned: see ``TextLevel``.
    """

    progress: Tensor
    """Scalar share of the run that is done: a checkpoint predicts as the run did."""
    weights: Tensor
    """(2, 3) of the levels in p^: from the start of the instance level on, and before."""
    test_weights: Tensor
    """(2, 3) in the test."""

    def __init__(
        self,
        classes: int,
        width: int,
        setting: Setting,
        paper: bool,
        text_temperature: float,
        instance_temperature: float,
        nearest: bool,
        learned: bool,
    ) -> None:
        super().__init__()
        self.paper, self.start, self.test_start = paper, setting.start, setting.test_start
        self.text = TextLevel(classes, width, text_temperature if paper else 1.0, learned)
        self.instance = InstanceLevel(
            classes, width, instance_temperature if paper else 1.0, nearest or not paper
        )
        self.remembers = any(weights[2] > 0 for weights in (setting.weights, setting.test_weights))
        self.register_buffer("progress", torch.zeros(()))
        weights = torch.tensor([setting.weights, setting.weights_before])
        self.register_buffer("weights", weights, persistent=False)
        test_weights = torch.tensor([setting.test_weights, setting.test_weights_before])
        self.register_buffer("test_weights", test_weights, persistent=False)

    def forward(self, output: Output) -> Tensor:
        """Return the (3, B, C) logits of each level for B faces."""
        q = unit(output.features)
        return torch.stack([output.logits, self.text(q), self.instance(q)])

    def p_hat(self, levels: Tensor) -> Tensor:
        """Return p^, (B, C) float32, of the (3, B, C) logits of the levels."""
        w = self._now(self.weights, self.start)
        return _mean(levels.softmax(-1), w) if self.paper else (w * levels).sum(0).softmax(-1)

    def predict(self, levels: Tensor) -> Tensor:
        """Return the (B, C) probabilities of the test of the (3, B, C) logits of the levels."""
        return _mean(levels.softmax(-1), self._now(self.test_weights, self.test_start))

    def _now(self, weights: Tensor, start: float) -> Tensor:
        """(3, 1, 1) weights of the levels."""
        return torch.where(self.progress >= start, weights[0], weights[1])[:, None, None]


def unit(rows: Tensor) -> Tensor:
    """Scale (B, D) rows to unit length, float32."""
    return nn.functional.normalize(rows.float(), dim=-1)


def _mean(levels: Tensor, weight: Tensor) -> Tensor:
    return (weight * levels).sum(0) / weight.sum()
