"""The one datamodule: labeled and unlabeled faces, weak and strong views, for every method."""

import logging
import signal
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import cv2
import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fer_lightning.data.batch import Evaluated, Labeled, Target, Unlabeled, Views
from fer_lightning.data.datasets.base import DataError, FaceDataset, Faces
from fer_lightning.data.label_noise import mislabel
from fer_lightning.data.samplers import (
    BalancedStream,
    BatchKeys,
    Draws,
    EndlessStream,
    EvaluationSampler,
    Positions,
    Stream,
    TrainingSampler,
)
from fer_lightning.data.splits import Allocation, Split, SplitRequest, Validation, make_split
from fer_lightning.data.views import CenterView, StrongView, View, WeakView
from fer_lightning.errors import InputError

log = logging.getLogger(__name__)
T = TypeVar("T")
Part = Literal["labeled", "unlabeled", "val", "test"]

# Streams of randomness that must never meet.
_LABELED, _UNLABELED, _WEAK, _STRONG = range(4)


class SemiSupervisedFaces(L.LightningDataModule):
    """Labeled and unlabeled faces of one data set, in endless, exactly resumable batches.

    A batch is ``{"labeled": Labeled, "unlabeled": Unlabeled}``; the number of views is the method's
    (``views``), and a method that needs no unlabeled faces gets none. What a face looks like in a batch is a
    pure function of the seed and the number of the draw: it depends on no worker, epoch or rank.

    Args:
        dataset: where the faces come from.
        labels_per_class: labels the run may use of each emotion, one number or one per emotion by name.
            Neither this nor ``labels_total`` uses every label: the ceiling.
        labels_total: labels in all, spread over the emotions by ``allocation``.
        allocation: how ``labels_total`` is spread: ``balanced``, ``proportional`` to the classes, or
            ``ada_cm``, the table of that paper's protocol.
        seed: draws the labeled faces, their order and their augmentations.
        val: ``official``, or ``carved`` out of the labeled budget, or ``none``.
        val_fraction: share of the labels of each class that ``carved`` takes.
        unlabeled_includes_labeled: whether labeled faces also appear among the unlabeled ones.
        drop_test_duplicates: leave out training faces that are byte-identical to a val or test face.
        manifest: read the split from this file instead of drawing it; the options above are then ignored
            (the seed still draws order, augmentations and label noise).
        label_noise: share of the labeled faces whose emotion is replaced by another one, drawn uniformly, to
            see what a method does with wrong labels; in [0, 1]. No other face is touched.
        batch_size: labeled faces of a global batch, divided over the devices.
        mu: unlabeled faces per labeled face in a batch.
        steps_per_epoch: batches of an epoch; the pools are endless, so this is only when to validate.
        eval_batch_size: faces of a global batch in validation, test and prediction.
        class_balanced: draw labeled faces class by class instead of uniformly.
        image_size: side of the square the network sees, in pixels.
        weak: the weak view.
        strong: the strong view.
        workers: processes that prepare batches; 0 prepares them in the training process.
        predict_on: which part ``predict`` looks at.
    """

    faces: Faces
    split: Split
    labeled: Positions
    unlabeled: Positions
    val: Positions
    test: Positions

    def __init__(
        self,
        dataset: FaceDataset,
        labels_per_class: int | dict[str, int] | None = None,
        labels_total: int | None = None,
        allocation: Allocation = "balanced",
        seed: int = 0,
        val: Validation = "official",
        val_fraction: float = 0.2,
        unlabeled_includes_labeled: bool = False,
        drop_test_duplicates: bool = False,
        manifest: Path | None = None,
        label_noise: float = 0.0,
        batch_size: int = 64,
        mu: int = 7,
        steps_per_epoch: int = 1000,
        eval_batch_size: int = 512,
        class_balanced: bool = False,
        image_size: int = 48,
        weak: View | None = None,
        strong: View | None = None,
        workers: int = 2,
        predict_on: Part = "test",
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("mu", mu, 1),
            ("steps_per_epoch", steps_per_epoch, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("image_size", image_size, 8),
            ("workers", workers, 0),
        ):
            if value < least:
                raise InputError(f"--data.{name} is {value}; it must be at least {least}")
        if not 0 <= label_noise <= 1:
            raise InputError(f"--data.label_noise is {label_noise}; it is a share, from 0 to 1")
        self.request = SplitRequest(
            labels_per_class=labels_per_class,
            labels_total=labels_total,
            allocation=allocation,
            seed=seed,
            val=val,
            val_fraction=val_fraction,
            unlabeled_includes_labeled=unlabeled_includes_labeled,
            drop_test_duplicates=drop_test_duplicates,
        )
        self.dataset, self.manifest, self.seed, self.label_noise = dataset, manifest, seed, label_noise
        self.batch_size, self.mu, self.steps_per_epoch = batch_size, mu, steps_per_epoch
        self.eval_batch_size, self.class_balanced = eval_batch_size, class_balanced
        self.image_size = image_size
        self.weak = WeakView() if weak is None else weak
        self.strong = StrongView() if strong is None else strong
        self.workers, self.predict_on = workers, predict_on
        self._ready = False
        self._resumed_at = 0

    def setup(self, stage: str) -> None:
        """Read the faces and split them, once; check them against the method.

        Raises:
            DataError: if data, manifest and method do not agree.
        """
        if not self._ready:
            self.faces = self.dataset.load(self.image_size)
            self.split = Split.load(self.manifest) if self.manifest else make_split(self.faces, self.request)
            try:
                rows = self.split.rows(self.faces)
            except DataError as error:
                raise DataError(f"--data.manifest {self.manifest}: {error}") from error
            self.labeled, self.unlabeled = rows["labeled"], rows["unlabeled"]
            self.val, self.test = rows["val"], rows["test"]
            self._ready = True
            log.info(
                "%s: %d labeled, %d unlabeled, %d val, %d test faces; split %s",
                *(self.faces.dataset, len(self.labeled), len(self.unlabeled), len(self.val), len(self.test)),
                self.split.sha256[:12],
            )
        if self.trainer is not None:
            self._check(self.trainer)

    @cached_property
    def _taught(self) -> Faces:
        """The faces with the labels that training sees; those it has none of are as they were."""
        if not self.label_noise:
            return self.faces
        emotion, rows = self.faces.emotion.copy(), self.labeled
        shown = np.flatnonzero(
            np.nansum(emotion, 0) > 0
        )  # what no face shows, the method may have no name for
        if len(shown) < 2:
            raise InputError(
                f"--data.label_noise is {self.label_noise}, but {self.faces.dataset} has no two emotions "
                "that could be mistaken for each other: set it to 0"
            )
        names = self.faces.names[rows]
        part = np.ix_(rows, shown)
        emotion[part] = mislabel(emotion[part], names, self.label_noise, self.seed)
        return replace(self.faces, emotion=emotion)

    def _check(self, trainer: L.Trainer) -> None:
        method = self._method
        if method.task.classes:
            self.faces.emotion_in(method.task.taxonomy)  # raises for a label the method has no class for
            if not len(self.faces.taxonomy):
                raise DataError(
                    f"{self.faces.dataset} has no emotions to learn or test; --model.targets valence_arousal"
                )
        if method.task.valence_arousal and np.isnan(self.faces.valence_arousal).all():
            raise DataError(f"{self.faces.dataset} has no valence and arousal; --model.targets classes")
        if method.views.unlabeled and not len(self.unlabeled) and trainer.state.fn == "fit":
            raise DataError(
                f"{type(method).__name__} needs unlabeled faces and {self.faces.dataset} has none left; "
                "give a label budget (--data.labels_per_class), more unlabeled faces, or "
                "--data.unlabeled_includes_labeled true"
            )
        # Lightning would wrap our samplers, which divide the stream themselves.
        if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
            raise DataError("the samplers here are rank-aware: set --trainer.use_distributed_sampler false")

    def train_dataloader(self) -> "Loader":
        """Return the one loader of ``{"labeled": Labeled, "unlabeled": Unlabeled}``."""
        assert self.trainer is not None
        trainer, views = self.trainer, self._method.views
        labeled: Stream = EndlessStream(len(self.labeled), self.seed, _LABELED)
        if self.class_balanced:
            labeled = BalancedStream(self._taught.label[self.labeled], self.seed, _LABELED)
        sampler = TrainingSampler(
            labeled,
            EndlessStream(len(self.unlabeled), self.seed, _UNLABELED) if views.unlabeled else None,
            batch_size=self.batch_size,
            unlabeled_batch_size=self.batch_size * self.mu,
            steps=self.steps_per_epoch,
            # Lightning may start to read before it has restored its own count.
            taken=lambda: max(batches_taken(trainer), self._resumed_at),
            rank=trainer.global_rank,
            world=trainer.world_size,
        )
        batches = TrainingBatches(self, views, self.labeled_target)
        return self._loader(batches, sampler, persistent=True)

    def val_dataloader(self) -> "Loader | list[Any]":
        """Return the loader of ``Evaluated`` validation faces; empty if the split has none."""
        return self._evaluation_loader(self.val) if len(self.val) else []

    def test_dataloader(self) -> "Loader":
        """Return the loader of ``Evaluated`` test faces.

        Raises:
            DataError: if the split has none.
        """
        if not len(self.test):
            raise DataError(f"{self.faces.dataset} has no test faces")
        return self._evaluation_loader(self.test)

    def predict_dataloader(self) -> "Loader":
        """Return the loader of ``Evaluated`` faces of the part ``predict_on``."""
        rows: Positions = getattr(self, self.predict_on)
        if not len(rows):
            raise DataError(f"{self.faces.dataset} has no {self.predict_on} faces; see --data.predict_on")
        return self._evaluation_loader(rows)

    def labeled_loader(self) -> "Loader":
        """Return the labeled faces in order, not augmented: for what a method refreshes once in a while."""
        return self._evaluation_loader(self.labeled, self.labeled_target)

    @property
    def labeled_target(self) -> Target:
        """The labels of the run, (N, C) and (N, 2), in the order of ``Labeled.index``; with their noise."""
        return self._target(self.labeled, self._taught)

    @property
    def labeled_truth(self) -> Target:
        """The labels of the run without label noise, likewise. For the audit alone."""
        return self._target(self.labeled, self.faces)

    @property
    def unlabeled_truth(self) -> Target:
        """What the unlabeled faces show, (N, C) and (N, 2), NaN where nobody knows. For the audit alone."""
        return self._target(self.unlabeled, self.faces)

    @property
    def _method(self) -> Any:
        assert self.trainer is not None
        return self.trainer.lightning_module

    def _target(self, rows: Positions, faces: Faces) -> Target:
        """Return the targets of faces, in the order of the method's task."""
        emotion = faces.emotion_in(self._method.task.taxonomy)[rows]
        return Target(torch.from_numpy(emotion), torch.from_numpy(faces.valence_arousal[rows]))

    def _evaluation_loader(self, rows: Positions, target: Target | None = None) -> "Loader":
        assert self.trainer is not None
        world = self.trainer.world_size
        sampler = EvaluationSampler(
            len(rows), max(1, self.eval_batch_size // world), self.trainer.global_rank, world
        )
        target = self._target(rows, self.faces) if target is None else target
        batches = EvaluationBatches(self.faces, rows, target, self.image_size)
        return self._loader(batches, sampler, persistent=False)

    def _loader(self, batches: "Dataset[Any]", sampler: Any, persistent: bool) -> "Loader":
        return Loader(
            batches,
            sampler=sampler,
            batch_size=None,  # a key is a whole batch
            collate_fn=_as_is,
            num_workers=self.workers,
            persistent_workers=persistent and self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_begin_worker,
            generator=torch.Generator(),  # torch's own generator belongs to the networks
        )

    def state_dict(self) -> dict[str, Any]:
        """Return how far the run has read, and what must agree when it is resumed."""
        assert self.trainer is not None
        return {"taken": batches_taken(self.trainer), **self._identity()}

    def _identity(self) -> dict[str, Any]:
        return {
            "split": self.split.sha256,
            "batch_size": self.batch_size,
            "mu": self.mu,
            "seed": self.seed,
            "label_noise": self.label_noise,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the run was, and refuse to do so on other faces.

        Raises:
            DataError: if the checkpoint was trained on another split, seed, batch or share of wrong labels.
        """
        if self.trainer is None or self.trainer.state.fn != "fit":
            return
        self._resumed_at = state_dict.get("taken", 0)
        ours = self._identity()
        theirs = ours | state_dict
        differ = [f"{key} {theirs[key]} there, {ours[key]} here" for key in ours if theirs[key] != ours[key]]
        if differ:
            raise DataError(
                f"the checkpoint to resume was trained on other data ({'; '.join(differ)}): use its options "
                "(config.yaml beside it), or start anew with --model.weights to keep only its network"
            )


def batches_taken(trainer: L.Trainer) -> int:
    """Return how many training batches the run has taken before now, over all epochs and resumptions."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)


class Loader(DataLoader[Any]):
    """A loader without a position of its own: its sampler asks the trainer how many batches were taken."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: told so, Lightning does not warn that resuming is inexact."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Accept nothing."""


class TrainingBatches(Dataset[dict[str, Labeled | Unlabeled]]):
    """Builds whole batches in the worker from their keys."""

    def __init__(self, data: SemiSupervisedFaces, views: Views, target: Target) -> None:
        self.images, self.size, self.seed = data.faces.images, data.image_size, data.seed
        self.labeled, self.unlabeled = data.labeled, data.unlabeled
        self.labeled_views = [data.weak] * views.labeled
        self.strong_views = [data.strong] * views.strong
        self.weak_views = [data.weak] * views.weak
        if views.mirrored:
            self.weak_views = [data.weak.facing(mirrored=v % 2 == 1) for v in range(views.weak)]
        self.target = target

    def __getitem__(self, keys: BatchKeys) -> dict[str, Labeled | Unlabeled]:
        """Return the batch of these keys, on the CPU."""
        item = torch.from_numpy(keys.labeled.item)
        image = self._look(self.labeled, keys.labeled, self.labeled_views, _LABELED)
        target = Target(self.target.emotion[item], self.target.valence_arousal[item])
        batch: dict[str, Labeled | Unlabeled] = {"labeled": Labeled(image, target, item)}
        if keys.unlabeled is not None:
            batch["unlabeled"] = Unlabeled(
                self._look(self.unlabeled, keys.unlabeled, self.weak_views, _WEAK),
                self._look(self.unlabeled, keys.unlabeled, self.strong_views, _STRONG),
                torch.from_numpy(keys.unlabeled.item),
            )
        return batch

    def _look(self, rows: Positions, draws: Draws, views: list[View], stream: int) -> Tensor:
        """Return (B, 3, H, W) uint8, or (V, B, 3, H, W) for V != 1 views; the memory is channels-last."""
        out = np.empty((len(views), len(draws.item), self.size, self.size, 3), np.uint8)
        for b, (row, draw) in enumerate(zip(rows[draws.item].tolist(), draws.draw.tolist(), strict=True)):
            if views:
                image = self.images[row]
            for v, view in enumerate(views):
                out[v, b] = view(image, self.size, (self.seed, stream, draw, v))
        images = torch.from_numpy(out).permute(0, 1, 4, 2, 3)
        return images[0] if len(views) == 1 else images


class EvaluationBatches(Dataset[Evaluated]):
    """Builds batches of faces as they are."""

    def __init__(self, faces: Faces, rows: Positions, target: Target, size: int) -> None:
        self.images, self.rows, self.target, self.size = faces.images, rows, target, size
        self.view = CenterView()

    def __getitem__(self, positions: Positions) -> Evaluated:
        """Return the batch at (B,) positions; position -1 gives a filler whose target is unknown."""
        filler = positions < 0
        out = np.empty((len(positions), self.size, self.size, 3), np.uint8)
        for b, row in enumerate(self.rows[positions].tolist()):
            out[b] = self.view(self.images[row], self.size, ())
        index = torch.from_numpy(positions)
        emotion, valence_arousal = self.target.emotion[index], self.target.valence_arousal[index]
        if filler.any():
            emotion[filler], valence_arousal[filler] = torch.nan, torch.nan
        return Evaluated(torch.from_numpy(out).permute(0, 3, 1, 2), Target(emotion, valence_arousal), index)


def _begin_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # the workers are the threads
    # Ctrl-C, which a terminal sends to workers too, is for the training process to answer: it needs them
    # until it has saved. What it does at SIGTERM is not for its copies.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _as_is(batch: T) -> T:
    return batch
