import pytest
import torch

from fer_lightning.methods.scl_uerm_arm.rank_regularization import high_group, rank_regularization

A = torch.tensor([0.93, 0.46, 0.68, 0.87, 0.56, 0.64])


def slow(certainty, beta, delta_1):
    """The equation, face by face."""
    ranked = sorted(certainty.tolist(), reverse=True)
    m = int(beta * len(ranked))
    high, low = ranked[:m], ranked[m:]
    return max(0.0, delta_1 - (sum(high) / len(high) - sum(low) / len(low)))


@pytest.mark.parametrize(("delta_1", "golden"), [(0.15, 0.0), (0.3, 0.03)])
def test_golden_values(delta_1, golden):
    """Groups of 4 and 2 faces with means of 0.78 and 0.51."""
    assert high_group(A, 0.7).tolist() == [True, False, True, True, False, True]
    assert rank_regularization(A, 0.7, delta_1).item() == pytest.approx(golden, abs=1e-6)


@pytest.mark.parametrize("beta", [0.2, 0.5, 0.9])
def test_equals_the_slow_reference(beta):
    certainty = torch.rand(23, generator=torch.Generator().manual_seed(0)).double()
    assert rank_regularization(certainty, beta, 0.9).item() == pytest.approx(slow(certainty, beta, 0.9))


def test_order_does_not_matter_and_the_gradient_parts_the_groups():
    certainty = A.double().requires_grad_()
    order = torch.randperm(6)
    torch.testing.assert_close(
        rank_regularization(certainty[order], 0.7, 0.5), rank_regularization(certainty, 0.7, 0.5)
    )
    rank_regularization(certainty, 0.7, 0.5).backward()
    assert torch.equal(certainty.grad < 0, high_group(A, 0.7))
    assert torch.autograd.gradcheck(lambda a: rank_regularization(a, 0.7, 0.5), certainty)


@pytest.mark.parametrize("beta", [0.01, 0.99])
@pytest.mark.parametrize("faces", [2, 3])
def test_no_group_is_empty(faces, beta):
    certainty = torch.linspace(0, 1, faces)
    assert 0 < high_group(certainty, beta).sum() < faces
    assert rank_regularization(certainty, beta, 0.1).isfinite()


def test_equal_faces_are_still_two_groups():
    assert high_group(torch.full((10,), 0.5), 0.7).tolist() == [True] * 7 + [False] * 3


@pytest.mark.parametrize("faces", [0, 1])
def test_no_two_faces_give_zero_and_a_zero_gradient(faces):
    certainty = torch.rand(faces, requires_grad=True)
    loss = rank_regularization(certainty, 0.7, 0.5)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(certainty.grad, torch.zeros(faces))


def test_half_precision_is_computed_in_float32():
    half = A.bfloat16()
    assert rank_regularization(half, 0.7, 0.5).dtype == torch.float32
    assert torch.equal(rank_regularization(half, 0.7, 0.5), rank_regularization(half.float(), 0.7, 0.5))
