import doctest
from dataclasses import asdict

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from faces import TINY
from photographs import ASTRONAUT_FACE, astronaut, detector_file, random_checkpoint, with_keys, write_picture
from PIL import Image

from fer_lightning.data.datasets import DataError
from fer_lightning.errors import CheckpointError, InputError
from fer_lightning.inference import recognizer
from fer_lightning.inference.alignment import align
from fer_lightning.inference.calibration import Calibration, calibrated
from fer_lightning.inference.face_table import BOX
from fer_lightning.inference.frames import Frame
from fer_lightning.inference.load import load_method
from fer_lightning.inference.recognizer import FaceRecognizer
from fer_lightning.methods import Supervised

CALIBRATION = Calibration(2.0, [0.5, 0, 0, 0, 0, 0, -0.5], 0.3, 0.1, 0.8, 0.2, 0.1, "abc")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def recognize(checkpoint):
    return FaceRecognizer.from_checkpoint(checkpoint, detector_file(), device="cpu")


@pytest.fixture(scope="module")
def recognize_crops(checkpoint):
    return FaceRecognizer.from_checkpoint(checkpoint, aligned=True, device="cpu")


@pytest.fixture(scope="module")
def crops():
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (40, 50, 3), dtype=np.uint8) for _ in range(5)]


def probabilities(method, images):
    with torch.inference_mode():
        return method(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)).emotion


def test_a_face_of_a_photograph_gets_a_row(recognize, checkpoint):
    table = recognize(astronaut())
    (row,) = table.to_dict("records")
    assert (row["source"], row["frame"], row["status"], row["faces"]) == ("0", 0, "face", 1)
    assert np.abs(np.subtract([row[name] for name in BOX], ASTRONAUT_FACE)).max() < 12
    face = align(astronaut(), recognize.detector(astronaut()).points[0], 32)
    expected = probabilities(load_method(checkpoint), [face])[0]
    emotions = recognize.method.task.emotions
    assert [row[name] for name in emotions] == pytest.approx(expected.tolist(), abs=1e-6)
    assert row["emotion"] == emotions[expected.argmax()]
    assert row["confidence"] == pytest.approx(expected.max().item(), abs=1e-6)
    assert row["abstain"] is False


def test_every_form_of_a_picture_gives_the_same(recognize, tmp_path):
    image = astronaut()
    file = write_picture(tmp_path / "astronaut.png", image)
    forms = [image, Image.fromarray(image), torch.from_numpy(image).permute(2, 0, 1), file, str(file)]
    tables = [recognize(form).drop(columns="source") for form in forms]
    together = recognize(iter(forms))
    assert together["source"].tolist() == ["0", "1", "2", str(file), str(file)]
    for table in tables:
        pd.testing.assert_frame_equal(table, tables[0])
    assert np.allclose(together["confidence"], tables[0]["confidence"][0], atol=1e-6)


def test_pictures_with_none_one_and_two_faces(recognize):
    image = astronaut()
    none, two = image[300:, :200], np.concatenate([image, image[:, ::-1]], axis=1)
    table = recognize([none, image, two])
    assert table["source"].tolist() == ["0", "1", "2", "2"]
    assert table["faces"].tolist() == [0, 1, 2, 2]
    assert table["status"].tolist() == ["no face", "face", "face", "face"]
    assert (table.status == "face").sum() == 3
    assert table.iloc[0, 5:].isna().all()
    assert table.iloc[1:].notna().all(axis=None)
    assert table.columns.tolist() == list(recognize.columns)
    assert table["x"].dtype == "Int64"
    assert table["abstain"].dtype == "boolean"


def test_no_pictures_give_an_empty_table(recognize_crops):
    assert recognize_crops([]).columns.tolist() == list(recognize_crops.columns)


def test_a_batch_of_tensors_is_several_pictures(recognize_crops, crops):
    batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    pd.testing.assert_frame_equal(recognize_crops(batch), recognize_crops(crops))
    pd.testing.assert_frame_equal(recognize_crops(np.stack(crops)), recognize_crops(crops))


def test_aligned_crops_are_predicted_as_the_data_are(recognize_crops, checkpoint, crops):
    table = recognize_crops(crops)
    assert table[list(BOX)].to_numpy().tolist() == [[0, 0, 50, 40]] * 5
    squares = [cv2.resize(crop, (40, 32), interpolation=cv2.INTER_AREA)[:, 4:36] for crop in crops]
    expected = probabilities(load_method(checkpoint), squares)
    emotions = list(recognize_crops.method.task.emotions)
    assert np.allclose(table[emotions].to_numpy(float), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_rows_stay_with_their_frames_whatever_the_batch(recognize_crops, crops, batch_size):
    frames = [Frame(f"{number}", crop) for number, crop in enumerate(crops)]
    frames.insert(2, Frame("bad", None, error="bad does not decode"))
    pairs = list(recognize_crops.stream(frames, batch_size, keep_images=batch_size == 2))
    assert [frame.source for frame, _ in pairs] == ["0", "1", "bad", "2", "3", "4"]
    assert [rows[0]["source"] for _, rows in pairs] == ["0", "1", "bad", "2", "3", "4"]
    assert pairs[2][1] == [{"source": "bad", "frame": 0, "time": 0.0, "status": "unreadable"}]
    confidence = [rows[0]["confidence"] for _, rows in pairs if "confidence" in rows[0]]
    assert confidence == pytest.approx(recognize_crops(crops)["confidence"].tolist(), abs=1e-6)
    kept = [frame.image is not None for frame, _ in pairs]
    assert kept == [batch_size == 2 and source != "bad" for source in ("0", "1", "bad", "2", "3", "4")]


def test_frames_are_read_no_further_than_a_batch(recognize_crops, crops):
    read = []

    def frames():
        for number in range(100):
            read.append(number)
            yield Frame(str(number), crops[0])

    stream = recognize_crops.stream(frames(), batch_size=4)
    next(stream)
    assert len(read) == 4


def test_a_calibration_is_applied_and_its_threshold_is_the_default(checkpoint, tmp_path, crops):
    plain = FaceRecognizer.from_checkpoint(checkpoint, aligned=True, device="cpu")
    file = tmp_path / "calibrated.ckpt"
    file.write_bytes(checkpoint.read_bytes())
    with_keys(file, calibration=asdict(CALIBRATION))
    recognize = FaceRecognizer.from_checkpoint(file, aligned=True, device="cpu")
    emotions = list(plain.method.task.emotions)
    before = torch.from_numpy(plain(crops)[emotions].to_numpy(float))
    after = calibrated(before, 2.0, torch.tensor(CALIBRATION.bias))
    table = recognize(crops)
    assert np.allclose(table[emotions].to_numpy(float), after.numpy(), atol=1e-5)
    assert (plain.threshold, recognize.threshold) == (0, 0.3)
    assert not plain(crops)["abstain"].any()
    assert table["abstain"].tolist() == (table["confidence"] < 0.3).tolist()
    strict = FaceRecognizer.from_checkpoint(file, aligned=True, threshold=1.0, device="cpu")
    assert strict(crops)["abstain"].all()


def test_valence_and_arousal_are_columns_where_there_are_some(tmp_path, crops):
    both = random_checkpoint(tmp_path, targets="both")
    table = FaceRecognizer.from_checkpoint(both, aligned=True, device="cpu")(crops)
    assert table[["valence", "arousal"]].abs().max(axis=None) <= 1
    assert table["emotion"].notna().all()
    alone = random_checkpoint(tmp_path, method=Supervised, targets="valence_arousal")
    table = FaceRecognizer.from_checkpoint(alone, aligned=True, device="cpu")(crops)
    assert table[["valence", "arousal"]].notna().all(axis=None)
    assert not {"emotion", "confidence", "abstain"} & set(table.columns)
    with pytest.raises(InputError, match="no threshold for a model without emotions"):
        FaceRecognizer.from_checkpoint(alone, aligned=True, threshold=0.5)


def test_the_image_size_is_that_of_the_checkpoint(tmp_path, crops):
    file = random_checkpoint(tmp_path, image_size=24)
    recognize = FaceRecognizer.from_checkpoint(file, aligned=True, device="cpu")
    _, (face,) = recognize.find(crops[0])
    assert face.shape == (24, 24, 3)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"picture 0 is float32 \(4, 4, 3\): give uint8 RGB"),
        (np.zeros((4, 4, 4), np.uint8), r"picture 0 is uint8 \(4, 4, 4\)"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), r"picture 0 is uint8 \(4, 3, 4\)"),
        ([np.zeros((4, 4), np.uint8)], r"picture 0 is uint8 \(4, 4\)"),
        ([7], "picture 0 is a int, not a path"),
    ],
)
def test_a_picture_of_another_kind_is_refused(recognize_crops, picture, message):
    with pytest.raises(InputError, match=message):
        recognize_crops(picture)


def test_a_file_that_does_not_decode_is_named(recognize_crops, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"bad\.png"):
        recognize_crops(tmp_path / "bad.png")


def test_a_checkpoint_of_another_kind_and_a_missing_device_are_named(tmp_path, checkpoint):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"other\.ckpt is no checkpoint of this package"):
        FaceRecognizer.from_checkpoint(tmp_path / "other.ckpt", aligned=True)
    with pytest.raises(InputError, match="device 'gpu7' cannot be used") as caught:
        FaceRecognizer.from_checkpoint(checkpoint, aligned=True, device="gpu7")
    assert caught.value.option == "device"


def test_the_example_of_the_docstring_runs(tmp_path):
    folder = tmp_path / "runs/mine/checkpoints"
    folder.mkdir(parents=True)
    random_checkpoint(folder).rename(folder / "best.ckpt")
    (example,) = doctest.DocTestFinder(recurse=False).find(FaceRecognizer, "FaceRecognizer", globs={})
    assert doctest.DocTestRunner().run(example) == (0, 6)


def test_a_method_is_enough(crops):
    method = Supervised(**TINY)
    table = recognizer.FaceRecognizer(method, image_size=16, device="cpu")(crops)
    assert len(table) == 5
    assert not method.training
