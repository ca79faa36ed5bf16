import math

import pytest
import torch

from fer_lightning.pseudo_labels.margins import DynamicThreshold, class_margin, ramp, recognised

GOLDEN = [0.709, 0.854, 0.924, 0.953, 0.964, 0.968, 0.969, 0.970]


def answers(rows=40, classes=4):
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
    assert ramp(3, beta=1.0, gamma=2.0) == pytest.approx(1 / (1 + 1 / 8))


@pytest.mark.parametrize(
    ("confidence", "epoch", "margin"),
    [(0.0, 5, 0.8), (1.0, 1, 0.8), (1.0, 2, 0.8544), (1.0, 10, 0.97), (0.5, 10, 0.8), (0.9, 10, 0.873)],
)
def test_golden_margins(confidence, epoch, margin):
    assert class_margin(torch.tensor([confidence]), epoch).item() == pytest.approx(margin, abs=1e-4)


def test_recognised_equals_a_loop_over_faces():
    p, label = answers()
    batches = [(p[:15], label[:15]), (p[15:], label[15:])]
    sums, counts = recognised(batches)
    expected, number = slow(batches, 4)
    assert sums.tolist() == pytest.approx(expected, rel=1e-5)
    assert counts.tolist() == number
    assert 0 < sum(number) < 40


def test_nobody_recognised():
    sums, counts = recognised([(torch.eye(3), torch.tensor([1, 2, -1]))])
    assert sums.tolist() == counts.tolist() == [0, 0, 0]


def test_ranks_are_summed(monkeypatch):
    monkeypatch.setattr(
        "fer_lightning.pseudo_labels.margins.total", lambda *sums: [3 * each for each in sums]
    )
    sums, counts = recognised([(torch.tensor([[0.75, 0.25]]), torch.tensor([0]))])
    assert (sums.tolist(), counts.tolist()) == ([2.25, 0], [3, 0])


def test_running_means_follow_the_batches_and_keep_what_no_face_speaks_of():
    threshold = DynamicThreshold(3, momentum=0.9, floor=0.1)
    p = torch.tensor([[0.6, 0.3, 0.1], [0.8, 0.1, 0.1], [0.1, 0.5, 0.4], [0.3, 0.1, 0.6]])
    threshold.see_labeled(p, torch.tensor([0, 0, 2, 2]), 4)
    mu = [0.9 * 0.8 + 0.1 * 0.7, 0.8, 0.9 * 0.8 + 0.1 * 0.6]
    assert threshold.confidence.tolist() == pytest.approx(mu)
    assert threshold.threshold.tolist() == pytest.approx([0.97 / (1 + math.exp(-4)) * m for m in mu])


def test_one_threshold_for_all():
    threshold = DynamicThreshold(3, scope="global", momentum=0.0, floor=0.1)
    p = torch.tensor([[0.6, 0.3, 0.1], [0.8, 0.1, 0.1], [0.1, 0.5, 0.4], [0.3, 0.1, 0.6]])
    threshold.see_labeled(p, torch.tensor([0, 0, 2, 2]), 4)
    mean = (0.6 + 0.8 + 0.6) / 3  # over faces, not over emotions
    assert threshold.confidence.tolist() == pytest.approx([mean] * 3)


def test_by_epochs_it_is_ada_cms():
    threshold = DynamicThreshold(4, update="epoch", floor=0.3)
    p, label = answers()
    assert not threshold.reads_labeled_batches
    threshold.end_epoch([(p, label)], 2)
    sums, counts = recognised([(p, label)])
    assert torch.equal(threshold.threshold, class_margin(sums / counts.clamp(min=1), 2, floor=0.3))


def test_an_epoch_ends_without_a_look_at_the_faces_if_they_are_not_needed():
    def never():
        raise AssertionError
        yield

    for options in ({}, {"stat": "unlabeled"}, {"stat": "unlabeled", "update": "epoch"}):
        DynamicThreshold(4, **options).end_epoch(never(), 1)


@pytest.mark.parametrize("scope", ["class", "global"])
def test_unlabeled_faces_set_freematchs_threshold(scope):
    threshold = DynamicThreshold(2, stat="unlabeled", scope=scope, momentum=0.0)
    assert threshold.threshold.tolist() == [0.5, 0.5]
    threshold.see_unlabeled(torch.tensor([[0.9, 0.1], [0.7, 0.3]]))  # tau 0.8, p (0.8, 0.2)
    expected = [0.8, 0.2] if scope == "class" else [0.8, 0.8]
    assert threshold.threshold.tolist() == pytest.approx(expected)


def test_unlabeled_faces_by_epochs():
    threshold = DynamicThreshold(2, stat="unlabeled", update="epoch", momentum=0.0)
    threshold.see_unlabeled(torch.tensor([[0.9, 0.1], [0.7, 0.3]]))
    assert threshold.threshold.tolist() == [0.5, 0.5]
    threshold.end_epoch([], 1)
    assert threshold.threshold.tolist() == pytest.approx([0.8, 0.2])


@pytest.mark.parametrize("stat", ["labeled", "unlabeled"])
def test_in_eval_mode_nothing_changes(stat):
    threshold = DynamicThreshold(4, stat=stat, floor=0.1).eval()
    before = {name: value.clone() for name, value in threshold.state_dict().items()}
    p, label = answers()
    threshold.see_labeled(p, label, 5)
    threshold.see_unlabeled(p)
    for name, value in threshold.state_dict().items():
        assert torch.equal(value, before[name]), name
