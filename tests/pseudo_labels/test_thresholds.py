import copy

import pytest
import torch

from fer_lightning.pseudo_labels import thresholds
from fer_lightning.pseudo_labels.thresholds import SelfAdaptiveThreshold

P = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])


def batches(n, size=9, classes=4, sharpness=4.0):
    generator = torch.Generator().manual_seed(0)
    return (sharpness * torch.randn(n, size, classes, generator=generator)).softmax(-1)


def unchanged(module, before):
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_self_adaptive_hand_computed():
    threshold = SelfAdaptiveThreshold(3, momentum=0.9)
    after = threshold.after(P)
    assert threshold.tau.item() == pytest.approx(1 / 3)  # only computed
    threshold.update(P)
    assert all(torch.equal(*pair) for pair in zip(after, threshold.state, strict=True))
    assert threshold.tau.item() == pytest.approx(0.365)
    torch.testing.assert_close(threshold.p, torch.tensor([0.3375, 0.3375, 0.325]))
    torch.testing.assert_close(threshold.h, torch.tensor([0.35, 0.325, 0.325]))
    expected = torch.tensor([0.365, 0.365, 0.35148])
    torch.testing.assert_close(threshold.state.per_class(), expected, atol=1e-5, rtol=0)


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
    torch.testing.assert_close(threshold.state.per_class(), expected)


def test_self_adaptive_takes_the_faces_of_all_ranks(monkeypatch):
    p = batches(1)[0]
    whole, rank = SelfAdaptiveThreshold(4), SelfAdaptiveThreshold(4)
    whole.update(p)
    confidence, label = p.max(-1)
    gathered = [confidence.sum(), p.sum(0), torch.eye(4)[label].sum(0)]
    monkeypatch.setattr(thresholds, "total", lambda *sums: gathered)
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
