import numpy as np

from fer_lightning.data.datasets.expected import ALL, Variant, compare, count

WHOLE = Variant("whole", {"train": {"happiness": 3, "anger": 2, ALL: 5}, "test": {ALL: 2}})
ALIGNED = Variant("aligned", {"train": {"happiness": 3, "anger": 1, ALL: 4}, "test": {ALL: 2}})
DERIVED = Variant("derived", {"train": {ALL: 3}}, official=False)


def test_faces_are_counted_by_partition_and_emotion():
    partition = np.array(["train", "train", "train", "test", "unlabeled"])
    counted = count(partition, np.array([0, 1, 1, -1, -1]), ("happiness", "anger"))
    assert counted == {
        "train": {"happiness": 1, "anger": 2, ALL: 3},
        "test": {"happiness": 0, "anger": 0, ALL: 1},
        "unlabeled": {"happiness": 0, "anger": 0, ALL: 1},
    }


def found(happiness, anger, test=2):
    return {
        "train": {"happiness": happiness, "anger": anger, ALL: happiness + anger},
        "test": {"happiness": test, "anger": 0, ALL: test},
    }


def test_the_nearest_variant_is_compared():
    for counts, variant in ((found(3, 2), WHOLE), (found(3, 1), ALIGNED)):
        comparison = compare(counts, [WHOLE, ALIGNED, DERIVED])
        assert comparison.variant is variant
        assert comparison.warnings == []


def test_a_difference_is_named_with_both_counts():
    assert compare(found(3, 2, test=1), [WHOLE, ALIGNED]).warnings == [
        "test: found 1 / expected 2 (whole): unknown difference"
    ]
    assert compare(found(2, 3), [WHOLE]).warnings == [
        "train: happiness found 2 / expected 3, anger found 3 / expected 2 (whole): unknown difference"
    ]


def test_a_partition_that_is_not_there_is_a_difference():
    train = {"train": found(3, 2)["train"]}
    assert compare(train, [WHOLE]).warnings == ["test: found 0 / expected 2 (whole): unknown difference"]


def test_counts_of_a_copy_that_is_not_official_are_a_warning():
    comparison = compare(found(2, 1, test=9), [WHOLE, ALIGNED, DERIVED])
    assert comparison.variant is DERIVED
    assert comparison.warnings == [
        "the counts are those of derived: results are not comparable with published ones"
    ]


def test_a_copy_that_is_not_official_must_agree_wholly():
    assert compare(found(2, 0, test=0), [WHOLE, DERIVED]).variant is WHOLE


def test_an_emotion_that_was_left_out_is_not_compared():
    seven = {"train": {"happiness": 3, ALL: 5}, "test": {"happiness": 2, ALL: 2}}
    assert compare(seven, [WHOLE]).warnings == []


def test_all_partitions_may_be_counted_together():
    counts = found(3, 2)
    assert compare(counts, [Variant("frames", {ALL: {ALL: 7}})]).warnings == []
    assert compare(counts, [Variant("frames", {ALL: {ALL: 8}})]).warnings == [
        "all: found 7 / expected 8 (frames): unknown difference"
    ]
    assert set(counts) == {"train", "test"}


def test_nothing_published_is_nothing_to_warn_about():
    comparison = compare(found(1, 1), [])
    assert comparison.variant is None
    assert comparison.warnings == []
    assert {line.expected for line in comparison.lines} == {None}
