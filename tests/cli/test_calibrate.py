import shutil

import pandas as pd
import pytest
import torch
import yaml
from photographs import random_checkpoint, with_keys
from small_run import small_run

from fer_lightning import explore
from fer_lightning.cli import main
from fer_lightning.inference.calibration import Calibration, bins, calibrated, cross_fitted, risk_coverage
from fer_lightning.inference.recognizer import FaceRecognizer
from fer_lightning.metrics import calibration_error


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrate") / "run"
    return small_run(folder, "--data.labels_per_class=4", "--data.dataset.val=70")


@pytest.fixture
def checkpoint(trained, tmp_path):
    shutil.copytree(trained.parent.parent, tmp_path / "run")
    return with_keys(tmp_path / "run/checkpoints/last.ckpt", image_size=16)


def refused(words, capsys):
    capsys.readouterr()
    assert main(words) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_calibration_is_fitted_on_the_val_faces_and_kept_in_the_checkpoint(checkpoint, capsys):
    run = explore.open_run(checkpoint)
    evaluation = explore.evaluate(run, "val")
    emotions = list(run.method.task.emotions)
    probability = torch.from_numpy(evaluation.table[emotions].to_numpy(copy=True))
    label = torch.tensor([emotions.index(truth) for truth in evaluation.table["truth"]])
    assert len(label) == 70
    held_out = cross_fitted(probability, label)
    confidence, predicted = held_out.max(-1)
    lowest = risk_coverage(confidence, predicted == label)[2].min().item()

    before = torch.load(checkpoint, weights_only=True)
    assert main(["calibrate", str(checkpoint), "--risk", str(lowest)]) == 0
    after = torch.load(checkpoint, weights_only=True)
    found = Calibration.of(after)
    assert found.ece_before == pytest.approx(float(evaluation.metrics.compute()["ece"]), abs=1e-4)
    assert found.ece_after == pytest.approx(float(calibration_error(bins(held_out, label))), abs=1e-4)
    kept = confidence.double() >= found.threshold - 1e-6
    assert 0 < found.threshold < 1
    assert found.coverage == pytest.approx(kept.double().mean().item(), abs=1e-6)
    assert found.risk == pytest.approx((predicted != label)[kept].double().mean().item(), abs=1e-6)
    assert found.risk == pytest.approx(lowest)
    assert found.split == run.data.split.sha256

    assert set(after) - set(before) == {"calibration"}
    for name, value in before["state_dict"].items():
        assert torch.equal(value, after["state_dict"][name])
    shown = capsys.readouterr().out
    assert "On 70 validation faces: ECE" in shown
    figures = {file.name for file in (checkpoint.parent.parent / "figures").glob("*.png")}
    assert {"calibration_before.png", "calibration_after.png", "risk_coverage.png"} <= figures

    recognize = FaceRecognizer.from_checkpoint(checkpoint, aligned=True, device="cpu")
    faces = [explore.images(run, [row])[0] for row in run.data.val[:5]]
    table = recognize(faces)
    expected = calibrated(probability[:5], found.temperature, torch.tensor(found.bias))
    got = torch.from_numpy(table[emotions].to_numpy(float))
    assert torch.allclose(got, expected.double(), atol=1e-4)
    assert recognize.threshold == found.threshold


def test_without_a_risk_it_never_abstains_and_again_replaces_it(checkpoint):
    assert main(["calibrate", str(checkpoint), "--risk", "1"]) == 0
    assert Calibration.of(torch.load(checkpoint, weights_only=True)).threshold > 0
    assert main(["calibrate", str(checkpoint)]) == 0
    found = Calibration.of(torch.load(checkpoint, weights_only=True))
    assert (found.threshold, found.coverage) == (0, 1)


def test_training_goes_on_from_a_calibrated_checkpoint(checkpoint):
    assert main(["calibrate", str(checkpoint)]) == 0
    run = checkpoint.parent.parent
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"] |= {"max_epochs": 3, "default_root_dir": str(run)}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    words = ["fit", "--config", str(run / "config.yaml"), "--ckpt_path", str(checkpoint)]
    assert main([*words, "--change_length=true"]) == 0
    assert pd.read_csv(run / "metrics.csv")["epoch"].max() == 2
    # The calibration was of other weights.
    assert Calibration.of(torch.load(checkpoint, weights_only=True)) is None


def test_a_risk_that_cannot_be_had_is_one_message_and_changes_nothing(checkpoint, capsys):
    before = checkpoint.read_bytes()
    line = refused(["calibrate", str(checkpoint), "--risk", "0"], capsys)
    assert "no threshold brings the risk down to 0: the lowest one is 0." in line
    assert line.endswith("(--risk)")
    assert checkpoint.read_bytes() == before
    assert "--risk must be a number from 0 to 1" in refused(
        ["calibrate", str(checkpoint), "--risk", "2"], capsys
    )


def test_what_cannot_be_calibrated_is_one_message(checkpoint, tmp_path, capsys):
    lonely = random_checkpoint(tmp_path)
    assert "has no run around it" in refused(["calibrate", str(lonely)], capsys)
    assert "does not exist" in refused(["calibrate", "gone.ckpt"], capsys)

    config = checkpoint.parent.parent / "config.yaml"
    split = checkpoint.parent.parent / "split.json"
    content = yaml.safe_load(config.read_text())
    content["data"]["dataset"] = {"class_path": "fer_lightning.data.datasets.FER2013"}
    content["data"]["dataset"]["init_args"] = {"root": "gone"}
    config.write_text(yaml.safe_dump(content))
    assert "gone" in refused(["calibrate", str(checkpoint)], capsys)
    assert "elsewhere" in refused(["calibrate", str(checkpoint), "--dataset.root", "elsewhere"], capsys)
    assert split.exists()


def test_a_run_without_val_faces_is_one_message(tmp_path, capsys):
    last = small_run(
        tmp_path / "run", "--data.labels_per_class=3", "--data.val=none", "--trainer.max_epochs=1"
    )
    assert "has no val faces to calibrate on: train it with val carved" in refused(
        ["calibrate", str(last)], capsys
    )
