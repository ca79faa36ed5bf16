import pytest
import torch

from fer_lightning.pseudo_labels import hard_labels, sharpen

PROBABILITY = torch.tensor([[0.95, 0.03, 0.02], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])


@pytest.mark.parametrize(
    ("threshold", "weight"),
    [
        (0.95, [1, 0, 0]),  # reached at equality
        (0.8, [1, 1, 0]),
        (0.0, [1, 1, 1]),
        (torch.tensor([0.96, 0.7, 0.4]), [0, 1, 1]),
        (torch.tensor(0.5), [1, 1, 0]),
    ],
)
def test_believed_are_those_that_reach_the_threshold_of_their_emotion(threshold, weight):
    label, believed, confidence = hard_labels(PROBABILITY, threshold)
    assert label.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert believed.tolist() == weight
    assert torch.equal(confidence, torch.tensor([0.95, 0.8, 0.4]))
    assert label.dtype == believed.dtype == confidence.dtype == torch.float32


def test_no_faces():
    label, believed, confidence = hard_labels(torch.zeros(0, 3), 0.5)
    assert (label.shape, believed.shape, confidence.shape) == ((0, 3), (0,), (0,))


def test_a_probability_that_is_no_number_is_not_believed():
    _, believed, _ = hard_labels(torch.full((1, 3), torch.nan), 0.0)
    assert believed.tolist() == [0]


def test_sharpened_golden_values():
    p = torch.tensor([[0.6, 0.3, 0.1]])
    q = sharpen(p, 0.5)
    assert q[0].tolist() == pytest.approx([0.7826, 0.1957, 0.0217], abs=5e-5)
    assert -(q * q.log()).sum().item() == pytest.approx(0.5943, abs=5e-5)


def test_sharpening_by_one_changes_nothing_and_keeps_certainty():
    torch.testing.assert_close(sharpen(PROBABILITY, 1.0), PROBABILITY)
    torch.testing.assert_close(sharpen(torch.eye(3), 0.5), torch.eye(3))


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_sharpening_by_extremes_stays_a_distribution(temperature):
    q = sharpen(PROBABILITY, temperature)
    torch.testing.assert_close(q.sum(-1), torch.ones(3))
    expected = torch.eye(3) if temperature < 1 else torch.full((3, 3), 1 / 3)
    torch.testing.assert_close(q, expected, atol=2e-3, rtol=0)
