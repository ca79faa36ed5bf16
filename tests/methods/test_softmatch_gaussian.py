import copy
import math

import pytest
import torch

from fer_lightning.methods import softmatch
from fer_lightning.methods.softmatch import GaussianWeight

P = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])


def batches(n, size=9, classes=4, sharpness=4.0):
    generator = torch.Generator().manual_seed(0)
    return (sharpness * torch.randn(n, size, classes, generator=generator)).softmax(-1)


def unchanged(module, before):
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_gaussian_hand_computed():
    gaussian = GaussianWeight(3, momentum=0.0)
    weight = gaussian(P.max(-1).values)
    gaussian.update(P.max(-1).values)
    assert gaussian.mu.item() == pytest.approx(0.65)
    assert gaussian.variance.item() == pytest.approx(0.016667, abs=1e-6)
    torch.testing.assert_close(weight, torch.tensor([1, 0.067206, 1, 0.740819]), atol=1e-5, rtol=0)


def test_gaussian_equals_the_slow_reference():
    gaussian, mu, variance = GaussianWeight(4, momentum=0.8, n_sigma=3.0), 0.25, 1.0
    for confidence in batches(5).amax(-1):
        c = confidence.tolist()
        mean = sum(c) / len(c)
        mu = 0.8 * mu + 0.2 * mean
        variance = 0.8 * variance + 0.2 * sum((x - mean) ** 2 for x in c) / (len(c) - 1)
        expected = [math.exp(-(min(x - mu, 0) ** 2) / (2 * variance / 9)) for x in c]
        torch.testing.assert_close(gaussian(confidence), torch.tensor(expected))
        gaussian.update(confidence)


def test_gaussian_weight_is_full_from_the_mean_on_and_falls_below_it():
    gaussian = GaussianWeight(3).eval()
    gaussian.mu.fill_(0.5), gaussian.variance.fill_(0.01)
    weight = gaussian(torch.tensor([0.34, 0.4, 0.49, 0.5, 0.7, 1.0]))
    assert weight[3:].tolist() == [1, 1, 1]
    assert 0 < weight[0] < weight[1] < weight[2] < 1


@pytest.mark.parametrize("confidence", [[0.6], [0.6, 0.6, 0.6]])
def test_gaussian_equal_confidences_are_finite(confidence):
    gaussian = GaussianWeight(3, momentum=0.0)
    assert gaussian(torch.tensor(confidence)).tolist() == [1] * len(confidence)
    gaussian.update(torch.tensor(confidence))
    assert gaussian.variance.isfinite()


def test_gaussian_takes_the_faces_of_all_ranks(monkeypatch):
    confidence = batches(1)[0].amax(-1)
    whole, rank = GaussianWeight(4), GaussianWeight(4)
    expected = whole(confidence)
    whole.update(confidence)
    monkeypatch.setattr(softmatch, "gather", lambda rows: [confidence])
    torch.testing.assert_close(rank(confidence[:4]), expected[:4])
    rank.update(confidence[:4])
    assert unchanged(rank, whole.state_dict())


def test_gaussian_changes_by_update_alone_and_not_in_eval_mode():
    gaussian, other = GaussianWeight(4), GaussianWeight(4)
    first, second = batches(2).amax(-1)
    gaussian(first)
    assert unchanged(gaussian, other.state_dict())
    gaussian.update(first)
    before = copy.deepcopy(gaussian.state_dict())
    gaussian.eval().update(second)
    assert unchanged(gaussian, before)
    other.load_state_dict(before)
    assert torch.equal(gaussian.train()(second), other(second))
    gaussian.update(second)
    assert not unchanged(gaussian, before)
