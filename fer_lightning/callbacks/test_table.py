"""The results of testing, a row per checkpoint."""

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from fer_lightning.outputs.checkpoint_files import read_checkpoint
from fer_lightning.outputs.csv_files import read_csv, write_csv

PREFIX = "test/"
CURRENT = "current"
"""Stands for the weights in memory, where ``test`` was given no checkpoint."""


class TestTable(Callback):
    """Writes what ``test`` has measured to ``test.csv``: checkpoint, its epoch and step, every metric.

    Testing the same checkpoint again replaces its row.

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
        row: dict[str, object] = {
            "checkpoint": CURRENT,
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
        }
        if trainer.ckpt_path is not None:
            content = read_checkpoint(trainer.ckpt_path)
            row = {
                "checkpoint": Path(trainer.ckpt_path).name,
                "epoch": content["epoch"],
                "step": content["global_step"],
            }
        measured = {
            name.removeprefix(PREFIX): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(PREFIX)
        }
        others = [each for each in read_csv(self.file) if each["checkpoint"] != row["checkpoint"]]
        write_csv(self.file, [*others, row | measured])
