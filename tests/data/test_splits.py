import hashlib
import json
import os
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

from fer_lightning.data.datasets.base import ArrayImages, DataError, Faces, one_hot
from fer_lightning.data.split_checks import verify_split
from fer_lightning.data.splits import ADA_CM_LABELS, NO_EMOTION, PARTS, Split, SplitRequest, make_split
from fer_lightning.emotions import BASIC_7, RAF_DB, Taxonomy, UnknownEmotion
from fer_lightning.errors import InputError

THREE = Taxonomy("three", ("fear", "anger", "neutral"))
GOLDEN_SHA256 = "71c8d6d296a2cccbdc7a4684b1aac1027e161726d09081e6130bde75be0d4725"
GOLDEN_BYTES = "5d7a0a2f49210d9215e6dc01cf58f264d839baeb6aee88e94eb200f0e1fd3528"
FER2013_SHA256 = "667ba8093bdce029d4042f27aca6fad827bd8509d715ddb7b5250f6a82b06a0f"
"""Of 100 labels per class with seed 0."""


def small_faces() -> Faces:
    """24 train (12 fear, 7 anger, 3 neutral, 2 without a label), 3 unlabeled, 4 val (1 without), 3 test."""
    partition = ["train"] * 24 + ["unlabeled"] * 3 + ["val"] * 4 + ["test"] * 3
    label = [0] * 12 + [1] * 7 + [2] * 3 + [-1] * 2 + [-1] * 3 + [0, 1, 2, -1] + [0, 1, 2]
    n = len(label)
    return Faces(
        dataset="small",
        taxonomy=THREE,
        names=np.array([f"{part}/{i:02d}.jpg" for i, part in enumerate(partition)]),
        partition=np.array(partition),
        emotion=one_hot(label, 3),
        images=ArrayImages(np.arange(n * 4, dtype=np.uint8).reshape(n, 2, 2)),
    )


def faces_of(label, taxonomy=BASIC_7, **columns) -> Faces:
    n = len(label)
    values = {
        "names": np.array([f"{i:05d}" for i in range(n)]),
        "partition": np.full(n, "train"),
        "images": ArrayImages(np.arange(n * 4, dtype=np.uint32).view(np.uint8).reshape(n, 4, 4)),
    } | columns
    return Faces(dataset="many", taxonomy=taxonomy, emotion=one_hot(label, len(taxonomy)), **values)


def permuted(faces: Faces, seed: int = 0) -> Faces:
    order = np.random.default_rng(seed).permutation(len(faces))
    return Faces(
        dataset=faces.dataset,
        taxonomy=faces.taxonomy,
        names=faces.names[order],
        partition=faces.partition[order],
        emotion=faces.emotion[order],
        images=ArrayImages(faces.images.pixels[order]),
        valence_arousal=faces.valence_arousal[order],
        subject=faces.subject[order],
    )


def labels_of(faces: Faces, names) -> list[int]:
    where = {name: row for row, name in enumerate(faces.names.tolist())}
    return [int(faces.label[where[name]]) for name in names]


def messages(findings, severity) -> list[str]:
    return [finding.message for finding in findings if finding.severity == severity]


def rehashed(split: Split, **changes) -> Split:
    """A manifest that was changed, with the hash of the change."""
    changed = replace(split, **changes)
    return replace(changed, sha256=changed.digest())


# --- the draw ---


def test_the_bytes_of_a_manifest_never_change(tmp_path):
    split = make_split(small_faces(), SplitRequest(labels_per_class=3, seed=5))
    split.save(tmp_path / "split.json")
    assert split.sha256 == GOLDEN_SHA256
    assert hashlib.sha256((tmp_path / "split.json").read_bytes()).hexdigest() == GOLDEN_BYTES


def test_the_order_of_rows_does_not_matter():
    faces = small_faces()
    for request in (
        SplitRequest(labels_per_class=3),
        SplitRequest(labels_total=10, allocation="proportional", val="carved", drop_test_duplicates=True),
    ):
        expected = make_split(faces, request).to_json()
        assert [make_split(permuted(faces, seed), request).to_json() for seed in range(3)] == [expected] * 3


def test_the_faces_with_the_smallest_hash_are_labeled():
    faces = small_faces()
    split = make_split(faces, SplitRequest(labels_per_class=2, seed=7))
    expected = []
    for label in range(3):
        names = [str(faces.names[i]) for i in range(24) if faces.label[i] == label]
        expected += sorted(names, key=lambda name: hashlib.sha256(f"7/{name}".encode()).hexdigest())[:2]
    assert split.labeled == tuple(sorted(expected))


def test_another_seed_draws_other_faces():
    faces = small_faces()
    one, other = (make_split(faces, SplitRequest(labels_per_class=3, seed=seed)) for seed in (0, 1))
    assert one.labeled != other.labeled
    assert one.sha256 != other.sha256
    assert one.test == other.test


@pytest.mark.parametrize("val", ["official", "carved"])
def test_budgets_of_a_seed_are_nested(val):
    faces = faces_of(
        [0] * 40 + [1] * 40 + [2] * 40 + [0, 1, 2], THREE, partition=np.array(["train"] * 120 + ["val"] * 3)
    )
    splits = [make_split(faces, SplitRequest(labels_per_class=n, val=val)) for n in (5, 6, 13, 40)]
    for small, large in pairwise(splits):
        assert set(small.labeled) < set(large.labeled)
        assert set(small.val) <= set(large.val)


def test_every_face_goes_where_it_belongs():
    faces = small_faces()
    split = make_split(faces, SplitRequest(labels_per_class=3))
    parts = [set(getattr(split, part)) for part in PARTS]
    assert not any(one & other for one, other in combinations(parts, 2))
    assert labels_of(faces, split.labeled).count(0) == labels_of(faces, split.labeled).count(2) == 3
    # All training faces are used, 24 and 3 of the partition "unlabeled"; the val face without a label not.
    assert set(split.labeled) | set(split.unlabeled) == set(faces.names[:27].tolist())
    assert split.val == tuple(faces.names[27:30].tolist())
    assert split.test == tuple(faces.names[31:].tolist())
    assert split.counts["unlabeled"] == {"fear": 9, "anger": 4, "neutral": 0, NO_EMOTION: 5}
    assert all(list(getattr(split, part)) == sorted(getattr(split, part)) for part in PARTS)


def test_without_a_budget_every_label_is_used():
    split = make_split(small_faces(), SplitRequest())
    assert split.counts["labeled"] == {"fear": 12, "anger": 7, "neutral": 3, NO_EMOTION: 0}
    assert len(split.unlabeled) == 5


def test_labeled_faces_can_be_among_the_unlabeled():
    split = make_split(small_faces(), SplitRequest(labels_per_class=3, unlabeled_includes_labeled=True))
    assert len(split.unlabeled) == 27
    assert set(split.labeled) < set(split.unlabeled)


def test_a_carved_val_never_is_among_the_unlabeled():
    request = SplitRequest(
        labels_total=22, allocation="proportional", val="carved", unlabeled_includes_labeled=True
    )
    split = make_split(small_faces(), request)
    assert split.val
    assert not set(split.val) & set(split.unlabeled)


def test_a_face_of_the_unlabeled_partition_never_gives_a_label():
    faces = faces_of([0, 1, 2] * 4, THREE, partition=np.array(["train"] * 6 + ["unlabeled"] * 6))
    split = make_split(faces, SplitRequest(val="none"))
    assert split.labeled == tuple(faces.names[:6].tolist())


def test_a_name_that_is_no_valid_unicode_survives(tmp_path):
    faces = faces_of([0, 1, 2], THREE, names=np.array(["a", "b", "caf\udce9.jpg"]))
    split = make_split(faces, SplitRequest(labels_per_class=1, val="none"))
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json").rows(faces)["labeled"].tolist() == [0, 1, 2]


# --- budgets ---


@pytest.mark.parametrize(("budget", "fear", "other"), [(b, f, o) for b, (f, o) in ADA_CM_LABELS.items()])
def test_ada_cm_table(budget, fear, other):
    faces = faces_of(np.arange(7 * 625) % 7, RAF_DB)
    split = make_split(faces, SplitRequest(labels_total=budget, allocation="ada_cm", val="none"))
    assert len(split.labeled) == budget == fear + 6 * other
    assert split.counts["labeled"] == {e: fear if e == "fear" else other for e in RAF_DB.emotions} | {
        NO_EMOTION: 0
    }


def test_ada_cm_table_is_the_published_one():
    assert ADA_CM_LABELS == {
        100: (10, 15),
        400: (40, 60),
        1000: (100, 150),
        2000: (200, 300),
        4000: (250, 625),
    }


@pytest.mark.parametrize(
    ("request_", "fear", "anger", "neutral"),
    [
        (SplitRequest(labels_total=6), 2, 2, 2),
        (SplitRequest(labels_total=7), 3, 2, 2),
        (SplitRequest(labels_total=8), 3, 3, 2),
        # 12, 7 and 3 of 22: 10 labels are 5.45, 3.18 and 1.36; 4 labels are 2.18, 1.27 and 0.55.
        (SplitRequest(labels_total=10, allocation="proportional"), 6, 3, 1),
        (SplitRequest(labels_total=4, allocation="proportional"), 2, 1, 1),
        (SplitRequest(labels_total=22, allocation="proportional"), 12, 7, 3),
        (SplitRequest(labels_per_class={"afraid": 5, "angry": 0, "neutral": 1}), 5, 0, 1),
    ],
)
def test_how_a_budget_is_spread(request_, fear, anger, neutral):
    counts = make_split(small_faces(), request_).counts["labeled"]
    assert counts == {"fear": fear, "anger": anger, "neutral": neutral, NO_EMOTION: 0}


def test_proportional_ties_go_by_the_taxonomy():
    faces = faces_of([0, 0, 1, 1, 2, 2], THREE)
    counts = make_split(faces, SplitRequest(labels_total=4, allocation="proportional", val="none")).counts[
        "labeled"
    ]
    assert [counts[emotion] for emotion in THREE.emotions] == [2, 1, 1]


@pytest.mark.parametrize(
    ("labels", "fraction", "carved"),
    [(10, 0.2, 2), (9, 0.2, 1), (100, 0.29, 29), (10, 0.5, 5)],  # 100 * 0.29 is 28.999999999999996
)
def test_carving_val_costs_labels(labels, fraction, carved):
    faces = faces_of(np.arange(300) % 3, THREE)
    split = make_split(faces, SplitRequest(labels_per_class=labels, val="carved", val_fraction=fraction))
    for emotion in THREE.emotions:
        assert split.counts["val"][emotion] == carved
        assert split.counts["labeled"][emotion] == labels - carved
    assert len(split.unlabeled) == 300 - 3 * labels
    without = make_split(faces, SplitRequest(labels_per_class=labels, val="none"))
    assert set(split.labeled) | set(split.val) == set(without.labeled)


@pytest.mark.parametrize("val", ["carved", "none"])
def test_official_val_faces_that_are_not_asked_for_are_left_out(val):
    faces = small_faces()
    split = make_split(faces, SplitRequest(labels_per_class=3, val=val, val_fraction=0.4))
    assert not {name for part in PARTS for name in getattr(split, part)} & set(faces.names[27:31].tolist())


def test_soft_labels_count_as_their_most_likely_emotion():
    emotion = np.array([[0.4, 0.35, 0.25], [0.1, 0.2, 0.7], [np.nan] * 3], np.float32)
    faces = replace(faces_of([0, 0, 0], THREE), emotion=emotion)
    split = make_split(
        faces, SplitRequest(labels_per_class={"fear": 1, "anger": 0, "neutral": 1}, val="none")
    )
    assert split.labeled == ("00000", "00001")
    assert split.unlabeled == ("00002",)


def valence_faces() -> Faces:
    known = np.arange(12) < 9
    valence_arousal = np.where(known[:, None], 0.5, np.nan).astype(np.float32)
    names, partition = np.array([f"{i:02d}" for i in range(12)]), np.full(12, "train")
    images = ArrayImages(np.zeros((12, 1, 1), np.uint8))
    no_emotion = np.empty((12, 0), np.float32)
    return Faces("many", Taxonomy("none", ()), names, partition, no_emotion, images, valence_arousal)


def test_faces_with_valence_and_arousal_alone_are_counted_in_total():
    split = make_split(valence_faces(), SplitRequest(labels_total=5, val="carved"))
    assert (len(split.labeled), len(split.val), len(split.unlabeled)) == (4, 1, 7)
    assert split.counts["labeled"] == {NO_EMOTION: 4}
    assert len(make_split(valence_faces(), SplitRequest(val="none")).labeled) == 9
    with pytest.raises(DataError, match=r"no emotions .* give labels_total"):
        make_split(valence_faces(), SplitRequest(labels_per_class=2, val="none"))
    with pytest.raises(DataError, match="10 of no_emotion, of which there are 9"):
        make_split(valence_faces(), SplitRequest(labels_total=10, val="none"))


def test_a_face_without_an_emotion_is_labeled_without_a_budget_only():
    valence_arousal = np.zeros((4, 2), np.float32)
    faces = faces_of([0, 1, 2, -1], THREE, valence_arousal=valence_arousal)
    assert make_split(faces, SplitRequest(val="none")).counts["labeled"][NO_EMOTION] == 1
    assert make_split(faces, SplitRequest(labels_per_class=1, val="none")).unlabeled == ("00003",)


# --- refused requests ---


@pytest.mark.parametrize(
    ("options", "message", "option"),
    [
        ({"labels_per_class": 3, "labels_total": 9}, "not both", "labels_total"),
        ({"labels_per_class": 0}, "labels_per_class is 0", "labels_per_class"),
        ({"labels_total": -1}, "labels_total is -1", "labels_total"),
        ({"labels_per_class": {"fear": 0, "anger": 0, "neutral": 0}}, "and 1 in all", "labels_per_class"),
        ({"labels_per_class": {"fear": 3, "anger": -1, "neutral": 0}}, "at least 0", "labels_per_class"),
        ({"labels_per_class": {"fear": 3, "scared": 1}}, "an emotion twice", "labels_per_class"),
        ({"labels_per_class": 3, "allocation": "ada_cm"}, "give labels_total", "labels_total"),
        ({"val": "carved", "val_fraction": 1.0}, "val_fraction is 1.0", "val_fraction"),
        ({"seed": -1}, "seed is -1", "seed"),
    ],
)
def test_contradictory_options_are_refused(options, message, option):
    with pytest.raises(InputError, match=message) as raised:
        SplitRequest(**options)
    assert raised.value.option == f"data.{option}"


def test_an_unknown_emotion_in_a_budget_is_refused():
    with pytest.raises(UnknownEmotion, match="bored"):
        SplitRequest(labels_per_class={"bored": 3})


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (SplitRequest(labels_per_class=4), "4 of neutral, of which there are 3"),
        (
            SplitRequest(labels_total=24),
            "8 of anger, of which there are 7; 8 of neutral, of which there are 3",
        ),
        (SplitRequest(labels_total=23, allocation="proportional"), "13 of fear, of which there are 12"),
        (SplitRequest(labels_per_class={"fear": 1, "anger": 1}), "name each of these, with 0"),
        (SplitRequest(labels_per_class={e: 1 for e in BASIC_7.emotions}), "small has fear, anger, neutral"),
        (
            SplitRequest(labels_total=100, allocation="ada_cm"),
            r"ada_cm is for anger, disgust.* the data set has fear, anger, neutral",
        ),
        (SplitRequest(labels_per_class=3, val="carved"), "rounded down, is nothing"),
    ],
)
def test_what_the_faces_cannot_give_is_refused(request_, message):
    with pytest.raises(DataError, match=message):
        make_split(small_faces(), request_)


def test_a_budget_outside_the_table_of_ada_cm_is_refused():
    with pytest.raises(DataError, match="no labels_total of 70; it has 100, 400, 1000, 2000, 4000"):
        make_split(
            faces_of(np.arange(700) % 7), SplitRequest(labels_total=70, allocation="ada_cm", val="none")
        )


def test_missing_val_faces_and_missing_labels_are_named():
    faces = faces_of([0, 1, 2], THREE)
    with pytest.raises(DataError, match=r"many has no val partition .* set val to carved.* or to none"):
        make_split(faces, SplitRequest())
    with pytest.raises(DataError, match="many has no labeled training faces"):
        make_split(faces_of([-1, -1], THREE), SplitRequest(val="none"))


# --- the file ---


def test_a_manifest_survives_the_file(tmp_path):
    request = SplitRequest(labels_per_class={"neutral": 1, "fear": 2, "anger": 3}, val_fraction=0.1)
    split = make_split(small_faces(), request)
    split.save(tmp_path / "new" / "split.json")
    loaded = Split.load(tmp_path / "new" / "split.json")
    assert loaded == split
    assert loaded.to_json() == split.to_json()
    assert loaded.digest() == split.sha256


def test_rows_follow_the_names():
    faces = small_faces()
    split = make_split(faces, SplitRequest(labels_per_class=2))
    for index in (faces, permuted(faces)):
        rows = split.rows(index)
        assert list(rows) == list(PARTS)
        for part in PARTS:
            assert rows[part].dtype == np.int64
            assert tuple(index.names[rows[part]].tolist()) == getattr(split, part)


def test_rows_of_an_empty_part():
    faces = faces_of([0, 1, 2], THREE)
    rows = make_split(faces, SplitRequest(val="none")).rows(faces)
    assert [len(rows[part]) for part in PARTS] == [3, 0, 0, 0]
    assert rows["test"].dtype == np.int64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "is no split manifest"),
        (b"[1]", "is no split manifest"),
        (b'{"labeled": []}', "taxonomy"),
    ],
)
def test_a_file_that_is_no_manifest_is_named(tmp_path, content, message):
    path = tmp_path / "split.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        Split.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(DataError, match=r"split\.json does not exist; expected a split manifest"):
        Split.load(tmp_path / "split.json")


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_edited_manifest_is_refused(tmp_path):
    faces, path = small_faces(), tmp_path / "split.json"
    split = make_split(faces, SplitRequest(labels_per_class=2))
    split.save(path)
    edit(path, labeled=[*split.labeled, split.unlabeled[0]])
    with pytest.raises(DataError, match="was edited after it was made"):
        Split.load(path).rows(faces)
    assert any(
        "was edited" in message for message in messages(verify_split(Split.load(path), faces), "error")
    )


def test_a_manifest_of_other_faces_is_refused():
    faces = small_faces()
    split = make_split(faces, SplitRequest(labels_per_class=2))
    other = replace(faces, dataset="other")
    with pytest.raises(DataError, match="made for the dataset 'small', and this one is 'other'"):
        split.rows(other)
    assert len(messages(verify_split(split, other), "error")) == 1
    renumbered = replace(faces, taxonomy=Taxonomy("renumbered", ("anger", "fear", "neutral")))
    with pytest.raises(
        DataError, match="the emotions fear, anger, neutral, and 'small' has anger, fear, neutral"
    ):
        split.rows(renumbered)
    renamed = replace(faces, names=np.array(["zzz", *faces.names[1:].tolist()]))
    with pytest.raises(
        DataError, match=r"1 of \d+ faces are not in the dataset 'small', such as 'train/00.jpg'"
    ):
        split.rows(renamed)
    # Names that come after all others are not found either.
    renamed = replace(faces, names=np.array([f"a{i:02d}" for i in range(len(faces))]))
    with pytest.raises(DataError, match="labeled: 6 of 6 faces are not in the dataset 'small'"):
        split.rows(renamed)


# --- verify ---


@pytest.mark.parametrize(
    "request_",
    [
        SplitRequest(),
        SplitRequest(labels_per_class=2),
        SplitRequest(labels_per_class=2, unlabeled_includes_labeled=True),
        SplitRequest(labels_per_class=3, val="carved", val_fraction=0.4),
        SplitRequest(labels_per_class=2, drop_test_duplicates=True),
    ],
)
def test_a_sound_split_has_no_findings(request_):
    assert verify_split(make_split(small_faces(), request_), small_faces()) == []


def test_overlapping_parts_are_found():
    faces = small_faces()
    split = make_split(faces, SplitRequest(labels_per_class=2))
    leak = rehashed(split, labeled=tuple(sorted((*split.labeled, split.test[0]))))
    errors = messages(verify_split(leak, faces), "error")
    assert f"1 faces are in labeled and in test, such as {split.test[0]!r}" in errors
    twice = rehashed(split, labeled=(*split.labeled, split.labeled[0]))
    assert "labeled: 1 names are there more than once" in messages(verify_split(twice, faces), "error")
    both = rehashed(split, unlabeled=tuple(sorted((*split.unlabeled, split.labeled[0]))))
    assert any(
        "in labeled and in unlabeled" in message for message in messages(verify_split(both, faces), "error")
    )


def test_other_faces_and_numbers_than_requested_are_found():
    faces = small_faces()
    split = make_split(faces, SplitRequest(labels_per_class=2))
    fewer = rehashed(split, labeled=split.labeled[1:])
    errors = messages(verify_split(fewer, faces), "error")
    assert any(message.startswith("labeled: the manifest counts") for message in errors)
    assert f"labeled: 5 faces, where the request gives 6: 1 lacking (such as {split.labeled[0]!r})" in errors
    # Somebody who picks easier faces, and swaps them so that every number is right.
    fear = next(name for name in split.unlabeled if labels_of(faces, [name]) == [0])
    mine = next(name for name in split.labeled if labels_of(faces, [name]) == [0])
    picked = rehashed(
        split,
        labeled=tuple(sorted({*split.labeled, fear} - {mine})),
        unlabeled=tuple(sorted({*split.unlabeled, mine} - {fear})),
    )
    errors = messages(verify_split(picked, faces), "error")
    assert f"1 not due (such as {fear!r}); 1 lacking (such as {mine!r})" in errors[0]
    assert errors[0].startswith("labeled: 6 faces, where the request gives 6: ")


def test_changed_labels_and_lost_faces_are_found():
    faces = small_faces()
    split = make_split(faces, SplitRequest(labels_per_class=3))
    keep = np.array([name != split.test[0] for name in faces.names])
    fewer = replace(
        faces,
        names=faces.names[keep],
        partition=faces.partition[keep],
        emotion=faces.emotion[keep],
        images=ArrayImages(faces.images.pixels[keep]),
        **{
            column: getattr(faces, column)[keep]
            for column in ("valence_arousal", "subject", "group", "clip", "source")
        },
    )
    errors = messages(verify_split(split, fewer), "error")
    assert any("test: 1 of 3 faces are not in the dataset 'small'" in message for message in errors)
    relabeled = replace(faces, emotion=one_hot([2, *faces.label[1:].tolist()], 3))
    errors = messages(verify_split(split, relabeled), "error")
    assert any("the manifest counts" in message for message in errors)
    poorer = replace(faces, emotion=one_hot(np.where(faces.label == 2, 1, faces.label), 3))
    errors = messages(verify_split(split, poorer), "error")
    assert any("the request cannot be met" in message and "neutral" in message for message in errors)


class FragileImages:
    """Files, of which one is gone."""

    def __init__(self, images, gone):
        self.images, self.gone = images, gone

    def __len__(self):
        return len(self.images)

    def __getitem__(self, position):
        if position == self.gone:
            raise DataError("faces/gone.jpg does not decode")
        return self.images[position]


def test_a_lost_image_is_found():
    faces = small_faces()
    request = SplitRequest(labels_per_class=2)
    split = make_split(faces, request)
    broken = replace(faces, images=FragileImages(faces.images, gone=32))
    assert messages(verify_split(split, broken), "error") == [
        "test: 1 images cannot be read, such as test/32.jpg: faces/gone.jpg does not decode"
    ]
    with pytest.raises(DataError, match=r"1 images cannot be read, such as: faces/gone\.jpg does not decode"):
        make_split(broken, replace(request, drop_test_duplicates=True))


def faces_with_copies() -> Faces:
    """Row 0 (fear) is the first val face too; rows 1 (fear) and 12 (anger) both are the first test face."""
    faces = small_faces()
    pixels = faces.images.pixels.clone()
    pixels[27] = pixels[0]
    pixels[31] = pixels[12] = pixels[1]
    return replace(faces, images=ArrayImages(pixels))


def test_copies_of_val_and_test_images_are_found_and_dropped():
    faces = faces_with_copies()
    warnings = messages(verify_split(make_split(faces, SplitRequest()), faces), "warning")
    assert warnings == [
        "1 of 3 val images are byte-identical to a training image (1 to a labeled one); "
        "drop_test_duplicates leaves those out of training",
        "1 of 3 test images are byte-identical to a training image (1 to a labeled one); "
        "drop_test_duplicates leaves those out of training",
        "1 training images have identical copies under another label, 2 in all",
    ]
    dropped = make_split(faces, SplitRequest(drop_test_duplicates=True))
    assert verify_split(dropped, faces) == []
    assert dropped.counts["labeled"] == {"fear": 10, "anger": 6, "neutral": 3, NO_EMOTION: 0}
    assert len(dropped.unlabeled) == 5
    # The labels drawn are those of the faces that stay.
    assert (
        len(
            make_split(
                faces,
                SplitRequest(
                    labels_per_class={"fear": 10, "anger": 6, "neutral": 3}, drop_test_duplicates=True
                ),
            ).labeled
        )
        == 19
    )
    with pytest.raises(DataError, match="11 of fear, of which there are 10"):
        make_split(
            faces,
            SplitRequest(labels_per_class={"fear": 11, "anger": 6, "neutral": 3}, drop_test_duplicates=True),
        )


def test_copies_in_an_unlabeled_pool_count_but_not_as_labeled():
    faces = replace(faces_with_copies(), emotion=one_hot([-1, -1, *small_faces().label[2:].tolist()], 3))
    warnings = messages(
        verify_split(
            make_split(faces, SplitRequest(labels_per_class={"fear": 1, "anger": 0, "neutral": 1})), faces
        ),
        "warning",
    )
    assert [message.split(";")[0] for message in warnings] == [
        "1 of 3 val images are byte-identical to a training image (0 to a labeled one)",
        "1 of 3 test images are byte-identical to a training image (0 to a labeled one)",
    ]


def test_no_copy_of_a_carved_val_face_stays_in_training():
    # Every image is there four times: once without a label, and labeled fear, anger and neutral.
    pixels = np.repeat(np.arange(30, dtype=np.uint8), 4)[:, None, None]
    faces = faces_of([-1, 0, 1, 2] * 30, THREE, images=ArrayImages(pixels))
    request = SplitRequest(labels_total=12, allocation="proportional", val="carved", val_fraction=0.5)
    assert any(
        "val images" in message
        for message in messages(verify_split(make_split(faces, request), faces), "warning")
    )
    split = make_split(permuted(faces), replace(request, drop_test_duplicates=True))
    assert (len(split.labeled), len(split.val), len(split.unlabeled)) == (6, 6, 18)
    assert verify_split(split, faces) == []


def test_images_of_another_shape_are_no_copies():
    faces = faces_of([0, 1, 2, 0], THREE, partition=np.array(["train"] * 3 + ["test"]))
    images = [np.full(shape, i, np.uint8) for i, shape in enumerate([(2, 2, 3), (2, 2, 3), (2, 2, 3)])]
    faces = replace(faces, images=[*images, np.zeros((4, 1, 3), np.uint8)])
    assert messages(verify_split(make_split(faces, SplitRequest(val="none")), faces), "error") == []
    assert not any(
        "identical" in f.message for f in verify_split(make_split(faces, SplitRequest(val="none")), faces)
    )


def test_shared_subjects_and_absent_emotions_are_found():
    faces = small_faces()
    subject = np.full(len(faces), "")
    subject = np.array(["", "ann", "bob", *subject[3:31].tolist(), "ann", "eve", ""])
    absent = one_hot([*faces.label[:31].tolist(), 0, 1, 1], 3)
    faces = replace(faces, subject=subject, emotion=absent)
    findings = verify_split(make_split(faces, SplitRequest(labels_per_class=2)), faces)
    assert messages(findings, "error") == []
    assert messages(findings, "warning") == [
        "1 of 2 subjects in test are in training too ('ann')",
        "test has no neutral, which is labeled",
    ]


# --- FER2013 ---


@pytest.fixture(scope="module")
def fer2013() -> Faces:
    root = os.environ.get("FER_DATA_ROOT")
    if not root or not (Path(root) / "fer2013" / "fer2013_uint8.npz").exists():
        pytest.skip("set FER_DATA_ROOT to the folder that holds fer2013/fer2013_uint8.npz")
    from fer_lightning.data.datasets.fer2013 import FER2013

    return FER2013(root).load(48)


def test_fer2013_with_100_labels_a_class(fer2013, tmp_path):
    split = make_split(fer2013, SplitRequest(labels_per_class=100))
    assert {part: len(getattr(split, part)) for part in PARTS} == {
        "labeled": 700,
        "unlabeled": 28_009,
        "val": 3_589,
        "test": 3_589,
    }
    assert set(split.counts["labeled"].values()) == {100, 0}
    assert list(split.counts["test"].values()) == [491, 55, 528, 879, 594, 416, 626, 0]
    assert split.sha256 == FER2013_SHA256
    split.save(tmp_path / "split.json")
    rows = Split.load(tmp_path / "split.json").rows(fer2013)
    assert set(fer2013.partition[rows["labeled"]]) == {"train"}
    assert np.bincount(fer2013.label[rows["labeled"]]).tolist() == [100] * 7

    findings = verify_split(split, fer2013)
    assert messages(findings, "error") == []
    warnings = messages(findings, "warning")
    assert warnings[0].startswith("280 of 3,589 val images are byte-identical to a training image")
    assert warnings[1].startswith("288 of 3,589 test images are byte-identical to a training image")
    assert warnings[2] == "39 training images have identical copies under another label, 107 in all"


@pytest.mark.parametrize("val", ["official", "carved"])
def test_fer2013_without_copies(fer2013, val):
    split = make_split(fer2013, SplitRequest(labels_per_class=100, val=val, drop_test_duplicates=True))
    assert len(split.labeled) == {"official": 700, "carved": 560}[val]
    assert not any(
        "val images" in f.message or "test images" in f.message for f in verify_split(split, fer2013)
    )
