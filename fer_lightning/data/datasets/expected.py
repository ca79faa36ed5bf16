"""Compares the counts of an archive with those that are published for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Counts = Mapping[str, int]
"""Emotion -> faces; the key ``ALL`` counts those of every emotion and of none."""
ALL = "all"


@dataclass(frozen=True)
class Variant:
    """One of the forms in which an archive is legitimately, or at least often, found."""

    name: str
    counts: Mapping[str, Counts]
    """Partition, or ``ALL`` for all of them -> counts, with ``ALL`` in each. Others are not compared."""
    official: bool = True
    """False for a copy whose numbers are not comparable: it is warned about even where all counts agree."""


def official(name: str, emotions: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Variant:
    """Return an official variant whose partitions are counted emotion by emotion, in the order given."""
    parts = {part: dict(zip(emotions, of_each, strict=True)) for part, of_each in counts.items()}
    return Variant(name, {part: of_each | {ALL: sum(of_each.values())} for part, of_each in parts.items()})


class Line(NamedTuple):
    """One count beside the published one."""

    partition: str
    emotion: str
    found: int
    expected: int | None


@dataclass(frozen=True)
class Comparison:
    """The counts of an archive beside those of the variant that is nearest to them."""

    variant: Variant | None
    """None if nothing is published about this form."""
    lines: tuple[Line, ...]

    @property
    def warnings(self) -> list[str]:
        """What differs from the published counts, in words."""
        if self.variant is None:
            return []
        found = []
        for part in dict.fromkeys(line.partition for line in self.lines):
            differ = [
                line
                for line in self.lines
                if line.partition == part and line.expected is not None and line.found != line.expected
            ]
            total = [line for line in differ if line.emotion == ALL]
            counts = ", ".join(
                f"{'' if total else f'{line.emotion} '}found {line.found:,} / expected {line.expected:,}"
                for line in total or differ
            )
            if counts:
                found.append(f"{part}: {counts} ({self.variant.name}): unknown difference")
        if not self.variant.official:
            found.append(
                f"the counts are those of {self.variant.name}: results are not comparable with published ones"
            )
        return found


def count(
    partition: npt.NDArray[np.str_], label: npt.NDArray[np.integer], emotions: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Count faces by partition and emotion.

    Args:
        partition: (N,) of each face.
        label: (N,) index of its emotion, -1 for none.
        emotions: names of the emotions.

    Returns:
        Partition -> emotion or ``ALL`` -> faces.
    """
    counts = {}
    for part in ("train", "val", "test", "unlabeled"):
        labels = label[partition == part]
        if len(labels):
            of_each = np.bincount(labels[labels >= 0], minlength=len(emotions)).tolist()
            counts[part] = dict(zip(emotions, of_each, strict=True)) | {ALL: len(labels)}
    return counts


def compare(found: Mapping[str, Counts], variants: Sequence[Variant]) -> Comparison:
    """Compare counts with the nearest official variant, or with another one if all of its counts agree.

    An emotion that a variant counts and the reader left out, as contempt of seven classes, is not compared.
    """
    if any(ALL in variant.counts for variant in variants):
        found = {**found, ALL: {ALL: sum(counts[ALL] for counts in found.values())}}

    def lines(variant: Variant | None) -> tuple[Line, ...]:
        published = variant.counts if variant else {}
        parts = [*found, *(part for part in published if part not in found)]
        return tuple(
            Line(part, emotion, found.get(part, {}).get(emotion, 0), published.get(part, {}).get(emotion))
            for part in parts
            for emotion in found.get(part) or published[part]
        )

    def distance(variant: Variant) -> tuple[int, int]:
        compared = [line for line in lines(variant) if line.expected is not None]
        off = [(line.emotion, abs(line.found - (line.expected or 0))) for line in compared]
        return sum(by for emotion, by in off if emotion == ALL), sum(by for _, by in off)

    candidates = [each for each in variants if each.official or not any(distance(each))]
    nearest = min(candidates, key=distance, default=None)
    return Comparison(nearest, lines(nearest))
