"""What every method must show, through the real program; a new one is covered the day it is exported."""

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from every import EXPERIMENTS, METHODS, config

import fer_lightning
from fer_lightning.cli import main


def configs(name: str) -> list[str]:
    files = [
        EXPERIMENTS / "trainer.yaml",
        EXPERIMENTS / "data/synthetic.yaml",
        EXPERIMENTS / f"methods/{name}.yaml",
    ]
    return [word for file in files for word in ("--config", str(file))]


def tiny(run_dir: Path, *words: str) -> list[str]:
    options = {
        "trainer.default_root_dir": run_dir,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.log_every_n_steps": 2,
        "trainer.enable_progress_bar": False,
        "trainer.enable_model_summary": False,
        "data.dataset.train": 84,
        "data.dataset.val": 14,
        "data.dataset.test": 21,
        "data.labels_per_class": 3,
        "data.image_size": 16,
        "data.batch_size": 14,
        "data.unlabeled_ratio": 2,
        "data.steps_per_epoch": 5,
        "data.workers": 0,
        "model.labeled_only_steps": 0,  # the default of SCL+UERM+ARM is for longer runs
    }
    return [*(f"--{key}={value}" for key, value in options.items()), *words]


SMALL_NETWORK = ["--model.backbone=wrn_10_1", "--model.backbone_arguments={width: 0.25}"]


@pytest.fixture(scope="module", params=METHODS)
def run(request, tmp_path_factory):
    """A finished run of a method."""
    run_dir = tmp_path_factory.mktemp(request.param) / "run"
    words = tiny(run_dir, *SMALL_NETWORK, "--trainer.max_steps=10", "--model.dropout=0.1")
    assert main(["fit", *configs(request.param), *words]) == 0
    return request.param, run_dir


def test_fit_leaves_everything_behind(run):
    _, run_dir = run
    expected = ["checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.yaml", "split.json", "run.json"]
    expected += ["metrics.csv", "figures/views.png", "figures/val_confusion.png"]
    assert [name for name in expected if not (run_dir / name).exists()] == []
    metrics = pd.read_csv(run_dir / "metrics.csv")
    assert {"train/loss", "val/accuracy", "val/uar", "val/ece", "val/recall/fear", "val/score"} <= set(
        metrics
    )
    assert metrics["val/accuracy"].notna().sum() == 2  # two epochs


def test_audit_has_its_classes(run):
    name, run_dir = run
    method = fer_lightning.load(run_dir / "checkpoints/last.ckpt")
    if not method.views.unlabeled:
        pytest.skip(f"{name} makes no pseudo-labels")
    audit = pd.read_csv(run_dir / "pseudo_labels.csv")
    assert set(audit["emotion"]) == {*method.task.emotions, "all"}


def test_the_yaml_adds_nothing_to_the_class(run):
    name, _ = run
    assert config(name) == {"model": {"class_path": f"fer_lightning.methods.{METHODS[name].__name__}"}}


def test_validate_test_and_predict(run):
    _, run_dir = run
    best = str(run_dir / "checkpoints/best.ckpt")
    resolved = ["--config", str(run_dir / "config.yaml"), "--ckpt_path", best]
    assert main(["validate", *resolved]) == 0
    assert main(["test", *resolved]) == 0
    row = pd.read_csv(run_dir / "test.csv").iloc[-1]
    assert row["checkpoint"] == "best.ckpt"
    assert 0 <= row["accuracy"] <= 1
    assert main(["predict", *resolved]) == 0
    predictions = pd.read_csv(run_dir / "predictions-test.csv")
    assert len(predictions) == 21
    right = predictions["emotion"].map(lambda e: e in fer_lightning.load(best).task.emotions)
    assert right.all()


def test_run_stopped_by_control_c_goes_on_as_if_it_had_not_been(run, tmp_path):
    name, run_dir = run
    words = tiny(tmp_path / "half", *SMALL_NETWORK, "--model.dropout=0.1", "--trainer.max_steps=10")
    stop = "--trainer.callbacks+=stop.Press", "--trainer.callbacks.batch=7"  # amid the second epoch
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *configs(name), *words, *stop])
    assert stopped.value.code == 130
    last = tmp_path / "half/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 7
    assert main(["fit", *configs(name), *words, "--ckpt_path", str(last)]) == 0
    whole = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)
    resumed = torch.load(last, weights_only=True)
    assert whole["global_step"] == resumed["global_step"] == 10
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][key]), key


def test_bfloat16_is_finite(run, tmp_path):
    name, _ = run
    words = tiny(tmp_path / "bf16", *SMALL_NETWORK, "--trainer.max_steps=5", "--trainer.precision=bf16-mixed")
    assert main(["fit", *configs(name), *words]) == 0
    state = torch.load(tmp_path / "bf16/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(v.isfinite().all() for v in state.values() if v.is_floating_point())


def test_a_prediction_does_not_depend_on_the_batch(run):
    method = fer_lightning.load(run[1] / "checkpoints/last.ckpt")
    images = torch.randint(0, 255, (5, 3, 16, 16), dtype=torch.uint8)
    alone = torch.cat([method(image[None]).emotion for image in images])
    torch.testing.assert_close(method(images).emotion, alone)


@pytest.mark.parametrize("data", sorted(file.stem for file in (EXPERIMENTS / "data").glob("*.yaml")))
@pytest.mark.parametrize("name", ["fixmatch", "ada_cm", "sser"])
def test_the_order_of_configs_decides_nothing(name, data, capsys):
    parsed = []
    files = [EXPERIMENTS / f"methods/{name}.yaml", EXPERIMENTS / f"data/{data}.yaml"]
    for order in (files, files[::-1]):
        words = [word for file in [EXPERIMENTS / "trainer.yaml", *order] for word in ("--config", str(file))]
        with pytest.raises(SystemExit) as stop:
            main(["fit", *words, "--print_config"])
        assert stop.value.code in (0, None)
        parsed.append(yaml.safe_load(capsys.readouterr().out))
    assert parsed[0] == parsed[1]
    assert parsed[0]["model"]["class_path"] == f"fer_lightning.methods.{METHODS[name].__name__}"
    assert parsed[0]["data"]["image_size"] >= 32
