import os
import time

import cv2
import huggingface_hub
import numpy as np
import pytest
from photographs import ASTRONAUT_FACE, astronaut, detector_file

from fer_lightning.errors import InputError
from fer_lightning.inference import detection
from fer_lightning.inference.alignment import align, template
from fer_lightning.inference.detection import FaceDetector, fetch


@pytest.fixture(scope="module")
def detector():
    return FaceDetector(detector_file())


def overlap(a, b):
    left, top = np.maximum(a[:2], b[:2])
    right, bottom = np.minimum(np.add(a[:2], a[2:]), np.add(b[:2], b[2:]))
    inter = max(0, right - left) * max(0, bottom - top)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


@pytest.mark.parametrize("side", [200, 512, 1500])
def test_a_face_is_found_where_it_is_at_any_size(detector, side):
    image = cv2.resize(astronaut(), (side, side), interpolation=cv2.INTER_AREA)
    found = detector(image)
    assert found.box.shape == (1, 4)
    assert found.points.shape == (1, 5, 2)
    assert overlap(found.box[0] * 512 / side, ASTRONAUT_FACE) > 0.7
    left_eye, right_eye, nose, left_mouth, right_mouth = found.points[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_eye[1] < nose[1] < left_mouth[1]
    assert left_mouth[0] < right_mouth[0]


def test_two_faces_are_two(detector):
    image = np.concatenate([astronaut(), astronaut()[:, ::-1]], axis=1)
    found = detector(image)
    assert len(found.box) == 2
    assert sorted(box[0] // 512 for box in found.box.tolist()) == [0, 1]


def test_a_box_stays_within_the_picture(detector):
    x, y, width, height = ASTRONAUT_FACE
    image = np.ascontiguousarray(astronaut()[y + 15 : y + height + 60, x + 10 : x + width + 60])
    (box,) = detector(image).box
    assert (box >= 0).all()
    assert box[0] + box[2] <= image.shape[1]
    assert box[1] + box[3] <= image.shape[0]


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (240, 320)])
def test_where_there_is_no_face_none_is_found(detector, shape):
    found = detector(np.full((*shape, 3), 90, np.uint8))
    assert found.box.shape == (0, 4)
    assert found.points.shape == (0, 5, 2)


@pytest.mark.parametrize("tilt", [-40, -25, 25])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_the_points_follow_a_tilted_head(detector, tilt, scale):
    """A photograph that is turned has its points turned, to within a twentieth of the face's width."""
    straight = detector(astronaut()).points[0]
    turn = cv2.getRotationMatrix2D((222, 120), tilt, scale)
    turn[:, 2] += np.array((320, 240)) - (222, 120)
    photograph = cv2.warpAffine(astronaut(), turn, (640, 480), borderMode=cv2.BORDER_REPLICATE)
    found = detector(photograph).points[0]
    assert np.abs(found - (straight @ turn[:, :2].T + turn[:, 2])).mean() < 90 * scale / 20
    face = align(photograph, found, 112)
    again = detector(cv2.copyMakeBorder(face, 30, 30, 30, 30, cv2.BORDER_REPLICATE)).points[0] - 30
    assert np.abs(again - template(112)).mean() < 5


@pytest.mark.parametrize(
    ("content", "message"), [(None, "there is no detector"), (b"no model", "is no YuNet face detector")]
)
def test_a_file_that_is_no_detector_is_named(tmp_path, content, message):
    file = tmp_path / "detector.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        FaceDetector(file)
    assert "detector.onnx" in str(caught.value)
    assert caught.value.option == "detector"


def test_offline_the_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(
        InputError, match=r"Offline, give a file of it: face_detection_yunet\w+\.onnx"
    ) as caught:
        fetch()
    assert caught.value.option == "detector"


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch):
    def missing(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", missing)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: time.sleep(60))
    monkeypatch.setattr(detection, "PATIENCE", 0.05)
    with pytest.raises(InputError, match=r"no answer in 0\.05 s"):
        fetch()


def test_a_file_of_the_cache_is_used_if_it_is_the_published_one(monkeypatch, tmp_path):
    file = tmp_path / "cached.onnx"
    file.write_bytes(b"model")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(file))
    with pytest.raises(InputError, match="sha256 differs"):
        fetch()
    monkeypatch.setattr(
        detection, "SHA256", "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4"
    )
    assert fetch() == file
