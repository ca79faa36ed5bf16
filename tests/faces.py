"""Small data and small networks for the tests."""

from typing import Any

import lightning as L
import numpy as np

from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.data.datasets.base import ArrayImages, FaceDataset, Faces, one_hot
from fer_lightning.emotions import BASIC_7

TINY = {"backbone": "wrn_10_1", "backbone_arguments": {"width": 0.25}}


class TinyFaces(FaceDataset):
    """Noisy gray squares, brighter from class to class; valence and arousal follow the class."""

    license = "none needed"

    def __init__(self, train: int = 140, val: int = 28, test: int = 28, missing: int | None = None) -> None:
        self.counts, self.missing = {"train": train, "val": val, "test": test}, missing

    def load(self, image_size: int) -> Faces:
        n = sum(self.counts.values())
        rng = np.random.default_rng(0)
        label = np.arange(n) % 7
        noise = rng.integers(0, 60, (n, image_size, image_size))
        partition = np.repeat(list(self.counts), list(self.counts.values()))
        if self.missing is not None:
            label[(label == self.missing) & (partition == "train")] = (self.missing + 1) % 7
        valence_arousal = np.stack([label / 3 - 1, 1 - label / 3], 1).astype(np.float32)
        return Faces(
            dataset=f"tiny{n}",
            taxonomy=BASIC_7,
            names=np.array([f"face{i:04d}" for i in range(n)]),
            partition=partition,
            emotion=one_hot(label, 7),
            images=ArrayImages((noise + label[:, None, None] * 25).astype(np.uint8)),
            valence_arousal=valence_arousal,
        )


def tiny_data(**options: Any) -> SemiSupervisedFaces:
    """A datamodule over ``TinyFaces``: 4 labels a class, 14 + 28 faces a batch, 16 pixels."""
    defaults = {
        "labels_per_class": 4,
        "batch_size": 14,
        "unlabeled_ratio": 2,
        "steps_per_epoch": 5,
        "image_size": 16,
        "workers": 0,
    }
    return SemiSupervisedFaces(options.pop("dataset", TinyFaces()), **(defaults | options))


def quiet_trainer(tmp_path: Any, **options: Any) -> L.Trainer:
    """A trainer on the CPU that prints nothing and keeps nothing by default."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "log_every_n_steps": 1,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": tmp_path,
        "max_epochs": 2,
    }
    return L.Trainer(**(defaults | options))
