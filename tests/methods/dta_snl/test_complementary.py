import pytest
import torch

from fer_lightning.methods.dta_snl.complementary import improbable, outside_top, places, smallest_k


def draw(rows=50, classes=7):
    torch.manual_seed(0)
    return (2 * torch.randn(rows, classes)).softmax(-1)


def test_improbable_by_hand():
    q = torch.tensor([[0.9, 0.06, 0.04, 0.0], [0.3, 0.3, 0.2, 0.2]])
    assert improbable(q, 0.05).tolist() == [[False, False, True, True], [False] * 4]
    assert not improbable(q, 0.0).any()


@pytest.mark.parametrize("q", [draw(), torch.full((3, 7), 1 / 7)])
def test_the_belief_itself_is_never_denied(q):
    top = torch.nn.functional.one_hot(q.argmax(-1), 7).bool()
    for denied in (improbable(q, 1.0), *(outside_top(q, k) for k in range(-1, 9))):
        assert not (denied & top).any()
    assert torch.equal(improbable(q, 1.1), ~top)


@pytest.mark.parametrize("k", [1, 2, 4, 7])
def test_outside_top_equals_sorting_each_face(k):
    q = draw()
    for row, denied in zip(q.tolist(), outside_top(q, k).tolist(), strict=True):
        expected = set(sorted(range(7), key=lambda c: -row[c])[k:])
        assert {c for c in range(7) if denied[c]} == expected
    assert torch.equal(outside_top(q, torch.tensor(k)), outside_top(q, k))


def test_places_and_the_smallest_k():
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
        ([0, 0, 0, 0], 4),  # nobody asked: nothing is denied
    ],
)
def test_smallest_k(count, k):
    assert smallest_k(torch.tensor(count)).item() == k
