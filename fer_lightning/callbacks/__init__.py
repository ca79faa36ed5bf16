"""Lightning callbacks of a run: its record, checkpoints, audit of pseudo-labels, pictures and tables."""

from pathlib import Path

from lightning.pytorch.callbacks import Callback, LearningRateMonitor

from fer_lightning.callbacks.audit import PseudoLabelAudit
from fer_lightning.callbacks.epoch_count import EpochCount
from fer_lightning.callbacks.epoch_lines import EpochLines
from fer_lightning.callbacks.evaluation_figures import EvaluationFigures
from fer_lightning.callbacks.interrupt import Interrupted, SaveOnInterrupt
from fer_lightning.callbacks.peers import Peers
from fer_lightning.callbacks.predictions import PredictionWriter
from fer_lightning.callbacks.relabel_audit import RelabelAudit
from fer_lightning.callbacks.run_checkpoints import BestCheckpoint, LastCheckpoint, run_checkpoints
from fer_lightning.callbacks.run_record import RunRecord, SaveRunConfig
from fer_lightning.callbacks.test_table import TestTable
from fer_lightning.callbacks.view_picture import ViewPicture
from fer_lightning.callbacks.wandb_run import WandbRun, wandb_run_id
from fer_lightning.outputs.checkpoint_files import LAST

__all__ = [
    "BestCheckpoint",
    "EpochCount",
    "EpochLines",
    "EvaluationFigures",
    "Interrupted",
    "LastCheckpoint",
    "Peers",
    "PredictionWriter",
    "PseudoLabelAudit",
    "RelabelAudit",
    "RunRecord",
    "SaveOnInterrupt",
    "SaveRunConfig",
    "TestTable",
    "ViewPicture",
    "WandbRun",
    "run_callbacks",
    "run_checkpoints",
    "wandb_run_id",
]


def run_callbacks(
    run_dir: Path,
    every_n_steps: int | None = None,
    every_minutes: float | None = None,
    change_length: bool = False,
) -> list[Callback]:
    """Return the callbacks of every run, in the order in which they must be called.

    The record comes first, because it begins the log; checkpoints come last, because they hold the state of
    all the others, and of them the one on interruption. The progress bar is the trainer's own.

    Args:
        run_dir: where they write.
        every_n_steps: optimizer steps after which the last checkpoint is renewed within an epoch too.
        every_minutes: minutes after which it is.
        change_length: whether a run that goes on may be longer or shorter than it was to be.
    """
    run_dir = Path(run_dir)
    return [
        RunRecord(run_dir, change_length),
        Peers(),
        WandbRun(),
        LearningRateMonitor(logging_interval="step"),
        ViewPicture(),
        PseudoLabelAudit(run_dir),
        RelabelAudit(run_dir),
        EvaluationFigures(),
        PredictionWriter(run_dir),
        TestTable(run_dir),
        EpochLines(),
        *run_checkpoints(run_dir, every_n_steps, every_minutes),
        SaveOnInterrupt(run_dir / "checkpoints" / LAST),
    ]
