"""The end is max_steps, however long an epoch is; max_epochs is for the progress bar."""

import lightning as L
import pytest
from full_run import KeepCheckpoint, full_fit

from fer_lightning.callbacks import EpochCount


class Shown(L.Callback):
    """Notes the epoch and the number of epochs that a progress bar would show."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append((trainer.current_epoch, trainer.max_epochs))


def fit(run_dir, ckpt_path=None, callbacks=(), **options):
    shown = Shown()
    callbacks = [EpochCount(), shown, *callbacks]
    trainer = full_fit(run_dir, ckpt_path, max_epochs=12, max_steps=12, callbacks=callbacks, **options)
    return trainer.global_step, shown.epochs


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({}, [(0, 3), (1, 3), (2, 3)]),  # an epoch is five batches
        ({"limit_train_batches": 4}, [(0, 3), (1, 3), (2, 3)]),
        ({"limit_train_batches": 0.7}, [(0, 4), (1, 4), (2, 4), (3, 4)]),
        ({"limit_train_batches": 2}, [(epoch, 6) for epoch in range(6)]),
        ({"accumulate_grad_batches": 2}, [(epoch, 4) for epoch in range(4)]),
    ],
)
def test_all_steps_are_taken(tmp_path, options, epochs):
    assert fit(tmp_path, **options) == (12, epochs)


def test_all_steps_are_taken_where_epochs_became_shorter(tmp_path):
    fit(
        tmp_path / "a",
        callbacks=[KeepCheckpoint(5, tmp_path / "end.ckpt"), KeepCheckpoint(7, tmp_path / "mid.ckpt")],
    )
    for name in ("mid.ckpt", "end.ckpt"):
        options = {"limit_train_batches": 2, "change_length": True}
        steps, epochs = fit(tmp_path / f"from-{name}", tmp_path / name, **options)
        assert steps == 12
        assert epochs[-1][0] == epochs[-1][1] - 1
