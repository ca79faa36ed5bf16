import json
import subprocess
import warnings

import pytest
import torch
from faces import tiny_data
from full_run import KeepCheckpoint, full_fit
from lightning.pytorch.loggers import CSVLogger

import fer_lightning
from fer_lightning.callbacks import run_record
from fer_lightning.callbacks.run_record import source_commit
from fer_lightning.data.splits import Split
from fer_lightning.methods import FixMatch


class Hyperparameters(CSVLogger):
    """Any other logger."""

    def __init__(self, folder):
        super().__init__(folder)
        self.told = {}

    def log_hyperparams(self, params=None):
        self.told |= params


def record(run_dir):
    return json.loads((run_dir / "run.json").read_text())


def test_a_finished_run_has_its_origin_on_record(tmp_path, monkeypatch):
    monkeypatch.setattr(run_record, "source_commit", lambda: "abc-dirty")
    other = Hyperparameters(tmp_path / "other")
    trainer = full_fit(tmp_path, loggers=[other])
    split, run = trainer.datamodule.split, record(tmp_path)
    assert Split.load(tmp_path / "split.json") == split
    assert run.pop("wall_s") > 0
    assert run == {
        "method": "fer_lightning.methods.fixmatch.FixMatch",
        "revision": FixMatch.revision,
        "seed": 3,
        "split": split.sha256,
        "commit": "abc-dirty",
        "dataset": "tiny196",
        "license": "none needed",
        "labels": 28,
        "unlabeled": 112,
        "label_noise": 0.0,
        "parameters": sum(p.numel() for p in trainer.lightning_module.student.parameters()),
        "finished": True,
        "steps": 10,
        "device": "cpu",
        "devices": 1,
        "lightning": run_record.L.__version__,
        "torch": torch.__version__,
    }
    assert (other.told["split"], other.told["commit"]) == (split.sha256, "abc-dirty")


def test_a_run_that_was_stopped_is_not_finished_and_keeps_its_time(tmp_path, monkeypatch):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(run_record.time, "monotonic", lambda: next(clock))
    last = tmp_path / "checkpoints" / "last.ckpt"

    class Failing(type(tiny_data())):
        def state_dict(self):
            if self.trainer.global_step == 10:
                raise ConnectionError("as if killed")
            return super().state_dict()

    data = tiny_data()
    data.__class__ = Failing
    with pytest.raises(ConnectionError):
        full_fit(tmp_path, data=data)
    assert not record(tmp_path)["finished"]
    spent = torch.load(last, weights_only=True)["callbacks"]["RunRecord"]["wall_s"]
    assert spent > 0
    full_fit(tmp_path, last)
    assert record(tmp_path)["finished"]
    assert record(tmp_path)["wall_s"] > spent


def test_resuming_a_finished_run_leaves_its_record(tmp_path):
    full_fit(tmp_path, max_epochs=1)
    before = record(tmp_path)
    full_fit(tmp_path, tmp_path / "checkpoints" / "last.ckpt", max_epochs=1)
    after = record(tmp_path)
    assert after.pop("wall_s") <= before.pop("wall_s") + 1
    assert after == before


def test_resuming_with_another_global_batch_warns(tmp_path):
    full_fit(tmp_path, callbacks=[KeepCheckpoint(4, tmp_path / "mid.ckpt")], max_epochs=1)
    with pytest.warns(UserWarning, match="accumulate_grad_batches 1, now it is 2"):
        full_fit(tmp_path, tmp_path / "mid.ckpt", max_epochs=1, accumulate_grad_batches=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the run to resume")
        full_fit(tmp_path, tmp_path / "mid.ckpt", max_epochs=1)


def test_resuming_with_another_revision_warns(tmp_path, monkeypatch):
    full_fit(tmp_path, callbacks=[KeepCheckpoint(4, tmp_path / "mid.ckpt")], max_epochs=1)
    monkeypatch.setattr(FixMatch, "revision", FixMatch.revision + 1)
    with pytest.warns(UserWarning, match=f"revision {FixMatch.revision - 1}, now it is {FixMatch.revision}"):
        full_fit(tmp_path, tmp_path / "mid.ckpt", max_epochs=1)
    assert record(tmp_path)["revision"] == FixMatch.revision


@pytest.fixture
def repository(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")

    def git(*arguments):
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    monkeypatch.setattr(fer_lightning, "__file__", str(package / "__init__.py"))
    return tmp_path, git


def test_commit_of_the_code(repository):
    folder, git = repository
    (folder / "results.csv").write_text("1")
    git("add", ".")
    git("commit", "-qm", "first")
    head = git("rev-parse", "HEAD")
    assert source_commit() == head
    (folder / "results.csv").write_text("2")  # what runs write does not make the code another
    assert source_commit() == head
    (folder / "package" / "new_method.py").write_text("")
    assert source_commit() == head + "-dirty"


def test_the_repository_of_another_project_is_not_that_of_the_code(repository):
    folder, git = repository  # the package lies in it, but is not part of it: an environment in a project
    (folder / "project.py").write_text("")
    git("add", "project.py")
    git("commit", "-qm", "first")
    assert source_commit() is None


def test_no_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(fer_lightning, "__file__", str(tmp_path / "__init__.py"))
    assert source_commit() is None
