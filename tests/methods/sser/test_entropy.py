import math

import pytest
import torch

from fer_lightning.methods.sser.entropy import entropy


def slow(logits, weight):
    total = 0.0
    for row, w in zip(logits.tolist(), weight.tolist(), strict=True):
        p = [math.exp(z) / sum(map(math.exp, row)) for z in row]
        total -= w * sum(q * math.log(q) for q in p)
    return total / len(logits)


def test_hand_computed():
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    # log 2 = .693147 and -(.75 log .75 + .25 log .25) = .562335.
    assert entropy(logits).item() == pytest.approx((0.693147 + 0.562335) / 2, abs=1e-6)
    assert entropy(logits, torch.tensor([0.0, 1.0])).item() == pytest.approx(0.562335 / 2, abs=1e-6)


def test_equals_the_slow_reference():
    logits, weight = 2 * torch.randn(9, 5), torch.rand(9)
    assert entropy(logits, weight).item() == pytest.approx(slow(logits, weight), rel=1e-5)
    assert entropy(logits).item() == pytest.approx(slow(logits, torch.ones(9)), rel=1e-5)


def test_gradient():
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: entropy(z, torch.tensor([1.0, 0, 0.5, 1]).double()), logits)


@pytest.mark.parametrize("rows", [0, 3])
def test_nothing_accepted_gives_zero_and_a_zero_gradient(rows):
    logits = torch.randn(rows, 4, requires_grad=True)
    loss = entropy(logits, torch.zeros(rows))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(rows, 4))


def test_certain_predictions_have_no_entropy_and_stay_finite():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    entropy(logits).backward()
    assert entropy(logits).item() == 0
    assert logits.grad.isfinite().all()


def test_half_precision_is_computed_in_float32():
    logits = torch.randn(8, 5).bfloat16()
    assert entropy(logits).dtype == torch.float32
    assert torch.equal(entropy(logits), entropy(logits.float()))
