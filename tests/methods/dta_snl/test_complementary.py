import pytest
import torch

from fer_lightning.methods.dta_snl.complementary import (
    improbable,
    outside_mass,
    outside_top,
    places,
    smallest_k,
)


def draw(rows=50, classes=7):
    torch.manual_seed(0)
    return (2 * torch.randn(rows, classes)).softmax(-1)


def test_improbable_by_hand():
    q = torch.tensor([[0.9, 0.06, 0.04, 0.0], [0.3, 0.3, 0.2, 0.2]])
    assert improbable(q, 0.05).tolist() == [[False, False, True, True], [False] * 4]
    assert not improbable(q, 0.0).any()


@pytest.mark.parametrize("q", [draw(), torch.full((3, 7), 1 / 7)])
def test_the_pseudo_label_is_never_complementary(q):
    top = torch.nn.functional.one_hot(q.argmax(-1), 7).bool()
    masses = [outside_mass(q, mass, most) for mass in (0.01, 0.5, 1.0) for most in (1, 3)]
    for negative in (improbable(q, 1.0), *(outside_top(q, k) for k in range(-1, 9)), *masses):
        assert not (negative & top).any()
    assert torch.equal(improbable(q, 1.1), ~top)


@pytest.mark.parametrize("k", [1, 2, 4, 7])
def test_outside_top_equals_sorting_each_face(k):
    q = draw()
    for row, negative in zip(q.tolist(), outside_top(q, k).tolist(), strict=True):
        expected = set(sorted(range(7), key=lambda c: -row[c])[k:])
        assert {c for c in range(7) if negative[c]} == expected
    assert torch.equal(outside_top(q, torch.tensor(k)), outside_top(q, k))


@pytest.mark.parametrize(
    ("q", "negative"),
    [
        ([0.95, 0.03, 0.01, 0.01], [1, 2, 3]),  # one emotion reaches 0.90
        ([0.04, 0.5, 0.45, 0.01], [0, 3]),  # two
        ([0.25, 0.3, 0.2, 0.25], [2]),  # four, of which the three most likely are kept
        ([0.5, 0.25, 0.125, 0.125], [3]),  # 0.75 with two, 0.875 with three
    ],
)
def test_outside_mass_by_hand(q, negative):
    assert outside_mass(torch.tensor([q]))[0].nonzero().flatten().tolist() == negative


def test_outside_mass_is_reached_at_equality():
    q = torch.tensor([[0.5, 0.25, 0.25]])
    assert outside_mass(q, mass=0.75).tolist() == [[False, False, True]]
    assert outside_mass(q, mass=0.5).tolist() == [[False, True, True]]


@pytest.mark.parametrize("mass", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("most", [1, 3, 7])
def test_outside_mass_equals_adding_up_each_face(mass, most):
    q = draw().double()
    for row, negative in zip(q.tolist(), outside_mass(q, mass, most).tolist(), strict=True):
        kept, total = [], 0.0
        for emotion in sorted(range(7), key=lambda c: -row[c]):
            if total >= mass or len(kept) == most:
                break
            kept.append(emotion)
            total += row[emotion]
        assert [c for c in range(7) if not negative[c]] == sorted(kept)


def test_places():
    p = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.4, 0.4, 0.2]])
    assert places(p, torch.tensor([0, 1, 0, 1])).tolist() == [3, 1, 0]


@pytest.mark.parametrize(
    ("count", "k"),
    [
        ([9, 0, 0, 0], 2),  # never 1
        ([5, 4, 0, 0], 2),
        ([5, 3, 1, 0], 3),
        ([5, 3, 0, 1], 4),
        ([99999, 0, 0, 1], 2),  # one face in 100 000 may be missed
        ([9998, 0, 0, 2], 4),
        ([0, 0, 0, 0], 4),  # no labels: nothing is complementary
    ],
)
def test_smallest_k(count, k):
    assert smallest_k(torch.tensor(count)).item() == k
