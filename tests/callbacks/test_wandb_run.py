import json

import pytest
from faces import TINY, tiny_data
from full_run import KeepCheckpoint, full_fit
from lightning.pytorch.loggers import WandbLogger
from offline_wandb import offline_runs

from fer_lightning.callbacks import run_callbacks, wandb_run_id
from fer_lightning.errors import CheckpointError
from fer_lightning.methods import FixMatch

wandb = pytest.importorskip("wandb")


def logger(folder, **options):
    return WandbLogger(project="tests", save_dir=folder, offline=True, **options)


def test_a_resumed_run_is_one_run_with_everything_in_it(tmp_path):
    (tmp_path / "wandb").mkdir()
    first = logger(tmp_path / "wandb")
    keep = KeepCheckpoint(7, tmp_path / "mid.ckpt")
    full_fit(tmp_path, callbacks=[keep], loggers=[first], figures=True)
    wandb.finish()
    second = logger(tmp_path / "wandb", id=wandb_run_id(tmp_path / "mid.ckpt"))
    full_fit(tmp_path, tmp_path / "mid.ckpt", loggers=[second], figures=True)
    wandb.finish()

    record = json.loads((tmp_path / "run.json").read_text())
    runs = offline_runs(tmp_path / "wandb")
    assert len(runs) == 2
    assert runs[0].id == runs[1].id == first.version
    for run in runs:
        assert run.config["split"] == record["split"]
        assert run.config["commit"] == record["commit"]
        assert run.config["threshold"] == 0.2
        assert {"train/loss", "val/accuracy", "audit/coverage", "audit/purity"} <= run.logged
        assert any(image.startswith("figures/pseudo_labels") for image in run.images)
    assert any(image.startswith("figures/views") for image in runs[0].images)
    steps = [[row["trainer/global_step"] for row in run.history if "train/loss" in row] for run in runs]
    assert steps == [list(range(10)), list(range(7, 10))]


def test_a_run_without_the_logger_has_no_id(tmp_path):
    full_fit(tmp_path, max_epochs=1)
    assert wandb_run_id(tmp_path / "checkpoints" / "last.ckpt") is None
    with pytest.raises(CheckpointError, match="does not exist"):
        wandb_run_id(tmp_path / "missing.ckpt")


def test_the_id_is_found_in_the_checkpoint(tmp_path):
    ours = logger(tmp_path, id="abc", mode="disabled")
    full_fit(tmp_path, loggers=[ours], max_epochs=1, method=FixMatch(**TINY), data=tiny_data())
    assert wandb_run_id(tmp_path / "checkpoints" / "last.ckpt") == ours.version


def test_a_run_resumed_without_the_logger_keeps_its_id(tmp_path):
    callback = next(each for each in run_callbacks(tmp_path) if type(each).__name__ == "WandbRun")
    callback.load_state_dict({"id": "abc"})
    assert callback.state_dict() == {"id": "abc"}
