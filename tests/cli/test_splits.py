import json

import numpy as np
import pytest
import yaml

from fer_lightning.cli import main
from fer_lightning.data.datasets.base import ArrayImages, FaceDataset, Faces, one_hot
from fer_lightning.data.splits import Split, SplitRequest, make_split
from fer_lightning.emotions import BASIC_7


class SevenFaces(FaceDataset):
    """70 training faces, 7 val and 7 test faces, all different but for the copies asked for."""

    def __init__(self, copies: int = 0, dataset: str = "seven"):
        self.copies, self.dataset = copies, dataset

    def load(self, image_size: int) -> Faces:
        label = np.arange(84) % 7
        pixels = np.repeat(np.arange(84, dtype=np.uint8), 4).reshape(84, 2, 2)
        pixels[77 : 77 + self.copies] = pixels[: self.copies]
        return Faces(
            dataset=self.dataset,
            taxonomy=BASIC_7,
            names=np.array([f"[face] {i:02d}" for i in range(84)]),
            partition=np.repeat(["train", "val", "test"], [70, 7, 7]),
            emotion=one_hot(label, 7),
            images=ArrayImages(pixels),
        )


DATASET = ["--dataset", f"{__name__}.SevenFaces"]


def splits(*arguments) -> int:
    return main(["splits", *map(str, arguments)])


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # so that no message is broken over lines


@pytest.fixture
def manifest(tmp_path):
    return tmp_path / "split.json"


def test_make_writes_what_was_asked_for_and_shows_it(manifest, capsys):
    options = ["--labels_total", 21, "--allocation", "proportional", "--seed", 4, "--val", "carved"]
    splits("make", *DATASET, "--output", manifest, *options, "--val_fraction", 0.4)
    request = SplitRequest(labels_total=21, allocation="proportional", seed=4, val="carved", val_fraction=0.4)
    assert manifest.read_text() == make_split(SevenFaces().load(48), request).to_json()
    shown = capsys.readouterr().out
    assert "surprise" in shown
    assert Split.load(manifest).sha256 in shown


def test_make_takes_a_budget_by_emotion(manifest):
    budget = {"angry": 1, "disgust": 0, "fear": 3, "happy": 2, "sad": 0, "surprise": 0, "neutral": 1}
    splits("make", *DATASET, "--output", manifest, "--labels_per_class", json.dumps(budget))
    assert Split.load(manifest).counts["labeled"]["anger"] == 1
    assert len(Split.load(manifest).labeled) == 7


def test_make_takes_a_config_file(manifest, tmp_path):
    dataset = {"class_path": f"{__name__}.SevenFaces", "init_args": {"copies": 2}}
    config = tmp_path / "make.yaml"
    config.write_text(
        yaml.safe_dump({"dataset": dataset, "labels_per_class": 2, "drop_test_duplicates": True})
    )
    splits("make", "--config", config, "--output", manifest)
    split = Split.load(manifest)
    assert (len(split.labeled), len(split.unlabeled)) == (14, 54)


def test_make_overwrites_no_other_split(manifest, capsys):
    assert splits("make", *DATASET, "--output", manifest, "--labels_per_class", 2) == 0
    before = manifest.read_bytes()
    assert splits("make", *DATASET, "--output", manifest, "--labels_per_class", 2) == 0
    assert splits("make", *DATASET, "--output", manifest, "--labels_per_class", 3) == 2
    assert "split.json holds another split" in capsys.readouterr().err
    assert manifest.read_bytes() == before


def test_make_refuses_what_the_faces_cannot_give(manifest, capsys):
    assert splits("make", *DATASET, "--output", manifest, "--labels_per_class", 11) == 2
    assert "(--labels_per_class)" in (message := capsys.readouterr().err)
    assert "11 of anger, of which there are 10" in message
    assert not manifest.exists()


def test_make_explains_its_options(capsys):
    with pytest.raises(SystemExit) as stopped:
        splits("make", "--help")
    assert stopped.value.code == 0
    help_ = " ".join(capsys.readouterr().out.split())
    assert "out of the labeled budget, so that validating costs labels" in help_
    assert "{balanced,proportional,ada_cm}" in help_


def test_verify_accepts_a_sound_split(manifest, capsys):
    splits("make", *DATASET, "--output", manifest, "--labels_per_class", 2)
    assert splits("verify", "--manifest", manifest, *DATASET) == 0
    assert "no findings" in " ".join(capsys.readouterr().out.split())


def test_verify_prints_warnings_and_succeeds(manifest, capsys):
    dataset = [*DATASET, "--dataset.copies", 3]
    splits("make", *dataset, "--output", manifest)
    capsys.readouterr()
    assert splits("verify", "--manifest", manifest, *dataset) == 0
    shown = capsys.readouterr().out
    assert "warning" in shown
    assert "3 of 7 test images" in shown


def test_verify_exits_with_1_on_errors(manifest, capsys):
    splits("make", *DATASET, "--output", manifest, "--labels_per_class", 2)
    content = json.loads(manifest.read_text())
    content["labeled"].append(content["test"][0])
    manifest.write_text(json.dumps(content))
    capsys.readouterr()
    assert splits("verify", "--manifest", manifest, *DATASET) == 1
    shown = capsys.readouterr().out
    assert "was edited" in shown
    assert "[face] 77" in shown  # a name in brackets is no markup
    splits("show", "--manifest", manifest)
    assert "edited after it was made" in capsys.readouterr().out


def test_verify_exits_with_1_on_another_dataset(manifest, capsys):
    splits("make", *DATASET, "--output", manifest)
    assert splits("verify", "--manifest", manifest, *DATASET, "--dataset.dataset", "eight") == 1
    assert "'eight'" in capsys.readouterr().out


def test_show_prints_counts_request_and_hash(manifest, capsys):
    splits("make", *DATASET, "--output", manifest, "--labels_per_class", 3, "--seed", 9)
    capsys.readouterr()
    splits("show", "--manifest", manifest)
    rows = {
        line.split()[1]: line.split()[3::2] for line in capsys.readouterr().out.splitlines() if "│" in line
    }
    assert rows["fear"] == ["3", "7", "1", "1"]
    assert rows["all"] == ["21", "49", "7", "7"]
    splits("show", "--manifest", manifest)
    shown = capsys.readouterr().out
    assert "labels_per_class=3" in shown
    assert "seed=9" in shown
    assert f"sha256 {Split.load(manifest).sha256}\n" in shown
