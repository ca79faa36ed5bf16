import copy
import math
from collections import Counter

import pytest
import torch

from fer_lightning.pseudo_labels import thresholds
from fer_lightning.pseudo_labels.thresholds import CurriculumThreshold, GaussianWeight, SelfAdaptiveThreshold

P = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
UNSURE = torch.full((1, 3), 1 / 3), torch.tensor([0])


def batches(n, size=9, classes=4, sharpness=4.0):
    generator = torch.Generator().manual_seed(0)
    return (sharpness * torch.randn(n, size, classes, generator=generator)).softmax(-1)


def sure(*labels, classes=3):
    return torch.eye(classes)[list(labels)]


def unchanged(module, before):
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


# FlexMatch's.


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
    threshold.update(sure(0, 0, 1, 2), torch.tensor([6, 7, 8, 9]))
    assert threshold.selected.tolist() == [-1] * 6 + [0, 0, 1, 2]
    torch.testing.assert_close(threshold.beta, torch.tensor(beta).float())
    torch.testing.assert_close(threshold.per_class(), torch.tensor(tau), atol=5e-5, rtol=0)


@pytest.mark.parametrize("warmup", [True, False])
def test_curriculum_equals_the_slow_reference(warmup):
    threshold = CurriculumThreshold(4, tau=0.8, warmup=warmup)
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


def test_curriculum_accepts_everything_at_first_and_rests_while_all_say_the_same():
    threshold = CurriculumThreshold(3, warmup=False)
    threshold.resize(2)
    assert threshold.per_class().tolist() == [0, 0, 0]
    threshold.update(*UNSURE)  # all never sure of anything
    assert threshold.beta.tolist() == [0, 0, 0]
    threshold.update(sure(0, 1), torch.tensor([0, 1]))
    assert threshold.beta.tolist() == [1, 1, 0]
    threshold.update(sure(0), torch.tensor([1]))  # all of one class
    assert threshold.selected.tolist() == [0, 0]
    assert threshold.beta.tolist() == [1, 1, 0]


def test_curriculum_never_unlearns_what_a_face_was_sure_of():
    threshold = CurriculumThreshold(3)
    threshold.resize(4)
    threshold.update(sure(2, 1), torch.tensor([3, 0]))
    threshold.update(torch.full((4, 3), 1 / 3), torch.arange(4))
    assert threshold.selected.tolist() == [1, -1, -1, 2]


def test_curriculum_an_unsure_row_of_a_face_does_not_hide_a_sure_one():
    threshold = CurriculumThreshold(3)
    threshold.resize(2)
    rows = torch.cat([sure(1), sure(2), torch.full((1, 3), 1 / 3)])
    threshold.update(rows, torch.tensor([1, 1, 1]))
    assert threshold.selected.tolist() == [-1, 2]


def test_curriculum_is_reached_at_equality():
    threshold = CurriculumThreshold(2, tau=0.75)
    threshold.resize(2)
    threshold.update(torch.tensor([[0.75, 0.25], [0.26, 0.74]]), torch.tensor([0, 1]))
    assert threshold.selected.tolist() == [0, -1]


def test_curriculum_takes_the_faces_of_all_ranks(monkeypatch):
    p, index = batches(1, size=6)[0], torch.tensor([0, 5, 2, 5, 1, 0])
    whole, rank = CurriculumThreshold(4, tau=0.5), CurriculumThreshold(4, tau=0.5)
    whole.resize(6), rank.resize(6)
    whole.update(p, index)
    confidence, label = p.max(-1)
    everybody = [index, label, (confidence >= 0.5).long()]
    monkeypatch.setattr(thresholds, "gather", lambda *rows: everybody)
    rank.update(p[:3], index[:3])
    assert torch.equal(rank.selected, whole.selected)
    assert torch.equal(rank.beta, whole.beta)


def test_curriculum_takes_the_size_of_its_state_dict():
    threshold, other = CurriculumThreshold(3), CurriculumThreshold(3)
    threshold.resize(10)
    threshold.update(sure(0, 0, 1, 2), torch.tensor([6, 7, 8, 9]))
    other.load_state_dict(threshold.state_dict())
    assert torch.equal(other.selected, threshold.selected)
    assert torch.equal(other.per_class(), threshold.per_class())


def test_curriculum_in_eval_mode_nothing_is_noted():
    threshold = CurriculumThreshold(3)
    threshold.resize(4)
    before = copy.deepcopy(threshold.state_dict())
    threshold.eval().update(sure(0, 1), torch.tensor([0, 1]))
    assert unchanged(threshold, before)
    threshold.train().update(sure(0, 1), torch.tensor([0, 1]))
    assert not unchanged(threshold, before)


# FreeMatch's.


def test_self_adaptive_hand_computed():
    threshold = SelfAdaptiveThreshold(3, momentum=0.9)
    threshold.update(P)
    assert threshold.tau.item() == pytest.approx(0.365)
    torch.testing.assert_close(threshold.p, torch.tensor([0.3375, 0.3375, 0.325]))
    torch.testing.assert_close(threshold.h, torch.tensor([0.35, 0.325, 0.325]))
    expected = torch.tensor([0.365, 0.365, 0.35148])
    torch.testing.assert_close(threshold.per_class(), expected, atol=1e-5, rtol=0)


def test_self_adaptive_equals_the_slow_reference():
    threshold = SelfAdaptiveThreshold(4, momentum=0.8)
    tau, p_mean, h = 0.25, [0.25] * 4, [0.25] * 4
    for p in batches(5):
        rows = p.tolist()
        tau = 0.8 * tau + 0.2 * sum(map(max, rows)) / len(rows)
        for c in range(4):
            p_mean[c] = 0.8 * p_mean[c] + 0.2 * sum(row[c] for row in rows) / len(rows)
            h[c] = 0.8 * h[c] + 0.2 * sum(row.index(max(row)) == c for row in rows) / len(rows)
        threshold.update(p)
    torch.testing.assert_close(threshold.h, torch.tensor(h))
    expected = torch.tensor([tau * each / max(p_mean) for each in p_mean])
    torch.testing.assert_close(threshold.per_class(), expected)


def test_self_adaptive_takes_the_faces_of_all_ranks(monkeypatch):
    p = batches(1)[0]
    whole, rank = SelfAdaptiveThreshold(4), SelfAdaptiveThreshold(4)
    whole.update(p)
    confidence, label = p.max(-1)
    everybody = [confidence.sum(), p.sum(0), torch.eye(4)[label].sum(0)]
    monkeypatch.setattr(thresholds, "total", lambda *sums: everybody)
    rank.update(p[:2])
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(rank.state_dict()[name], value)


def test_self_adaptive_in_eval_mode_nothing_changes_and_it_goes_on_from_its_state_dict():
    threshold, other = SelfAdaptiveThreshold(4), SelfAdaptiveThreshold(4)
    first, second = batches(2)
    threshold.update(first)
    before = copy.deepcopy(threshold.state_dict())
    threshold.eval().update(second)
    assert unchanged(threshold, before)
    other.load_state_dict(before)
    threshold.train().update(second), other.update(second)
    assert unchanged(threshold, other.state_dict())
    assert not unchanged(threshold, before)


# SoftMatch's.


def test_gaussian_hand_computed():
    weigh = GaussianWeight(3, momentum=0.0)
    weight = weigh(P.max(-1).values)
    assert weigh.mu.item() == pytest.approx(0.65)
    assert weigh.variance.item() == pytest.approx(0.016667, abs=1e-6)
    torch.testing.assert_close(weight, torch.tensor([1, 0.067206, 1, 0.740819]), atol=1e-5, rtol=0)


def test_gaussian_equals_the_slow_reference():
    weigh, mu, variance = GaussianWeight(4, momentum=0.8, n_sigma=3.0), 0.25, 1.0
    for confidence in batches(5).amax(-1):
        c = confidence.tolist()
        mean = sum(c) / len(c)
        mu = 0.8 * mu + 0.2 * mean
        variance = 0.8 * variance + 0.2 * sum((x - mean) ** 2 for x in c) / (len(c) - 1)
        expected = [math.exp(-(min(x - mu, 0) ** 2) / (2 * variance / 9)) for x in c]
        torch.testing.assert_close(weigh(confidence), torch.tensor(expected))


def test_gaussian_weight_is_full_from_the_mean_on_and_falls_below_it():
    weigh = GaussianWeight(3).eval()
    weigh.mu.fill_(0.5), weigh.variance.fill_(0.01)
    weight = weigh(torch.tensor([0.34, 0.4, 0.49, 0.5, 0.7, 1.0]))
    assert weight[3:].tolist() == [1, 1, 1]
    assert 0 < weight[0] < weight[1] < weight[2] < 1


@pytest.mark.parametrize("confidence", [[0.6], [0.6, 0.6, 0.6]])
def test_gaussian_equal_confidences_are_finite(confidence):
    weigh = GaussianWeight(3, momentum=0.0)
    assert weigh(torch.tensor(confidence)).tolist() == [1] * len(confidence)
    assert weigh.variance.isfinite()


def test_gaussian_takes_the_faces_of_all_ranks(monkeypatch):
    confidence = batches(1)[0].amax(-1)
    whole, rank = GaussianWeight(4), GaussianWeight(4)
    expected = whole(confidence)
    monkeypatch.setattr(thresholds, "gather", lambda rows: [confidence])
    torch.testing.assert_close(rank(confidence[:4]), expected[:4])
    assert unchanged(rank, whole.state_dict())


def test_gaussian_in_eval_mode_nothing_changes_and_it_goes_on_from_its_state_dict():
    weigh, other = GaussianWeight(4), GaussianWeight(4)
    first, second = batches(2).amax(-1)
    weigh(first)
    before = copy.deepcopy(weigh.state_dict())
    weigh.eval()(second)
    assert unchanged(weigh, before)
    other.load_state_dict(before)
    assert torch.equal(weigh.train()(second), other(second))
    assert not unchanged(weigh, before)
