import pytest
import torch

from fer_lightning.pseudo_labels.margins import class_margin, correct_confidence, ramp

GOLDEN = [0.709, 0.854, 0.924, 0.953, 0.964, 0.968, 0.969, 0.970]


def predictions(rows=40, classes=4):
    torch.manual_seed(0)
    p = (2 * torch.randn(rows, classes)).softmax(-1)
    label = torch.where(torch.rand(rows) < 0.6, p.argmax(-1), torch.randint(0, classes, (rows,)))
    label[3] = -1
    return p, label


def slow(batches, classes):
    """S_c, one face at a time."""
    sums, counts = [0.0] * classes, [0] * classes
    for p, label in batches:
        for row, y in zip(p.tolist(), label.tolist(), strict=True):
            if row.index(max(row)) == y:
                sums[y] += max(row)
                counts[y] += 1
    return sums, counts


def test_ramp_has_the_values_of_the_paper():
    assert [ramp(t) for t in range(1, 9)] == pytest.approx(GOLDEN, abs=6e-4)
    assert ramp(3, max_margin=1.0, base=2.0) == pytest.approx(1 / (1 + 1 / 8))


@pytest.mark.parametrize(
    ("confidence", "epoch", "margin"),
    [(0.0, 5, 0.8), (1.0, 1, 0.8), (1.0, 2, 0.8544), (1.0, 10, 0.97), (0.5, 10, 0.8), (0.9, 10, 0.873)],
)
def test_golden_margins(confidence, epoch, margin):
    assert class_margin(torch.tensor([confidence]), epoch).item() == pytest.approx(margin, abs=1e-4)


def test_correct_confidence_equals_a_loop_over_faces():
    p, label = predictions()
    batches = [(p[:15], label[:15]), (p[15:], label[15:])]
    sums, counts = correct_confidence(batches)
    expected, number = slow(batches, 4)
    assert sums.tolist() == pytest.approx(expected, rel=1e-5)
    assert counts.tolist() == number
    assert 0 < sum(number) < 40


def test_no_face_predicted_correctly_sums_to_zero():
    sums, counts = correct_confidence([(torch.eye(3), torch.tensor([1, 2, -1]))])
    assert sums.tolist() == counts.tolist() == [0, 0, 0]


def test_ranks_are_summed(monkeypatch):
    monkeypatch.setattr(
        "fer_lightning.pseudo_labels.margins.total", lambda *sums: [3 * each for each in sums]
    )
    sums, counts = correct_confidence([(torch.tensor([[0.75, 0.25]]), torch.tensor([0]))])
    assert (sums.tolist(), counts.tolist()) == ([2.25, 0], [3, 0])
