"""Emotion taxonomies: names and order of the emotions.

Every data set numbers its emotions differently, and a silent permutation is the commonest way to get a wrong
number. So emotions are named here once, a label is a name until the last moment, and one taxonomy is turned
into another by name, never by position.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fer_lightning.errors import InputError

VALENCE_AROUSAL_RANGE = (-1.0, 1.0)
"""Valence (unpleasant to pleasant) and arousal (calm to excited) both run over this range."""

# With the codes of KDEF and two misspellings of copies that people share.
_SYNONYMS = {
    "anger": ("angry", "an"),
    "disgust": ("disgusted", "di"),
    "fear": ("afraid", "fearful", "scared", "fe", "af"),
    "happiness": ("happy", "joy", "ha"),
    "sadness": ("sad", "sa"),
    "surprise": ("surprised", "su", "suprise"),
    "neutral": ("ne", "neural"),
    "contempt": ("co", "contemptuous"),
}
_CANONICAL = {name: name for name in _SYNONYMS} | {s: name for name, all_ in _SYNONYMS.items() for s in all_}


class UnknownEmotion(InputError):
    """A label is the name of no emotion of the taxonomy."""


def canonical(name: str) -> str:
    """Return the name that this package uses for an emotion: ``"Happy"`` -> ``"happiness"``.

    Raises:
        UnknownEmotion: if the name is no synonym of a known emotion; the known ones are listed.
    """
    found = _CANONICAL.get(name.strip().lower())
    if found is None:
        raise UnknownEmotion(
            f"{name!r} is not a known emotion; there are {', '.join(_SYNONYMS)} and synonyms"
        )
    return found


@dataclass(frozen=True)
class Taxonomy:
    """An ordered set of emotions: column ``i`` of a probability vector is ``emotions[i]``."""

    name: str
    emotions: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that names are canonical and distinct."""
        for emotion in self.emotions:
            if canonical(emotion) != emotion:
                raise UnknownEmotion(f"taxonomy {self.name!r}: write {canonical(emotion)!r} for {emotion!r}")
        if len(set(self.emotions)) != len(self.emotions):
            raise InputError(f"taxonomy {self.name!r} names an emotion twice: {self.emotions}")

    def __len__(self) -> int:
        """Return the number of emotions."""
        return len(self.emotions)

    def index(self, name: str) -> int:
        """Return the index of an emotion, by any of its names.

        Raises:
            UnknownEmotion: if the taxonomy does not hold it.
        """
        emotion = canonical(name)
        if emotion not in self.emotions:
            raise UnknownEmotion(
                f"{name!r} is outside the taxonomy {self.name!r} ({', '.join(self.emotions)})"
            )
        return self.emotions.index(emotion)

    def without(self, emotions: Collection[str]) -> "Taxonomy":
        """Return the taxonomy without these emotions (canonical names); one that it lacks changes nothing."""
        gone = [emotion for emotion in self.emotions if emotion in emotions]
        left = tuple(emotion for emotion in self.emotions if emotion not in emotions)
        return Taxonomy("-without-".join([self.name, *gone]), left) if gone else self

    def columns_in(self, other: "Taxonomy") -> list[int]:
        """Return, for each emotion of this taxonomy, its index in ``other``.

        Raises:
            UnknownEmotion: if ``other`` lacks one of them.
        """
        return [other.index(emotion) for emotion in self.emotions]


BASIC_7 = Taxonomy("basic7", ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"))
BASIC_8 = Taxonomy("basic8", (*BASIC_7.emotions, "contempt"))

# The order in which each data set numbers its emotions, from 0.
FER2013 = Taxonomy("fer2013", ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"))
FERPLUS = Taxonomy(
    "ferplus", ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
)
RAF_DB = Taxonomy("raf_db", ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"))
AFFECTNET_7 = Taxonomy(
    "affectnet7", ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")
)
AFFECTNET_8 = Taxonomy("affectnet8", (*AFFECTNET_7.emotions, "contempt"))

SFEW = Taxonomy("sfew", ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"))
CK_PLUS = Taxonomy(
    "ck_plus", ("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
)
AFF_WILD2 = Taxonomy("aff_wild2", ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise"))

TAXONOMIES = {
    t.name: t
    for t in (
        *(BASIC_7, BASIC_8, FER2013, FERPLUS, RAF_DB, AFFECTNET_7, AFFECTNET_8),
        *(SFEW, CK_PLUS, AFF_WILD2),
    )
}


def taxonomy(spec: str | Sequence[str]) -> Taxonomy:
    """Return the taxonomy of that name, or a custom one from a list of emotions.

    Raises:
        InputError: if the name is not one of ``TAXONOMIES``.
    """
    if isinstance(spec, str):
        if spec not in TAXONOMIES:
            raise InputError(
                f"no taxonomy {spec!r}; there are {', '.join(TAXONOMIES)}, or give a list of emotions"
            )
        return TAXONOMIES[spec]
    return Taxonomy("custom", tuple(canonical(name) for name in spec))
