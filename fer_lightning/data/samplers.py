"""Endless streams of faces, as pure functions of (seed, draw).

A stream goes through one fresh permutation after another. Draw number ``d`` of a stream names a face, and the
views take their randomness from the same number; so nothing about sampling has to be saved but how many
batches were taken, and the batches are the same for any number of workers and ranks.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset, DistributedSampler

from fer_lightning.errors import InputError

Indices = npt.NDArray[np.int64]


class Draws(NamedTuple):
    """The faces that one rank reads of one stream for one batch."""

    index: Indices  # type: ignore[assignment]  # hides tuple.index, which has no use here
    """(B,) index of the face in its set."""
    draw: Indices
    """(B,) number of the draw in the global stream: no two draws of a run share it."""


class BatchKeys(NamedTuple):
    """All that a worker needs to build one batch."""

    labeled: Draws
    unlabeled: Draws | None


class EndlessStream:
    """Indices of a set by the number of the draw, permutation after permutation.

    Args:
        size: faces in the set.
        seed: of the permutations.
        stream: number that keeps streams of one seed apart.

    Raises:
        InputError: if the set is empty.
    """

    def __init__(self, size: int, seed: int, stream: int) -> None:
        if size < 1:
            raise InputError("cannot draw from an empty set of faces")
        self.size = size
        self._key = (seed, stream)
        self._permutations: dict[int, Indices] = {}

    def __getitem__(self, draws: Indices) -> Indices:
        """Return the indices that (B,) draws of the stream name."""
        rounds, offsets = np.divmod(draws, self.size)
        index = np.empty_like(draws)
        needed = np.unique(rounds)
        self._permutations = {r: p for r, p in self._permutations.items() if r >= needed[0]}
        for number in needed.tolist():
            if number not in self._permutations:
                # Sorting random words rather than Generator.permutation: the words of Philox are fixed for
                # ever, the algorithm of permutation may change with NumPy.
                words = np.random.Philox(key=_key(*self._key, number)).random_raw(self.size)
                self._permutations[number] = np.argsort(words, kind="stable")
            here = rounds == number
            index[here] = self._permutations[number][offsets[here]]
        return index


class BalancedStream:
    """Like ``EndlessStream``, but every run of C draws holds one face of each of the C classes.

    Within a class, faces again come permutation after permutation, so a face of a rare class returns sooner
    than one of a common class.

    Args:
        labels: (N,) class of each face, all >= 0; classes without faces do not take part.
        seed: of the permutations.
        stream: number that keeps streams of one seed apart.

    Raises:
        InputError: if a face has no class, or there is no face.
    """

    def __init__(self, labels: Indices, seed: int, stream: int) -> None:
        present = np.unique(labels)
        if not len(present) or present[0] < 0:
            raise InputError(
                "class-balanced drawing needs a class for every labeled face; set class_balanced to False",
                option="data.class_balanced",
            )
        self.size = len(labels)
        self._members = [np.flatnonzero(labels == c) for c in present]
        # Stream numbers of the classes start far above those of whole streams.
        self._streams = [
            EndlessStream(len(members), seed, stream + 1000 * number)
            for number, members in enumerate(self._members, start=1)
        ]
        self._order = EndlessStream(len(present), seed, stream)

    def __getitem__(self, draws: Indices) -> Indices:
        """Return the indices that (B,) draws of the stream name."""
        classes = self._order[draws]
        occurrence = draws // len(self._members)
        index = np.empty_like(draws)
        for number, (members, stream) in enumerate(zip(self._members, self._streams, strict=True)):
            here = classes == number
            if here.any():
                index[here] = members[stream[occurrence[here]]]
        return index


Stream = EndlessStream | BalancedStream


# A sampler that is none of torch's DistributedSampler, Lightning wraps under DDP, and then each rank would
# read its part of what is already its part.
class TrainingSampler(DistributedSampler[Any]):
    """Yields the keys of one epoch's batches for one rank.

    Rank r of W takes draws r, r + W, ... of each global batch, so all ranks together make every draw once.

    Args:
        labeled: stream of labeled faces.
        unlabeled: stream of unlabeled faces, None for a method that needs none.
        batch_size: labeled faces of a global batch.
        unlabeled_batch_size: unlabeled faces of a global batch.
        steps: batches of an epoch.
        taken: returns how many batches of the run were taken before; read whenever an epoch starts. Without
            it, an epoch starts by the number given to ``set_epoch``, which Lightning calls.
        rank: of this process.
        world: number of processes.
        ended_after: batches after which the Trainer ends an epoch, where that is before ``steps``.

    Raises:
        InputError: if a global batch cannot be divided over the processes.
    """

    def __init__(
        self,
        labeled: Stream,
        unlabeled: Stream | None,
        batch_size: int,
        unlabeled_batch_size: int,
        steps: int,
        taken: Callable[[], int] | None = None,
        rank: int = 0,
        world: int = 1,
        ended_after: int | None = None,
    ) -> None:
        super().__init__(cast("Dataset[Any]", range(steps)), world, rank, shuffle=False)
        for name, size in (
            ("batch_size", batch_size),
            ("batch_size * unlabeled_ratio", unlabeled_batch_size),
        ):
            if size % world:
                raise InputError(
                    f"{name} is {size}, which cannot be divided over {world} devices; change either",
                    option="data.batch_size",
                )
        self.labeled, self.unlabeled = labeled, unlabeled
        self.batch_size, self.unlabeled_batch_size = batch_size, unlabeled_batch_size
        self.steps, self.taken = steps, taken
        self.epoch_steps = steps if ended_after is None else max(1, min(steps, ended_after))

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self.steps

    def __iter__(self) -> Iterator[BatchKeys]:
        """Yield the keys of the rest of the epoch, one a batch: a worker builds each batch whole."""
        start = self.epoch * self.epoch_steps if self.taken is None else self.taken()
        for batch in range(start, start + self.epoch_steps - start % self.epoch_steps):
            yield BatchKeys(
                self._draws(self.labeled, batch, self.batch_size),
                None
                if self.unlabeled is None
                else self._draws(self.unlabeled, batch, self.unlabeled_batch_size),
            )

    def _draws(self, stream: Stream, batch: int, size: int) -> Draws:
        draw = np.arange(batch * size + self.rank, (batch + 1) * size, self.num_replicas, dtype=np.int64)
        return Draws(stream[draw], draw)


class EvaluationSampler(DistributedSampler[Any]):
    """Yields each index once, in order, in batches; every rank gets the same number of equally large batches.

    Where the faces do not suffice the index is -1: a filler that no metric counts, because ranks that stop
    early would leave the others waiting.

    Args:
        size: faces of the set.
        batch_size: largest batch of one rank.
        rank: of this process.
        world: number of processes.
    """

    def __init__(self, size: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        super().__init__(cast("Dataset[Any]", range(size)), world, rank, shuffle=False)
        self.size = size
        self.batch_size = max(1, min(batch_size, -(-size // world)))

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-self.size // (self.batch_size * self.num_replicas))

    def __iter__(self) -> Iterator[Indices]:
        """Yield the (B,) indices of each batch."""
        for batch in range(len(self)):
            start = (batch * self.num_replicas + self.rank) * self.batch_size
            index = np.arange(start, start + self.batch_size)
            if self.num_replicas == 1:  # alone, the last batch may be short
                yield index[index < self.size]
            else:
                yield np.where(index < self.size, index, -1)


def _key(*numbers: int) -> Indices:
    """Mix small integers into the 128-bit key of a Philox generator."""
    words = np.random.SeedSequence(numbers).generate_state(2, np.uint64)
    return words.astype(np.uint64)
