"""What is measured, on torchmetrics, in one object per stage."""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassCalibrationError, MulticlassConfusionMatrix
from torchmetrics.utilities import dim_zero_cat

from fer_lightning.data.batch import Target
from fer_lightning.losses.continuous import concordance, pearson
from fer_lightning.task import Prediction, Task

DIMENSIONS = ("valence", "arousal")


class FaceMetrics(nn.Module):
    """Every metric of a task, updated with predictions and read once at the end of an epoch.

    For classes: accuracy, UAR (unweighted average recall, the mean over the emotions that are shown),
    macro-F1, ECE (15 bins), recall per emotion and the confusion matrix. For valence and arousal: CCC, PCC,
    RMSE and SAGR (share of equal signs). All are computed globally over the set, never averaged over batches.
    Faces with unknown targets do not count.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        if task.classes:
            self.confusion = MulticlassConfusionMatrix(task.classes, ignore_index=-1)
            self.calibration = MulticlassCalibrationError(task.classes, n_bins=15, ignore_index=-1)
        if task.valence_arousal:
            self.continuous = ContinuousMetrics()

    def update(self, prediction: Prediction, target: Target) -> None:
        """Count a batch; what is unknown is left out."""
        if self.task.classes:
            # Above 1, be it by rounding in a mean of probabilities, torchmetrics would take them for logits.
            probability = prediction.emotion.clamp(0, 1)
            self.confusion.update(probability, target.label)
            self.calibration.update(probability, target.label)
        if self.task.valence_arousal:
            self.continuous.update(prediction.valence_arousal, target.valence_arousal)

    def compute(self) -> dict[str, Tensor]:
        """Return every scalar by its name, and ``score``, by which checkpoints are selected.

        ``score`` is the accuracy, the mean CCC of valence and arousal, or the mean of both for a task with
        both. The recall of an emotion that no face shows is NaN.
        """
        values: dict[str, Tensor] = {}
        scores = []
        if self.task.classes:
            values |= self._classes()
            scores.append(values["accuracy"])
        if self.task.valence_arousal:
            for name, measured in self.continuous.compute().items():
                values |= {f"{name}_{d}": value for d, value in zip(DIMENSIONS, measured, strict=True)}
            scores.append(torch.stack([values[f"ccc_{d}"] for d in DIMENSIONS]).mean())
        values["score"] = torch.stack(scores).mean()
        return values

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
            "ece": self.calibration.compute(),
        }
        return values | {f"recall/{e}": r for e, r in zip(self.task.emotions, recall, strict=True)}

    def reset(self) -> None:
        """Forget everything counted."""
        for metric in self.children():
            if isinstance(metric, Metric):
                metric.reset()


class ContinuousMetrics(Metric):
    """CCC, PCC, RMSE and SAGR per dimension, over the rows whose target is known.

    Not the metrics of torchmetrics: its CCC mixes sample moments (n - 1) with the difference of the means,
    and is NaN for a constant prediction, which agrees with nothing and so is 0 here.
    """

    full_state_update = False
    prediction: list[Tensor]
    target: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("prediction", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Keep (B, K) predictions and their targets, NaN where unknown."""
        self.prediction.append(prediction.float())
        self.target.append(target.float())

    def compute(self) -> dict[str, Tensor]:
        """Return (K,) values by name."""
        x, y = dim_zero_cat(self.prediction), dim_zero_cat(self.target)
        known = ~y.isnan()
        count = known.sum(0)
        return {
            "ccc": concordance(x, y),
            "pcc": pearson(x, y),
            "rmse": (torch.where(known, x - y, 0).square().sum(0) / count).sqrt(),
            "sagr": (known & (x.sign() == y.sign())).sum(0) / count,
        }
