import math

import pytest
import torch

from fer_lightning.losses.consistency import squared_difference


def slow(p, q, weight=None):
    """The equation, one number at a time."""
    total = 0.0
    for b in range(len(p)):
        if any(math.isnan(x) for x in q[b].tolist()):
            continue
        row = sum((x - y) ** 2 for x, y in zip(p[b].tolist(), q[b].tolist(), strict=True)) / p.shape[1]
        total += row * (1.0 if weight is None else float(weight[b]))
    return total / len(p)


def draw(dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(6, 4, dtype=dtype).softmax(-1), torch.randn(6, 4, dtype=dtype).softmax(-1)


def test_hand_computed():
    p, q = torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([[0.9, 0.1], [1.0, 0.0]])
    assert squared_difference(p, q).item() == pytest.approx(0.16 / 2)
    assert squared_difference(p, q, torch.tensor([0.5, 1.0])).item() == pytest.approx(0.16 / 4)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("unknown", [[], [1, 4]])
def test_equals_the_slow_reference(weighted, unknown):
    p, q = draw()
    q[unknown] = math.nan
    weight = torch.rand(6) if weighted else None
    assert squared_difference(p, q, weight).item() == pytest.approx(slow(p, q, weight), rel=1e-6)


def test_agrees_with_torch():
    p, q = draw()
    torch.testing.assert_close(squared_difference(p, q), torch.nn.functional.mse_loss(p, q))


def test_order_of_rows_and_classes_and_sides_do_not_matter():
    p, q = draw()
    loss, rows, classes = squared_difference(p, q), torch.randperm(6), torch.randperm(4)
    torch.testing.assert_close(squared_difference(p[rows], q[rows]), loss)
    torch.testing.assert_close(squared_difference(p[:, classes], q[:, classes]), loss)
    torch.testing.assert_close(squared_difference(q, p), loss)


@pytest.mark.parametrize("rows", [0, 3])
def test_nothing_known_or_weighted_gives_zero_and_a_zero_gradient(rows):
    p = torch.rand(rows, 4, requires_grad=True)
    loss = squared_difference(p, torch.full((rows, 4), math.nan))
    loss = loss + squared_difference(p, torch.rand(rows, 4), torch.zeros(rows))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(p.grad, torch.zeros(rows, 4))


def test_gradient():
    p, q = draw()
    q[3] = math.nan
    p.requires_grad_()
    weight = torch.rand(6)
    assert torch.autograd.gradcheck(lambda x: squared_difference(x, q, weight), p)
    assert torch.autograd.gradcheck(lambda x: squared_difference(x, q), p)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    p, q = (x.to(dtype) for x in draw())
    loss = squared_difference(p, q)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, squared_difference(p.float(), q.float()))
