import pytest

from fer_lightning.emotions import (
    AFF_WILD2,
    AFFECTNET_7,
    AFFECTNET_8,
    BASIC_7,
    BASIC_8,
    CK_PLUS,
    FER2013,
    FERPLUS,
    RAF_DB,
    SFEW,
    TAXONOMIES,
    Taxonomy,
    UnknownEmotion,
    canonical,
    taxonomy,
)


@pytest.mark.parametrize(
    ("written", "emotion"),
    [
        ("Happy", "happiness"),
        (" joy ", "happiness"),
        ("HAPPINESS", "happiness"),
        ("angry", "anger"),
        ("Fearful", "fear"),
        ("sad", "sadness"),
        ("surprised", "surprise"),
        ("NE", "neutral"),
        ("contemptuous", "contempt"),
        ("AF", "fear"),
        ("suprise", "surprise"),
        ("neural", "neutral"),
    ],
)
def test_synonyms_name_one_emotion(written, emotion):
    assert canonical(written) == emotion


@pytest.mark.parametrize("written", ["", "bored", "3", "happy face"])
def test_other_words_are_no_emotions(written):
    with pytest.raises(UnknownEmotion, match=repr(written)):
        canonical(written)


# The numbers of each data set as its own documentation gives them (RAF-DB counts from 1).
@pytest.mark.parametrize(
    ("order", "numbers"),
    [
        (FER2013, {"angry": 0, "disgust": 1, "fear": 2, "happy": 3, "sad": 4, "surprise": 5, "neutral": 6}),
        (
            FERPLUS,
            {
                "neutral": 0,
                "happiness": 1,
                "surprise": 2,
                "sadness": 3,
                "anger": 4,
                "disgust": 5,
                "fear": 6,
                "contempt": 7,
            },
        ),
        (RAF_DB, {"surprise": 0, "fear": 1, "disgust": 2, "happy": 3, "sad": 4, "angry": 5, "neutral": 6}),
        (
            AFFECTNET_8,
            {
                "neutral": 0,
                "happy": 1,
                "sad": 2,
                "surprise": 3,
                "fear": 4,
                "disgust": 5,
                "anger": 6,
                "contempt": 7,
            },
        ),
        (SFEW, {"Angry": 0, "Disgust": 1, "Fear": 2, "Happy": 3, "Neutral": 4, "Sad": 5, "Surprise": 6}),
        (
            CK_PLUS,
            {
                "neutral": 0,
                "anger": 1,
                "contempt": 2,
                "disgust": 3,
                "fear": 4,
                "happiness": 5,
                "sadness": 6,
                "surprise": 7,
            },
        ),
        (
            AFF_WILD2,
            {"neutral": 0, "anger": 1, "disgust": 2, "fear": 3, "happiness": 4, "sadness": 5, "surprise": 6},
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_each_data_set_numbers_as_it_says(order, numbers):
    assert len(order) == len(numbers)
    assert {name: order.index(name) for name in numbers} == numbers


def test_an_emotion_outside_the_taxonomy_is_an_error_that_names_both():
    with pytest.raises(UnknownEmotion, match=r"'Contempt'.*basic7"):
        BASIC_7.index("Contempt")


@pytest.mark.parametrize("one", TAXONOMIES.values(), ids=TAXONOMIES)
@pytest.mark.parametrize("other", TAXONOMIES.values(), ids=TAXONOMIES)
def test_a_map_between_taxonomies_keeps_names(one, other):
    if not set(one.emotions) <= set(other.emotions):
        with pytest.raises(UnknownEmotion, match="contempt"):
            one.columns_in(other)
        return
    columns = one.columns_in(other)
    assert tuple(other.emotions[column] for column in columns) == one.emotions


def test_a_map_is_by_name_where_positions_differ():
    assert AFFECTNET_7.columns_in(RAF_DB) == [6, 3, 4, 0, 1, 2, 5]


def test_a_taxonomy_by_name_or_of_ones_own():
    assert taxonomy("basic8") is BASIC_8
    own = taxonomy(["happy", "sad", "Neutral"])
    assert own.emotions == ("happiness", "sadness", "neutral")
    assert own.index("joy") == 0


def test_an_unknown_taxonomy_is_an_error_that_lists_those_there_are():
    with pytest.raises(ValueError, match=r"'basic9'.*raf_db"):
        taxonomy("basic9")


@pytest.mark.parametrize("emotions", [["happy", "bored"], ["happy", "joy"]], ids=["unknown", "twice"])
def test_a_taxonomy_holds_distinct_emotions(emotions):
    with pytest.raises(ValueError, match=r"bored|twice"):
        taxonomy(emotions)


def test_a_taxonomy_is_written_in_canonical_names():
    with pytest.raises(UnknownEmotion, match="'happiness' for 'happy'"):
        Taxonomy("mine", ("happy", "sadness"))


def test_a_taxonomy_without_emotions_keeps_the_order_of_the_others():
    left = BASIC_8.without(["disgust", "contempt"])
    assert left.emotions == ("anger", "fear", "happiness", "sadness", "surprise", "neutral")
    assert left.name == "basic8-without-disgust-without-contempt"
    assert BASIC_7.without(["contempt"]) == BASIC_7
