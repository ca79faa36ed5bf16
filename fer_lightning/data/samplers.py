"""Endless streams of faces, as pure functions of (seed, position).

A stream goes through one fresh permutation after another. Position p of a stream names a face and is itself
the number of the draw, from which the views take their randomness; so nothing about sampling has to be saved
but how many batches were taken, and it is the same for any number of workers and ranks.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fer_lightning.errors import InputError

Positions = npt.NDArray[np.int64]


class Draws(NamedTuple):
    """What one rank reads of one stream for one batch."""

    item: Positions
    """(B,) which item of the pool."""
    draw: Positions
    """(B,) the position in the global stream: no two draws of a run share it."""


class BatchKeys(NamedTuple):
    """What a worker needs to build one batch."""

    labeled: Draws
    unlabeled: Draws | None


class EndlessStream:
    """Item of a pool by position, permutation after permutation.

    Args:
        size: items in the pool.
        seed: of the permutations.
        stream: number that keeps streams of one seed apart.
    """

    def __init__(self, size: int, seed: int, stream: int) -> None:
        if size < 1:
            raise InputError("cannot draw from an empty pool")
        self.size = size
        self._key = (seed, stream)
        self._permutations: dict[int, Positions] = {}

    def __getitem__(self, positions: Positions) -> Positions:
        """Return the items at (B,) positions of the stream."""
        rounds, offsets = np.divmod(positions, self.size)
        items = np.empty_like(positions)
        needed = np.unique(rounds)
        self._permutations = {r: p for r, p in self._permutations.items() if r >= needed[0]}
        for number in needed.tolist():
            if number not in self._permutations:
                # Sorting random words rather than Generator.permutation: the words of Philox are fixed for
                # ever, the algorithm of permutation may change with NumPy.
                words = np.random.Philox(key=_key(*self._key, number)).random_raw(self.size)
                self._permutations[number] = np.argsort(words, kind="stable")
            here = rounds == number
            items[here] = self._permutations[number][offsets[here]]
        return items


class BalancedStream:
    """Like ``EndlessStream``, but every run of C positions holds one item of each of the C classes.

    Within a class, items again come permutation after permutation, so a rare face returns sooner than a
    common one.

    Args:
        labels: (N,) class of each item, all >= 0; classes without items do not take part.
        seed: of the permutations.
        stream: number that keeps streams of one seed apart.
    """

    def __init__(self, labels: Positions, seed: int, stream: int) -> None:
        present = np.unique(labels)
        if not len(present) or present[0] < 0:
            raise InputError("class-balanced sampling needs a class for every labeled face")
        self.size = len(labels)
        self._members = [np.flatnonzero(labels == c) for c in present]
        # Stream numbers of the classes start far above those of whole streams.
        self._streams = [
            EndlessStream(len(members), seed, stream + 1000 * number)
            for number, members in enumerate(self._members, start=1)
        ]
        self._order = EndlessStream(len(present), seed, stream)

    def __getitem__(self, positions: Positions) -> Positions:
        """Return the items at (B,) positions of the stream."""
        classes = self._order[positions]
        occurrence = positions // len(self._members)
        items = np.empty_like(positions)
        for number, (members, stream) in enumerate(zip(self._members, self._streams, strict=True)):
            here = classes == number
            if here.any():
                items[here] = members[stream[occurrence[here]]]
        return items


Stream = EndlessStream | BalancedStream


class TrainingSampler:
    """Yields the keys of one epoch's batches for one rank.

    Rank r of W takes positions r, r + W, ... of each global batch, so all ranks together read every position
    once.

    Args:
        labeled: stream of labeled faces.
        unlabeled: stream of unlabeled faces, None for a method that needs none.
        batch_size: labeled faces of a global batch.
        unlabeled_batch_size: unlabeled faces of a global batch.
        steps: batches of an epoch.
        taken: returns how many batches of the run were taken before; read whenever an epoch starts.
        rank: of this process.
        world: number of processes.
    """

    def __init__(
        self,
        labeled: Stream,
        unlabeled: Stream | None,
        batch_size: int,
        unlabeled_batch_size: int,
        steps: int,
        taken: Callable[[], int],
        rank: int = 0,
        world: int = 1,
    ) -> None:
        for name, size in (("batch_size", batch_size), ("batch_size * mu", unlabeled_batch_size)):
            if size % world:
                raise InputError(
                    f"a global {name} of {size} cannot be divided over {world} devices; change either"
                )
        self.labeled, self.unlabeled = labeled, unlabeled
        self.batch_size, self.unlabeled_batch_size = batch_size, unlabeled_batch_size
        self.steps, self.taken, self.rank, self.world = steps, taken, rank, world

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self.steps

    def __iter__(self) -> Iterator[BatchKeys]:
        """Yield what is left of the epoch, a key a batch: a worker builds each batch whole."""
        start = self.taken()
        for batch in range(start, start + self.steps - start % self.steps):
            yield BatchKeys(
                self._draws(self.labeled, batch, self.batch_size),
                None
                if self.unlabeled is None
                else self._draws(self.unlabeled, batch, self.unlabeled_batch_size),
            )

    def _draws(self, stream: Stream, batch: int, size: int) -> Draws:
        draw = np.arange(batch * size + self.rank, (batch + 1) * size, self.world, dtype=np.int64)
        return Draws(stream[draw], draw)


class EvaluationSampler:
    """Yields each face once, in order, in batches; every rank gets the same number of equally large batches.

    Where the faces do not suffice the position is -1: a filler that no metric counts, because ranks that
    stop early would leave the others waiting.
    """

    def __init__(self, size: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.size, self.rank, self.world = size, rank, world
        self.batch_size = max(1, min(batch_size, -(-size // world)))

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-self.size // (self.batch_size * self.world))

    def __iter__(self) -> Iterator[Positions]:
        """Yield the (B,) positions of each batch."""
        for batch in range(len(self)):
            start = (batch * self.world + self.rank) * self.batch_size
            positions = np.arange(start, start + self.batch_size)
            if self.world == 1:  # alone, the last batch may be short
                yield positions[positions < self.size]
            else:
                yield np.where(positions < self.size, positions, -1)


def _key(*numbers: int) -> Positions:
    """Mix small integers into the 128-bit key of a Philox generator."""
    words = np.random.SeedSequence(numbers).generate_state(2, np.uint64)
    return words.astype(np.uint64)
