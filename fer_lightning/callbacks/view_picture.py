"""A picture of the views of the first training batch."""

from typing import Any, cast

import lightning as L
import numpy as np
import numpy.typing as npt
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from fer_lightning.data.batch import Labeled, Target, Unlabeled
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.outputs.figures import log_figure
from fer_lightning.outputs.plots import views_figure
from fer_lightning.task import Task

FACES = 8


class ViewPicture(Callback):
    """Draw faces of the first batch: labeled ones, and below them unlabeled ones in all their views."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Draw at step 0."""
        if trainer.global_step or batch_idx or not trainer.is_global_zero:
            return
        labeled: Labeled = batch["labeled"]
        unlabeled: Unlabeled | None = batch.get("unlabeled")
        rows = _rows("labeled", labeled.weak)
        captions = {next(iter(rows)): _captions(labeled.target, cast(SemiSupervised, pl_module).task)}
        if unlabeled is not None:
            rows |= _rows("weak", unlabeled.weak) | _rows("strong", unlabeled.strong)
        columns = min(len(images) for images in rows.values())
        log_figure(trainer, "views", views_figure({n: i[:columns] for n, i in rows.items()}, captions))


def _rows(name: str, images: Tensor) -> dict[str, npt.NDArray[np.uint8]]:
    """Return (n, H, W, 3) arrays by view, of (V, B, 3, H, W) images."""
    views = images[:, :FACES].permute(0, 1, 3, 4, 2).cpu().numpy()
    return {name if len(views) == 1 else f"{name} {v + 1}": view for v, view in enumerate(views)}


def _captions(target: Target, task: Task) -> list[str]:
    """Return the labels of the first faces."""
    texts = []
    for label, (valence, arousal) in zip(
        target.label[:FACES].tolist(), target.valence_arousal[:FACES].tolist(), strict=True
    ):
        lines = [task.emotions[label]] if label >= 0 else []
        if task.valence_arousal and valence == valence:
            lines.append(f"{valence:+.1f} {arousal:+.1f}")
        texts.append("\n".join(lines))
    return texts
