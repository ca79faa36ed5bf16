import logging
import pickle

import cv2
import numpy as np
import pytest

from fer_lightning.data.datasets import decode
from fer_lightning.data.datasets.base import ArrayImages, DataError
from fer_lightning.data.datasets.crops import CropImages, crop, landmark_boxes, open_crops

PICTURE = np.zeros((40, 60, 3), np.uint8)
PICTURE[..., 0] = np.arange(40)[:, None]  # red tells the row, green the column
PICTURE[..., 1] = np.arange(60)


@pytest.mark.parametrize(
    ("box", "corner", "shape"),
    [
        ((10, 20, 20, 30), (20, 10), (10, 10)),
        ((10, 20, 20, 24), (17, 10), (10, 10)),  # squared about its center
        ((-6, 20, 4, 30), (20, 0), (10, 10)),  # moved back into the picture
        ((55, 35, 65, 45), (30, 50), (10, 10)),
        ((5, -10, 55, 50), (0, 0), (40, 60)),  # 60 pixels: higher than the picture
    ],
)
def test_a_crop_is_the_square_around_the_box(box, corner, shape):
    face = crop(PICTURE, box)
    assert face.shape[:2] == shape
    assert tuple(face[0, 0, :2]) == corner


@pytest.mark.parametrize(
    "box", [(60, 0, 70, 10), (0, 50, 10, 60), (10, 10, 10, 20), (20, 0, 10, 5), (-9, 0, 0, 9)]
)
def test_a_box_outside_the_picture_is_refused(box):
    with pytest.raises(DataError, match="is outside the 60x40 picture"):
        crop(PICTURE, box)


def test_the_box_of_landmarks_is_enlarged_about_its_center():
    points = np.array([[[10, 20], [20, 24], [14, 22]]], np.float32)
    assert landmark_boxes(points, 1.0).tolist() == [[10, 20, 20, 24]]
    assert landmark_boxes(points, 2.0).tolist() == [[5, 18, 25, 26]]


@pytest.fixture
def paths(tmp_path):
    paths = [str(tmp_path / f"{name}.png") for name in "abc"]
    for path in paths:
        cv2.imwrite(path, PICTURE[..., ::-1])
    return paths


BOXES = np.array([[0, 0, 8, 8], [10, 20, 18, 28], [30, 0, 38, 8]], np.float32)


def test_faces_are_cut_out_when_they_are_read(paths):
    images = pickle.loads(pickle.dumps(CropImages(paths, BOXES, 8)))
    assert len(images) == 3
    assert images[1].shape == (8, 8, 3)
    np.testing.assert_array_equal(images[1], PICTURE[20:28, 10:18])
    assert CropImages(paths, BOXES, 4)[1].shape == (4, 4, 3)


def test_small_sets_are_in_memory_and_large_ones_lazy(paths, monkeypatch):
    small, kept = open_crops(paths, BOXES, 8, "stop")
    assert isinstance(small, ArrayImages)
    monkeypatch.setattr(decode, "IN_MEMORY_BYTES", 1)
    large, _ = open_crops(paths, BOXES, 8, "stop")
    assert isinstance(large, CropImages)
    assert kept.all()
    for row in range(3):
        np.testing.assert_array_equal(small[row], large[row])


@pytest.mark.parametrize("in_memory", [True, False])
def test_faces_that_cannot_be_read_stop_or_are_left_out(paths, monkeypatch, caplog, in_memory):
    if not in_memory:
        monkeypatch.setattr(decode, "IN_MEMORY_BYTES", 1)
    with open(paths[0], "w") as file:
        file.write("404")
    with pytest.raises(DataError, match=r"1 of 3 .*a\.png"):
        open_crops(paths, BOXES, 8, "stop")
    with caplog.at_level(logging.WARNING):
        images, kept = open_crops(paths, BOXES, 8, "skip")
    assert kept.tolist() == [False, True, True]
    assert "1 of 3" in caplog.text
    np.testing.assert_array_equal(images[0], PICTURE[20:28, 10:18])


def test_a_box_that_misses_its_picture_names_the_file(paths):
    boxes = BOXES.copy()
    boxes[1, ::2] += 100
    with pytest.raises(
        DataError, match=r"1 of 3 faces cannot be read: .*b\.png: box 110 20 118 28 is outside"
    ):
        open_crops(paths, boxes, 8, "stop")
