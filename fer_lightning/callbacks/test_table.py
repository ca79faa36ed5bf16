"""The results of testing, a row per checkpoint."""

from pathlib import Path
from typing import cast

import lightning as L
from lightning.pytorch.callbacks import Callback

from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.files import locked
from fer_lightning.outputs.checkpoint_files import read_checkpoint
from fer_lightning.outputs.csv_files import read_csv, write_csv

PREFIX = "test/"
KEY = ("checkpoint", "dataset", "split")
CURRENT = "current"
"""Stands for the weights in memory, where ``test`` was given no checkpoint."""


class TestTable(Callback):
    """Writes what ``test`` has measured to ``test.csv``: checkpoint, data, epoch and step, every metric.

    Testing the same checkpoint again on the same split of the same data set replaces its row.

    Args:
        run_dir: where the table goes.
    """

    __test__ = False  # no test of pytest's

    def __init__(self, run_dir: Path) -> None:
        self.file = Path(run_dir) / "test.csv"

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the row."""
        if not trainer.is_global_zero:
            return
        data = cast(SemiSupervisedFaces, trainer.datamodule)  # type: ignore[attr-defined]
        row: dict[str, object] = {
            "checkpoint": CURRENT,
            "dataset": data.faces.dataset,
            "split": data.split.sha256[:12],
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
        }
        if trainer.ckpt_path is not None:
            content = read_checkpoint(trainer.ckpt_path)
            row |= {
                "checkpoint": Path(trainer.ckpt_path).name,
                "epoch": content["epoch"],
                "step": content["global_step"],
            }
        measured = {
            name.removeprefix(PREFIX): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(PREFIX)
        }
        with locked(self.file):  # two tests of one run may end together
            others = [each for each in read_csv(self.file) if any(each[name] != row[name] for name in KEY)]
            write_csv(self.file, [*others, row | measured])
