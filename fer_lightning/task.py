"""What is to be recognised: emotions, valence and arousal, or both.

Labels, heads, pseudo-labels, metrics and the audit all ask the task, so a method is written once for the
three.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fer_lightning.data.batch import Target
from fer_lightning.emotions import Taxonomy, taxonomy
from fer_lightning.losses.classification import soft_cross_entropy
from fer_lightning.losses.consistency import squared_difference
from fer_lightning.losses.continuous import concordance_loss, squared_error

Kind = Literal["classes", "valence_arousal", "both"]


class Output(NamedTuple):
    """Outputs of a network for B faces, before any softmax."""

    logits: Tensor
    """(B, C) float32."""
    valence_arousal: Tensor
    """(B, 2) float32 in [-1, 1]; (B, 0) if the task does not ask for it."""
    features: Tensor
    """(B, D) float32, the input of the head."""
    maps: Tensor
    """(B, K, h, w), the last feature maps of the backbone."""
    projection: Tensor | None = None
    """(B, P) float32 of unit length, for contrastive losses; None without a projection head."""
    certainty: Tensor | None = None
    """(B,) float32, higher for a more certain face; None for methods that do not estimate it."""


class Prediction(NamedTuple):
    """What a model answers about B faces: what validation, test, prediction and export use."""

    emotion: Tensor
    """(B, C) float32 probabilities."""
    valence_arousal: Tensor
    """(B, 2) float32 in [-1, 1]; (B, 0) if the task does not ask for it."""
    features: Tensor
    """(B, D) float32."""


@dataclass(frozen=True)
class Task:
    """What is to be recognised."""

    emotions: tuple[str, ...]
    """Names of the classes in the order of every probability vector; empty if no classes are asked for."""
    valence_arousal: bool
    """Whether valence and arousal are asked for."""

    @classmethod
    def of(cls, kind: Kind, emotions: str | Sequence[str]) -> "Task":
        """Build the task from its options; ``emotions`` is a taxonomy's name or a list."""
        names = () if kind == "valence_arousal" else taxonomy(emotions).emotions
        return cls(names, valence_arousal=kind != "classes")

    @property
    def classes(self) -> int:
        """Number of emotions."""
        return len(self.emotions)

    @property
    def taxonomy(self) -> Taxonomy:
        """The emotions as a taxonomy."""
        return Taxonomy("task", self.emotions)

    @property
    def width(self) -> int:
        """Number of outputs of the head."""
        return self.classes + 2 * self.valence_arousal

    def split(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Split the (B, width) output of a head into logits and bounded valence/arousal."""
        return raw[:, : self.classes], raw[:, self.classes :].tanh()

    def predict(self, output: Output) -> Prediction:
        """Turn the output of a network into probabilities."""
        return Prediction(output.logits.softmax(-1), output.valence_arousal, output.features)

    def supervised(self, output: Output, target: Target) -> Tensor:
        """Loss against labels: cross-entropy, and squared error plus concordance for valence and arousal."""
        loss = output.features.new_zeros(())
        if self.classes:
            loss = loss + soft_cross_entropy(output.logits, target.emotion)
        if self.valence_arousal:
            loss = loss + squared_error(output.valence_arousal, target.valence_arousal)
            loss = loss + concordance_loss(output.valence_arousal, target.valence_arousal)
        return loss

    def consistency(self, output: Output, target: Target, weight: Tensor) -> Tensor:
        """Loss against weighted pseudo-labels, divided by the whole batch, not by the accepted part.

        Concordance is left out: it speaks of a set of faces, and the accepted ones may be none or one.
        """
        loss = output.features.new_zeros(())
        if self.classes:
            loss = loss + soft_cross_entropy(output.logits, target.emotion, weight)
        if self.valence_arousal:
            loss = loss + squared_error(output.valence_arousal, target.valence_arousal, weight)
        return loss

    def mse_consistency(self, output: Output, target: Target, weight: Tensor) -> Tensor:
        """Squared error against weighted pseudo-labels, of probabilities; otherwise like ``consistency``."""
        loss = output.features.new_zeros(())
        if self.classes:
            loss = loss + squared_difference(output.logits.softmax(-1), target.emotion, weight)
        if self.valence_arousal:
            loss = loss + squared_error(output.valence_arousal, target.valence_arousal, weight)
        return loss


def as_target(emotion: Tensor, valence_arousal: Tensor) -> Target:
    """Make a target of predictions; a task without valence and arousal leaves them unknown (NaN)."""
    if valence_arousal.shape[-1] == 0:
        valence_arousal = torch.full((len(emotion), 2), torch.nan, device=emotion.device)
    return Target(emotion.float(), valence_arousal.float())
