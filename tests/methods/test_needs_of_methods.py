"""The chassis against what the methods to come ask of it, each need in a small method of its own.

Every one of them must resume exactly and end with the same state on two ranks; tests/test_ddp.py
runs them too.
"""

from typing import Any

import lightning as L
import pytest
import torch
from faces import TINY, quiet_trainer, tiny_data
from needs import METHODS, AmendedNeck
from torch import Tensor


class Stop(L.Callback):
    def __init__(self, after: int, path: Any) -> None:
        self.after, self.path = after, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.after:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("method", METHODS)
def test_adaptive_state_survives_resuming(tmp_path, method):
    def fit(callback: L.Callback, ckpt_path: Any = None) -> dict[str, Tensor]:
        L.seed_everything(1, verbose=False)
        model = method(**TINY, dropout=0.2)
        quiet_trainer(tmp_path, max_epochs=4, callbacks=[callback]).fit(
            model, tiny_data(), ckpt_path=ckpt_path
        )
        return model.state_dict()

    whole = fit(Stop(12, tmp_path / "mid.ckpt"))  # in the middle of the third of four epochs of five steps
    fresh = method(**TINY).state_dict()
    resumed = fit(Stop(-1, None), tmp_path / "mid.ckpt")
    assert whole.keys() == resumed.keys()
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name
    given = ("student", "teacher", "noise_seed", "snapshot.mean", "snapshot.std")
    own = [name for name in whole if not name.startswith(given)]
    for name in own:  # the state is not what it began as, so there was something to lose
        assert whole[name].shape != fresh[name].shape or not torch.equal(whole[name], fresh[name]), name


@pytest.mark.parametrize("method", METHODS)
def test_method_opens_without_its_data(tmp_path, method):
    model = method(**TINY)
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(model, tiny_data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    opened = method.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True).eval()
    images = torch.randint(0, 255, (5, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(opened(images).emotion, model.eval()(images).emotion)


def test_neck_replaces_the_pooling():
    model = AmendedNeck(**TINY)
    assert model.student.head.in_features == 9
    output = model.student(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    assert output.features.shape == (2, 9)
    assert output.maps.ndim == 4
