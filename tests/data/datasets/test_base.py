import json
from multiprocessing.reduction import ForkingPickler

import jsonargparse
import numpy as np
import pytest

from fer_lightning.data.datasets import FER2013, RAFDB, FaceDataset, FaceFolder, FaceTable, FERPlus
from fer_lightning.data.datasets.base import ArrayImages, DataError, Faces, one_hot, require
from fer_lightning.emotions import BASIC_7, BASIC_8, FERPLUS, Taxonomy, UnknownEmotion


def faces(label=(0, 3, -1), taxonomy=BASIC_7, **columns):
    n = len(label)
    given = {
        "dataset": "made",
        "taxonomy": taxonomy,
        "names": np.array([f"face{i}" for i in range(n)]),
        "partition": np.full(n, "train"),
        "emotion": one_hot(label, len(taxonomy)) if len(taxonomy) else np.empty((n, 0), np.float32),
        "images": ArrayImages(np.zeros((n, 4, 4), np.uint8)),
    }
    return Faces(**given | columns)


# Images


def test_gray_images_come_as_rgb():
    pixels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    image = ArrayImages(pixels)[1]
    assert image.shape == (3, 4, 3)
    assert (image == pixels[1][:, :, None]).all()


def test_color_images_come_as_they_are():
    pixels = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    assert (ArrayImages(pixels)[1] == pixels[1]).all()


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 4, 4)), np.zeros((4, 4), np.uint8)], ids=["float", "one image"]
)
def test_pixels_are_uint8_images(pixels):
    with pytest.raises(ValueError, match="expected uint8"):
        ArrayImages(pixels)


def test_pixels_reach_a_worker_without_a_copy():
    images = ArrayImages(np.zeros((64, 48, 48), np.uint8))
    assert len(ForkingPickler.dumps(images)) < 2_000  # a handle to shared memory, where the pixels are 147 kB


# Labels


def test_one_hot_and_back():
    rows = one_hot([2, -1, 0], 3)
    assert rows.dtype == np.float32
    np.testing.assert_equal(rows, [[0, 0, 1], [np.nan] * 3, [1, 0, 0]])
    assert faces(label=(6, -1, 0)).label.tolist() == [6, -1, 0]


def test_the_label_of_a_distribution_is_its_peak():
    soft = np.array([[0.1, 0.2, 0, 0.4, 0.3, 0, 0]], np.float32)
    assert faces(label=(0,), emotion=soft).label.tolist() == [3]


def test_another_taxonomy_moves_columns_by_name():
    moved = faces(label=(0, 3, -1)).emotion_in(FERPLUS)
    assert moved[0].argmax() == FERPLUS.index("anger") == 4
    assert moved[1].argmax() == FERPLUS.index("happiness") == 1
    assert np.isnan(moved[2]).all()
    np.testing.assert_equal(moved[:2].sum(1), 1)


def test_an_emotion_that_no_face_shows_may_be_missing_in_the_other_taxonomy():
    eight = faces(label=(0, 3, -1), taxonomy=BASIC_8)
    np.testing.assert_equal(eight.emotion_in(BASIC_7), eight.emotion[:, :7])


def test_an_emotion_the_other_taxonomy_lacks_is_an_error():
    with pytest.raises(UnknownEmotion, match="contempt"):
        faces(label=(0, 7), taxonomy=BASIC_8).emotion_in(BASIC_7)


# The index


def test_columns_left_out_are_unknown():
    index = faces()
    assert len(index) == 3
    assert index.valence_arousal.shape == (3, 2)
    assert np.isnan(index.valence_arousal).all()
    for column in (index.subject, index.group, index.clip, index.source):
        assert column.tolist() == ["", "", ""]


@pytest.mark.parametrize("column", ["names", "partition", "subject", "group", "clip", "source"])
def test_columns_of_another_length_are_refused(column):
    with pytest.raises(DataError, match="different length"):
        faces(**{column: np.array(["a", "b"])})


def test_emotions_of_another_taxonomy_are_refused():
    with pytest.raises(DataError, match="emotion is"):
        faces(emotion=one_hot([0, 1, 2], 8))


def test_a_name_is_of_one_face():
    with pytest.raises(DataError, match="'twice' names 2 faces"):
        faces(names=np.array(["twice", "once", "twice"]))


@pytest.mark.parametrize("column", ["names", "subject", "group"])
def test_text_takes_no_more_memory_than_its_length(column):
    texts = np.array(["x" * 100_000, "y", "caf\udce9"], object)
    for given in (texts, texts[1:].astype(str)):
        index = getattr(faces(label=(0,) * len(given), **{column: given}), column)
        assert index.dtype == object
        assert index.nbytes == 8 * len(given)
        assert index.tolist() == given.tolist()
        assert type(index[0]) is str


def test_no_faces_is_an_error():
    with pytest.raises(DataError, match="no faces"):
        faces(label=np.empty(0, np.int64))


def test_valence_and_arousal_need_no_emotion():
    index = faces(label=(-1, -1), taxonomy=Taxonomy("none", ()))
    assert index.label.tolist() == [-1, -1]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.*the pictures"):
        require(tmp_path / "nowhere", "the pictures")


# From a config file


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (FER2013, {"root": "data"}),
        (FERPlus, {"root": "data", "labels": "distribution", "classes": 7, "rejected": "unlabeled"}),
        (
            FaceFolder,
            {"labeled": "a", "unlabeled": "b", "emotions": ["happy", "sad"], "on_bad_image": "skip"},
        ),
        (RAFDB, {"root": "data", "images": "original", "group": "age", "class_order": ["happy", "sad"]}),
        (FaceTable, {"table": "a.csv", "columns": {"label": "expression"}, "emotions": "basic8"}),
        (FaceTable, {"table": "a.csv", "drop": ["contempt"], "on_duplicate": "first"}),
    ],
)
def test_a_data_set_is_built_from_its_class_path(kind, options):
    built = build(kind.__name__, options)
    assert type(built) is kind
    assert {name: getattr(built, name) for name in options} == options


def test_a_misspelt_option_is_refused_before_anything_is_read(capsys):
    with pytest.raises(SystemExit):
        build("FERPlus", {"root": "data", "labels": "majorty"})
    assert "majorty" in capsys.readouterr().err


def build(name, options):
    """Build a data set as the command line does, from a class path and options."""

    def given(data: FaceDataset) -> FaceDataset:
        return data

    spec = {"class_path": f"fer_lightning.data.datasets.{name}", "init_args": options}
    return jsonargparse.auto_cli(given, args=[json.dumps(spec)])
