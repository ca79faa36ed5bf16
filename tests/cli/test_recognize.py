"""The verb as its users meet it: real pictures, videos and detector, one clear message for what is wrong."""

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from photographs import (
    ASTRONAUT_FACE,
    astronaut,
    detector_file,
    random_checkpoint,
    with_keys,
    write_picture,
    write_video,
)

from fer_lightning.cli import main
from fer_lightning.inference import videos
from fer_lightning.inference.face_table import BOX

EMOTIONS = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def recognize(checkpoint):
    """Run the verb with the detector; returns the exit status."""
    return lambda *words: main(
        ["recognize", *map(str, words), "--ckpt", str(checkpoint), "--detector", str(detector_file())]
    )


@pytest.fixture
def recognize_crops(checkpoint):
    """Run the verb on face crops, without a detector."""
    return lambda *words: main(
        ["recognize", *map(str, words), "--ckpt", str(checkpoint), "--aligned", "true"]
    )


@pytest.fixture
def crops(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(5):
        write_picture(
            tmp_path / f"crops/{number}.png", generator.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        )
    return tmp_path / "crops"


def message(capsys):
    """The one line on stderr, which is no traceback."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_folder_of_photographs_becomes_a_table(recognize, tmp_path, capsys):
    image = astronaut()
    write_picture(tmp_path / "in/a.jpg", image)
    write_picture(tmp_path / "in/none.png", image[300:, :200])
    write_picture(tmp_path / "in/sub/two.png", np.concatenate([image, image[:, ::-1]], axis=1))
    assert recognize("in", "--annotated", "out") == 0
    table = pd.read_csv("recognized.csv")
    assert table["source"].tolist() == ["in/a.jpg", "in/none.png", "in/sub/two.png", "in/sub/two.png"]
    assert table["faces"].tolist() == [1, 0, 2, 2]
    assert table["status"].tolist() == ["face", "no face", "face", "face"]
    assert np.abs(table.loc[0, list(BOX)].to_numpy(float) - ASTRONAUT_FACE).max() < 12
    assert table.loc[1, "emotion":].isna().all()
    faces = table[table.status == "face"]
    assert np.allclose(faces[EMOTIONS].sum(axis=1), 1, atol=1e-5)
    assert faces["emotion"].tolist() == faces[EMOTIONS].idxmax(axis=1).tolist()
    assert not faces["abstain"].astype(bool).any()
    assert "recognized.csv: 3 faces, 3 frames" in capsys.readouterr().out
    assert (cv2.imread("out/sub/two.png") != cv2.imread("in/sub/two.png")).any()
    assert (cv2.imread("out/none.png") == cv2.imread("in/none.png")).all()


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_video_becomes_a_table_and_an_annotated_video(recognize, suffix):
    pytest.importorskip("pyarrow")
    video = write_video(Path(f"v{suffix}"), [np.roll(astronaut(), 20 * number, 1) for number in range(6)])
    assert recognize(video, "--out", "v.parquet", "--annotated", "marked.mp4", "--batch_size", "4") == 0
    table = pd.read_parquet("v.parquet")
    assert table["frame"].tolist() == list(range(6))
    assert table["time"].tolist() == pytest.approx([number / 12.5 for number in range(6)], abs=0.001)
    assert np.abs(table["x"] - table["x"][0] - 20 * np.arange(6)).max() < 12  # it moves with the picture
    capture = cv2.VideoCapture("marked.mp4")
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 6


def test_crops_of_a_table_are_predicted_as_predict_does(recognize_crops, crops):
    table = crops.parent / "list.csv"
    table.write_text("path\n" + "".join(f"crops/{number}.png\n" for number in (3, 1)))
    assert recognize_crops(table, "--out", "one.csv", "--threshold", "1") == 0
    assert recognize_crops(crops, "--out", "all.csv") == 0
    one, every = pd.read_csv("one.csv"), pd.read_csv("all.csv")
    assert one["source"].tolist() == ["crops/3.png", "crops/1.png"]
    assert np.allclose(one[EMOTIONS], every.loc[[3, 1], EMOTIONS], atol=1e-6)
    assert one["abstain"].all()
    assert not every["abstain"].any()


def test_what_cannot_be_read_is_named_and_the_run_goes_on(recognize_crops, crops, capsys):
    (crops / "1.png").write_bytes(b"no picture")
    video = write_video(crops / "v.avi", [np.full((64, 64, 3), 9 * level, np.uint8) for level in range(20)])
    os.truncate(video, int(video.stat().st_size * 0.6))
    assert recognize_crops("crops", "--annotated", "out") == 1
    shown = capsys.readouterr()
    assert "crops/1.png does not decode" in shown.err
    assert "of 20 frames: it is cut off or damaged" in shown.err
    assert "2 unreadable" in shown.out
    table = pd.read_csv("recognized.csv")
    assert table[table.status == "unreadable"]["source"].tolist() == ["crops/1.png", "crops/v.avi"]
    assert (table.status == "face").sum() > 4
    assert (crops.parent / "out/4.png").exists()


@pytest.mark.parametrize("name", ["bad.png", "bad.mp4"])
def test_a_single_file_that_is_corrupt_is_named(recognize_crops, tmp_path, capsys, name):
    (tmp_path / name).write_bytes(b"nothing")
    assert recognize_crops(name) == 1
    assert name in capsys.readouterr().err
    assert pd.read_csv("recognized.csv")["status"].tolist() == ["unreadable"]


@pytest.mark.parametrize(
    ("words", "words_of_message"),
    [
        (["missing"], "missing does not exist"),
        (["notes.txt"], "notes.txt is of an unknown kind"),
        (["empty"], "empty holds no pictures"),
        (["table.csv"], "table.csv has no column path"),
        (["77"], "there is no camera 77"),
        (["crops", "--out", "t.xlsx"], "t.xlsx ends neither in .csv nor in .parquet (--out)"),
        (["crops", "--out", "notes.txt/t.csv"], "cannot write notes.txt/t.csv"),
        (["crops", "--annotated", "a.png"], "a.png is one file: give a folder for several (--annotated)"),
        (["crops", "--annotated", "crops/out"], "lies in the folder that is read"),
        (["crops/0.png", "--annotated", "crops/0.png"], "crops/0.png would be written over"),
        (["crops/0.png", "--annotated", "a.mp4"], "does not end like a picture"),
        (["crops", "--annotated", "notes.txt"], "cannot write notes.txt/0.png"),
        (["crops", "--threshold", "2"], "--threshold must be a number from 0 to 1, not 2"),
        (["crops", "--batch_size", "0"], "--batch_size must be a whole number above 0, not 0"),
        (["crops", "--detector", "notes.txt"], "aligned faces are not detected"),
        (["crops", "--device", "gpu7"], "the device 'gpu7' cannot be used"),
    ],
)
def test_wrong_input_is_one_message(recognize_crops, crops, capsys, words, words_of_message):
    (crops.parent / "notes.txt").write_text("")
    (crops.parent / "table.csv").write_text("file\n1.png\n")
    (crops.parent / "empty").mkdir()
    assert recognize_crops(*words) == 2
    shown = capsys.readouterr().err
    assert words_of_message in shown
    assert shown.count("error: ") == 1
    assert "Traceback" not in shown


def test_a_checkpoint_of_another_kind_is_one_message(crops, capsys, tmp_path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.ckpt")
    (tmp_path / "text.ckpt").write_text("weights")
    for name, words in (
        ("other.ckpt", "is no checkpoint of this package"),
        ("text.ckpt", "cannot be read as a checkpoint: it is cut off, another kind of file, or carries code"),
        ("gone.ckpt", "does not exist"),
    ):
        assert main(["recognize", "crops", "--ckpt", name, "--aligned", "true"]) == 2
        assert words in message(capsys)
    assert main(["recognize", "crops"]) == 2
    assert "(--ckpt)" in message(capsys)


def test_offline_the_detector_is_asked_for(checkpoint, crops, capsys, monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert main(["recognize", "crops", "--ckpt", str(checkpoint)]) == 2
    assert "Offline, give a file of it" in message(capsys)
    assert main(["recognize", "crops", "--ckpt", str(checkpoint), "--detector", "gone.onnx"]) == 2
    assert message(capsys) == "error: there is no detector gone.onnx (--detector)"


def test_the_calibration_of_the_checkpoint_decides_when_to_abstain(crops, tmp_path):
    file = random_checkpoint(tmp_path)
    calibration = {"temperature": 0.1, "bias": [0.0] * 7, "threshold": 0.9, "risk": 0.1, "coverage": 0.5}
    with_keys(file, calibration=calibration | {"ece_before": 0.1, "ece_after": 0.05, "split": "abc"})
    assert main(["recognize", "crops", "--ckpt", str(file), "--aligned", "true"]) == 0
    table = pd.read_csv("recognized.csv")
    assert table["abstain"].tolist() == (table["confidence"] < 0.9).tolist()
    assert table["abstain"].any()


class EndlessCamera:
    """A camera whose user presses Ctrl-C after seven pictures."""

    def __init__(self, index):
        self.taken = 0

    def isOpened(self):
        return True

    def get(self, key):
        return 0.0

    def read(self):
        self.taken += 1
        if self.taken > 7:
            raise KeyboardInterrupt
        return True, np.full((32, 32, 3), 20 * self.taken, np.uint8)

    def release(self):
        pass


def test_ctrl_c_keeps_what_was_written(recognize_crops, monkeypatch, capsys):
    monkeypatch.setattr(videos.cv2, "VideoCapture", EndlessCamera)
    assert recognize_crops("0", "--batch_size", "3") == 130
    table = pd.read_csv("recognized.csv")
    assert table["source"].tolist() == ["camera 0"] * 6
    assert table["frame"].tolist() == list(range(6))
    assert "recognized.csv: 6 faces" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_memory_stays_constant(recognize_crops, tmp_path):
    """A folder of many large pictures takes no more memory than the first of them."""
    picture = write_picture(tmp_path / "large.png", np.zeros((2000, 2000, 3), np.uint8))  # 12 MB each
    (tmp_path / "many").mkdir()
    for number in range(30):
        (tmp_path / f"many/{number}.png").symlink_to(picture)

    def peak():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))

    assert recognize_crops(picture) == 0
    before = peak()
    assert recognize_crops("many") == 0
    assert peak() - before < 120  # of 360 MB
