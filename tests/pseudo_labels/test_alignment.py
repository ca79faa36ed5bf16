import copy

import pytest
import torch

from fer_lightning.pseudo_labels import alignment
from fer_lightning.pseudo_labels.alignment import DistributionAlignment

P = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
FORMS = pytest.mark.parametrize("form", ["ema", "queue"])


def batches(n, size=5, classes=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, size, classes, generator=generator).softmax(-1)


@FORMS
def test_hand_computed_with_the_first_batch(form):
    aligned = DistributionAlignment(3, form)(P)
    torch.testing.assert_close(aligned[0], torch.tensor([0.66667, 0.19048, 0.14286]), atol=1e-5, rtol=0)
    torch.testing.assert_close(aligned[2], torch.tensor([0.09524, 0.76190, 0.14286]), atol=1e-5, rtol=0)


@FORMS
def test_equals_the_slow_reference(form):
    align = DistributionAlignment(4, form, momentum=0.7, length=3)
    prior = [0.1, 0.2, 0.3, 0.4]
    align.aim(torch.tensor(prior))
    history, average = [], None
    for p in batches(6):
        mean = [sum(row[c] for row in p.tolist()) / len(p) for c in range(4)]
        history = [*history, mean][-3:]
        if average is None:
            average = mean
        average = [0.7 * a + 0.3 * b for a, b in zip(average, mean, strict=True)]
        running = (
            average if form == "ema" else [sum(each) / len(history) for each in zip(*history, strict=True)]
        )
        expected = []
        for row in p.tolist():
            scaled = [x * (t + 1e-6) / (m + 1e-6) for x, t, m in zip(row, prior, running, strict=True)]
            expected.append([each / sum(scaled) for each in scaled])
        torch.testing.assert_close(align(p), torch.tensor(expected), rtol=1e-4, atol=1e-6)
        align.update(p)


@FORMS
def test_a_distribution_that_is_already_right_is_left_alone(form):
    align = DistributionAlignment(3, form)
    align.aim(P.mean(0))
    torch.testing.assert_close(align(P), P)


@FORMS
def test_before_the_first_batch_probabilities_are_left_as_they_are(form):
    align = DistributionAlignment(3, form).eval()
    align.aim(torch.tensor([0.8, 0.1, 0.1]))
    torch.testing.assert_close(align(P), P)


@FORMS
def test_in_eval_mode_nothing_changes_and_the_state_of_training_aligns(form):
    align = DistributionAlignment(4, form, momentum=0.5)
    for p in batches(3):
        align.update(p)
    align.eval()
    before, p = copy.deepcopy(align.state_dict()), batches(4)[3]
    first = align(p)
    align.update(p)
    assert all(torch.equal(value, before[name]) for name, value in align.state_dict().items())
    assert not torch.allclose(first, p)
    torch.testing.assert_close(align(p[:2]), first[:2])  # a face alone as in its batch


@FORMS
def test_goes_on_from_its_state_dict(form):
    one, other = (DistributionAlignment(4, form, length=2) for _ in range(2))
    one.aim(torch.tensor([0.4, 0.3, 0.2, 0.1]))
    for p in batches(3):
        one.update(p)
    other.load_state_dict(one.state_dict())
    p = batches(4)[3]
    assert torch.equal(one(p), other(p))


@FORMS
def test_a_class_that_is_never_predicted_stays_finite(form):
    p = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    aligned = DistributionAlignment(3, form)(p)
    torch.testing.assert_close(aligned, p)
    assert aligned.isfinite().all()


@FORMS
def test_ranks_together_are_one_batch(form, monkeypatch):
    whole = DistributionAlignment(4, form)
    p = batches(1, size=8)[0]
    expected = whole(p)
    whole.update(p)
    parts = p[:3], p[3:]  # a sum over the ranks, whatever each of them holds
    monkeypatch.setattr(alignment, "total", lambda mass: [sum(part.sum(0) for part in parts)])
    rank = DistributionAlignment(4, form)
    torch.testing.assert_close(rank(parts[0]), expected[:3])
    rank.update(parts[0])
    torch.testing.assert_close(rank.means, whole.means)


@FORMS
def test_aligning_changes_nothing(form):
    align = DistributionAlignment(3, form)
    assert torch.equal(align(P), align(P))
    assert not align.means.any()
