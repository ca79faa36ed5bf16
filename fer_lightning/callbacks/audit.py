"""Audit of pseudo-labels: coverage, purity and calibration against the hidden true labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback

from fer_lightning.callbacks.epoch_metrics import log_epoch_metrics
from fer_lightning.data.batch import Target
from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.outputs.audit_counts import AuditCounts, AuditRows, audit_rows
from fer_lightning.outputs.csv_files import Row, read_csv, write_csv
from fer_lightning.outputs.figures import log_figure
from fer_lightning.outputs.plots import HISTORY, audit_figure
from fer_lightning.pseudo_labels import PseudoLabels

_SCALARS = (
    *("coverage", "purity", "mean_weight", "mean_confidence", "ece", "ece_accepted", "confidence_gap"),
    *("complementary", "complementary_error"),
)
_SCALARS_OF_VALENCE_AROUSAL = ("rmse_valence", "rmse_arousal")
_SCALARS_PER_EMOTION = ("coverage", "purity", "true_coverage", "threshold")


class PseudoLabelAudit(Callback):
    """Compare the pseudo-labels of every epoch with the truth: as a table, as scalars and as a figure.

    ``pseudo_labels.csv`` has a row per epoch and emotion, and one for all of them; its columns are explained
    at ``audit_rows``. The loggers get ``audit/<column>`` of all, and ``audit/<column>/<emotion>``.

    This callback, and nothing else, looks up the true labels of the unlabeled faces, by the index that comes
    with the pseudo-labels. The truth is kept here: it is in no batch, no buffer of the model and no
    checkpoint. Counting does not wait for the device; ranks are summed when an epoch ends or a checkpoint is
    saved. A checkpoint holds the sum, which rank zero alone takes over when training resumes, on however many
    ranks.

    Args:
        run_dir: where the table goes.
    """

    def __init__(self, run_dir: Path) -> None:
        self.file = Path(run_dir) / "pseudo_labels.csv"
        self._counts: AuditCounts | None = None
        self._restored: dict[str, Any] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look up the truth, and go on counting where a checkpoint left off."""
        method = cast(SemiSupervised, pl_module)
        if not method.views.unlabeled:
            return
        data = cast(SemiSupervisedFaces, trainer.datamodule)  # type: ignore[attr-defined]
        device, truth = method.device, data.unlabeled_truth
        self._truth = Target(truth.emotion.to(device), truth.valence_arousal.to(device))
        self._label = self._truth.label
        self._counts = AuditCounts(method.task.classes, device)
        if self._restored and trainer.is_global_zero:
            self._counts.load(self._restored)
        self._restored = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the pseudo-labels of a batch."""
        pseudo: PseudoLabels | None = outputs["pseudo"]
        if pseudo is not None and self._counts is not None:
            self._counts.add(pseudo, self._label[pseudo.index], self._truth.valence_arousal[pseudo.index])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report and reset; an epoch without pseudo-labels leaves no row."""
        if self._counts is None:
            return
        state = self._counts.state()
        self._counts.reset()
        task = cast(SemiSupervised, pl_module).task
        rows = audit_rows(state, task.emotions)
        if not rows["all"]["seen"]:
            return
        self._log(trainer, pl_module, rows, task.valence_arousal)
        if trainer.is_global_zero:
            self._write(trainer, rows, task.emotions)

    def _write(self, trainer: L.Trainer, rows: AuditRows, emotions: Sequence[str]) -> None:
        epoch, step = trainer.current_epoch, trainer.global_step
        table: list[Row] = [row for row in read_csv(self.file) if int(row["epoch"]) < epoch]
        table += [{"epoch": epoch, "step": step, "emotion": emotion, **row} for emotion, row in rows.items()]
        write_csv(self.file, table)
        history = [
            {key: float("nan" if row[key] == "" else str(row[key])) for key in ("epoch", *HISTORY)}
            for row in table
            if row["emotion"] == "all"
        ]
        by_emotion = {emotion: rows[emotion] for emotion in emotions or ["all"]}
        log_figure(trainer, "pseudo_labels", audit_figure(by_emotion, history))

    def _log(
        self, trainer: L.Trainer, pl_module: L.LightningModule, rows: AuditRows, valence_arousal: bool
    ) -> None:
        scalars = _SCALARS + _SCALARS_OF_VALENCE_AROUSAL * valence_arousal
        values = {f"audit/{name}": rows["all"][name] for name in scalars}
        for emotion in rows.keys() - {"all"}:
            values |= {f"audit/{name}/{emotion}": rows[emotion][name] for name in _SCALARS_PER_EMOTION}
        log_epoch_metrics(trainer, pl_module, values)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of all ranks since the epoch began; called on all of them."""
        return {} if self._counts is None else self._counts.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it for when training starts."""
        self._restored = state_dict
