"""SIT-FER's three levels put together: what is believed in training, and what is answered in the test."""

import torch
from torch import Tensor, nn

from fer_lightning.errors import InputError
from fer_lightning.methods.sit_fer.levels import InstanceLevel, Setting, TextLevel
from fer_lightning.task import Output


class Fusion(nn.Module):
    """The classifier, the anchors of the classes and the memory of faces, weighed by how far the run is.

    Ding et al. 2025 (SIT-FER), https://arxiv.org/abs/2503.18463, and its code, which does it otherwise::

        p^ of the paper     mean of the levels' probabilities
        p^ of the code      softmax of their weighted logits and cosines, without temperatures
        answer of the test  weighted mean of the levels' probabilities

    Args:
        classes: C.
        width: D, of the features.
        setting: weights of the levels.
        paper: whether p^ is that of the paper.
        temperature_text: of the cosines with the anchors, over 0; the code has none.
        temperature_instance: of the cosines with the faces, likewise.
        nearest: see ``InstanceLevel``; always in the code.
        learned: see ``TextLevel``.

    Raises:
        InputError: for a temperature that is not over 0.
    """

    done: Tensor
    """Share of the run that is done: a checkpoint answers as the run did."""
    weights: Tensor
    """(2, 3) of the levels in p^: once the instances have a say, and before."""
    tested: Tensor
    """(2, 3) likewise in the test."""

    def __init__(
        self,
        classes: int,
        width: int,
        setting: Setting,
        paper: bool,
        temperature_text: float,
        temperature_instance: float,
        nearest: bool,
        learned: bool,
    ) -> None:
        super().__init__()
        if temperature_text <= 0 or temperature_instance <= 0:
            raise InputError(
                "--model.temperature_text and --model.temperature_instance must be over 0, not "
                f"{temperature_text} and {temperature_instance}"
            )
        self.paper, self.start, self.tested_start = paper, setting.start, setting.tested_start
        self.text = TextLevel(classes, width, temperature_text if paper else 1.0, learned)
        T = temperature_instance if paper else 1.0
        self.instance = InstanceLevel(classes, width, T, nearest or not paper)
        self.remembers = any(weights[2] > 0 for weights in (setting.w, setting.tested_w))
        self.register_buffer("done", torch.zeros(()))
        self.register_buffer("weights", torch.tensor([setting.w, setting.v]), persistent=False)
        self.register_buffer("tested", torch.tensor([setting.tested_w, setting.tested_v]), persistent=False)

    def forward(self, output: Output) -> Tensor:
        """Return the (3, B, C) logits of what each level says of B faces."""
        q = unit(output.features)
        return torch.stack([output.logits, self.text(q), self.instance(q)])

    def believe(self, levels: Tensor) -> Tensor:
        """Return p^, (B, C) float32, of the (3, B, C) logits of the levels."""
        w = self._now(self.weights, self.start)
        return _mean(levels.softmax(-1), w) if self.paper else (w * levels).sum(0).softmax(-1)

    def answer(self, levels: Tensor) -> Tensor:
        """Return the (B, C) probabilities of the test, likewise."""
        return _mean(levels.softmax(-1), self._now(self.tested, self.tested_start))

    def _now(self, weights: Tensor, start: float) -> Tensor:
        """(3, 1, 1) weights of the levels."""
        return torch.where(self.done >= start, weights[0], weights[1])[:, None, None]


def unit(rows: Tensor) -> Tensor:
    """Bring (B, D) rows to length 1, float32."""
    return nn.functional.normalize(rows.float(), dim=-1)


def _mean(levels: Tensor, weight: Tensor) -> Tensor:
    return (weight * levels).sum(0) / weight.sum()
