"""Checks of a split manifest against the faces on disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fer_lightning.data.datasets.base import ArrayImages, DataError, Faces
from fer_lightning.data.splits import (
    PARTS,
    Rows,
    Split,
    count_emotions,
    draw_split,
    find_rows,
    identify,
    mismatches,
    missing_faces,
    overlaps,
)


@dataclass(frozen=True)
class Finding:
    """A fault of a split: an error makes it unfit for use, a warning is to be weighed."""

    severity: Literal["error", "warning"]
    message: str


def verify_split(split: Split, faces: Faces) -> list[Finding]:
    """Compare a split with the faces on disk; reads every image once.

    Errors: a manifest that was edited or is of another data set, parts that overlap, faces that are gone or
    cannot be read, and other faces or numbers than the request gives. Warnings: val or test images, or
    subjects, that are in training too; identical training images under different labels; emotions that are
    labeled but not in val or test.
    """
    errors = mismatches(split, faces)
    if split.dataset != faces.dataset:
        return [Finding("error", errors[0])]
    rows = find_rows(split, faces)
    identity, unreadable = identify(faces)
    errors += missing_faces(split, rows) + _unreadable(faces, rows, unreadable) + overlaps(split)
    rows = {part: found[found >= 0] for part, found in rows.items()}
    errors += _deviations(split, faces, rows, identity)
    warnings = _copies(rows, identity) + _contradictions(faces, rows, identity)
    warnings += _shared_subjects(faces, rows) + _absent_emotions(faces, rows)
    return [Finding("error", error) for error in errors] + [
        Finding("warning", warning) for warning in warnings
    ]


def quick_warnings(faces: Faces, rows: Mapping[str, Rows]) -> list[str]:
    """Return what ``verify_split`` would warn of, as far as it reads no file: for the start of every run.

    Args:
        faces: of the data set; identical images are looked for where they are in memory.
        rows: part -> rows of the split, as ``Split.rows`` returns them.
    """
    warnings = _shared_subjects(faces, rows)
    if isinstance(faces.images, ArrayImages):
        warnings += _copies(rows, identify(faces)[0])
    return warnings


def _unreadable(faces: Faces, rows: Mapping[str, Rows], reasons: Mapping[int, str]) -> list[str]:
    return [
        f"{part}: {len(lost):,} images cannot be read, such as {faces.names[lost[0]]}: {reasons[lost[0]]}"
        for part in PARTS
        if (lost := [row for row in rows[part].tolist() if row in reasons])
    ]


def _deviations(split: Split, faces: Faces, rows: Mapping[str, Rows], identity: Rows) -> list[str]:
    """Compare the manifest with its own counts, and with the split that its request gives on these faces."""
    problems = [
        f"{part}: the manifest counts {split.counts.get(part)}, its faces are {counts}"
        for part in PARTS
        if split.counts.get(part) != (counts := count_emotions(faces, rows[part]))
    ]
    try:
        expected = draw_split(faces, split.request, identity)
    except DataError as error:
        return [*problems, f"the request cannot be met: {error}"]
    for part in PARTS:
        held, due = set(getattr(split, part)), set(getattr(expected, part))
        differences = [
            f"{len(names):,} {what} (such as {min(names)!r})"
            for names, what in ((held - due, "not due"), (due - held, "lacking"))
            if names
        ]
        if differences:
            problems.append(
                f"{part}: {len(held):,} faces, where the request gives {len(due):,}: {'; '.join(differences)}"
            )
    return problems


def _copies(rows: Mapping[str, Rows], identity: Rows) -> list[str]:
    """Count val and test images that are training images too."""
    found = []
    for part in ("val", "test"):
        of_labeled, of_unlabeled = (
            np.isin(identity[rows[part]], identity[rows[kind]]) for kind in ("labeled", "unlabeled")
        )
        if copies := int((of_labeled | of_unlabeled).sum()):
            found.append(
                f"{copies:,} of {len(rows[part]):,} {part} images are byte-identical to a training image "
                f"({of_labeled.sum():,} to a labeled one); drop_test_duplicates leaves those out of training"
            )
    return found


def _contradictions(faces: Faces, rows: Mapping[str, Rows], identity: Rows) -> list[str]:
    """Count identical training images under different labels."""
    training = _training(rows)
    training = training[faces.label[training] >= 0]
    pairs = np.unique(np.stack([identity[training], faces.label[training]]), axis=1)
    images, labels = np.unique(pairs[0], return_counts=True)
    copies = np.isin(identity[training], images[labels > 1]).sum()
    if not copies:
        return []
    return [
        f"{(labels > 1).sum():,} training images have identical copies under another label, {copies:,} in all"
    ]


def _shared_subjects(faces: Faces, rows: Mapping[str, Rows]) -> list[str]:
    training, *evaluated = (
        set(faces.subject[found].tolist()) - {""} for found in (_training(rows), rows["val"], rows["test"])
    )
    return [
        f"{len(shared):,} of {len(subjects):,} subjects in {part} are in training too ({min(shared)!r})"
        for part, subjects in zip(("val", "test"), evaluated, strict=True)
        if (shared := subjects & training)
    ]


def _absent_emotions(faces: Faces, rows: Mapping[str, Rows]) -> list[str]:
    labeled, *evaluated = (count_emotions(faces, rows[part]) for part in ("labeled", "val", "test"))
    return [
        f"{part} has no {emotion}, which is labeled"
        for part, counts in zip(("val", "test"), evaluated, strict=True)
        for emotion in faces.taxonomy.emotions
        if labeled[emotion] and not counts[emotion] and any(counts.values())
    ]


def _training(rows: Mapping[str, Rows]) -> Rows:
    return np.union1d(rows["labeled"], rows["unlabeled"])
