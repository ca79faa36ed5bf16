"""Dynamic threshold adjustment: a threshold per emotion that follows the training."""

from typing import Literal

import torch
from torch import Tensor, nn

from fer_lightning.pseudo_labels.margins import Predictions, class_margin, correct_confidence
from fer_lightning.pseudo_labels.thresholds import SelfAdaptiveThreshold


class DynamicThreshold(nn.Module):
    """A threshold per emotion that follows the training: a reconstruction of dynamic threshold adjustment.

    The text of DTA+SNL (https://arxiv.org/abs/2601.05556) was not available; this is Ada-CM's margin with a
    running mean in the place of the pass over the labeled faces::

        mu_c <- momentum mu_c + (1 - momentum) mean_{S_c} max p    wherever S_c of the batch is not empty
        T_c  = max(min_threshold, max_threshold / (1 + e**-t) mu_c)        in epoch t = 1, 2, ...

    ``S_c`` are the labeled faces of emotion c that are predicted correctly. In eval mode nothing changes.

    Args:
        classes: C.
        statistic: what sets the threshold: ``labeled`` faces, as above, or ``unlabeled`` ones, FreeMatch's.
        scope: a threshold per ``class``, or one of the mean over all emotions (``global``).
        update: after each ``iteration``, or at the end of an ``epoch``: for ``labeled`` Ada-CM's.
        min_threshold: the lowest of ``labeled``, in [0, 1].
        max_threshold: the highest of ``labeled``, in [0, 1].
        momentum: of the running means, in [0, 1).
    """

    confidence: Tensor
    """(C,) float32, mu; 0.8 at first."""
    threshold: Tensor
    """(C,) float32, T."""

    def __init__(
        self,
        classes: int,
        statistic: Literal["labeled", "unlabeled"] = "labeled",
        scope: Literal["class", "global"] = "class",
        update: Literal["iteration", "epoch"] = "iteration",
        min_threshold: float = 0.8,
        max_threshold: float = 0.97,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        self.whole, self.each_step = scope == "global", update == "iteration"
        self.min_threshold, self.max_threshold, self.momentum = min_threshold, max_threshold, momentum
        self.adaptive = SelfAdaptiveThreshold(classes, momentum) if statistic == "unlabeled" else None
        self.register_buffer("confidence", torch.full((classes,), 0.8))
        self.register_buffer("threshold", self._margin(1))
        if self.adaptive is not None:
            self.threshold.copy_(self._of_unlabeled(self.adaptive, None))

    @property
    def reads_labeled_batches(self) -> bool:
        """Whether ``update_labeled`` is wanted after each step."""
        return self.adaptive is None and self.each_step

    def current(self, p: Tensor) -> Tensor:
        """Return the (C,) thresholds for an unlabeled batch; changes nothing.

        Args:
            p: (B, C) float32 probabilities, which a threshold of unlabeled faces counts in, as FreeMatch
                does.
        """
        if self.adaptive is not None and self.each_step:
            return self._of_unlabeled(self.adaptive, p)
        return self.threshold

    def update_labeled(self, p: Tensor, label: Tensor, epoch: int) -> None:
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
            self.threshold.copy_(self._margin(epoch))

    def update_unlabeled(self, p: Tensor) -> None:
        """Take an unlabeled batch, that of all ranks, into the running means: (B, C) float32."""
        if self.adaptive is not None:
            self.adaptive.update(p)
            if self.each_step:
                self.threshold.copy_(self._of_unlabeled(self.adaptive, None))

    def end_epoch(self, predictions: Predictions, epoch: int) -> None:
        """Set the threshold for the next epoch, if it moves by epochs.

        Args:
            predictions: for all labeled faces; read only if they are needed.
            epoch: t of the epoch that ends.
        """
        if self.each_step:
            return
        if self.adaptive is not None:
            self.threshold.copy_(self._of_unlabeled(self.adaptive, None))
        else:
            self.confidence.copy_(self._mean(predictions)[0])
            self.threshold.copy_(self._margin(epoch))

    def _margin(self, epoch: int) -> Tensor:
        return class_margin(self.confidence, epoch, self.max_threshold, min_margin=self.min_threshold)

    def _mean(self, predictions: Predictions) -> tuple[Tensor, Tensor]:
        """Return the (C,) mean confidences of the faces predicted correctly, and where there are any."""
        sums, counts = correct_confidence(predictions)
        if self.whole:
            sums, counts = (each.sum().expand(each.shape) for each in (sums, counts))
        return sums / counts.clamp(min=1), counts > 0

    def _of_unlabeled(self, adaptive: SelfAdaptiveThreshold, p: Tensor | None) -> Tensor:
        """Return the (C,) thresholds of the unlabeled faces, with a batch counted in or without one."""
        state = adaptive.state if p is None else adaptive.after(p)
        per_class = state.per_class()
        return state.tau.expand_as(per_class) if self.whole else per_class
