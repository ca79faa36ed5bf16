import copy
from collections import Counter

import pytest
import torch

from fer_lightning.methods import flexmatch
from fer_lightning.methods.flexmatch import CurriculumThreshold

UNDECIDED = torch.full((1, 3), 1 / 3), torch.tensor([0])


def batches(n, size=9, classes=4, sharpness=4.0):
    generator = torch.Generator().manual_seed(0)
    return (sharpness * torch.randn(n, size, classes, generator=generator)).softmax(-1)


def confident(*labels, classes=3):
    return torch.eye(classes)[list(labels)]


def unchanged(module, before):
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("warmup", "beta", "tau"),
    [
        (True, [1 / 3, 1 / 6, 1 / 6], [0.1900, 0.0864, 0.0864]),
        (False, [1, 0.5, 0.5], [0.95, 0.3167, 0.3167]),
    ],
)
def test_curriculum_hand_computed(warmup, beta, tau):
    threshold = CurriculumThreshold(3, warmup=warmup)
    threshold.resize(10)
    threshold.update(confident(0, 0, 1, 2), torch.tensor([6, 7, 8, 9]))
    assert threshold.selected.tolist() == [-1] * 6 + [0, 0, 1, 2]
    torch.testing.assert_close(threshold.beta, torch.tensor(beta).float())
    torch.testing.assert_close(threshold.per_class(), torch.tensor(tau), atol=5e-5, rtol=0)


@pytest.mark.parametrize("warmup", [True, False])
def test_curriculum_equals_the_slow_reference(warmup):
    threshold = CurriculumThreshold(4, threshold=0.8, warmup=warmup)
    threshold.resize(12)
    selected, beta = [-1] * 12, [0.0] * 4
    generator = torch.Generator().manual_seed(1)
    for p in batches(8):
        index = torch.randint(12, (len(p),), generator=generator)  # with repetitions
        threshold.update(p, index)
        for row, i in zip(p.tolist(), index.tolist(), strict=True):
            if max(row) >= 0.8:
                selected[i] = row.index(max(row))
        count = Counter(selected)
        if max(count.values()) < 12:
            largest = max(count[c] for c in ((-1, 0, 1, 2, 3) if warmup else (0, 1, 2, 3)))
            beta = [count[c] / largest for c in range(4)]
        assert threshold.selected.tolist() == selected
        expected = torch.tensor([0.8 * b / (2 - b) for b in beta])
        torch.testing.assert_close(threshold.per_class(), expected)
    assert len(set(selected)) > 3  # the reference met several classes


def test_curriculum_accepts_everything_at_first_and_rests_while_all_agree():
    threshold = CurriculumThreshold(3, warmup=False)
    threshold.resize(2)
    assert threshold.per_class().tolist() == [0, 0, 0]
    threshold.update(*UNDECIDED)  # no confident prediction
    assert threshold.beta.tolist() == [0, 0, 0]
    threshold.update(confident(0, 1), torch.tensor([0, 1]))
    assert threshold.beta.tolist() == [1, 1, 0]
    threshold.update(confident(0), torch.tensor([1]))  # all of one class
    assert threshold.selected.tolist() == [0, 0]
    assert threshold.beta.tolist() == [1, 1, 0]


def test_curriculum_keeps_the_last_confident_prediction():
    threshold = CurriculumThreshold(3)
    threshold.resize(4)
    threshold.update(confident(2, 1), torch.tensor([3, 0]))
    threshold.update(torch.full((4, 3), 1 / 3), torch.arange(4))
    assert threshold.selected.tolist() == [1, -1, -1, 2]


def test_curriculum_an_undecided_row_of_a_face_does_not_hide_a_confident_one():
    threshold = CurriculumThreshold(3)
    threshold.resize(2)
    rows = torch.cat([confident(1), confident(2), torch.full((1, 3), 1 / 3)])
    threshold.update(rows, torch.tensor([1, 1, 1]))
    assert threshold.selected.tolist() == [-1, 2]


def test_curriculum_is_reached_at_equality():
    threshold = CurriculumThreshold(2, threshold=0.75)
    threshold.resize(2)
    threshold.update(torch.tensor([[0.75, 0.25], [0.26, 0.74]]), torch.tensor([0, 1]))
    assert threshold.selected.tolist() == [0, -1]


def test_curriculum_takes_the_faces_of_all_ranks(monkeypatch):
    p, index = batches(1, size=6)[0], torch.tensor([0, 5, 2, 5, 1, 0])
    whole, rank = CurriculumThreshold(4, threshold=0.5), CurriculumThreshold(4, threshold=0.5)
    whole.resize(6), rank.resize(6)
    whole.update(p, index)
    confidence, label = p.max(-1)
    gathered = [index, label, (confidence >= 0.5).long()]
    monkeypatch.setattr(flexmatch, "gather", lambda *rows: gathered)
    rank.update(p[:3], index[:3])
    assert torch.equal(rank.selected, whole.selected)
    assert torch.equal(rank.beta, whole.beta)


def test_curriculum_takes_the_size_of_its_state_dict():
    threshold, other = CurriculumThreshold(3), CurriculumThreshold(3)
    threshold.resize(10)
    threshold.update(confident(0, 0, 1, 2), torch.tensor([6, 7, 8, 9]))
    other.load_state_dict(threshold.state_dict())
    assert torch.equal(other.selected, threshold.selected)
    assert torch.equal(other.per_class(), threshold.per_class())


def test_curriculum_in_eval_mode_nothing_changes():
    threshold = CurriculumThreshold(3)
    threshold.resize(4)
    before = copy.deepcopy(threshold.state_dict())
    threshold.eval().update(confident(0, 1), torch.tensor([0, 1]))
    assert unchanged(threshold, before)
    threshold.train().update(confident(0, 1), torch.tensor([0, 1]))
    assert not unchanged(threshold, before)
