import logging
import shutil

import pytest
from archives import ck_plus, ck_plus_48, picture, text

from fer_lightning.data.datasets import FER2013, CKPlus
from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.ck_plus import FOLDS
from fer_lightning.data.datasets.expected import ALL
from fer_lightning.emotions import CK_PLUS

SEVEN = CK_PLUS.emotions[1:]


@pytest.fixture
def root(tmp_path):
    return ck_plus(tmp_path / "CK+")


def warnings(caplog, root, **options):
    with caplog.at_level(logging.WARNING):
        faces = CKPlus(root, **options).load(8)
    return faces, caplog.text


def emotions(faces):
    return [faces.taxonomy.emotions[label] if label >= 0 else "" for label in faces.label.tolist()]


# The official sequences


def test_the_last_frames_carry_the_emotion_of_their_sequence(root):
    faces = CKPlus(root).load(8)
    assert faces.dataset == "ck_plus-7-fold1"
    assert faces.taxonomy.emotions == SEVEN
    assert faces.names[:3].tolist() == [f"S005_001_{frame:08d}.png" for frame in (3, 4, 5)]
    assert emotions(faces)[:6:3] == ["anger", "contempt"]
    assert faces.clip[:4].tolist() == ["S005_001"] * 3 + ["S006_001"]
    assert faces.subject[:4].tolist() == ["S005"] * 3 + ["S006"]
    for row, frame in enumerate((3, 4, 5)):
        assert (faces.images[row] == 20 * frame).all()


def test_subjects_go_to_the_folds_in_turn(root):
    for fold in (1, 2, 10):
        faces = CKPlus(root, fold=fold).load(8)
        of = dict(zip(faces.subject.tolist(), faces.partition.tolist(), strict=True))
        of = {subject: "train" if part == "unlabeled" else part for subject, part in of.items()}
        parts = ["train"] * 12
        for turn in range(12):
            if turn % 10 == fold - 1:
                parts[turn] = "test"
            elif turn % 10 == fold % 10:
                parts[turn] = "val"
        assert [of[f"S{5 + turn:03d}"] for turn in range(12)] == parts


def test_no_subject_is_in_two_parts(root):
    faces = CKPlus(root, fold=3, neutral="first").load(8)
    part = {name: set(faces.subject[faces.partition == name].tolist()) for name in ("train", "val", "test")}
    part["train"] |= set(faces.subject[faces.partition == "unlabeled"].tolist())
    assert not part["train"] & part["val"] | part["train"] & part["test"] | part["val"] & part["test"]


def test_unlabeled_sequences_of_training_subjects_are_a_pool(root):
    faces = CKPlus(root).load(8)
    pool = faces.partition == "unlabeled"
    assert set(faces.clip[pool].tolist()) == {f"S{5 + turn:03d}_002" for turn in range(12) if turn % 10 > 1}
    assert set(faces.label[pool].tolist()) == {-1}


@pytest.mark.parametrize(
    ("options", "order", "first"),
    [
        ({"frames": 1}, SEVEN, ["anger", "", "contempt"]),
        ({"frames": 1, "neutral": "first"}, CK_PLUS.emotions, ["neutral", "anger", "", "neutral"]),
        (
            {"frames": 1, "neutral": "first", "contempt": False},
            tuple(name for name in CK_PLUS.emotions if name != "contempt"),
            ["neutral", "anger", "", ""],
        ),
        (
            {"frames": 1, "contempt": False},
            tuple(name for name in SEVEN if name != "contempt"),
            ["anger", ""],
        ),
    ],
)
def test_neutral_and_contempt_are_choices(root, options, order, first):
    faces = CKPlus(root, fold=5, **options).load(8)
    assert faces.taxonomy.emotions == order
    assert emotions(faces)[: len(first)] == first
    assert ("contempt" in emotions(faces)) == options.get("contempt", True)
    if "neutral" in order:
        assert (faces.images[0] == 20).all()  # the smallest frame number


def test_folders_of_the_zip_files_are_read(root, tmp_path):
    wanted = CKPlus(root).load(8).names.tolist()
    for outer, inner in (
        ("extended-cohn-kanade-images", "cohn-kanade-images"),
        ("Emotion_labels", "Emotion"),
    ):
        (root / outer).mkdir()
        (root / inner).rename(root / outer / inner)
    (root / "Landmarks").rename(root / "inner")
    (root / "Landmarks").mkdir()
    (root / "inner").rename(root / "Landmarks/Landmarks")
    assert CKPlus(tmp_path).load(8).names.tolist() == wanted


def test_short_sequences_and_other_apexes_are_told(root, caplog):
    for frame in (1, 2, 3):
        (root / f"cohn-kanade-images/S007/001/S007_001_{frame:08d}.png").unlink()
    emotion = root / "Emotion/S008/001"
    (emotion / "S008_001_00000005_emotion.txt").rename(emotion / "S008_001_00000004_emotion.txt")
    faces, told = warnings(caplog, root)
    assert "S007_001" not in faces.clip
    assert "1 sequences are too short and are left out, such as S007_001" in told
    assert "1 labels name another frame than the last one" in told
    assert "12 of 24 sequences are labeled (327 of 593 in CK+)" in told


def test_the_published_counts_are_those_of_the_folds(root):
    assert sum(FOLDS) == 327
    (variant,) = CKPlus(root, fold=10, neutral="first").index().variants
    assert {part: counts[ALL] for part, counts in variant.counts.items()} == {
        "train": 4 * (327 - 22 - 33),
        "val": 4 * 33,
        "test": 4 * 22,
    }
    with pytest.raises(DataError, match="test: found 6 / expected 99"):
        CKPlus(root, strict=True).load(8)


@pytest.mark.parametrize(
    ("folder", "archive"),
    [
        ("cohn-kanade-images", "extended-cohn-kanade-images.zip"),
        ("Emotion", "Emotion_labels.zip"),
        ("Landmarks", "Landmarks.zip"),
    ],
)
def test_packed_archives_are_named(root, folder, archive):
    shutil.rmtree(root / folder)
    (root / archive).write_text("")
    with pytest.raises(DataError, match=rf"{archive} is still packed; unpack it"):
        CKPlus(root).load(8)


def test_labels_that_were_not_unpacked_are_told(root):
    for file in (root / "Emotion").rglob("*.txt"):
        file.unlink()
    with pytest.raises(DataError, match="0 of 24 sequences are labeled, expected 327"):
        CKPlus(root).load(8)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "Emotion/S005/001/S005_001_00000005_emotion.txt",
            "8.0\n",
            "line 1: found 8.0; expected a number from 1",
        ),
        ("Emotion/S005/001/S005_001_00000005_emotion.txt", "happy\n", "line 1: found happy"),
        ("Emotion/S005/001/S005_001_00000005_emotion.txt", "\n", "is empty"),
        ("Landmarks/S005/001/S005_001_00000005_landmarks.txt", "1 2\n", "expected 68 lines of x and y"),
        ("Landmarks/S005/001/S005_001_00000005_landmarks.txt", "a b\n" * 68, "expected 68 lines of x and y"),
    ],
)
def test_a_wrong_file_is_named(root, file, content, message):
    text(root / file, content)
    with pytest.raises(DataError, match=rf"{file.rpartition('/')[2]}.*{message}"):
        CKPlus(root).load(8)


def test_missing_landmarks_are_named(root):
    (root / "Landmarks/S005/001/S005_001_00000005_landmarks.txt").unlink()
    with pytest.raises(DataError, match=r"S005_001_00000005_landmarks\.txt cannot be read"):
        CKPlus(root).load(8)
    shutil.rmtree(root / "Landmarks")
    with pytest.raises(DataError, match=r"Landmarks does not exist.*frames show more than faces"):
        CKPlus(root).load(8)


# Copies


@pytest.mark.parametrize("frames", [1, 3])
def test_the_copy_of_48_pixels_has_the_same_faces(root, tmp_path, frames):
    official = CKPlus(root, frames=frames).load(8)
    labeled = official.partition != "unlabeled"
    copy = CKPlus(ck_plus_48(tmp_path / "archive"), frames=frames).load(8)
    assert copy.names.tolist() == official.names[labeled].tolist()
    assert emotions(copy) == [name for name in emotions(official) if name]
    assert copy.partition.tolist() == official.partition[labeled].tolist()
    assert copy.dataset == official.dataset


def test_the_copy_of_48_pixels_has_no_neutral(tmp_path):
    with pytest.raises(DataError, match=r"CK\+48 has no neutral; contempt takes its place"):
        CKPlus(ck_plus_48(tmp_path), neutral="first").load(8)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("happy/1.png", r"1\.png: expected a name like S010_004_00000017\.png"),
        ("happy/S005_001_00000006.png", "other frames of S005_001 are in the folder of anger"),
    ],
)
def test_a_wrong_name_in_the_copy_is_told(tmp_path, file, message):
    picture(ck_plus_48(tmp_path) / "CK+48" / file, 48, 48)
    with pytest.raises(DataError, match=message):
        CKPlus(tmp_path).load(8)


def extended(path, labels=(7, 6, 0), usages=("Training", "PublicTest", "PrivateTest")):
    pixels = [" ".join([str(10 * row)] * 48 * 48) for row in range(len(labels))]
    rows = [f"{label},{pixel},{usage}" for label, pixel, usage in zip(labels, pixels, usages, strict=True)]
    return text(path, "\n".join(["emotion,pixels,Usage", *rows]))


def test_the_extended_table_is_read_and_its_lack_of_subjects_told(tmp_path, caplog):
    extended(tmp_path / "archive/ckextended.csv")
    faces, told = warnings(caplog, tmp_path, neutral="first")
    assert faces.names.tolist() == ["ckextended/00000", "ckextended/00001", "ckextended/00002"]
    assert emotions(faces) == ["contempt", "neutral", "anger"]
    assert faces.partition.tolist() == ["train", "val", "test"]
    assert [faces.images[row][0, 0, 0] for row in range(3)] == [0, 10, 20]
    assert "not subject-independent" in told
    named = CKPlus(tmp_path / "archive/ckextended.csv", contempt=False).load(8)
    assert (emotions(named), named.images[0][0, 0, 0]) == (["anger"], 20)


@pytest.mark.parametrize(
    ("labels", "message"), [((8,), "row 0: emotion is '8', not 0 ... 7"), ((), "has no rows")]
)
def test_a_wrong_table_is_named(tmp_path, labels, message):
    path = extended(tmp_path / "ckextended.csv", labels, ("Training",) * len(labels))
    with pytest.raises(DataError, match=message):
        CKPlus(path).load(8)


def test_the_extended_table_is_not_fer2013(tmp_path):
    path = extended(tmp_path / "fer2013.csv")
    with pytest.raises(DataError, match=r"emotion is '7', .*contempt in ckextended\.csv, which CKPlus reads"):
        FER2013(path).load(48)


def test_what_is_no_ck_plus_is_told(tmp_path):
    with pytest.raises(DataError, match=r"holds nothing; expected cohn-kanade-images, Emotion and Landmarks"):
        CKPlus(tmp_path).load(8)
    with pytest.raises(DataError, match=r"nowhere\.csv does not exist"):
        CKPlus(tmp_path / "nowhere.csv").load(8)


def test_sequences_that_are_all_too_short_are_told(tmp_path):
    with pytest.raises(DataError, match="no sequence has the 4 frames that are asked for"):
        CKPlus(ck_plus(tmp_path, subjects=1, frames=3), neutral="first").load(8)
    path = extended(tmp_path / "other/ckextended.csv", (6,), ("Training",))
    with pytest.raises(DataError, match="no row shows an emotion that the options leave"):
        CKPlus(path).load(8)
