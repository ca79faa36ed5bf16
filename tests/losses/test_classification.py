import math

import pytest
import torch

from fer_lightning.losses.classification import soft_cross_entropy

NAN = math.nan


def slow(logits, target, weight=None):
    """The equation, one number at a time."""
    total, counted = 0.0, 0
    for b, row in enumerate(logits.tolist()):
        if any(math.isnan(t) for t in target[b].tolist()):
            continue
        counted += 1
        denominator = sum(math.exp(z) for z in row)
        h = -sum(
            t * math.log(math.exp(z) / denominator) for z, t in zip(row, target[b].tolist(), strict=True)
        )
        total += h if weight is None else float(weight[b]) * h
    if weight is None:
        return total / max(counted, 1)
    return total / len(logits)


def test_hand_computed():
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    target = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    # Rows: log 2 = .693147 and -(log .75 + log .25) / 2 = .836988.
    assert soft_cross_entropy(logits, target).item() == pytest.approx((0.693147 + 0.836988) / 2, abs=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_slow_reference(weighted):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(9, 5, generator=generator)
    target = torch.rand(9, 5, generator=generator).softmax(-1)
    target[[2, 7]] = NAN
    weight = torch.rand(9, generator=generator) if weighted else None
    loss = soft_cross_entropy(logits, target, weight)
    assert loss.item() == pytest.approx(slow(logits, target, weight), rel=1e-5)


def test_agrees_with_torch_on_hard_labels():
    logits, label = torch.randn(6, 7), torch.tensor([0, 6, 3, 3, 1, 2])
    ours = soft_cross_entropy(logits, torch.eye(7)[label])
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(logits, label))


def test_rejected_rows_dilute_the_weighted_loss_and_unknown_rows_do_not_enter_the_supervised_one():
    logits, target = torch.zeros(4, 2), torch.tensor([[1.0, 0.0], [1, 0], [1, 0], [NAN, NAN]])
    log2 = math.log(2)
    assert soft_cross_entropy(logits, target).item() == pytest.approx(log2)
    weight = torch.tensor([1.0, 0, 0, 1])
    assert soft_cross_entropy(logits, target, weight).item() == pytest.approx(log2 / 4)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_nothing_known_gives_zero_and_a_zero_gradient(rows, weighted):
    logits = torch.randn(rows, 4, requires_grad=True)
    weight = torch.ones(rows) if weighted else None
    loss = soft_cross_entropy(logits, torch.full((rows, 4), NAN), weight)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(rows, 4))


def test_unknown_rows_get_no_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    target = torch.eye(4)[:3]
    target[1] = NAN
    soft_cross_entropy(logits, target).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum(-1).gt(0).tolist() == [True, False, True]


def test_gradient():
    torch.manual_seed(0)
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    target, weight = torch.rand(5, 4).double().softmax(-1), torch.rand(5).double()
    target[3] = NAN
    assert torch.autograd.gradcheck(lambda z: soft_cross_entropy(z, target), logits)
    assert torch.autograd.gradcheck(lambda z: soft_cross_entropy(z, target, weight), logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits = torch.randn(8, 5).to(dtype)
    target = torch.eye(5)[torch.arange(8) % 5]
    loss = soft_cross_entropy(logits, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, soft_cross_entropy(logits.float(), target))


def test_large_logits_stay_finite():
    loss = soft_cross_entropy(torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]]))
    assert loss.item() == pytest.approx(2e4)
