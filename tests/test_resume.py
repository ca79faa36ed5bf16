"""A resumed run equals an uninterrupted one, bit for bit."""

from typing import Any

import lightning as L
import pytest
import torch
from faces import TINY, quiet_trainer, tiny_data
from torch import Tensor

from fer_lightning.data.datasets.base import DataError
from fer_lightning.errors import CheckpointError
from fer_lightning.methods import FixMatch, PseudoLabel


class Recorder(L.Callback):
    """Notes which faces and views each batch holds, and saves a checkpoint after one of them."""

    def __init__(self, save_after: int | None = None, path: Any = None) -> None:
        self.batches: list[tuple[list[int], int, int]] = []
        self.save_after, self.path, self.count = save_after, path, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        views = (int(labeled.weak.sum()), int(unlabeled.strong.sum()))
        self.batches.append((labeled.index.tolist() + unlabeled.index.tolist(), *views))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.count += 1
        if self.count == self.save_after:
            trainer.save_checkpoint(self.path)


def fix_match(**options: Any) -> FixMatch:
    settings = {"threshold": 0.3, "dropout": 0.3, "warmup_steps": 3, "optimizer": "adamw", "lr": 1e-3}
    return FixMatch(**TINY, **settings | options)


def run(
    tmp_path: Any, recorder: Recorder, workers: int, accumulate: int, ckpt_path: Any = None
) -> dict[str, Any]:
    L.seed_everything(5, workers=True, verbose=False)
    method = fix_match()
    trainer = quiet_trainer(
        tmp_path, max_epochs=3, accumulate_grad_batches=accumulate, callbacks=[recorder], deterministic=True
    )
    if ckpt_path:
        torch.rand(7)  # what happened in a process before must not matter
    trainer.fit(method, tiny_data(workers=workers, seed=2), ckpt_path=ckpt_path)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    return torch.load(tmp_path / "end.ckpt", weights_only=True)


def assert_equal(ours: Any, theirs: Any, where: str = "") -> None:
    """Compare nested dictionaries and lists of tensors and numbers exactly."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_equal(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(a, b, f"{where}/{i}")
    elif isinstance(ours, Tensor):
        assert torch.equal(ours, theirs), where
    else:
        assert ours == theirs, where


@pytest.mark.parametrize(
    ("workers", "accumulate", "save_after"),
    [
        pytest.param(0, 1, 7, id="mid-epoch"),
        pytest.param(0, 1, 10, id="epoch-end"),
        pytest.param(2, 1, 7, id="workers"),
        pytest.param(1, 2, 7, id="accumulation"),
    ],
)
def test_resumed_run_equals_uninterrupted_run(tmp_path, workers, accumulate, save_after):
    whole = Recorder(save_after, tmp_path / "mid.ckpt")
    expected = run(tmp_path, whole, workers, accumulate)
    rest = Recorder()
    resumed = run(tmp_path, rest, workers, accumulate, ckpt_path=tmp_path / "mid.ckpt")
    assert len(whole.batches) == 15
    assert rest.batches == whole.batches[save_after:]
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert_equal(resumed[part], expected[part], part)


def test_other_seed_or_split_cannot_be_resumed(tmp_path):
    run(tmp_path, Recorder(7, tmp_path / "mid.ckpt"), 0, 1)
    others = [{"seed": 3}, {"labels_per_class": 5}, {"batch_size": 7}, {"label_noise": 0.1}]
    for options in others:
        with pytest.raises(DataError, match="trained on other data"):
            quiet_trainer(tmp_path, max_epochs=3).fit(
                fix_match(), tiny_data(**({"seed": 2} | options)), ckpt_path=tmp_path / "mid.ckpt"
            )


@pytest.mark.parametrize(
    ("options", "said"),
    [({"lr": 0.5}, "lr 0.001 there, 0.5 here"), ({"threshold": 0.9}, "threshold 0.3 there, 0.9 here")],
)
def test_other_options_of_the_method_cannot_be_resumed(tmp_path, options, said):
    run(tmp_path, Recorder(7, tmp_path / "mid.ckpt"), 0, 1)
    with pytest.raises(CheckpointError, match=said):
        quiet_trainer(tmp_path, max_epochs=3).fit(
            fix_match(**options), tiny_data(seed=2), ckpt_path=tmp_path / "mid.ckpt"
        )


def test_another_method_or_image_size_cannot_be_resumed(tmp_path):
    run(tmp_path, Recorder(7, tmp_path / "mid.ckpt"), 0, 1)
    for method, data, said in (
        (PseudoLabel(**TINY), tiny_data(seed=2), "is of FixMatch, and the method here is PseudoLabel"),
        (fix_match(), tiny_data(seed=2, image_size=20), "images of 16 pixels, and those here have 20"),
    ):
        with pytest.raises(CheckpointError, match=said):
            quiet_trainer(tmp_path, max_epochs=3).fit(method, data, ckpt_path=tmp_path / "mid.ckpt")
