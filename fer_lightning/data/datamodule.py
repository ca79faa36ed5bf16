"""The datamodule: labeled and unlabeled faces, weak and strong views, for every method."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch

from fer_lightning.data.batch import DataInfo, Target, Unlabeled, Views
from fer_lightning.data.batches import (
    LABELED,
    UNLABELED,
    EvaluationBatches,
    Loader,
    TrainingBatches,
    batch_loader,
)
from fer_lightning.data.datasets.base import DataError, FaceDataset, Faces
from fer_lightning.data.label_noise import mislabel
from fer_lightning.data.samplers import (
    BalancedStream,
    Draws,
    EndlessStream,
    EvaluationSampler,
    Indices,
    Stream,
    TrainingSampler,
)
from fer_lightning.data.split_checks import quick_warnings
from fer_lightning.data.splits import Allocation, Split, SplitRequest, Validation, make_split
from fer_lightning.data.views import StrongView, View, WeakView
from fer_lightning.emotions import Taxonomy
from fer_lightning.emotions import taxonomy as taxonomy_of
from fer_lightning.errors import InputError
from fer_lightning.ranges import NonNegativeInt, OpenShare, PositiveInt, Share, check_ranges

log = logging.getLogger(__name__)
Part = Literal["labeled", "unlabeled", "val", "test"]


class SemiSupervisedFaces(L.LightningDataModule):
    """Labeled and unlabeled faces of one data set, in endless, exactly resumable batches.

    A training batch is ``{"labeled": Labeled, "unlabeled": Unlabeled}``, one to evaluate is ``Evaluated``. A
    Trainer's method declares how many views it learns from (``views``), its emotions (``task``) and whether
    labeled faces are drawn class by class (``class_balanced``); a method that needs no unlabeled faces gets
    none. The pixels of a face in a batch are a pure function of the seed and the number of the draw: they
    depend on no worker, epoch or rank.

    Example, which needs neither a Trainer nor a download:

        >>> from fer_lightning.data.datamodule import SemiSupervisedFaces
        >>> from fer_lightning.data.synthetic import SyntheticFaces
        >>> data = SemiSupervisedFaces(SyntheticFaces(train=70, val=7), labels_per_class=4, batch_size=8)
        >>> data.setup("fit")
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["labeled"].weak.shape, batch["unlabeled"].strong.shape
        (torch.Size([1, 8, 3, 48, 48]), torch.Size([1, 56, 3, 48, 48]))

    Args:
        dataset: where the faces come from.
        labels_per_class: labels the run may use of each emotion, one number or one per emotion by name.
            Neither this nor ``labels_total`` uses every label: fully supervised.
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
            measure what a method does with wrong labels. No other face is touched.
        batch_size: labeled faces of a global batch, divided over the devices.
        unlabeled_ratio: unlabeled faces per labeled face in a batch.
        steps_per_epoch: batches of an epoch; the sets are drawn from endlessly, so this is only how often to
            validate.
        eval_batch_size: faces of a global batch in validation, test and prediction.
        views: number of views of each face; by default as the method declares.
        emotions: the classes and their order, a taxonomy's name or a list of emotions; by default those of
            the method, or else of the data set.
        class_balanced: draw labeled faces class by class instead of uniformly; by default as the method
            declares.
        image_size: side of the square images in the batches, in pixels.
        weak: the weak view.
        strong: the strong view.
        workers: processes that prepare batches; 0 prepares them in the training process.
        predict_on: the part that ``predict`` predicts.

    Raises:
        InputError: for an option out of its range.
    """

    faces: Faces
    """All faces of the data set, after ``setup``."""
    split: Split
    labeled: Indices
    """(N,) rows of the labeled faces in ``faces``, in the order of ``Labeled.index``; the other parts too."""
    unlabeled: Indices
    val: Indices
    test: Indices

    def __init__(
        self,
        dataset: FaceDataset,
        labels_per_class: PositiveInt | dict[str, NonNegativeInt] | None = None,
        labels_total: PositiveInt | None = None,
        allocation: Allocation = "balanced",
        seed: NonNegativeInt = 0,
        val: Validation = "official",
        val_fraction: OpenShare = 0.2,
        unlabeled_includes_labeled: bool = False,
        drop_test_duplicates: bool = False,
        manifest: Path | None = None,
        label_noise: Share = 0.0,
        batch_size: PositiveInt = 64,
        unlabeled_ratio: PositiveInt = 7,
        steps_per_epoch: PositiveInt = 1000,
        eval_batch_size: PositiveInt = 512,
        views: Views | None = None,
        emotions: str | Sequence[str] | None = None,
        class_balanced: bool | None = None,
        image_size: PositiveInt = 48,
        weak: View | None = None,
        strong: View | None = None,
        workers: NonNegativeInt = 2,
        predict_on: Part = "test",
    ) -> None:
        super().__init__()
        check_ranges(type(self), locals(), "data")
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
        self.batch_size, self.unlabeled_ratio = batch_size, unlabeled_ratio
        self.steps_per_epoch, self.eval_batch_size = steps_per_epoch, eval_batch_size
        self.views, self.emotions, self.class_balanced = views, emotions, class_balanced
        self.image_size = image_size
        self.weak = WeakView() if weak is None else weak
        self.strong = StrongView() if strong is None else strong
        self.workers, self.predict_on = workers, predict_on
        self._ready = False

    def setup(self, stage: str) -> None:
        """Read the faces and split them, once; check them against the method of the Trainer.

        Raises:
            DataError: if data, manifest and method do not agree.
        """
        if not self._ready:
            self.faces = self.dataset.load(self.image_size)
            self.split = Split.load(self.manifest) if self.manifest else make_split(self.faces, self.request)
            try:
                rows = self.split.rows(self.faces)
            except DataError as error:
                raise DataError(f"manifest {self.manifest}: {error}", option="data.manifest") from error
            self.labeled, self.unlabeled = rows["labeled"], rows["unlabeled"]
            self.val, self.test = rows["val"], rows["test"]
            self._ready = True
            if self._rank == 0:
                for warning in quick_warnings(self.faces, rows):
                    log.warning("split of %s: %s", self.faces.dataset, warning)
            log.info(
                "%s: %d labeled, %d unlabeled, %d val, %d test faces; split %s",
                *(self.faces.dataset, len(self.labeled), len(self.unlabeled), len(self.val), len(self.test)),
                self.split.sha256[:12],
            )
        if self._method is not None:
            self._check_method(self._method)
            if stage == "fit":
                self._check_unlabeled()

    # The facts that a method is given.

    def info(self) -> DataInfo:
        """Return the facts about the data that a method is given at setup; needs ``setup``."""
        return DataInfo(
            labeled=self.labeled_target,
            unlabeled_count=len(self.unlabeled),
            batch_size=self.batch_size,
            unlabeled_ratio=self.unlabeled_ratio,
            labeled_loader=self.labeled_loader,
            groups=self.groups,
            image_size=int(self.image_size),  # plain, since a checkpoint holds it
        )

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes of the batches, in their order."""
        if self.emotions is not None:
            return taxonomy_of(self.emotions)
        task = getattr(self._method, "task", None)
        return self.faces.taxonomy if task is None else task.taxonomy

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups of people in the data set, sorted; ``Evaluated.group`` numbers them."""
        return tuple(sorted(set(self.faces.group.tolist()) - {""}))

    @property
    def labeled_target(self) -> Target:
        """The labels of the run, (N, C) and (N, 2), in the order of ``Labeled.index``; with label noise."""
        return self._target(self._labels, self.labeled)

    @property
    def labeled_truth(self) -> Target:
        """The labels of the run without label noise, (N, C) and (N, 2). For the audit alone."""
        return self._target(self.faces, self.labeled)

    @property
    def unlabeled_truth(self) -> Target:
        """The true labels of the unlabeled faces, (M, C) and (M, 2), NaN if unknown. For the audit alone."""
        return self._target(self.faces, self.unlabeled)

    # The loaders.

    def train_dataloader(self) -> Loader:
        """Return the one loader of ``{"labeled": Labeled, "unlabeled": Unlabeled}``.

        Raises:
            DataError: if unlabeled faces are needed and there are none.
            InputError: if the batches cannot be divided over the devices.
        """
        self._check_unlabeled()
        views, method = self._views, self._method
        labeled: Stream = EndlessStream(len(self.labeled), self.seed, LABELED)
        if self._class_balanced:
            labeled = BalancedStream(self._labels.label[self.labeled], self.seed, LABELED)
        sampler = TrainingSampler(
            labeled,
            EndlessStream(len(self.unlabeled), self.seed, UNLABELED) if views.unlabeled else None,
            batch_size=self.batch_size,
            unlabeled_batch_size=self.batch_size * self.unlabeled_ratio,
            steps=self.steps_per_epoch,
            ended_after=self._ended_after,
            taken=(lambda: int(method.batches_taken)) if hasattr(method, "batches_taken") else None,
            rank=self._rank,
            world=self._world,
        )
        return batch_loader(self._training_batches(), sampler, self.workers, persistent=True)

    def val_dataloader(self) -> "Loader | list[Any]":
        """Return the loader of ``Evaluated`` validation faces; empty if the split has none."""
        return self.part_loader("val") if len(self.val) else []

    def test_dataloader(self) -> Loader:
        """Return the loader of ``Evaluated`` test faces.

        Raises:
            DataError: if the split has none.
        """
        return self.part_loader("test")

    def predict_dataloader(self) -> Loader:
        """Return the loader of ``Evaluated`` faces of the part ``predict_on``.

        Raises:
            DataError: if the split has none.
        """
        if not len(getattr(self, self.predict_on)):
            raise DataError(
                f"the split of {self.faces.dataset} has no {self.predict_on} faces; set predict_on to others",
                option="data.predict_on",
            )
        return self.part_loader(self.predict_on)

    def part_loader(self, part: Part) -> Loader:
        """Return a loader of ``Evaluated`` faces of one part, with their true labels, in order.

        Args:
            part: which faces. The true labels of the unlabeled ones are for people, never to train on.

        Raises:
            DataError: if the split has none.
        """
        if not len(getattr(self, part)):
            raise DataError(f"the split of {self.faces.dataset} has no {part} faces")
        return self._evaluation_loader(getattr(self, part), self.faces)

    def labeled_loader(self) -> Loader:
        """Return a loader of the labeled faces, not augmented: for what a method refreshes now and then."""
        return self._evaluation_loader(self.labeled, self._labels)

    def unlabeled_batch(self, index: Indices) -> Unlabeled:
        """Return unlabeled faces in the views of training, to inspect a method's pseudo-labels.

        Args:
            index: (B,) indices of the faces in the unlabeled set; each is also the number of its draw, so
                that the same face always comes in the same views.
        """
        return self._training_batches().unlabeled_batch(Draws(index, index))

    def _training_batches(self) -> TrainingBatches:
        return TrainingBatches(
            self.faces.images,
            self.labeled,
            self.unlabeled,
            self.labeled_target,
            self._views,
            self.weak,
            self.strong,
            self.image_size,
            self.seed,
        )

    def _evaluation_loader(self, rows: Indices, faces: Faces) -> Loader:
        sampler = EvaluationSampler(
            len(rows), max(1, self.eval_batch_size // self._world), self._rank, self._world
        )
        group = np.array([self.groups.index(name) if name else -1 for name in faces.group[rows].tolist()])
        target = self._target(faces, rows)
        batches = EvaluationBatches(faces.images, rows, target, group, self.image_size)
        return batch_loader(batches, sampler, self.workers)

    def _target(self, faces: Faces, rows: Indices) -> Target:
        """Return the labels of some faces, their emotions in the order of the batches."""
        emotion = faces.emotion_in(self.taxonomy)[rows]
        return Target(torch.from_numpy(emotion), torch.from_numpy(faces.valence_arousal[rows]))

    @cached_property
    def _labels(self) -> Faces:
        """The faces with the labels of the run: with label noise if there is any."""
        if not self.label_noise:
            return self.faces
        emotion, rows = self.faces.emotion.copy(), self.labeled
        # The method may have no name for an emotion that no face shows.
        shown = np.flatnonzero(np.nansum(emotion, 0) > 0)
        if len(shown) < 2:
            raise InputError(
                f"label_noise is {self.label_noise}, but {self.faces.dataset} has no two emotions that could "
                "be mistaken for each other: set it to 0",
                option="data.label_noise",
            )
        part = np.ix_(rows, shown)
        emotion[part] = mislabel(emotion[part], self.faces.names[rows], self.label_noise, self.seed)
        return replace(self.faces, emotion=emotion)

    # The trainer and its method, where there are any.

    @property
    def _method(self) -> Any:
        """The module that the Trainer runs; None without one."""
        return None if self.trainer is None else self.trainer.lightning_module

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    @property
    def _world(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def _ended_after(self) -> int | None:
        """Batches after which the Trainer ends an epoch; the sampler tells by it how far one has come."""
        limit: int | float | None = getattr(self.trainer, "limit_train_batches", None)
        return int(self.steps_per_epoch * limit) if isinstance(limit, float) else limit

    @property
    def _views(self) -> Views:
        declared: Views = getattr(self._method, "views", Views())
        return declared if self.views is None else self.views

    @property
    def _class_balanced(self) -> bool:
        declared: bool = getattr(self._method, "class_balanced", False)
        return declared if self.class_balanced is None else self.class_balanced

    def _check_method(self, method: Any) -> None:
        """Refuse data that a method cannot learn from or be tested on."""
        task, faces = getattr(method, "task", None), self.faces
        if task is None:
            return
        if task.classes:
            if self.taxonomy.emotions != task.taxonomy.emotions:
                raise DataError(
                    f"emotions are {', '.join(self.taxonomy.emotions)}, and {type(method).__name__} has "
                    f"{', '.join(task.taxonomy.emotions)}, in that order; leave emotions to the method",
                    option="data.emotions",
                )
            faces.emotion_in(task.taxonomy)  # raises for a label the method has no class for
            if not len(faces.taxonomy):
                raise DataError(
                    f"{faces.dataset} has no emotions to learn or test; set targets to valence_arousal",
                    option="model.targets",
                )
        if task.valence_arousal and np.isnan(faces.valence_arousal).all():
            raise DataError(
                f"{faces.dataset} has no valence and arousal; set targets to classes", option="model.targets"
            )

    def _check_unlabeled(self) -> None:
        if self._views.unlabeled and not len(self.unlabeled):
            name = "training" if self._method is None else type(self._method).__name__
            raise DataError(
                f"{name} needs unlabeled faces and {self.faces.dataset} has none left: give a label budget "
                "(labels_per_class), more unlabeled faces, or set unlabeled_includes_labeled",
                option="data.labels_per_class",
            )

    # Checkpoints.

    def state_dict(self) -> dict[str, Any]:
        """Return what must agree when the run is resumed; the method counts its batches."""
        return {
            "split": self.split.sha256,
            "batch_size": int(self.batch_size),
            "unlabeled_ratio": int(self.unlabeled_ratio),
            "seed": int(self.seed),
            "label_noise": float(self.label_noise),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to go on with training on other data.

        Raises:
            DataError: if the checkpoint was trained on another split, seed, batch or share of wrong labels.
        """
        if self.trainer is None or self.trainer.state.fn != "fit":
            return
        ours = self.state_dict()
        theirs = ours | state_dict
        differ = [f"{key} {theirs[key]} there, {ours[key]} here" for key in ours if theirs[key] != ours[key]]
        if differ:
            raise DataError(
                f"the checkpoint to resume was trained on other data ({'; '.join(differ)}): use its options "
                "(config.yaml beside it), or start anew from its weights to keep only its network",
                option="model.weights",
            )
