import math
from dataclasses import asdict

import pytest
import torch

from fer_lightning.errors import CheckpointError, InputError
from fer_lightning.inference.calibration import (
    Calibration,
    bins,
    calibrated,
    cross_fitted,
    expected_calibration_error,
    fit,
    risk_coverage,
    threshold_for_risk,
)


def sampled(count=20_000, temperature=1.0, bias=(0.0, 0.0, 0.0), seed=0):
    """Logits and labels drawn from softmax(logits / temperature + bias)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 3, generator=generator, dtype=torch.float64) * 3
    probability = (logits / temperature + torch.tensor(bias)).softmax(-1)
    return logits.softmax(-1), torch.multinomial(probability, 1, generator=generator)[:, 0]


def slow_loss(probability, label, temperature, bias):
    """The cross-entropy with the prior, face by face."""
    total = 0.0
    for row, truth in zip(probability.tolist(), label.tolist(), strict=True):
        scaled = [math.log(p) / temperature + b for p, b in zip(row, bias, strict=True)]
        total += math.log(sum(map(math.exp, scaled))) - scaled[truth]
    prior = math.log(temperature) ** 2 + sum(b * b for b in bias)
    return (total + prior / 2) / len(label)


def test_calibrated_by_hand():
    # Square roots of 0.64 and 0.36 are 0.8 and 0.6; a bias of log 2 doubles the second.
    once = calibrated(torch.tensor([[0.64, 0.36]]), 2.0, torch.zeros(2))
    assert torch.allclose(once, torch.tensor([[0.8, 0.6]]) / 1.4)
    biased = calibrated(torch.tensor([[0.64, 0.36]]), 2.0, torch.tensor([0.0, math.log(2)]))
    assert torch.allclose(biased, torch.tensor([[0.8, 1.2]]) / 2.0)


def test_calibrated_is_the_softmax_of_scaled_logits():
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 5
    bias = torch.linspace(-1, 1, 7)
    assert torch.allclose(
        calibrated(logits.softmax(-1), 1.7, bias), (logits / 1.7 + bias).softmax(-1), atol=1e-5
    )


def test_a_probability_of_zero_stays_finite():
    result = calibrated(torch.tensor([[1.0, 0.0]]), 3.0, torch.zeros(2))
    assert result.isfinite().all()
    assert result[0, 0] > 0.99


def test_the_temperature_and_bias_that_labels_were_drawn_with_are_found():
    bias = torch.tensor([0.6, -0.4, -0.2])
    temperature, found = fit(*sampled(temperature=2.5, bias=bias.tolist()))
    assert temperature == pytest.approx(2.5, rel=0.05)
    assert torch.allclose(found, bias.double(), atol=0.05)
    temperature, found = fit(*sampled())
    assert temperature == pytest.approx(1, rel=0.03)
    assert found.abs().max() < 0.05


def test_the_fit_is_a_minimum_of_the_slow_loss():
    probability, label = sampled(count=40, temperature=2.0)
    temperature, bias = fit(probability, label)
    lowest = slow_loss(probability, label, temperature, bias.tolist())
    for number in range(4):
        for step in (-0.01, 0.01):
            moved = [math.log(temperature), *bias.tolist()]
            moved[number] += step
            assert slow_loss(probability, label, math.exp(moved[0]), moved[1:]) > lowest


def test_an_emotion_that_is_never_shown_and_faces_that_are_all_right_leave_it_finite():
    probability = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1]] * 20)
    temperature, bias = fit(probability, torch.tensor([0, 1] * 20))
    assert 0.05 < temperature < 1
    assert -5 < bias[2] < 0


def test_calibration_lowers_the_error_of_an_overconfident_network_on_other_faces():
    probability, label = sampled(count=4000, temperature=3.0)
    before = expected_calibration_error(probability, label)
    after = expected_calibration_error(cross_fitted(probability, label), label)
    assert before > 0.15
    assert after < 0.03


def test_each_half_is_calibrated_with_the_other():
    probability, label = sampled(count=11, temperature=2.0)
    result = cross_fitted(probability, label)
    assert torch.allclose(result[0::2], calibrated(probability[0::2], *fit(probability[1::2], label[1::2])))
    assert torch.allclose(result[1::2], calibrated(probability[1::2], *fit(probability[0::2], label[0::2])))
    with pytest.raises(InputError, match="1 labeled faces are too few"):
        cross_fitted(probability[:1], label[:1])


def test_the_calibration_error_by_hand():
    # Two faces at 0.9, one right: gap 0.4. Two at 0.6, both right: gap 0.4. One at 0.34, wrong: gap 0.34.
    first, second, third = [0.9, 0.05, 0.05], [0.2, 0.6, 0.2], [0.34, 0.33, 0.33]
    probability = torch.tensor([first, first, second, second, third], dtype=torch.float64)
    label = torch.tensor([0, 1, 1, 1, 2])
    assert bins(probability, label)[:, 0].sum() == 5
    assert expected_calibration_error(probability, label) == pytest.approx((2 * 0.4 + 2 * 0.4 + 0.34) / 5)


def test_risk_and_coverage_by_hand():
    confidence = torch.tensor([0.5, 0.9, 0.8, 0.8, 0.6])
    right = torch.tensor([True, True, False, True, False])
    threshold, coverage, risk = risk_coverage(confidence, right)
    assert threshold.tolist() == pytest.approx([0.9, 0.8, 0.6, 0.5])
    assert coverage.tolist() == pytest.approx([0.2, 0.6, 0.8, 1.0])
    assert risk.tolist() == pytest.approx([0, 1 / 3, 2 / 4, 2 / 5])


def test_risk_and_coverage_are_those_of_counting():
    generator = torch.Generator().manual_seed(1)
    confidence = torch.randint(0, 30, (200,), generator=generator) / 30
    right = torch.rand(200, generator=generator) < confidence
    threshold, coverage, risk = risk_coverage(confidence, right)
    for t, c, r in zip(threshold.tolist(), coverage.tolist(), risk.tolist(), strict=True):
        kept = confidence.double() >= t
        assert c == pytest.approx(kept.double().mean().item())
        assert r == pytest.approx((~right[kept]).double().mean().item())
    assert len(threshold) == len(set(confidence.tolist()))


def test_the_threshold_keeps_the_most_faces():
    confidence = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    right = torch.tensor([True, False, True, True, False])  # risks 0, 1/2, 1/3, 1/4, 2/5
    assert threshold_for_risk(confidence, right, 0.0)[1] == pytest.approx(0.2)
    assert threshold_for_risk(confidence, right, 0.3) == pytest.approx((0.6, 0.8, 0.25))
    assert threshold_for_risk(confidence, right, 0.4) == pytest.approx((0.5, 1.0, 0.4))
    with pytest.raises(InputError, match="the lowest one is 1") as caught:
        threshold_for_risk(confidence[:1], ~right[:1], 0.1)
    assert caught.value.option == "risk"


def test_a_checkpoint_gives_its_calibration_back():
    ours = Calibration(1.5, [0.1, -0.1], 0.6, 0.1, 0.8, 0.2, 0.05, "abc")
    assert Calibration.of({"emotions": ["happiness", "sadness"], "calibration": asdict(ours)}) == ours
    assert Calibration.of({"emotions": []}) is None
    with pytest.raises(CheckpointError, match="for other emotions"):
        Calibration.of({"emotions": ["happiness"], "calibration": asdict(ours)})
    with pytest.raises(CheckpointError, match="not understood"):
        Calibration.of({"emotions": ["happiness"], "calibration": {"scale": 1.0}})
