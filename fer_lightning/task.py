"""The task of a network: emotions, valence and arousal, or both.

Head, losses, predictions, metrics and audit follow from it, so that a method is written once for the three.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fer_lightning.data.batch import Target
from fer_lightning.emotions import Taxonomy, taxonomy
from fer_lightning.errors import InputError
from fer_lightning.losses.classification import soft_cross_entropy
from fer_lightning.losses.consistency import squared_difference
from fer_lightning.losses.continuous import concordance_loss, squared_error

Kind = Literal["classes", "valence_arousal", "both"]


class Output(NamedTuple):
    """Outputs of a network for B faces, before any softmax."""

    logits: Tensor
    """(B, C) float32."""
    valence_arousal: Tensor
    """(B, 2) float32 in [-1, 1]; (B, 0) for a task without them."""
    features: Tensor
    """(B, D) float32, the input of the head."""
    maps: Tensor
    """(B, K, h, w), the last feature maps of the backbone."""
    projection: Tensor | None = None
    """(B, P) float32 of unit length, for contrastive losses; None without a projection head."""
    certainty: Tensor | None = None
    """(B,) float32, higher for a more certain face; None for methods that do not estimate it."""

    @property
    def projected(self) -> Tensor:
        """The ``projection`` of a network that has a projection head."""
        assert self.projection is not None
        return self.projection


class Prediction(NamedTuple):
    """Predictions for B faces, as validation, test, prediction and export use them."""

    emotion: Tensor
    """(B, C) float32 probabilities."""
    valence_arousal: Tensor
    """(B, 2) float32 in [-1, 1]; (B, 0) for a task without them."""
    features: Tensor
    """(B, D) float32."""


@dataclass(frozen=True)
class Task:
    """Which emotions are predicted, and whether valence and arousal are.

    Example:
        >>> Task.of("both", ["happy", "sad"])
        Task(emotions=('happiness', 'sadness'), valence_arousal=True)
    """

    emotions: tuple[str, ...]
    """Names of the classes in the order of every probability vector; empty for a task without classes."""
    valence_arousal: bool
    """Whether valence and arousal are predicted."""

    @classmethod
    def of(cls, kind: Kind, emotions: str | Sequence[str]) -> "Task":
        """Build the task from its options.

        Args:
            kind: ``classes``, ``valence_arousal`` or ``both``.
            emotions: a taxonomy's name or a list of emotions; not used by ``valence_arousal``.

        Raises:
            InputError: for an unknown taxonomy or emotion, or fewer than two.
        """
        names = () if kind == "valence_arousal" else taxonomy(emotions).emotions
        if kind != "valence_arousal" and len(names) < 2:
            raise InputError(
                f"emotions has {len(names)} of them, and there must be two at least to tell apart",
                option="model.emotions",
            )
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
        """Compute the loss against labels: cross-entropy, MSE and concordance loss of valence and arousal.

        Args:
            output: of B faces.
            target: their labels; NaN, which may be of one dimension alone, does not count.

        Returns:
            Scalar, float32; 0 if nothing is known.
        """
        loss = output.features.new_zeros(())
        if self.classes:
            loss = loss + soft_cross_entropy(output.logits, target.emotion)
        if self.valence_arousal:
            loss = loss + squared_error(output.valence_arousal, target.valence_arousal)
            loss = loss + concordance_loss(output.valence_arousal, target.valence_arousal)
        return loss

    def consistency(self, output: Output, target: Target, weight: Tensor) -> Tensor:
        """Compute the loss against weighted pseudo-labels: cross-entropy, MSE of valence and arousal.

        Divided by the whole batch, not by its accepted part. Concordance is left out: it is of a set of
        faces, and the accepted ones may be none or one.

        Args:
            output: of B faces.
            target: their pseudo-labels.
            weight: (B,) in [0, 1]; 0 for rejected.
        """
        loss = output.features.new_zeros(())
        if self.classes:
            loss = loss + soft_cross_entropy(output.logits, target.emotion, weight)
        if self.valence_arousal:
            loss = loss + squared_error(output.valence_arousal, target.valence_arousal, weight)
        return loss

    def mse_consistency(self, output: Output, target: Target, weight: Tensor) -> Tensor:
        """Compute ``consistency`` with the MSE of probabilities in the place of cross-entropy."""
        loss = output.features.new_zeros(())
        if self.classes:
            loss = loss + squared_difference(output.logits.softmax(-1), target.emotion, weight)
        if self.valence_arousal:
            loss = loss + squared_error(output.valence_arousal, target.valence_arousal, weight)
        return loss


def as_target(emotion: Tensor, valence_arousal: Tensor) -> Target:
    """Make a target of predictions.

    Args:
        emotion: (B, C) probabilities.
        valence_arousal: (B, 2), or (B, 0) for a task without them, which leaves them unknown (NaN).
    """
    if valence_arousal.shape[-1] == 0:
        valence_arousal = torch.full((len(emotion), 2), torch.nan, device=emotion.device)
    return Target(emotion.float(), valence_arousal.float())
