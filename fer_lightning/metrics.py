"""Metrics of a task, on torchmetrics, in one object per stage."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.utilities import dim_zero_cat

from fer_lightning.data.batch import Target
from fer_lightning.losses.continuous import concordance, pearson
from fer_lightning.task import Prediction, Task

DIMENSIONS = ("valence", "arousal")
BINS = 15
"""Equal bins of confidence, wherever calibration is measured."""


def confidence_bin(confidence: Tensor) -> Tensor:
    """Return the bin of each confidence: bin i holds [i / 15, (i + 1) / 15), and the last one also holds 1.

    Args:
        confidence: (N,) in [0, 1]; NaN counts as 0.

    Returns:
        (N,) int64 in 0 .. 14.
    """
    return (confidence.nan_to_num() * BINS).long().clamp(0, BINS - 1)


def calibration_bins(confidence: Tensor, right: Tensor) -> Tensor:
    """Count predictions by bin of confidence.

    Args:
        confidence: (N,) in [0, 1].
        right: (N,) bool or 0 / 1, whether the prediction was right.

    Returns:
        (15, 3) float64 (float32 on MPS), sums that can be added up over batches and ranks: number of
        predictions, sum of their confidences, number of right ones.
    """
    # Sums of many confidences lose digits in float32; MPS has nothing better.
    confidence = confidence.to(torch.float32 if confidence.device.type == "mps" else torch.float64)
    values = torch.stack([torch.ones_like(confidence), confidence, right.to(confidence.dtype)], -1)
    return values.new_zeros(BINS, 3).index_add_(0, confidence_bin(confidence), values)


def calibration_error(bins: Tensor) -> Tensor:
    """Return the expected calibration error (ECE): the mean over predictions of their bin's gap.

    ``sum_b |right_b - confidence_b| / sum_b n_b`` (Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599,
    eq. 3). The only implementation here, for the metric, the reliability diagram and the audit. It is not
    torchmetrics' ``MulticlassCalibrationError``, which puts confidences of exactly 1 into a 16th bin: of 100
    faces at 1.0, 90 of them right, and 100 at 0.95, all right, the error is 2.5 % and not 7.5 %.

    Args:
        bins: (15, 3) as ``calibration_bins`` returns them, or a sum of several.

    Returns:
        Scalar in [0, 1]; NaN if nothing was counted.
    """
    return (bins[:, 2] - bins[:, 1]).abs().sum() / bins[:, 0].sum()


class FaceMetrics(nn.Module):
    """All metrics of a task: updated with predictions, computed at the end of an epoch.

    For classes: accuracy, UAR (unweighted average recall, the mean over the emotions that are shown),
    macro-F1, ECE (15 bins), recall per emotion and the confusion matrix. For valence and arousal: CCC, PCC,
    RMSE and SAGR (share of equal signs). All are computed globally over the set, never averaged over batches.
    Faces with unknown targets do not count; valence may be known where arousal is not, and the reverse.

    With groups (of age, gender, data set ...) the accuracy, the UAR and the CCC of each group are added, and
    the largest difference between two of them.

    Args:
        task: what is predicted.
        groups: names of the groups that ``update`` gets the numbers of.
    """

    def __init__(self, task: Task, groups: Sequence[str] = ()) -> None:
        super().__init__()
        self.task = task
        if task.classes:
            self.confusion = MulticlassConfusionMatrix(task.classes, ignore_index=-1)
            self.calibration = CalibrationBins()
        if task.valence_arousal:
            self.continuous = ContinuousRows()
        self.groups: tuple[str, ...] = ()
        self.set_groups(groups)

    def set_groups(self, names: Sequence[str]) -> None:
        """Name the groups, for when they are known only after the data have been read.

        Args:
            names: in the order of their numbers; none to compare no groups. New names forget what the old
                groups have counted.
        """
        if self.groups == tuple(names):
            return
        self.groups = tuple(names)
        if self.task.classes:
            self.group_confusion = GroupConfusion(len(names), self.task.classes).to(self.confusion.device)

    def update(self, prediction: Prediction, target: Target, group: Tensor | None = None) -> None:
        """Count a batch; what is unknown is left out.

        Args:
            prediction: of B faces.
            target: labels of the B faces, NaN where unknown.
            group: (B,) int64 number of each face's group, -1 where unknown; None if all are unknown.
        """
        label = target.label
        if group is None:
            group = torch.full_like(label, -1)
        if self.task.classes:
            # Above 1, be it by rounding in a mean of probabilities, torchmetrics would take them for logits.
            probability = prediction.emotion.clamp(0, 1)
            self.confusion.update(probability, label)
            self.calibration.update(probability, label)
            if self.groups:
                self.group_confusion.update(probability, label, group)
        if self.task.valence_arousal:
            self.continuous.update(prediction.valence_arousal, target.valence_arousal, group)

    def compute(self) -> dict[str, Tensor]:
        """Return every scalar by its name, and ``score``, by which checkpoints are selected.

        ``score`` is the accuracy, the mean CCC of valence and arousal, or the mean of both for a task with
        both; a part that has no labels is left out of the mean. What cannot be measured is NaN: the recall
        of an emotion that no face shows, the CCC of a dimension with fewer than two labels.

        With groups also ``accuracy/group/<name>``, ``uar/group/<name>`` and ``ccc/group/<name>`` (mean of
        the labeled dimensions), NaN for a group without labeled faces, and ``accuracy_gap``, ``uar_gap`` and
        ``ccc_gap``: the largest difference between two groups, NaN if fewer than two have labeled faces.
        """
        values: dict[str, Tensor] = {}
        scores = []
        if self.task.classes:
            values |= self._classes()
            scores.append(values["accuracy"])
        if self.task.valence_arousal:
            prediction, target, _ = self.continuous.compute()
            measured = continuous_metrics(prediction, target)
            for name, value in measured.items():
                values |= {f"{name}_{d}": each for d, each in zip(DIMENSIONS, value, strict=True)}
            scores.append(measured["ccc"].nanmean())
        values["score"] = torch.stack(scores).nanmean()
        return values | self._groups()

    def _classes(self) -> dict[str, Tensor]:
        # All from one matrix: the averages of torchmetrics count an emotion that is predicted but never shown
        # as a recall of 0.
        matrix = self.confusion.compute().float()
        right, shown, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        recall = right / shown
        values = {
            "accuracy": right.sum() / shown.sum(),
            "uar": recall.nanmean(),
            "f1": (2 * right / (shown + predicted)).nanmean(),
            "ece": calibration_error(self.calibration.compute()),
        }
        return values | {f"recall/{e}": r for e, r in zip(self.task.emotions, recall, strict=True)}

    def _groups(self) -> dict[str, Tensor]:
        if not self.groups:
            return {}
        measured: dict[str, Tensor] = {}
        if self.task.classes:
            matrices = self.group_confusion.compute().float()
            right, shown = matrices.diagonal(dim1=1, dim2=2), matrices.sum(2)
            measured["accuracy"] = right.sum(1) / shown.sum(1)
            measured["uar"] = (right / shown).nanmean(1)
        if self.task.valence_arousal:
            prediction, target, group = self.continuous.compute()
            members = [group == number for number in range(len(self.groups))]
            ccc = [continuous_metrics(prediction[rows], target[rows])["ccc"] for rows in members]
            measured["ccc"] = torch.stack(ccc).nanmean(1)
        values: dict[str, Tensor] = {}
        for name, each in measured.items():
            values |= {f"{name}/group/{g}": value for g, value in zip(self.groups, each, strict=True)}
            known = each[~each.isnan()]
            values[f"{name}_gap"] = (
                known.max() - known.min() if len(known) > 1 else each.new_tensor(torch.nan)
            )
        return values

    def reset(self) -> None:
        """Forget everything counted."""
        for metric in self.children():
            if isinstance(metric, Metric):
                metric.reset()


class CalibrationBins(Metric):
    """Predictions by bin of confidence, see ``calibration_bins``; added up over batches and ranks."""

    full_state_update = False
    bins: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("bins", torch.zeros(BINS, 3), dist_reduce_fx="sum")

    def update(self, probability: Tensor, label: Tensor) -> None:
        """Count (B, C) probabilities and their (B,) labels, -1 where unknown."""
        confidence, predicted = probability.max(-1)
        known = label >= 0
        self.bins += calibration_bins(confidence[known], (predicted == label)[known])

    def compute(self) -> Tensor:
        """Return the (15, 3) sums."""
        return self.bins


class GroupConfusion(Metric):
    """A confusion matrix for each group of faces; added up over batches and ranks.

    Args:
        groups: G, their number.
        classes: C.
        **kwargs: of every metric of torchmetrics.
    """

    full_state_update = False
    matrix: Tensor

    def __init__(self, groups: int, classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        zeros = torch.zeros(groups, classes, classes, dtype=torch.int64)
        self.add_state("matrix", zeros, dist_reduce_fx="sum")

    def update(self, probability: Tensor, label: Tensor, group: Tensor) -> None:
        """Count (B, C) probabilities, their (B,) labels and their (B,) groups, -1 where unknown."""
        known = (label >= 0) & (group >= 0)
        cell = (group * self.matrix.shape[1] + label) * self.matrix.shape[2] + probability.argmax(-1)
        self.matrix.view(-1).index_add_(0, cell[known], torch.ones_like(cell[known]))

    def compute(self) -> Tensor:
        """Return (G, C, C) int64 faces by group, true and predicted emotion."""
        return self.matrix


class ContinuousRows(Metric):
    """All predictions of valence and arousal, their targets and groups, gathered over batches and ranks."""

    full_state_update = False
    prediction: list[Tensor]
    target: list[Tensor]
    group: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("prediction", "target", "group"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor, group: Tensor) -> None:
        """Keep (B, K) predictions, their targets, NaN where unknown, and their (B,) groups."""
        self.prediction.append(prediction.float())
        self.target.append(target.float())
        self.group.append(group)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return (N, K) predictions, (N, K) targets and (N,) groups."""
        return dim_zero_cat(self.prediction), dim_zero_cat(self.target), dim_zero_cat(self.group)


def continuous_metrics(prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Compute CCC, PCC, RMSE and SAGR per dimension, over the rows whose target is known.

    Not with the metrics of torchmetrics: its CCC mixes sample moments (n - 1) with the difference of the
    means, and is NaN for a constant prediction, which is in no concordance with anything and so is 0 here.

    Args:
        prediction: (N, K) float32.
        target: (N, K) float32, NaN where unknown.

    Returns:
        (K,) values by name; NaN for a dimension without labels, CCC and PCC also for one with a single label.
    """
    known = ~target.isnan()
    count = known.sum(0)
    return {
        "ccc": concordance(prediction, target).masked_fill(count < 2, torch.nan),
        "pcc": pearson(prediction, target).masked_fill(count < 2, torch.nan),
        "rmse": (torch.where(known, prediction - target, 0).square().sum(0) / count).sqrt(),
        "sagr": (known & (prediction.sign() == target.sign())).sum(0) / count,
    }
