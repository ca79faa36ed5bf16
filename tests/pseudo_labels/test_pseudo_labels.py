import pytest
import torch

from fer_lightning.pseudo_labels import make_pseudo_labels, sharpen

NO_VALENCE_AROUSAL = torch.zeros(3, 0)
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
def test_accepted_are_those_that_reach_the_threshold_of_their_emotion(threshold, weight):
    pseudo = make_pseudo_labels(torch.tensor([4, 0, 2]), PROBABILITY, NO_VALENCE_AROUSAL, threshold)
    assert pseudo.target.emotion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert pseudo.target.valence_arousal.isnan().all()
    assert pseudo.weight.tolist() == weight
    assert torch.equal(pseudo.confidence, torch.tensor([0.95, 0.8, 0.4]))
    assert pseudo.index.tolist() == [4, 0, 2]
    assert torch.equal(pseudo.threshold, torch.as_tensor(threshold).expand(3))
    kinds = {pseudo.target.emotion.dtype, pseudo.weight.dtype, pseudo.confidence.dtype}
    assert kinds == {torch.float32}


def test_a_threshold_that_moves_later_does_not_move_the_pseudo_labels():
    threshold = torch.full((3,), 0.5)
    pseudo = make_pseudo_labels(torch.arange(3), PROBABILITY, NO_VALENCE_AROUSAL, threshold)
    threshold.fill_(0.9)
    assert pseudo.threshold.tolist() == [0.5, 0.5, 0.5]


def test_without_a_threshold_every_face_is_accepted():
    valence_arousal = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    pseudo = make_pseudo_labels(torch.arange(3), PROBABILITY, valence_arousal, None, soft=PROBABILITY)
    assert pseudo.weight.tolist() == [1, 1, 1]
    assert pseudo.threshold.isnan().all()
    assert torch.equal(pseudo.target.emotion, PROBABILITY)
    assert torch.equal(pseudo.target.valence_arousal, valence_arousal)


def test_no_faces():
    pseudo = make_pseudo_labels(torch.zeros(0, dtype=torch.long), torch.zeros(0, 3), torch.zeros(0, 0), 0.5)
    assert (pseudo.target.emotion.shape, pseudo.weight.shape) == ((0, 3), (0,))


@pytest.mark.parametrize("threshold", [0.0, None])
def test_a_probability_that_is_no_number_is_not_accepted(threshold):
    pseudo = make_pseudo_labels(torch.arange(1), torch.full((1, 3), torch.nan), torch.zeros(1, 0), threshold)
    assert pseudo.weight.tolist() == [0]


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
