"""Split manifests: which faces are labeled, unlabeled, validated on and tested on.

A manifest names faces, counts them per emotion and carries a hash of its own content: two runs with the same
hash saw the same faces. The same request on the same data set gives the same bytes on any machine. Labels are
drawn by ranking the faces of an emotion by ``sha256("<seed>/<name>")`` and taking the first: it depends on
no random number generator, no library version and no order of rows. It also nests the budgets of one seed:
the labeled faces of a smaller budget are among those of a larger one, wherever no emotion gets fewer.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import blake2b, sha256
from itertools import combinations
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.base import ArrayImages, DataError, Faces, require
from fer_lightning.emotions import BASIC_7, canonical
from fer_lightning.files import write_atomically
from fer_lightning.ranges import NonNegativeInt, OpenShare, PositiveInt, check_ranges

Allocation = Literal["balanced", "proportional", "ada_cm"]
Validation = Literal["official", "carved", "none"]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PARTS = ("labeled", "unlabeled", "val", "test")
"""The parts of a split; each is a sorted list of names."""
NO_EMOTION = "no_emotion"
"""Under this key a manifest counts the faces whose emotion is unknown."""
ADA_CM_LABELS = {100: (10, 15), 400: (40, 60), 1000: (100, 150), 2000: (200, 300), 4000: (250, 625)}
"""Budget -> labels of fear, of each other basic emotion (the README of Ada-CM, CVPR 2022, for RAF-DB)."""
_MAKE = "`fer-lightning splits make`"


@dataclass(frozen=True)
class SplitRequest:
    """The options of a split: the budget of labels, and what to validate on.

    Without a budget every label of the training partition is used: fully supervised. A budget counts faces by
    their most likely emotion. Faces with a label of valence and arousal alone are labeled without a budget
    and unlabeled under one, unless the data set has no emotions at all: then ``labels_total`` counts them.

    Args:
        labels_per_class: labels of each emotion: one number, or one for every emotion by name.
        labels_total: labels in all, spread over the emotions by ``allocation``.
        allocation: ``balanced``: equally, and what is left over goes to the first emotions of the taxonomy,
            one each; ``proportional``: as frequent as in training, by largest remainder (ties: order of the
            taxonomy); ``ada_cm``: the table of Ada-CM for budgets of 100, 400, 1000, 2000 and 4000.
        seed: another seed draws other faces.
        val: ``official``: the val partition of the data set; ``carved``: out of the labeled budget, so that
            validating costs labels; ``none``. A split that uses no official val faces leaves them out.
        val_fraction: share of each emotion's labels that ``carved`` takes, rounded down.
        unlabeled_includes_labeled: whether the labeled faces are among the unlabeled ones too.
        drop_test_duplicates: before labels are drawn, leave out training faces with the very pixels of a val
            or test face. With ``carved``, one of each set of identical training faces is kept.

    Raises:
        InputError: for an option out of its range.
        DataError: if the options contradict each other.
        UnknownEmotion: if ``labels_per_class`` names none.
    """

    labels_per_class: PositiveInt | dict[str, NonNegativeInt] | None = None
    labels_total: PositiveInt | None = None
    allocation: Allocation = "balanced"
    seed: NonNegativeInt = 0
    val: Validation = "official"
    val_fraction: OpenShare = 0.2
    unlabeled_includes_labeled: bool = False
    drop_test_duplicates: bool = False

    def __post_init__(self) -> None:
        """Refuse contradictions, and call every emotion by its one name."""
        check_ranges(type(self), vars(self), "data")
        if self.labels_per_class is not None and self.labels_total is not None:
            raise DataError("give labels_per_class or labels_total, not both", option="data.labels_total")
        if self.labels_total is None and self.allocation != "balanced":
            raise DataError(
                f"allocation is {self.allocation}, which spreads labels_total: give labels_total",
                option="data.labels_total",
            )
        if isinstance(self.labels_per_class, dict):
            named = {canonical(emotion): labels for emotion, labels in self.labels_per_class.items()}
            if len(named) < len(self.labels_per_class):
                raise DataError(
                    f"labels_per_class names an emotion twice: {', '.join(self.labels_per_class)}",
                    option="data.labels_per_class",
                )
            if min(named.values(), default=0) < 0 or not sum(named.values()):
                raise DataError(
                    f"labels_per_class is {named}; it must be at least 0 for each emotion and 1 in all; "
                    "leave it out to use every label",
                    option="data.labels_per_class",
                )
            object.__setattr__(self, "labels_per_class", named)


@dataclass(frozen=True)
class Split:
    """A manifest: made by ``make_split``, stored by ``save``, turned into rows of an index by ``rows``."""

    dataset: str
    """``Faces.dataset`` of the faces it was made from."""
    taxonomy: tuple[str, ...]
    """The emotions of those faces, in their order."""
    request: SplitRequest
    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    """Part -> emotion (or ``NO_EMOTION``) -> number of faces. That of ``unlabeled`` is hidden truth."""
    sha256: str
    """Hash of everything above, in hexadecimal."""

    def digest(self) -> str:
        """Return the hash of the content as it is now; differs from ``sha256`` if the manifest was edited."""
        content = self._content()
        del content["sha256"]
        return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the manifest as JSON: keys sorted and one name a line, fit for a diff."""
        return json.dumps(self._content(), sort_keys=True, indent=0, separators=(",", ": ")) + "\n"

    def save(self, path: Path) -> None:
        """Write the manifest, making its folder if need be.

        Raises:
            NotWritten: if that fails.
        """
        with write_atomically(path) as stream:
            stream.write(self.to_json())

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Read a manifest.

        Raises:
            DataError: if the file is missing or is no manifest; ``rows`` checks whether it was edited.
        """
        text = require(path, "a split manifest").read_bytes()
        try:
            content = json.loads(text)
            content |= {name: tuple(content[name]) for name in ("taxonomy", *PARTS)}
            classes = (*content["taxonomy"], NO_EMOTION)
            content["counts"] = {part: {c: content["counts"][part][c] for c in classes} for part in PARTS}
            content["request"] = SplitRequest(**content["request"])
            return cls(**content)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is no split manifest ({error!r}); make one with {_MAKE}") from error

    def rows(self, faces: Faces) -> dict[str, Rows]:
        """Return part -> (n,) int64 rows of ``faces``, in the order of the part's names.

        Raises:
            DataError: if the manifest was edited, is of another data set, names faces this one lacks, or has
                a face in two parts.
        """
        rows = find_rows(self, faces)
        for problem in mismatches(self, faces) or missing_faces(self, rows) or overlaps(self):
            raise DataError(problem)
        return rows

    def _content(self) -> dict[str, Any]:
        return vars(self) | {"request": vars(self.request)}


def make_split(faces: Faces, request: SplitRequest) -> Split:
    """Choose the faces of every part.

    Training faces that are not drawn, and those of partition ``unlabeled``, are the unlabeled ones. ``val``
    and ``test`` hold the labeled faces of these partitions: on others nothing can be measured.

    Raises:
        DataError: if the faces do not suffice; the message names the emotion, and how many there are.
    """
    if not request.drop_test_duplicates:
        return draw_split(faces, request, np.arange(len(faces)))
    identity, unreadable = identify(faces)
    if unreadable:
        raise DataError(
            f"{len(unreadable):,} images cannot be read, such as: {next(iter(unreadable.values()))}"
        )
    return draw_split(faces, request, identity)


def draw_split(faces: Faces, request: SplitRequest, identity: Rows) -> Split:
    """Choose the faces of every part.

    Args:
        faces: to choose from.
        request: the budget and the rest.
        identity: (N,) of ``identify``; read only where duplicates are dropped.

    Raises:
        DataError: if the faces do not suffice.
    """
    known = (faces.label >= 0) | ~np.isnan(faces.valence_arousal).any(1)
    val, test = (np.flatnonzero(known & (faces.partition == part)) for part in ("val", "test"))
    if request.val != "official":
        val = val[:0]
    elif not len(val):
        raise DataError(
            f"{faces.dataset} has no val partition with labels: set val to carved, which takes part of the "
            "labeled budget, or to none",
            option="data.val",
        )
    training = (faces.partition == "train") | (faces.partition == "unlabeled")
    labeled_in_data = known & (faces.partition == "train")
    if request.drop_test_duplicates:
        training &= ~np.isin(identity, identity[np.concatenate([val, test])])
        if request.val == "carved":  # what will be carved is not known yet, so no two may be alike
            training &= _one_of_each(faces, training, labeled_in_data, identity)
    ranked = _ranked(faces, np.flatnonzero(training & labeled_in_data), request.seed)
    if not len(ranked):
        raise DataError(f"{faces.dataset} has no labeled training faces")
    budget = _budget(faces, request, count_emotions(faces, ranked))

    chosen, carved = [], []
    for label, emotion in [*enumerate(faces.taxonomy.emotions), (-1, NO_EMOTION)]:
        drawn = ranked[faces.label[ranked] == label][: budget.get(emotion, 0)]
        goes_to_val = _spread(len(drawn), request.val_fraction) & (request.val == "carved")
        chosen.append(drawn[~goes_to_val])
        carved.append(drawn[goes_to_val])
    labeled, val = np.concatenate(chosen), np.concatenate([val, *carved])
    if request.val == "carved" and not len(val):
        raise DataError(
            f"val is carved, but {request.val_fraction} of each of {budget}, rounded down, is nothing: ask "
            "for more labels or a larger val_fraction, or set val to none",
            option="data.val_fraction",
        )
    training[val] = False
    training[labeled] &= request.unlabeled_includes_labeled

    rows = dict(zip(PARTS, (labeled, np.flatnonzero(training), val, test), strict=True))
    names = {part: tuple(sorted(faces.names[found].tolist())) for part, found in rows.items()}
    counts = {part: count_emotions(faces, found) for part, found in rows.items()}
    split = Split(faces.dataset, faces.taxonomy.emotions, request, counts=counts, sha256="", **names)
    return replace(split, sha256=split.digest())


def _ranked(faces: Faces, rows: Rows, seed: int) -> Rows:
    """Order rows by seed and name alone."""
    names = faces.names[rows].tolist()  # as the system gave them: not always valid Unicode
    digests = [sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest() for name in names]
    return rows[sorted(range(len(rows)), key=digests.__getitem__)]


def _spread(n: int, fraction: float) -> Mask:
    """Choose floor(n * fraction) of n ranks, evenly spread: both sides of a carved budget are nested too."""
    exact = Fraction(str(fraction))
    taken = [rank * exact.numerator // exact.denominator for rank in range(n + 1)]
    return np.diff(taken).astype(bool)


def _one_of_each(faces: Faces, training: Mask, labeled: Mask, identity: Rows) -> Mask:
    """Choose one of each set of identical training faces: a labeled one if there is one, then by name."""
    rows = np.flatnonzero(training)
    rows = rows[np.lexsort((faces.names[rows], ~labeled[rows]))]
    chosen = np.zeros(len(faces), bool)
    chosen[rows[np.unique(identity[rows], return_index=True)[1]]] = True
    return chosen


def _budget(faces: Faces, request: SplitRequest, available: Mapping[str, int]) -> Mapping[str, int]:
    """Return the number of labels to draw of each emotion."""
    emotions = faces.taxonomy.emotions
    if request.labels_per_class is None and request.labels_total is None:
        return available
    if not emotions and request.labels_total is None:
        raise DataError(
            f"{faces.dataset} has no emotions to count labels_per_class by: give labels_total",
            option="data.labels_total",
        )
    if not emotions:
        budget = {NO_EMOTION: request.labels_total or 0}
    elif request.labels_total is not None:
        spread = {"balanced": _balanced, "proportional": _proportional, "ada_cm": _ada_cm}[request.allocation]
        budget = spread(request.labels_total, {emotion: available[emotion] for emotion in emotions})
    elif isinstance(request.labels_per_class, dict):
        budget = request.labels_per_class
        if set(budget) != set(emotions):
            raise DataError(
                f"labels_per_class names {', '.join(budget)}, but {faces.dataset} has {', '.join(emotions)}: "
                "name each of these, with 0 for one that gets no label",
                option="data.labels_per_class",
            )
    else:
        budget = dict.fromkeys(emotions, request.labels_per_class or 0)
    lacking = [
        f"{wanted:,} of {emotion}, of which there are {available[emotion]:,}"
        for emotion, wanted in budget.items()
        if wanted > available[emotion]
    ]
    if lacking:
        option = "data.labels_total" if request.labels_per_class is None else "data.labels_per_class"
        raise DataError(
            f"{faces.dataset}: the budget asks for {'; '.join(lacking)} in training: ask for fewer",
            option=option,
        )
    return budget


def _balanced(total: int, available: Mapping[str, int]) -> dict[str, int]:
    share, left = divmod(total, len(available))
    return {emotion: share + (place < left) for place, emotion in enumerate(available)}


def _proportional(total: int, available: Mapping[str, int]) -> dict[str, int]:
    everything = max(sum(available.values()), 1)
    budget = {emotion: total * n // everything for emotion, n in available.items()}
    by_remainder = sorted(available, key=lambda emotion: -(total * available[emotion] % everything))
    for emotion in by_remainder[: total - sum(budget.values())]:
        budget[emotion] += 1
    return budget


def _ada_cm(total: int, available: Mapping[str, int]) -> dict[str, int]:
    if set(available) != set(BASIC_7.emotions):
        needed, given = ", ".join(BASIC_7.emotions), ", ".join(available)
        raise DataError(
            f"allocation ada_cm is for {needed}; the data set has {given}: choose another allocation",
            option="data.allocation",
        )
    if total not in ADA_CM_LABELS:
        budgets = ", ".join(map(str, ADA_CM_LABELS))
        raise DataError(
            f"allocation ada_cm has no labels_total of {total}; it has {budgets}", option="data.labels_total"
        )
    fear, other = ADA_CM_LABELS[total]
    return {emotion: fear if emotion == "fear" else other for emotion in available}


def count_emotions(faces: Faces, rows: Rows) -> dict[str, int]:
    """Count faces per emotion."""
    classes = (*faces.taxonomy.emotions, NO_EMOTION)
    counts = np.bincount(faces.label[rows] % len(classes), minlength=len(classes))  # -1 becomes the last
    return dict(zip(classes, counts.tolist(), strict=True))


def find_rows(split: Split, faces: Faces) -> dict[str, Rows]:
    """Look up the names of every part; -1 stands for a face the data set lacks."""
    parts = [getattr(split, part) for part in PARTS]
    place = {name: row for row, name in enumerate(faces.names.tolist())}
    rows = np.array([place.get(name, -1) for part in parts for name in part], np.int64)
    return dict(zip(PARTS, np.split(rows, np.cumsum([len(part) for part in parts[:-1]])), strict=True))


def identify(faces: Faces) -> tuple[Rows, dict[int, str]]:
    """Return (N,) int64, equal for rows of identical pixels, and row -> why its image cannot be read."""
    images, unreadable = faces.images, {}
    # As they are stored, where they are in memory: a third of the bytes if they are gray.
    stored = images.pixels.numpy() if isinstance(images, ArrayImages) else images

    def key(row: int) -> str:
        try:
            pixels = stored[row]
        except (OSError, ValueError) as error:
            unreadable[row] = str(error)
            return f"unreadable {row}"
        return f"{pixels.shape} {blake2b(pixels.tobytes(), digest_size=16).hexdigest()}"

    if stored is not images:  # no files to read: not worth threads, beside which workers would be forked
        keys = [key(row) for row in range(len(faces))]
    else:
        with ThreadPool() as pool:  # decoding and hashing work without Python's lock
            keys = pool.map(key, range(len(faces)))
    return np.unique(keys, return_inverse=True)[1].astype(np.int64), dict(sorted(unreadable.items()))


def mismatches(split: Split, faces: Faces) -> list[str]:
    """Return why the manifest is not one of these faces: another data set, other emotions, or edited."""
    problems = []
    if split.dataset != faces.dataset:
        problems.append(
            f"the split was made for the dataset {split.dataset!r}, and this one is {faces.dataset!r}: give "
            f"the dataset it was made for, or make a split of this one with {_MAKE}"
        )
    if split.taxonomy != faces.taxonomy.emotions:
        theirs, ours = (", ".join(emotions) for emotions in (split.taxonomy, faces.taxonomy.emotions))
        problems.append(
            f"the split was made for the emotions {theirs}, and {faces.dataset!r} has {ours}: give the "
            f"dataset the taxonomy it had, or make the split again with {_MAKE}"
        )
    if (digest := split.digest()) != split.sha256:
        problems.append(
            f"the split of {split.dataset!r} was edited after it was made: its sha256 is given "
            f"as {split.sha256:.12}..., and it is {digest:.12}...: make it again with {_MAKE}"
        )
    return problems


def missing_faces(split: Split, rows: Mapping[str, Rows]) -> list[str]:
    """Return which parts name faces that the data set lacks, by rows of ``find_rows``."""
    return [
        f"{part}: {len(gone):,} of {len(rows[part]):,} faces are not in the dataset {split.dataset!r}, such "
        f"as {getattr(split, part)[gone[0]]!r}: complete the data, or make the split again with {_MAKE}"
        for part in PARTS
        if len(gone := np.flatnonzero(rows[part] < 0))
    ]


def overlaps(split: Split) -> list[str]:
    """Return which names are in a part more than once, or in two parts."""
    names = {part: set(getattr(split, part)) for part in PARTS}
    problems = [
        f"{part}: {repeated:,} names are there more than once"
        for part in PARTS
        if (repeated := len(getattr(split, part)) - len(names[part]))
    ]
    allowed = {("labeled", "unlabeled")} if split.request.unlabeled_includes_labeled else set()
    return problems + [
        f"{len(shared):,} faces are in {one} and in {other}, such as {min(shared)!r}"
        for one, other in combinations(PARTS, 2)
        if (shared := names[one] & names[other]) and (one, other) not in allowed
    ]
