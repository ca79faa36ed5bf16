"""Audit of relabeling: the labels that were learned against the labels without their noise."""

from pathlib import Path
from typing import cast

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from fer_lightning.callbacks.epoch_metrics import log_epoch_metrics
from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.scl_uerm_arm.relabeling import Relabeling
from fer_lightning.outputs.csv_files import Row, read_csv, write_csv


class RelabelAudit(Callback):
    """Compare the labels of a method that changes them (``relabeling``) with the truth, every epoch.

    ``relabels.csv`` has a row per epoch and true emotion, and one for all of them, see ``relabel_rows``. The
    loggers get ``audit/repaired`` and ``audit/broken``, the two shares of all. Without
    ``label_noise`` no label is wrong, and each change breaks one, as far as the labels of the data are right.

    The truth is kept here: it is in no batch, no buffer of the model and no checkpoint.

    Args:
        run_dir: where the table goes.
    """

    def __init__(self, run_dir: Path) -> None:
        self.file = Path(run_dir) / "relabels.csv"
        self._truth: Tensor | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look up the truth."""
        method = cast(SemiSupervised, pl_module)
        if isinstance(getattr(method, "relabeling", None), Relabeling):
            self._truth = cast(SemiSupervisedFaces, trainer.datamodule).labeled_truth.label  # type: ignore[attr-defined]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report; Lightning calls this before the method lets the labels of the next epoch take effect."""
        if self._truth is None:
            return
        labels, emotions = (
            cast(Relabeling, pl_module.relabeling),
            cast(SemiSupervised, pl_module).task.emotions,
        )
        original, current, pending = (
            each.cpu() for each in (labels.labels_original, labels.labels_current, labels.pending)
        )
        rows = relabel_rows(self._truth, original, current, pending, emotions)
        shares = {f"audit/{name}": rows["all"][f"{name}_share"] for name in ("repaired", "broken")}
        log_epoch_metrics(trainer, pl_module, shares)
        if trainer.is_global_zero:
            epoch, step = trainer.current_epoch, trainer.global_step
            table: list[Row] = [row for row in read_csv(self.file) if int(row["epoch"]) < epoch]
            table += [{"epoch": epoch, "step": step, "emotion": name, **row} for name, row in rows.items()]
            write_csv(self.file, table)


def relabel_rows(
    truth: Tensor, original: Tensor, current: Tensor, pending: Tensor, emotions: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """Count, for each true emotion and for all, the labels of N faces that were repaired or broken.

    Faces without label or truth (-1) do not count. The columns:

    - ``labels``: faces; ``wrong``: whose label in the data is not the truth
    - ``moved``: whose label changed at the end of this epoch; ``changed``: is no longer that of the data
    - ``repaired``: that were wrong and are right; ``broken``: that were right and are wrong
    - ``wrong_now``: that are wrong
    - ``repaired_share``: of the wrong labels; ``broken_share``: of the right ones; NaN if there are none

    Args:
        truth: (N,) int64, like the next three.
        original: labels of the data.
        current: labels of the epoch that ends.
        pending: labels of the next one, which are compared with the truth.
        emotions: names of the classes.
    """
    known = (truth >= 0) & (original >= 0)
    wrong, wrong_now = original != truth, pending != truth
    counted = {
        "labels": known,
        "wrong": wrong,
        "moved": pending != current,
        "changed": pending != original,
        "repaired": wrong & ~wrong_now,
        "broken": ~wrong & wrong_now,
        "wrong_now": wrong_now,
    }
    rows: dict[str, dict[str, float]] = {}
    for number, emotion in [*enumerate(emotions), (None, "all")]:
        mine = known if number is None else known & (truth == number)
        row: dict[str, float] = {name: int((mine & which).sum()) for name, which in counted.items()}
        right = row["labels"] - row["wrong"]
        row["repaired_share"] = row["repaired"] / row["wrong"] if row["wrong"] else float("nan")
        row["broken_share"] = row["broken"] / right if right else float("nan")
        rows[emotion] = row
    return rows
