import json
import subprocess
import warnings

import pytest
import torch
from faces import TINY, tiny_data
from full_run import KeepCheckpoint, full_fit
from lightning.pytorch.loggers import CSVLogger

import fer_lightning
from fer_lightning.callbacks import run_record
from fer_lightning.callbacks.run_record import source_commit
from fer_lightning.data.splits import Split
from fer_lightning.errors import InputError
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
        "seed_everything": 3,
        "data_seed": 0,
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
    other = {"accumulate_grad_batches": 2, "change_length": True}
    with pytest.warns(UserWarning, match="accumulate_grad_batches 1, now it is 2"):
        full_fit(tmp_path, tmp_path / "mid.ckpt", max_epochs=1, **other)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the run to resume")
        full_fit(tmp_path, tmp_path / "mid.ckpt", max_epochs=1)


@pytest.mark.parametrize("other", [{"max_epochs": 2}, {"max_steps": 4}, {"limit_train_batches": 4}])
def test_another_length_is_asked_for_by_name(tmp_path, other):
    options = {"max_epochs": 1}
    full_fit(tmp_path, callbacks=[KeepCheckpoint(3, tmp_path / "mid.ckpt")], **options)
    files = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match="was to take 5 optimizer steps") as refused:
        full_fit(tmp_path, tmp_path / "mid.ckpt", **options | other)
    assert refused.value.option == "change_length"
    assert files == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.warns(UserWarning, match="length 5, now it is"):
        trainer = full_fit(tmp_path, tmp_path / "mid.ckpt", change_length=True, **options | other)
    assert record(tmp_path)["steps"] == trainer.global_step == trainer.estimated_stepping_batches


def test_another_seed_is_refused(tmp_path, monkeypatch):
    full_fit(tmp_path, callbacks=[KeepCheckpoint(3, tmp_path / "mid.ckpt")], max_epochs=1)
    monkeypatch.setattr(run_record, "seed_everything", lambda: 4)
    with pytest.raises(InputError, match="seed_everything 3, not 4"):
        full_fit(tmp_path, tmp_path / "mid.ckpt", max_epochs=1)


def test_the_record_knows_the_steps_of_a_run_that_was_stopped(tmp_path):
    class Killed(FixMatch):
        def on_train_batch_start(self, batch, batch_idx):
            if self.global_step == 8:
                recorded.append(record(tmp_path)["steps"])
                raise ConnectionError("as if killed")

    recorded = []
    with pytest.raises(ConnectionError):
        full_fit(tmp_path, method=Killed(**TINY), every_n_steps=7)
    assert recorded == [7]
    assert (record(tmp_path)["steps"], record(tmp_path)["finished"]) == (8, False)


def test_a_checkpoint_saved_after_the_end_does_not_make_a_run_unfinished(tmp_path):
    trainer = full_fit(tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "copy.ckpt")
    assert record(tmp_path)["finished"]


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
