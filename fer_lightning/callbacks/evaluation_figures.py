"""Confusion matrix and reliability diagram of the inference network."""

from typing import cast

import lightning as L
from lightning.pytorch.callbacks import Callback

from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.metrics import FaceMetrics
from fer_lightning.outputs.figures import log_figure, run_directory
from fer_lightning.outputs.names import of_data
from fer_lightning.outputs.plots import confusion_figure, reliability_figure


class EvaluationFigures(Callback):
    """Draws ``<stage>_confusion`` and ``<stage>_reliability`` after every validation and after the test.

    The pictures of a test on other data than the run's own have these in their name.
    """

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the figures of the validation faces."""
        if not trainer.sanity_checking:
            _draw(trainer, cast(SemiSupervised, pl_module), "val", "validation faces")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the figures of the test faces."""
        _draw(trainer, cast(SemiSupervised, pl_module), "test", "test faces")


def _draw(trainer: L.Trainer, method: SemiSupervised, stage: str, title: str) -> None:
    if not method.task.classes:
        return
    metrics = cast(FaceMetrics, method.metrics[stage])
    # On every rank, because these gather what each of them has counted.
    counts = metrics.confusion.compute().cpu().numpy()
    bins = metrics.calibration.compute().cpu().numpy()
    if trainer.is_global_zero and counts.sum():
        data = cast(SemiSupervisedFaces, trainer.datamodule)  # type: ignore[attr-defined]
        confusion, reliability = (
            of_data(f"{stage}_{name}", run_directory(trainer), data.faces.dataset, data.split.sha256)
            for name in ("confusion", "reliability")
        )
        log_figure(trainer, confusion, confusion_figure(counts, method.task.emotions, title))
        log_figure(trainer, reliability, reliability_figure(bins, title))
