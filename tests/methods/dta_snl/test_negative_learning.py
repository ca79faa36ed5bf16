import math

import pytest
import torch

from fer_lightning.methods.dta_snl.negative_learning import negative_learning


def slow(logits, negative, guard=1.0):
    """The equation, one number at a time."""
    total = 0.0
    for row, complementary in zip(logits.tolist(), negative.tolist(), strict=True):
        p = [math.exp(z) / sum(map(math.exp, row)) for z in row]
        labels = [c for c, n in enumerate(complementary) if n and p[c] <= guard]
        if labels:
            total -= sum(math.log(max(1 - p[c], 1e-7)) for c in labels) / len(labels)
    return total / len(logits)


def draw(rows=9, classes=5):
    torch.manual_seed(0)
    return 3 * torch.randn(rows, classes, dtype=torch.float64), torch.rand(rows, classes) < 0.4


def test_hand_computed():
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    negative = torch.tensor([[True, False], [False, True]])
    # log 2 = .693147 and -log(3/4) = .287682.
    assert negative_learning(logits, negative).item() == pytest.approx(0.490415, abs=1e-6)


@pytest.mark.parametrize("guard", [1.0, 0.9, 0.3])
def test_equals_the_slow_reference(guard):
    logits, negative = draw()
    negative[4] = False
    expected = slow(logits, negative, guard)
    assert negative_learning(logits, negative, guard).item() == pytest.approx(expected, rel=1e-6)
    assert expected > 0


def test_gradient():
    logits, negative = draw()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: negative_learning(z, negative), logits)


def test_one_label_pushes_its_logit_down_by_its_probability():
    logits, _ = draw(4)
    logits.requires_grad_()
    label = torch.tensor([0, 3, 2, 1])
    negative = torch.nn.functional.one_hot(label, 5).bool()
    negative_learning(logits, negative).backward()
    p = logits.detach().softmax(-1)
    torch.testing.assert_close(logits.grad[negative], p[negative] / 4)
    assert (logits.grad[negative] > 0).all()


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_no_complementary_label_gives_zero_and_a_zero_gradient(rows):
    logits = (100 * torch.randn(rows, 4)).requires_grad_()
    loss = negative_learning(logits, torch.zeros(rows, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(rows, 4))


def test_what_the_guard_leaves_out_is_not_counted():
    logits = torch.tensor([[9.0, 0.0, 0.0]], requires_grad=True)
    both = negative_learning(logits, torch.tensor([[True, True, False]]), guard=0.9)
    one = negative_learning(logits, torch.tensor([[False, True, False]]))
    assert both.item() == pytest.approx(one.item())
    assert negative_learning(logits, torch.tensor([[True, True, False]])).item() > 1


def test_certain_and_wrong_stays_finite():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = negative_learning(logits, torch.tensor([[True, True]]))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(1e-7) / 2, rel=1e-3)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, negative = draw()
    loss = negative_learning(logits.to(dtype), negative)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, negative_learning(logits.to(dtype).float(), negative))
