import math

import pytest
import torch

from fer_lightning.methods.freematch import self_adaptive_fairness

P = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
RUNNING = torch.tensor([0.3375, 0.3375, 0.325]), torch.tensor([0.35, 0.325, 0.325])


def slow(predictions, weight, p, h):
    """The equation, one number at a time."""
    accepted = [row for row, w in zip(predictions.tolist(), weight.tolist(), strict=True) if w]
    if not accepted:
        return 0.0
    classes = range(len(p))
    p_bar = [sum(row[c] for row in accepted) / len(accepted) for c in classes]
    h_bar = [sum(row.index(max(row)) == c for row in accepted) / len(accepted) for c in classes]

    def shares(a, b):
        ratio = [x / y if y else 0.0 for x, y in zip(a, b, strict=True)]
        return [each / sum(ratio) for each in ratio]

    running, batch = shares(p.tolist(), h.tolist()), shares(p_bar, h_bar)
    return sum(a * math.log(b + 1e-12) for a, b in zip(running, batch, strict=True))


def test_hand_computed():
    assert self_adaptive_fairness(P.log(), torch.ones(4), *RUNNING).item() == pytest.approx(
        -1.13081, abs=1e-5
    )


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_slow_reference(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(12, 5, generator=generator)
    weight = (torch.rand(12, generator=generator) < 0.5).float()
    p, h = torch.rand(2, 5, generator=generator).softmax(-1)
    expected = slow(logits.softmax(-1), weight, p, h)
    assert self_adaptive_fairness(logits, weight, p, h).item() == pytest.approx(expected, rel=1e-4)


def test_rejected_faces_and_the_order_of_the_batch_do_not_matter():
    logits, weight = P.log(), torch.tensor([1.0, 0, 1, 0])
    loss = self_adaptive_fairness(logits, weight, *RUNNING)
    alone = self_adaptive_fairness(logits[[2, 0]], torch.ones(2), *RUNNING)
    torch.testing.assert_close(loss, alone)
    order = torch.tensor([3, 1, 0, 2])
    torch.testing.assert_close(loss, self_adaptive_fairness(logits[order], weight[order], *RUNNING))


def test_the_gradient_is_that_of_accepted_faces_and_finite_with_classes_that_are_never_predicted():
    logits = torch.tensor([[4.0, 0, 0], [3.0, 1, 0], [0, 0, 5]], requires_grad=True)
    loss = self_adaptive_fairness(logits, torch.tensor([1.0, 1, 0]), *RUNNING)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad[2].tolist() == [0, 0, 0]
    spread = P.log().requires_grad_()
    self_adaptive_fairness(spread, torch.ones(4), *RUNNING).backward()
    assert spread.grad.abs().sum(-1).gt(0).all()


def test_no_accepted_face_gives_zero_and_a_zero_gradient():
    logits = P.log().requires_grad_()
    loss = self_adaptive_fairness(logits, torch.zeros(4), *RUNNING)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(4, 3))


def test_gradient():
    torch.manual_seed(0)
    logits = (3 * torch.randn(6, 4, dtype=torch.float64)).requires_grad_()
    p, h = torch.rand(2, 4).double().softmax(-1)
    weight = torch.tensor([1.0, 1, 0, 1, 1, 0]).double()
    assert torch.autograd.gradcheck(lambda z: self_adaptive_fairness(z, weight, p, h), logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits = P.log().to(dtype)
    loss = self_adaptive_fairness(logits, torch.ones(4), *RUNNING)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, self_adaptive_fairness(logits.float(), torch.ones(4), *RUNNING))


def test_float32_under_autocast():
    logits = torch.tensor([[2.01, 0.3, -0.7], [0.11, 1.37, 0.2], [0.4, 0.9, 1.03]])
    expected = self_adaptive_fairness(logits, torch.ones(3), *RUNNING)
    with torch.autocast("cpu", torch.bfloat16):
        loss = self_adaptive_fairness(logits, torch.ones(3), *RUNNING)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
