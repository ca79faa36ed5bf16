"""Whole batches, built in the workers from their keys."""

import signal
from collections.abc import Sequence
from types import FrameType
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from fer_lightning.data.batch import Evaluated, Labeled, Target, Unlabeled, Views
from fer_lightning.data.datasets.base import Images
from fer_lightning.data.samplers import BatchKeys, Draws, Indices
from fer_lightning.data.views import CenterView, View

T = TypeVar("T")

_GRACE_S = 600
"""Seconds that a worker goes on after a SIGTERM."""
LABELED, UNLABELED, WEAK, STRONG = range(4)
"""Streams of randomness that must never meet."""


class TrainingBatches(Dataset[dict[str, Labeled | Unlabeled]]):
    """Builds batches of labeled and unlabeled faces in their views.

    A view is drawn from (seed, stream, draw, number of the view), so it depends on no worker and no epoch.

    Args:
        images: of all faces.
        labeled: (N,) rows of the labeled faces among them.
        unlabeled: (M,) rows of the unlabeled faces.
        target: labels of the labeled faces, (N, C) and (N, 2).
        views: number of views of each face.
        weak: the weak view.
        strong: the strong view.
        size: side of the views in pixels.
        seed: of the views.
    """

    def __init__(
        self,
        images: Images,
        labeled: Indices,
        unlabeled: Indices,
        target: Target,
        views: Views,
        weak: View,
        strong: View,
        size: int,
        seed: int,
    ) -> None:
        self.images, self.labeled, self.unlabeled, self.target = images, labeled, unlabeled, target
        self.size, self.seed = size, seed
        self.labeled_views = [weak] * views.labeled
        self.weak_views = [weak] * views.weak
        self.strong_views = [strong] * views.strong
        if views.mirrored:
            self.weak_views = [weak.facing(mirrored=v % 2 == 1) for v in range(views.weak)]

    def __getitem__(self, keys: BatchKeys) -> dict[str, Labeled | Unlabeled]:
        """Return the batch of these keys, on the CPU."""
        index = torch.from_numpy(keys.labeled.index)
        weak = self._views(self.labeled, keys.labeled, self.labeled_views, LABELED)
        target = Target(self.target.emotion[index], self.target.valence_arousal[index])
        batch: dict[str, Labeled | Unlabeled] = {"labeled": Labeled(weak, target, index)}
        if keys.unlabeled is not None:
            batch["unlabeled"] = self.unlabeled_batch(keys.unlabeled)
        return batch

    def unlabeled_batch(self, draws: Draws) -> Unlabeled:
        """Return the unlabeled faces of some draws, on the CPU."""
        return Unlabeled(
            self._views(self.unlabeled, draws, self.weak_views, WEAK),
            self._views(self.unlabeled, draws, self.strong_views, STRONG),
            torch.from_numpy(draws.index),
        )

    def _views(self, rows: Indices, draws: Draws, views: Sequence[View], stream: int) -> Tensor:
        """Return (V, B, 3, H, W) uint8; the memory is channels-last."""
        out = np.empty((len(views), len(draws.index), self.size, self.size, 3), np.uint8)
        for b, (row, draw) in enumerate(zip(rows[draws.index].tolist(), draws.draw.tolist(), strict=True)):
            if views:
                image = self.images[row]
            for v, view in enumerate(views):
                out[v, b] = view(image, self.size, (self.seed, stream, draw, v))
        return torch.from_numpy(out).permute(0, 1, 4, 2, 3)


class EvaluationBatches(Dataset[Evaluated]):
    """Builds batches of faces that are not augmented.

    Args:
        images: of all faces.
        rows: (N,) rows of the faces to evaluate among them.
        target: their labels, (N, C) and (N, 2).
        group: (N,) number of each one's group, -1 where unknown.
        size: side of the images in pixels.
    """

    def __init__(self, images: Images, rows: Indices, target: Target, group: Indices, size: int) -> None:
        self.images, self.rows, self.target, self.size = images, rows, target, size
        self.group = torch.from_numpy(group)
        self.view = CenterView()

    def __getitem__(self, indices: Indices) -> Evaluated:
        """Return the batch of (B,) indices; -1 gives a filler whose target and group are unknown."""
        out = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        for b, row in enumerate(self.rows[indices].tolist()):
            out[b] = self.view(self.images[row], self.size, ())
        index = torch.from_numpy(indices)
        filler = index < 0
        target = Target(
            self.target.emotion[index].masked_fill(filler[:, None], torch.nan),
            self.target.valence_arousal[index].masked_fill(filler[:, None], torch.nan),
        )
        group = self.group[index].masked_fill(filler, -1)
        return Evaluated(torch.from_numpy(out).permute(0, 3, 1, 2), target, index, group)


class Loader(DataLoader[Any]):
    """A loader without a state of its own: its sampler reads how many batches were taken."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: given that, Lightning does not warn that resuming is inexact."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Accept nothing."""


def batch_loader(
    batches: Dataset[Any], sampler: DistributedSampler[Any], workers: int = 0, persistent: bool = False
) -> Loader:
    """Return a loader whose workers build whole batches.

    Args:
        batches: builds the batch of a key.
        sampler: yields the keys.
        workers: number of processes; 0 builds the batches in this one.
        persistent: whether the workers outlive an epoch.
    """
    return Loader(
        batches,
        sampler=sampler,
        batch_size=None,  # a key is a whole batch
        collate_fn=_as_is,
        num_workers=workers,
        persistent_workers=persistent and workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # torch's own generator belongs to the networks
    )


def _begin_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # the workers are the threads
    # Signals that a terminal, SLURM or a container sends to workers too are for the training process alone to
    # handle: it needs them until it has saved.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # SIGTERM is also how that process ends a worker that hangs, which therefore ends all the same, later.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _end_later)


def _end_later(number: int, frame: FrameType | None) -> None:
    signal.alarm(_GRACE_S)


def _as_is(batch: T) -> T:
    return batch
