import shutil
import sys
import warnings
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from faces import TINY, TinyFaces, quiet_trainer, tiny_data
from full_run import full_fit

from fer_lightning.callbacks import BestCheckpoint, LastCheckpoint, SaveOnInterrupt, run_callbacks
from fer_lightning.callbacks.run_checkpoints import resumable
from fer_lightning.methods import FixMatch


def names(run_dir):
    return sorted(file.name for file in (run_dir / "checkpoints").iterdir())


def epoch_of(file):
    return torch.load(file, weights_only=True)["epoch"]


class Scored(FixMatch):
    """Has the validation scores it is told to have, epoch by epoch."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.register_buffer("ended", torch.tensor(-1))

    def on_validation_epoch_end(self):
        self.log("val/score", self.scores[self.current_epoch])

    def on_train_epoch_end(self):
        self.ended.fill_(self.current_epoch)


def fit(run_dir, scores, ckpt_path=None, **options):
    method = Scored(**TINY)
    method.scores = scores
    return full_fit(run_dir, ckpt_path, method, max_epochs=len(scores), change_length=True, **options)


def test_best_and_last_and_nothing_else(tmp_path):
    fit(tmp_path, [0.3, 0.5, 0.4])
    assert names(tmp_path) == ["best.ckpt", "last.ckpt"]
    assert epoch_of(tmp_path / "checkpoints" / "best.ckpt") == 1
    assert epoch_of(tmp_path / "checkpoints" / "last.ckpt") == 2


def test_last_holds_what_the_method_did_when_the_epoch_ended(tmp_path):
    fit(tmp_path, [0.3, 0.2])
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["ended"] == 1


def test_without_validation_faces_there_is_no_best_and_no_complaint(tmp_path):
    faces = TinyFaces(val=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*could not find the monitored key.*")
        full_fit(tmp_path, data=tiny_data(dataset=faces, val="none"), num_sanity_val_steps=2)
    assert names(tmp_path) == ["last.ckpt"]
    assert epoch_of(tmp_path / "checkpoints" / "last.ckpt") == 1


@pytest.mark.parametrize("moved", [False, True], ids=["in-place", "moved"])
def test_resuming_does_not_overwrite_a_better_checkpoint(tmp_path, moved):
    run_dir = tmp_path / "run"
    fit(run_dir, [0.6, 0.1])
    if moved:
        shutil.move(run_dir, tmp_path / "elsewhere")
        run_dir = tmp_path / "elsewhere"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*(dirpath has changed|is not empty).*")
        fit(run_dir, [0.6, 0.1, 0.5, 0.7], run_dir / "checkpoints" / "last.ckpt")
    assert epoch_of(run_dir / "checkpoints" / "best.ckpt") == 3
    fit(run_dir, [0.6, 0.1, 0.5, 0.7, 0.65], run_dir / "checkpoints" / "last.ckpt")
    assert epoch_of(run_dir / "checkpoints" / "best.ckpt") == 3
    assert names(run_dir) == ["best.ckpt", "last.ckpt"]


def test_resuming_into_a_new_directory_finds_a_best_of_its_own(tmp_path):
    fit(tmp_path / "old", [0.6, 0.1])
    fit(tmp_path / "new", [0.6, 0.1, 0.2], tmp_path / "old" / "checkpoints" / "last.ckpt")
    assert epoch_of(tmp_path / "new" / "checkpoints" / "best.ckpt") == 2
    assert epoch_of(tmp_path / "old" / "checkpoints" / "best.ckpt") == 0


def test_last_is_renewed_within_an_epoch_when_asked(tmp_path):
    class Killed(FixMatch):
        def on_train_batch_start(self, batch, batch_idx):
            if self.global_step == 8:
                raise ConnectionError("as if killed")

    with pytest.raises(ConnectionError):
        full_fit(tmp_path, method=Killed(**TINY), every_n_steps=7)
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 7


def test_last_is_renewed_after_some_minutes_when_asked(tmp_path, monkeypatch):
    seconds = iter(range(0, 100_000, 20))  # a batch takes 20, and the end of an epoch saves too
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr(sys.modules[LastCheckpoint.__module__], "time", clock)
    saved = []
    save = L.Trainer.save_checkpoint

    def note(trainer, path, *arguments, **options):
        saved.append(trainer.global_step)
        save(trainer, path, *arguments, **options)

    monkeypatch.setattr(L.Trainer, "save_checkpoint", note)
    callbacks = [LastCheckpoint(tmp_path / "last.ckpt", every_minutes=1)]
    quiet_trainer(tmp_path, max_epochs=2, callbacks=callbacks, enable_checkpointing=True).fit(
        FixMatch(**TINY), tiny_data(steps_per_epoch=7)
    )
    assert saved == [3, 6, 7, 10, 13, 14]


def test_a_kill_right_after_the_checkpoint_of_an_epoch_loses_none_of_its_rows(tmp_path, monkeypatch):
    def save_and_die(callback, trainer):
        trainer.save_checkpoint(callback.path)
        raise ConnectionError("as if killed")

    whole, run_dir = tmp_path / "whole", tmp_path / "run"
    full_fit(whole)
    with monkeypatch.context() as killed:
        killed.setattr(LastCheckpoint, "_save", save_and_die)
        with pytest.raises(ConnectionError):
            full_fit(run_dir)
    full_fit(run_dir, run_dir / "checkpoints" / "last.ckpt")
    for table in ("metrics.csv", "pseudo_labels.csv"):
        assert (run_dir / table).read_text() == (whole / table).read_text()


def test_whatever_callbacks_a_user_adds_checkpoints_come_last(tmp_path):
    trainer = quiet_trainer(
        tmp_path, callbacks=[*run_callbacks(tmp_path), L.Callback()], enable_checkpointing=True
    )
    assert [type(each) for each in trainer.callbacks[-3:]] == [
        BestCheckpoint,
        LastCheckpoint,
        SaveOnInterrupt,
    ]


@pytest.mark.parametrize(
    ("batch_idx", "accumulate", "validate", "last", "expected"),
    [
        (3, 1, 10, False, True),
        (9, 1, 10, True, False),  # validation and the end of the epoch would be skipped
        (3, 3, 10, False, False),  # one gradient of three is in
        (5, 3, 10, False, True),
        (4, 1, 5, False, False),  # validation in mid-epoch would be skipped
        (9, 1, 4, True, False),  # the end of the epoch comes without a validation
        (4, 1, float("inf"), False, True),
        (4, 1, None, False, True),
    ],
)
def test_moments_to_resume_from(batch_idx, accumulate, validate, last, expected):
    trainer = SimpleNamespace(
        accumulate_grad_batches=accumulate, val_check_batch=validate, is_last_batch=last
    )
    assert resumable(trainer, batch_idx) is expected
