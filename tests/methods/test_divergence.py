import pytest
import torch
from torch import nn

from fer_lightning.methods.divergence import Diverged, FiniteLosses, _Pending, check_weights


class Event:
    """That of a copy from a GPU, which has not arrived yet."""

    waited = False

    def query(self):
        return False

    def synchronize(self):
        self.waited = True


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_step_and_its_terms_are_named(value):
    losses = FiniteLosses()
    losses.add(3, {"supervised": torch.tensor(1.5), "unlabeled": torch.tensor(0.0)})
    with pytest.raises(Diverged, match=r"at step 4 \(supervised 1.25, unlabeled (nan|inf|-inf)\)") as raised:
        losses.add(4, {"supervised": torch.tensor(1.25), "unlabeled": torch.tensor(value)})
    assert raised.value.option == "model.lr"


def test_a_gpu_is_not_waited_for_until_it_has_to_be():
    losses, event = FiniteLosses(), Event()
    losses._pending.append(_Pending(3, ("supervised",), torch.tensor([torch.nan]), event))
    losses.add(4, {"supervised": torch.tensor(1.0)})
    assert not event.waited
    with pytest.raises(Diverged, match="at step 3 "):
        losses.check()  # as before a checkpoint is saved
    assert event.waited


def test_weights_are_checked_by_name():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    check_weights(7, network.named_parameters())
    with torch.no_grad():
        network[1].bias[0] = torch.inf
    with pytest.raises(Diverged, match=r"after step 7 \(1\.bias\)"):
        check_weights(7, network.named_parameters())
