"""Confidence margins per emotion: the labeled faces that are recognised set them, the epochs raise them."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from fer_lightning.distributed import total
from fer_lightning.pseudo_labels.thresholds import SelfAdaptiveThreshold

Answers = Iterable[tuple[Tensor, Tensor]]
"""Batches of (B, C) float32 probabilities and (B,) int64 labels."""


def recognised(answers: Answers) -> tuple[Tensor, Tensor]:
    """Sum up how sure a network is of the labeled faces it recognises, over batches and ranks.

    Args:
        answers: what it says of labeled faces; a label of -1 is never recognised.

    Returns:
        (C,) sums of the highest probability over ``S_c = {i : argmax p_i = y_i = c}``, and the (C,) sizes of
        ``S_c``; equal on all ranks.
    """
    parts = []
    for p, label in answers:
        confidence, believed = p.max(-1)
        right = torch.nn.functional.one_hot(believed, p.shape[-1]) * (believed == label)[:, None]
        parts.append(torch.stack([(right * confidence[:, None]).sum(0), right.sum(0).to(p.dtype)]))
    sums, counts = total(torch.stack(parts).sum(0))[0]
    return sums, counts


def ramp(epoch: int, beta: float = 0.97, gamma: float = math.e) -> float:
    """Return ``beta / (1 + gamma**-t)``, which rises over the epochs t = 1, 2, ... to ``beta``.

    Li et al., CVPR 2022 (Ada-CM), https://arxiv.org/abs/2203.12341, and its code.
    """
    return beta / (1 + gamma**-epoch)


def class_margin(
    confidence: Tensor, epoch: int, beta: float = 0.97, gamma: float = math.e, floor: float = 0.8
) -> Tensor:
    """Return ``max(floor, beta / (1 + gamma**-t) confidence)`` per emotion (Ada-CM).

    Args:
        confidence: (C,) in [0, 1], mean confidence in the recognised faces; 0 for an emotion without any.
        epoch: t, from 1.
        beta: the highest margin, of full confidence after many epochs, in [0, 1].
        gamma: how fast the ramp rises; over 1.
        floor: the lowest margin, in [0, 1].
    """
    return (confidence * ramp(epoch, beta, gamma)).clamp(min=floor)


class DynamicThreshold(nn.Module):
    """A margin per emotion that moves with the training: a reconstruction of dynamic threshold adjustment.

    The text of DTA + SNL (https://arxiv.org/abs/2601.05556) was not to be had; this is Ada-CM's margin with a
    running mean in the place of the pass over the labeled faces::

        mu_c <- momentum mu_c + (1 - momentum) mean_{S_c} max p    wherever S_c of the batch is not empty
        T_c  = max(floor, beta / (1 + e**-t) mu_c)                 in epoch t = 1, 2, ...

    In eval mode nothing changes.

    Args:
        classes: C.
        stat: what sets the threshold: ``labeled`` faces, as above, or ``unlabeled`` ones, FreeMatch's.
        scope: a threshold per ``class``, or one of the whole for all (``global``).
        update: after each ``iteration``, or at the end of an ``epoch``: for ``labeled`` Ada-CM's.
        beta: the highest threshold of ``labeled``, in [0, 1].
        floor: the lowest of ``labeled``, in [0, 1].
        momentum: of the running means, in [0, 1).
    """

    confidence: Tensor
    """(C,) float32, mu; 0.8 at first."""
    threshold: Tensor
    """(C,) float32, T."""

    def __init__(
        self,
        classes: int,
        stat: Literal["labeled", "unlabeled"] = "labeled",
        scope: Literal["class", "global"] = "class",
        update: Literal["iteration", "epoch"] = "iteration",
        beta: float = 0.97,
        floor: float = 0.8,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        self.whole, self.each_step = scope == "global", update == "iteration"
        self.beta, self.floor, self.momentum = beta, floor, momentum
        self.unlabeled = SelfAdaptiveThreshold(classes, momentum) if stat == "unlabeled" else None
        self.register_buffer("confidence", torch.full((classes,), 0.8))
        self.register_buffer("threshold", class_margin(self.confidence, 1, beta, floor=floor))
        if self.unlabeled is not None:
            self._follow(self.unlabeled)

    @property
    def reads_labeled_batches(self) -> bool:
        """Whether ``see_labeled`` is wanted after each step."""
        return self.unlabeled is None and self.each_step

    def see_labeled(self, p: Tensor, label: Tensor, epoch: int) -> None:
        """Take a labeled batch, that of all ranks, into the running means.

        Args:
            p: (B, C) float32 probabilities.
            label: (B,) int64.
            epoch: t, from 1.
        """
        if self.training:
            mean, known = self._mean([(p, label)])
            moved = self.confidence.lerp(mean, 1 - self.momentum)
            self.confidence.copy_(torch.where(known, moved, self.confidence))
            self.threshold.copy_(class_margin(self.confidence, epoch, self.beta, floor=self.floor))

    def see_unlabeled(self, p: Tensor) -> None:
        """Take an unlabeled batch, that of all ranks, into the running means: (B, C) float32."""
        if self.unlabeled is not None:
            self.unlabeled.update(p)
            if self.each_step:
                self._follow(self.unlabeled)

    def end_epoch(self, answers: Answers, epoch: int) -> None:
        """Set the threshold for the next epoch if it is only then to move.

        Args:
            answers: about all labeled faces; read only if they are needed.
            epoch: t of the epoch that ends.
        """
        if self.each_step:
            return
        if self.unlabeled is not None:
            self._follow(self.unlabeled)
        else:
            self.confidence.copy_(self._mean(answers)[0])
            self.threshold.copy_(class_margin(self.confidence, epoch, self.beta, floor=self.floor))

    def _mean(self, answers: Answers) -> tuple[Tensor, Tensor]:
        """Return the (C,) mean confidences in recognised faces, and where there are any."""
        sums, counts = recognised(answers)
        if self.whole:
            sums, counts = (each.sum().expand(each.shape) for each in (sums, counts))
        return sums / counts.clamp(min=1), counts > 0

    def _follow(self, unlabeled: SelfAdaptiveThreshold) -> None:
        per_class = unlabeled.per_class()
        self.threshold.copy_(unlabeled.tau.expand_as(per_class) if self.whole else per_class)
