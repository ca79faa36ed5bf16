"""The course of the training as a CSV file, whatever other loggers there are."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from fer_lightning.outputs.csv_files import append_csv, read_csv, write_csv


class RunLogger(Logger):
    """Writes the metrics of the training to ``metrics.csv`` in the run directory, row by row.

    Lightning's own CSV logger deletes what an earlier process wrote there. This one goes on: ``begin`` drops
    what was logged after the checkpoint that training resumes from, and keeps the rest. Before ``begin`` and
    after the end nothing is written, so that ``validate`` and ``test``, which know no step, leave no row
    among those of the training.

    Args:
        run_dir: where the file lies; ``Trainer.log_dir`` if this is the trainer's first logger.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.run_dir = Path(run_dir)
        self.file = self.run_dir / "metrics.csv"
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.run_dir.name

    @property
    def version(self) -> str:
        """Nothing: a directory holds one run."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run directory."""
        return str(self.run_dir)

    @rank_zero_only
    def begin(self, step: int) -> None:
        """Start to write rows, after those of an earlier process from before this optimizer step."""
        earlier = [row for row in read_csv(self.file) if int(row["step"]) < step]
        self._columns = list(dict.fromkeys(["epoch", "step", *(c for row in earlier for c in row)]))
        write_csv(self.file, earlier, self._columns)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write a row; a metric that is new adds a column."""
        if not self._columns:
            return
        row = {"step": step, **metrics}
        new = [column for column in row if column not in self._columns]
        if new:
            self._columns += new
            write_csv(self.file, [*read_csv(self.file), row], self._columns)
        else:
            append_csv(self.file, row, self._columns)

    def finalize(self, status: str) -> None:
        """Write no more: training has ended, and what may follow are tests."""
        self._columns = []

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Leave them to ``config.yaml`` and ``run.json``."""
