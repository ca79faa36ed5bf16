import math

import pytest
import torch

from fer_lightning.data.batch import Target, Views

NAN = math.nan


def test_a_label_is_the_most_likely_emotion_and_minus_one_where_unknown():
    emotion = torch.tensor([[0.0, 1.0, 0.0], [NAN, NAN, NAN], [0.5, 0.2, 0.3], [0.2, NAN, 0.8]])
    label = Target(emotion, torch.zeros(4, 2)).label
    assert label.dtype == torch.int64
    assert label.tolist() == [1, -1, 0, -1]


def test_a_task_without_emotions_has_no_labels():
    label = Target(torch.zeros(3, 0), torch.zeros(3, 2)).label
    assert label.dtype == torch.int64
    assert label.tolist() == [-1, -1, -1]


def test_no_faces_have_no_labels():
    assert Target(torch.zeros(0, 3), torch.zeros(0, 2)).label.shape == (0,)


@pytest.mark.parametrize(
    ("views", "unlabeled"),
    [(Views(), True), (Views(1, 0, 0), False), (Views(2, 0, 1), True), (Views(1, 2, 0), True)],
)
def test_views_tell_whether_unlabeled_faces_are_needed(views, unlabeled):
    assert views.unlabeled is unlabeled
