"""Predictions as a table, a row per face."""

import csv
import shutil
from pathlib import Path
from typing import IO, Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.files import write_atomically, writing
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.metrics import DIMENSIONS
from fer_lightning.outputs.csv_files import cell
from fer_lightning.outputs.names import of_data
from fer_lightning.task import Prediction


class PredictionWriter(Callback):
    """Writes predictions: name, emotion, confidence, each emotion's probability, valence, arousal.

    The file is ``predictions-<part>.csv``, such as ``predictions-test.csv``; of other data than the run's own
    it has these in its name.

    Rows are written batch by batch and nothing is kept. With several ranks each writes a part beside the
    file, and rank zero puts them together, rank after rank; so the run directory must be shared by all of
    them.

    Args:
        run_dir: where the table goes.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = Path(run_dir)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the table, or this rank's part of it."""
        method = cast(SemiSupervised, pl_module)
        data, task = cast(SemiSupervisedFaces, trainer.datamodule), method.task  # type: ignore[attr-defined]
        name = of_data("predictions", self.run_dir, data.faces.dataset, data.split.sha256)
        self.file = self.run_dir / f"{name}-{data.predict_on}.csv"
        self._emotions = task.emotions
        self._names = data.faces.names[getattr(data, data.predict_on)]
        self._part_name = data.predict_on
        header = ["name"]
        if task.classes:
            header += ["emotion", "confidence", *task.emotions]
        if task.valence_arousal:
            header += DIMENSIONS
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # A file name may be no valid Unicode; the table stays readable, and shows its bytes.
        self._lines: IO[str] = self._part(trainer.global_rank).open(
            "w", newline="", encoding="utf-8", errors="backslashreplace"
        )
        self._table = csv.writer(self._lines, lineterminator="\n")
        if trainer.is_global_zero:
            self._table.writerow(header)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write a batch, without the fillers that make all ranks' batches equally large."""
        index, prediction = cast(tuple[Tensor, Prediction], outputs)
        emotions, faces = prediction.emotion.tolist(), index.tolist()
        points = prediction.valence_arousal.tolist()
        with writing(self.file):
            self._table.writerows(
                [self._names[face], *self._judged(emotion), *map(cell, point)]
                for face, emotion, point in zip(faces, emotions, points, strict=True)
                if face >= 0
            )

    def _judged(self, emotion: list[float]) -> list[object]:
        if not emotion:
            return []
        confidence = max(emotion)
        return [self._emotions[emotion.index(confidence)], cell(confidence), *map(cell, emotion)]

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the parts together under the name of the table."""
        self._lines.close()
        trainer.strategy.barrier("predictions")
        if trainer.is_global_zero:
            parts = [self._part(rank) for rank in range(trainer.world_size)]
            with write_atomically(self.file, "wb") as table:
                for each in parts:
                    with each.open("rb") as part:
                        shutil.copyfileobj(part, table)
            for each in parts:
                each.unlink()
            print(f"Predictions of {len(self._names):,} {self._part_name} faces: {self.file}")

    def _part(self, rank: int) -> Path:
        return self.file.with_name(f".{self.file.name}.{rank}")
