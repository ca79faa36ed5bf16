import logging

import numpy as np
import pytest
from PIL import Image

from fer_lightning.data.datasets import FaceFolder
from fer_lightning.data.datasets.base import DataError
from fer_lightning.emotions import UnknownEmotion


def paint(path, color=(200, 100, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 16, 3), color, np.uint8)).save(path)


@pytest.fixture
def home(tmp_path):
    for name in ("labeled/happy/b.png", "labeled/happy/a.jpg", "labeled/Sadness/deep/c.png"):
        paint(tmp_path / name)
    for name in ("pile/z.png", "pile/2024/05/y.JPG", "val/joy/v.png", "held/angry/t.png", "held/sad/u.png"):
        paint(tmp_path / name)
    return tmp_path


def load(home, **options):
    return FaceFolder(home / "labeled", **options).load(8)


def test_every_face_is_indexed_by_part_path_and_emotion(home):
    faces = load(home, unlabeled=home / "pile", val=home / "val", test=home / "held")
    emotions = [faces.taxonomy.emotions[label] if label >= 0 else "" for label in faces.label]
    assert list(zip(faces.names.tolist(), faces.partition.tolist(), emotions, strict=True)) == [
        ("labeled/Sadness/deep/c.png", "train", "sadness"),
        ("labeled/happy/a.jpg", "train", "happiness"),
        ("labeled/happy/b.png", "train", "happiness"),
        ("unlabeled/2024/05/y.JPG", "unlabeled", ""),
        ("unlabeled/z.png", "unlabeled", ""),
        ("val/joy/v.png", "val", "happiness"),
        ("test/angry/t.png", "test", "anger"),
        ("test/sad/u.png", "test", "sadness"),
    ]
    assert faces.taxonomy.name == "basic7"


def test_each_row_has_its_own_pixels(home):
    paint(home / "labeled/happy/b.png", (0, 0, 255))
    faces = load(home)
    assert faces.images[faces.names.tolist().index("labeled/happy/b.png")][0, 0].tolist() == [0, 0, 255]
    assert faces.images[0].shape == (8, 8, 3)


def test_contempt_makes_eight_emotions(home):
    paint(home / "val/contempt/x.png")
    assert load(home).taxonomy.name == "basic7"
    assert load(home, val=home / "val").taxonomy.name == "basic8"


def test_ones_own_emotions_come_in_ones_own_order(home):
    faces = load(home, emotions=["sad", "happy"])
    assert faces.taxonomy.emotions == ("sadness", "happiness")
    assert faces.label.tolist() == [0, 1, 1]


def test_a_folder_that_names_no_emotion_is_named(home):
    paint(home / "labeled/bored/x.png")
    with pytest.raises(UnknownEmotion, match=r"labeled/bored/x\.png: 'bored' is not a known emotion"):
        load(home)


def test_an_emotion_outside_the_chosen_ones_is_named(home):
    with pytest.raises(UnknownEmotion, match=r"Sadness/deep/c\.png: 'Sadness' is outside"):
        load(home, emotions=["happy", "angry"])


def test_other_files_are_passed_over(home, caplog):
    for name in ("notes.txt", "happy/Thumbs.db", "happy/._a.jpg", ".ipynb_checkpoints/a.jpg"):
        path = home / "labeled" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("no image")
    with caplog.at_level(logging.WARNING):
        assert len(load(home)) == 3
    (record,) = caplog.records
    assert record.getMessage().endswith("labeled: 1 files are no images and are passed over: 1 .txt")


def test_an_emotion_without_images_is_told(home, caplog):
    for folder in ("fear", "disgust/deep", ".cache"):
        (home / "labeled" / folder).mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        load(home)
    assert "there are no images in disgust, fear" in caplog.text


def test_a_labeled_image_beside_the_folders_is_not_lost_silently(home):
    paint(home / "labeled/loose.png")
    with pytest.raises(DataError, match=r"1 images lie in no emotion's folder.*loose\.png"):
        load(home)


def test_bad_images_stop_or_are_skipped(home, caplog):
    (home / "labeled/happy/a.jpg").write_text("404: not found")
    with pytest.raises(DataError, match=r"1 of 3 images .*a\.jpg"):
        load(home)
    with caplog.at_level(logging.WARNING):
        faces = load(home, on_bad_image="skip")
    assert faces.names.tolist() == ["labeled/Sadness/deep/c.png", "labeled/happy/b.png"]
    assert [faces.taxonomy.emotions[label] for label in faces.label] == ["sadness", "happiness"]
    assert len(faces.images) == 2
    assert "1 of 3 images" in caplog.text


@pytest.mark.parametrize("part", ["unlabeled", "val", "test"])
def test_a_missing_folder_is_named(home, part):
    with pytest.raises(DataError, match=f"nowhere does not exist; expected the folder of {part} faces"):
        load(home, **{part: home / "nowhere"})


def test_an_empty_folder_is_named(home):
    (home / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no images"):
        load(home, unlabeled=home / "empty")


@pytest.mark.parametrize(
    "overlap", [{"test": "labeled"}, {"unlabeled": ""}, {"val": "held", "test": "val/../held"}], ids=str
)
def test_a_face_belongs_to_one_part(home, overlap):
    with pytest.raises(DataError, match="overlap"):
        load(home, **{part: home / folder for part, folder in overlap.items()})


# Links


def test_a_link_to_an_emotions_folder_is_followed(home):
    for number, emotion in enumerate(("angry", "fear")):
        paint(home / "elsewhere" / emotion / f"{number}.png")
    (home / "labeled/angry").symlink_to(home / "elsewhere/angry")
    (home / "labeled/afraid").symlink_to("../elsewhere/fear")
    faces = load(home)
    assert faces.names.tolist()[3:] == ["labeled/afraid/1.png", "labeled/angry/0.png"]
    assert [faces.taxonomy.emotions[label] for label in faces.label[3:]] == ["fear", "anger"]


def test_a_face_that_is_reached_twice_counts_once(home, caplog):
    (home / "labeled/joy").symlink_to("happy")
    (home / "labeled/happy/again.png").symlink_to("b.png")
    (home / "labeled/happy/round").symlink_to("..")
    with caplog.at_level(logging.WARNING):
        faces = load(home)
    assert faces.names.tolist() == [
        "labeled/Sadness/deep/c.png",
        "labeled/happy/a.jpg",
        "labeled/happy/b.png",
    ]
    assert "reached twice through links and count once" in caplog.text


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("labeled/fear", "labeled/happy"),
        ("labeled/fear/x.png", "labeled/happy/b.png"),
        ("val/happy/more", "labeled/happy"),
        ("pile/x.jpg", "labeled/happy/a.jpg"),
    ],
)
def test_one_face_in_two_parts_or_under_two_emotions_is_refused(home, link, target):
    (home / link).parent.mkdir(exist_ok=True)
    (home / link).symlink_to(home / target)
    with pytest.raises(DataError, match=r"are the same file; each face belongs to one part") as error:
        load(home, val=home / "val", unlabeled=home / "pile")
    assert str(home / link) in str(error.value)
    assert str(home / target) in str(error.value)


# Left out


def test_a_dropped_emotion_is_not_even_decoded(home, caplog):
    (home / "labeled/contempt").mkdir()
    (home / "labeled/contempt/x.png").write_text("no image")
    with caplog.at_level(logging.WARNING):
        faces = load(home, drop=["contempt"])
    assert len(faces) == 3
    assert faces.taxonomy.name == "basic7"
    assert "1 faces of contempt are left out" in caplog.text


def test_folders_may_be_class_numbers(home):
    for number in range(3):
        paint(home / f"numbered/{number}/x.png")
    faces = FaceFolder(home / "numbered", emotions=["sad", "happy", "fear"]).load(8)
    assert faces.label.tolist() == [0, 1, 2]


def test_the_home_folder_may_be_written_as_a_tilde(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    assert len(FaceFolder("~/labeled").load(8)) == 3
