"""What is measured, from torchmetrics, in one object per stage."""

import torch
from torch import Tensor, nn
from torchmetrics import (
    ConcordanceCorrCoef,
    MeanSquaredError,
    Metric,
    MetricCollection,
    PearsonCorrCoef,
)
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassRecall,
)

from fer_lightning.data.batch import Target
from fer_lightning.task import Prediction, Task

DIMENSIONS = ("valence", "arousal")


class FaceMetrics(nn.Module):
    """Every metric of a task, updated with predictions and read once at the end of an epoch.

    Accuracy, UAR (unweighted average recall, the mean over classes), macro-F1, ECE (15 bins), recall per
    emotion and the confusion matrix for classes; CCC, PCC, RMSE and SAGR (share of equal signs) for valence
    and arousal. All are computed globally over the set, never averaged over batches. Faces with unknown
    targets do not count.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        c = task.classes
        scalars: dict[str, Metric | MetricCollection] = {}
        if c:
            scalars = {
                "accuracy": MulticlassAccuracy(c, average="micro"),
                "uar": MulticlassAccuracy(c, average="macro"),
                "f1": MulticlassF1Score(c, average="macro"),
                "ece": MulticlassCalibrationError(c, n_bins=15),
            }
            self.recall = MulticlassRecall(c, average="none")
            self.confusion = MulticlassConfusionMatrix(c)
        self.classes = MetricCollection(scalars, compute_groups=False)
        self.continuous = nn.ModuleDict()
        if task.valence_arousal:
            for name in DIMENSIONS:
                self.continuous[name] = MetricCollection(
                    {
                        "ccc": ConcordanceCorrCoef(),
                        "pcc": PearsonCorrCoef(),
                        "rmse": MeanSquaredError(squared=False),
                        "sagr": MulticlassAccuracy(3, average="micro"),
                    },
                    compute_groups=False,
                )

    def update(self, prediction: Prediction, target: Target) -> None:
        """Count a batch; rows with unknown targets are left out."""
        known = target.label >= 0
        if self.task.classes and bool(known.any()):
            emotion, label = prediction.emotion[known], target.label[known]
            self.classes.update(emotion, label)
            self.recall.update(emotion, label)
            self.confusion.update(emotion, label)
        for position, metrics in enumerate(self.continuous.values()):
            truth = target.valence_arousal[:, position]
            rows = ~truth.isnan()
            if bool(rows.any()):
                guess = prediction.valence_arousal[rows, position].contiguous()
                truth = truth[rows].contiguous()
                assert isinstance(metrics, MetricCollection)
                for name, metric in metrics.items(keep_base=True):
                    if name == "sagr":
                        metric.update(guess.sign().long() + 1, truth.sign().long() + 1)
                    else:
                        metric.update(guess, truth)

    def compute(self) -> dict[str, Tensor]:
        """Return every scalar by its name, and ``score``, by which checkpoints are selected.

        ``score`` is the accuracy, the mean CCC of valence and arousal, or the mean of both for a task with
        both.
        """
        values: dict[str, Tensor] = dict(self.classes.compute()) if self.task.classes else {}
        scores = []
        if self.task.classes:
            scores.append(values["accuracy"])
            for emotion, recall in zip(self.task.emotions, self.recall.compute(), strict=True):
                values[f"recall/{emotion}"] = recall
        if self.task.valence_arousal:
            for name, metrics in self.continuous.items():
                assert isinstance(metrics, MetricCollection)
                values |= {f"{key}_{name}": value for key, value in metrics.compute().items()}
            scores.append(torch.stack([values[f"ccc_{name}"] for name in DIMENSIONS]).mean())
        values["score"] = torch.stack(scores).mean()
        return values

    def reset(self) -> None:
        """Forget everything counted."""
        for metric in self.modules():
            if isinstance(metric, Metric):
                metric.reset()
