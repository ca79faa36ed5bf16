import csv
import logging
import os

import cv2
import numpy as np
import pytest

from fer_lightning.data.datasets import FER2013
from fer_lightning.data.datasets.base import DataError
from fer_lightning.emotions import UnknownEmotion

USAGES = ("Training", "PublicTest", "PrivateTest")
FOLDERS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


class Made:
    """A small FER2013: 14 Training, 3 PublicTest, 4 PrivateTest faces, mixed."""

    def __init__(self):
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 256, (21, 48, 48), dtype=np.uint8)
        self.images = np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in noise])
        self.label = np.arange(21) % 7
        self.usage = rng.permutation([0] * 14 + [1] * 3 + [2] * 4)

    def write_npz(self, path, **changed):
        arrays = {"images": self.images, "label": self.label, "usage": self.usage} | changed
        np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
        return path

    def write_csv(self, path, columns=("emotion", "pixels", "Usage"), change=None):
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for row, (image, label, usage) in enumerate(
                zip(self.images, self.label, self.usage, strict=True)
            ):
                pixels = " ".join(str(value) for value in image.ravel())
                cells = {"emotion": label, "pixels": pixels, "Usage": USAGES[usage]}
                if change and row == change[0]:
                    cells |= change[1]
                writer.writerow([cells[column.strip()] for column in columns])
        return path

    def write_folders(self, root, name="{usage}_{row}.jpg"):
        for row, (image, label, usage) in enumerate(zip(self.images, self.label, self.usage, strict=True)):
            folder = root / ("train" if usage == 0 else "test") / FOLDERS[label]
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / name.format(usage=USAGES[usage], row=row)), image)
        return root


@pytest.fixture(scope="module")
def made():
    return Made()


def splits(faces):
    return {part: int((faces.partition == part).sum()) for part in ("train", "val", "test")}


# Four forms, one data set


def test_the_three_forms_with_rows_are_one_index(made, tmp_path):
    archive = FER2013(made.write_npz(tmp_path / "fer2013_uint8.npz")).load(112)
    kaggle = FER2013(made.write_csv(tmp_path / "fer2013.csv")).load(112)
    columns = ("emotion", " Usage", " pixels")
    challenge = FER2013(made.write_csv(tmp_path / "icml_face_data.csv", columns)).load(112)
    assert archive.names[[0, 20]].tolist() == ["fer2013/00000", "fer2013/00020"]
    assert [archive.taxonomy.emotions[label] for label in archive.label[[0, 3]]] == ["anger", "happiness"]
    assert splits(archive) == {"train": 14, "val": 3, "test": 4}
    assert archive.images.pixels.shape == (21, 48, 48)
    for other in (kaggle, challenge):
        assert other.dataset == archive.dataset
        for column in ("names", "partition", "emotion"):
            np.testing.assert_array_equal(getattr(other, column), getattr(archive, column))
        assert (other.images.pixels == archive.images.pixels).all()


def test_kaggles_folders_give_the_same_split_and_labels(made, tmp_path):
    faces = FER2013(made.write_folders(tmp_path)).load(112)
    assert splits(faces) == {"train": 14, "val": 3, "test": 4}
    row = np.array([int(name.rpartition("_")[2].removesuffix(".jpg")) for name in faces.names])
    assert (faces.label == made.label[row]).all()
    assert (faces.partition == np.array(["train", "val", "test"])[made.usage[row]]).all()
    assert faces.images.pixels.shape == (21, 48, 48)
    assert (
        np.abs(faces.images.pixels.numpy().astype(int) - made.images[row]).mean() < 3
    )  # JPEG is not lossless
    assert faces.names[row == 3].item().startswith("fer2013/t")


def test_folders_that_do_not_tell_the_usage_have_no_val_and_warn(made, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        faces = FER2013(made.write_folders(tmp_path, "im{row}.png")).load(48)
    assert splits(faces) == {"train": 14, "val": 0, "test": 7}
    assert "7 of 7 files tell neither" in caplog.text
    assert (np.sort(faces.images.pixels.numpy(), axis=0) == np.sort(made.images, axis=0)).all()


@pytest.mark.parametrize("below", ["", "images"])
def test_the_copy_with_validation_has_no_val_and_warns(made, tmp_path, caplog, below):
    made.write_folders(tmp_path / below, "{row}.jpg")
    (tmp_path / below / "test").rename(tmp_path / below / "validation")
    with caplog.at_level(logging.WARNING):
        faces = FER2013(tmp_path).load(48)
    assert splits(faces) == {"train": 14, "val": 0, "test": 7}
    assert "validation: the names of 7 of 7 files tell neither" in caplog.text
    assert "results on them are not those on PrivateTest" in caplog.text
    assert {name.split("/")[1] for name in faces.names.tolist()} == {"train", "validation"}


@pytest.mark.parametrize("below", ["", "fer2013"])
@pytest.mark.parametrize("form", ["fer2013_uint8.npz", "fer2013.csv", "icml_face_data.csv", "folders"])
def test_a_form_is_found_in_the_root_or_in_its_folder_fer2013(made, tmp_path, below, form):
    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    if form == "folders":
        made.write_folders(folder)
    else:
        (made.write_npz if form.endswith("npz") else made.write_csv)(folder / form)
    assert splits(FER2013(str(tmp_path)).load(48)) == {"train": 14, "val": 3, "test": 4}


def test_an_incomplete_copy_is_noticed(made, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        FER2013(made.write_npz(tmp_path / "fer2013_uint8.npz")).load(48)
    assert "holds 21 faces where FER2013 has 35887" in caplog.text


# What is wrong is named


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((4, {"pixels": " ".join(["7"] * 2303)}), "row 4: pixels holds 2303 numbers, not 48 x 48"),
        ((4, {"pixels": " ".join(["256"] * 2304)}), "row 4: pixels runs from 256 to 256"),
        ((4, {"pixels": " ".join(["x"] * 2304)}), "row 4: pixels holds"),
        ((20, {"emotion": 7}), "row 20: emotion is '7', not 0 ... 6"),
        ((20, {"emotion": -1}), "row 20: emotion is '-1', not 0 ... 6"),
        ((0, {"emotion": "happy"}), "row 0: emotion is 'happy', not 0 ... 6"),
        ((9, {"Usage": "Test"}), "row 9: Usage is 'Test', not one of Training, PublicTest, PrivateTest"),
    ],
)
def test_a_wrong_cell_of_the_csv_is_named(made, tmp_path, change, message):
    path = made.write_csv(tmp_path / "fer2013.csv", change=change)
    with pytest.raises(DataError, match=rf"fer2013\.csv, {message}"):
        FER2013(path).load(48)


def test_a_csv_without_its_columns_is_named(made, tmp_path):
    path = made.write_csv(tmp_path / "train.csv", ("emotion", "pixels"))
    with pytest.raises(DataError, match=r"train\.csv has no column Usage; it has: emotion, pixels"):
        FER2013(path).load(48)


def test_a_csv_that_is_cut_off_is_named(made, tmp_path):
    path = made.write_csv(tmp_path / "fer2013.csv")
    path.write_text(path.read_text()[:-3_000])
    with pytest.raises(DataError, match="row 20: 2 columns instead of 3"):
        FER2013(path).load(48)


@pytest.mark.parametrize("content", ["", "emotion,pixels,Usage\n"], ids=["empty", "header only"])
def test_an_empty_csv_is_an_error(tmp_path, content):
    (tmp_path / "fer2013.csv").write_text(content)
    with pytest.raises(DataError, match=r"fer2013\.csv has no"):
        FER2013(tmp_path).load(48)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"usage": None}, "lacks usage; it holds images, label"),
        ({"label": np.full(21, 7)}, "row 0: label is 7, not 0 ... 6"),
        ({"usage": np.arange(21) // 7 - 1}, "row 0: usage is -1, not 0 ... 2"),
        ({"label": np.zeros(20, int)}, r"label is \(20,\), but there are 21 images"),
        (
            {"images": np.zeros((21, 2304), np.uint8)},
            r"images is uint8 \(21, 2304\), not uint8 \(N, 48, 48\)",
        ),
        ({"images": np.zeros((21, 48, 48))}, "images is float64"),
        ({"label": np.array([None] * 21)}, "does not open as a NumPy archive of plain arrays"),
    ],
)
def test_a_wrong_archive_is_named(made, tmp_path, changed, message):
    path = made.write_npz(tmp_path / "fer2013_uint8.npz", **changed)
    with pytest.raises(DataError, match=rf"fer2013_uint8\.npz.*{message}"):
        FER2013(path).load(48)


def test_an_archive_that_is_cut_off_is_named(made, tmp_path):
    path = made.write_npz(tmp_path / "fer2013_uint8.npz")
    path.write_bytes(path.read_bytes()[:2_000])
    with pytest.raises(DataError, match=r"fer2013_uint8\.npz does not open"):
        FER2013(path).load(48)


def test_a_packed_archive_is_to_be_unpacked(tmp_path):
    (tmp_path / "archive.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"archive\.zip.*unpack"):
        FER2013(tmp_path / "archive.zip").load(48)
    with pytest.raises(DataError, match=r"holds no form of FER2013, but archive\.zip; unpack"):
        FER2013(tmp_path).load(48)


def test_a_root_that_is_missing_or_empty_says_what_was_expected(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist; expected FER2013: .*fer2013\.csv"):
        FER2013(tmp_path / "nowhere").load(48)
    with pytest.raises(DataError, match=r"holds no form of FER2013, but nothing.*fer2013\.csv"):
        FER2013(tmp_path).load(48)
    with pytest.raises(DataError, match="root of FER2013 is empty"):
        FER2013("").load(48)


def test_a_folder_outside_the_seven_emotions_is_named(made, tmp_path):
    made.write_folders(tmp_path)
    (tmp_path / "train" / "happy").rename(tmp_path / "train" / "contempt")
    with pytest.raises(UnknownEmotion, match=r"train/contempt/.*'contempt' is outside"):
        FER2013(tmp_path).load(48)


def test_an_image_that_does_not_decode_is_named(made, tmp_path):
    made.write_folders(tmp_path)
    (tmp_path / "train" / "sad" / "Training_x.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 22 images .*Training_x\.jpg"):
        FER2013(tmp_path).load(48)


# The real thing


@pytest.fixture(scope="module")
def real():
    root = os.environ.get("FER_DATA_ROOT")
    if not root:
        pytest.skip("FER_DATA_ROOT does not name the folder of FER2013")
    return FER2013(root).load(48)


@pytest.mark.parametrize(
    ("part", "counts"),
    [
        ("train", [3995, 436, 4097, 7215, 4830, 3171, 4965]),
        ("val", [467, 56, 496, 895, 653, 415, 607]),
        ("test", [491, 55, 528, 879, 594, 416, 626]),
    ],
)
def test_the_real_counts_are_the_published_ones(real, part, counts):
    assert np.bincount(real.label[real.partition == part]).tolist() == counts


def test_real_faces_are_the_same_from_the_csv(real, tmp_path):
    some = Made()
    rows = np.concatenate([np.arange(40), np.arange(28_700, 28_720), np.arange(35_867, 35_887)])
    some.images = real.images.pixels.numpy()[rows]
    some.label = real.label[rows]
    some.usage = np.select([real.partition[rows] == part for part in ("train", "val", "test")], [0, 1, 2])
    faces = FER2013(some.write_csv(tmp_path / "fer2013.csv")).load(48)
    assert (faces.images.pixels.numpy() == some.images).all()
    assert (faces.partition == real.partition[rows]).all()
    assert (faces.emotion == real.emotion[rows]).all()
    assert (faces.names[:40] == real.names[:40]).all()
