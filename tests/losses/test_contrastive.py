import math

import pytest
import torch
from torch.nn.functional import normalize

from fer_lightning.losses.contrastive import supervised_contrastive


def slow(h, y, temperature, member=None):
    """The equation, one pair at a time."""
    rows = [i for i in range(len(y)) if member is None or bool(member[i])]
    total = 0.0
    for i in rows:
        others = [a for a in rows if a != i]
        positives = [p for p in others if y[p] == y[i]]
        if not positives:
            continue
        denominator = sum(math.exp(float(h[i] @ h[a]) / temperature) for a in others)
        each = [math.log(math.exp(float(h[i] @ h[p]) / temperature) / denominator) for p in positives]
        total -= sum(each) / len(each)
    return total / max(len(rows), 1)


def draw(rows=11, width=5, classes=3, dtype=torch.float64):
    torch.manual_seed(0)
    return normalize(torch.randn(rows, width, dtype=dtype), dim=-1), torch.randint(0, classes, (rows,))


@pytest.mark.parametrize(
    ("temperature", "golden"), [(1.0, 1.284935), (0.5, 1.184410), (0.1, 2.031714), (0.07, 2.696450)]
)
def test_golden_values(temperature, golden):
    """Results of the authors' code for three faces in two views."""
    h = torch.tensor([[1.0, 0], [0.6, 0.8], [0, 1], [0.8, 0.6], [-1, 0], [0, -1]])
    loss = supervised_contrastive(h, torch.tensor([0, 0, 0, 0, 1, 1]), temperature)
    assert loss.item() == pytest.approx(golden, abs=2e-6)


def test_hand_computed():
    """Two classes of two identical rows: each picks the other of its class with e / (e + 2)."""
    h = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    loss = supervised_contrastive(h, torch.tensor([0, 0, 1, 1]), 1.0)
    assert loss.item() == pytest.approx(-math.log(math.e / (math.e + 2)), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("some", [False, True])
def test_equals_the_slow_reference(temperature, some):
    h, y = draw()
    y[3] = 99  # alone in its class
    member = torch.rand(len(y)) < 0.7 if some else None
    assert member is None or 2 < member.sum() < len(y)
    loss = supervised_contrastive(h, y, temperature, member)
    assert loss.item() == pytest.approx(slow(h, y, temperature, member), rel=1e-9)


def test_rows_outside_are_as_if_they_were_not_there():
    h, y = draw()
    member = torch.arange(len(y)) % 3 > 0
    h.requires_grad_()
    loss = supervised_contrastive(h, y, 0.2, member)
    torch.testing.assert_close(loss, supervised_contrastive(h[member], y[member], 0.2))
    loss.backward()
    assert torch.equal(h.grad.abs().sum(-1) > 0, member)


def test_order_of_rows_and_names_of_labels_do_not_matter():
    h, y = draw()
    order = torch.randperm(len(y))
    loss = supervised_contrastive(h, y, 0.2)
    torch.testing.assert_close(loss, supervised_contrastive(h[order], y[order], 0.2))
    torch.testing.assert_close(loss, supervised_contrastive(h, 7 - 2 * y, 0.2))


def test_faces_as_labels_are_nt_xent():
    """SimCLR's loss of two views: cross-entropy against the other view among all rows but itself."""
    h, _ = draw(rows=8)
    similarity = (h @ h.T / 0.3).fill_diagonal_(-math.inf)
    other_view = torch.tensor([4, 5, 6, 7, 0, 1, 2, 3])
    expected = torch.nn.functional.cross_entropy(similarity, other_view)
    torch.testing.assert_close(supervised_contrastive(h, torch.arange(4).repeat(2), 0.3), expected)


@pytest.mark.parametrize(
    ("rows", "label", "member"),
    [
        (0, [], None),
        (1, [0], None),
        (3, [0, 1, 2], None),
        (3, [0, 0, 0], [0, 0, 0]),
        (3, [0, 0, 1], [1, 0, 0]),
    ],
)
def test_no_row_with_positives_gives_zero_and_a_zero_gradient(rows, label, member):
    h = torch.randn(rows, 4, requires_grad=True)
    member = None if member is None else torch.tensor(member, dtype=torch.bool)
    loss = supervised_contrastive(h, torch.tensor(label, dtype=torch.long), 0.07, member)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(h.grad, torch.zeros(rows, 4))


def test_a_projection_without_columns_is_refused():
    with pytest.raises(ValueError, match="width 0"):
        supervised_contrastive(torch.zeros(4, 0), torch.tensor([0, 0, 1, 1]), 0.1)


def test_gradient():
    h, y = draw(rows=7)
    member = torch.tensor([1, 1, 0, 1, 1, 1, 0], dtype=torch.bool)
    h.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: supervised_contrastive(x, y, 0.5), h)
    assert torch.autograd.gradcheck(lambda x: supervised_contrastive(x, y, 0.5, member), h)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    h, y = draw(dtype=torch.float32)
    h = h.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = supervised_contrastive(h, y, 0.07)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, supervised_contrastive(h.float(), y, 0.07))


def test_small_temperatures_stay_finite():
    h = torch.tensor([[1.0, 0], [-1, 0], [1, 0]], requires_grad=True)
    loss = supervised_contrastive(h, torch.tensor([0, 0, 1]), 1e-3)
    loss.backward()
    assert loss.item() == pytest.approx((2000 + math.log(2)) / 3, rel=1e-5)
    assert h.grad.isfinite().all()
