"""Dynamic thresholds against hand values; the margins that Ada-CM shares are in tests/pseudo_labels."""

import math

import pytest
import torch

from fer_lightning.methods.dta_snl.dynamic_threshold import DynamicThreshold
from fer_lightning.pseudo_labels.margins import class_margin, correct_confidence


def predictions(rows=40, classes=4):
    torch.manual_seed(0)
    p = (2 * torch.randn(rows, classes)).softmax(-1)
    label = torch.where(torch.rand(rows) < 0.6, p.argmax(-1), torch.randint(0, classes, (rows,)))
    label[3] = -1
    return p, label


def test_running_means_follow_the_batches_and_keep_emotions_without_a_correct_face():
    threshold = DynamicThreshold(3, momentum=0.9, min_threshold=0.1)
    p = torch.tensor([[0.6, 0.3, 0.1], [0.8, 0.1, 0.1], [0.1, 0.5, 0.4], [0.3, 0.1, 0.6]])
    threshold.update_labeled(p, torch.tensor([0, 0, 2, 2]), 4)
    mu = [0.9 * 0.8 + 0.1 * 0.7, 0.8, 0.9 * 0.8 + 0.1 * 0.6]
    assert threshold.confidence.tolist() == pytest.approx(mu)
    assert threshold.threshold.tolist() == pytest.approx([0.97 / (1 + math.exp(-4)) * m for m in mu])


def test_one_threshold_for_all():
    threshold = DynamicThreshold(3, scope="global", momentum=0.0, min_threshold=0.1)
    p = torch.tensor([[0.6, 0.3, 0.1], [0.8, 0.1, 0.1], [0.1, 0.5, 0.4], [0.3, 0.1, 0.6]])
    threshold.update_labeled(p, torch.tensor([0, 0, 2, 2]), 4)
    mean = (0.6 + 0.8 + 0.6) / 3  # over faces, not over emotions
    assert threshold.confidence.tolist() == pytest.approx([mean] * 3)


def test_by_epochs_it_is_ada_cms():
    threshold = DynamicThreshold(4, update="epoch", min_threshold=0.3)
    p, label = predictions()
    assert not threshold.reads_labeled_batches
    threshold.end_epoch([(p, label)], 2)
    sums, counts = correct_confidence([(p, label)])
    assert torch.equal(threshold.threshold, class_margin(sums / counts.clamp(min=1), 2, min_margin=0.3))


def test_an_epoch_ends_without_predictions_that_are_not_needed():
    def never():
        raise AssertionError
        yield

    for options in ({}, {"statistic": "unlabeled"}, {"statistic": "unlabeled", "update": "epoch"}):
        DynamicThreshold(4, **options).end_epoch(never(), 1)


@pytest.mark.parametrize("scope", ["class", "global"])
def test_unlabeled_faces_set_freematchs_threshold(scope):
    threshold = DynamicThreshold(2, statistic="unlabeled", scope=scope, momentum=0.0)
    assert threshold.threshold.tolist() == [0.5, 0.5]
    p = torch.tensor([[0.9, 0.1], [0.7, 0.3]])  # tau 0.8, p (0.8, 0.2)
    expected = [0.8, 0.2] if scope == "class" else [0.8, 0.8]
    assert threshold.current(p).tolist() == pytest.approx(expected)  # with the batch, which changes nothing
    assert threshold.threshold.tolist() == [0.5, 0.5]
    threshold.update_unlabeled(p)
    assert threshold.threshold.tolist() == pytest.approx(expected)


def test_unlabeled_faces_by_epochs():
    threshold = DynamicThreshold(2, statistic="unlabeled", update="epoch", momentum=0.0)
    threshold.update_unlabeled(torch.tensor([[0.9, 0.1], [0.7, 0.3]]))
    assert threshold.threshold.tolist() == [0.5, 0.5]
    threshold.end_epoch([], 1)
    assert threshold.threshold.tolist() == pytest.approx([0.8, 0.2])


@pytest.mark.parametrize("statistic", ["labeled", "unlabeled"])
def test_in_eval_mode_nothing_changes(statistic):
    threshold = DynamicThreshold(4, statistic=statistic, min_threshold=0.1).eval()
    before = {name: value.clone() for name, value in threshold.state_dict().items()}
    p, label = predictions()
    threshold.update_labeled(p, label, 5)
    threshold.update_unlabeled(p)
    for name, value in threshold.state_dict().items():
        assert torch.equal(value, before[name]), name
