"""Labels as people write them, names or class numbers, as numbers of a taxonomy."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.base import Texts
from fer_lightning.emotions import BASIC_7, BASIC_8, Taxonomy, UnknownEmotion, canonical, taxonomy

log = logging.getLogger(__name__)

NO_LABEL, DROPPED = -1, -2
"""In place of the number of an emotion: the label is unknown; the face is to be left out."""

_CLASS_NUMBER = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)  # pandas makes 3.0 of a 3 above an empty cell


def label_numbers(
    labels: Texts,
    emotions: str | list[str] | None,
    where: Callable[[int], str],
    drop: Collection[str] | None = None,
) -> tuple[npt.NDArray[np.int64], Taxonomy]:
    """Turn names of emotions, or class numbers, into their numbers in a taxonomy.

    Args:
        labels: (N,) names, by any synonym, or positions in ``emotions``, from 0; "" is no label.
        emotions: a taxonomy's name or a list of emotions; None is ``basic7``, or ``basic8`` if contempt
            occurs.
        where: returns the place from which row ``i`` was read, for the error.
        drop: emotions, or other labels of these data, whose faces are left out; the taxonomy lacks them.

    Returns:
        (N,) numbers, ``NO_LABEL`` or ``DROPPED``, and the taxonomy.

    Raises:
        UnknownEmotion: naming the place, if a label names no emotion of the taxonomy; or if ``drop`` names
            what is neither an emotion nor a label.
    """
    full = BASIC_8 if emotions is None else taxonomy(emotions)
    dropped = {_key(name): name for name in drop or ()}
    unique, first, inverse, counts = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    numbers = np.full(len(unique), NO_LABEL)
    left_out: Counter[str] = Counter()
    for place, label in enumerate(unique.tolist()):
        try:
            name = label if _key(label) in dropped else _name(label, None if emotions is None else full)
            if name and (key := _key(name)) in dropped:
                numbers[place] = DROPPED
                left_out[key] += int(counts[place])
            elif name:
                numbers[place] = full.index(name)
        except UnknownEmotion as error:
            raise UnknownEmotion(f"{where(int(first[place]))}: {error}") from None
    _tell(dropped, left_out)
    _warn_if_counted_from_one(unique.tolist())

    # Contempt is the last of BASIC_8, so the numbers of the others are those of BASIC_7.
    chosen = BASIC_7 if emotions is None and numbers.max(initial=0) < len(BASIC_7) else full
    order = chosen.without(dropped)
    moved = np.array([order.index(name) if name in order.emotions else DROPPED for name in full.emotions])
    return np.where(numbers < 0, numbers, moved[numbers])[inverse], order


def _key(name: str) -> str:
    """Return what is equal for two names of one emotion; of another label, its lower case."""
    try:
        return canonical(name)
    except UnknownEmotion:
        return name.strip().lower()


def _name(label: str, order: Taxonomy | None) -> str:
    """Return the name of the emotion that a class number stands for, and a name as it is."""
    if not _CLASS_NUMBER.fullmatch(label):
        return label
    if order is None:
        raise UnknownEmotion(
            f"the label {label} is a class number: give `emotions`, a list of the emotions in the order of "
            "your numbers, from 0"
        )
    number = int(float(label))
    if not 0 <= number < len(order):
        raise UnknownEmotion(
            f"the label {label} is no class number from 0 to {len(order) - 1}, the positions in `emotions` "
            f"({', '.join(order.emotions)}); a face without a label has an empty one"
        )
    return order.emotions[number]


def _tell(dropped: dict[str, str], left_out: Counter[str]) -> None:
    for key, name in dropped.items():
        if key in left_out:
            log.warning("%d faces of %s are left out, as drop says", left_out[key], name)
            continue
        try:
            canonical(name)
        except UnknownEmotion as error:
            raise UnknownEmotion(f"drop: {error}; and it is no label of these faces") from None
        log.warning("drop names %s, which no face is labeled", name)


def _warn_if_counted_from_one(labels: list[str]) -> None:
    numbers = {int(float(label)) for label in labels if _CLASS_NUMBER.fullmatch(label)}
    if numbers and 0 not in numbers:
        log.warning("no label is 0, and the smallest is %d: class numbers count from 0", min(numbers))
