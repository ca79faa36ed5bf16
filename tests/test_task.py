import doctest
import math

import pytest
import torch

from fer_lightning.data.batch import Target
from fer_lightning.losses.classification import soft_cross_entropy
from fer_lightning.losses.consistency import squared_difference
from fer_lightning.losses.continuous import concordance_loss, squared_error
from fer_lightning.task import Output, Task, as_target

NAN = math.nan


@pytest.fixture
def output():
    generator = torch.Generator().manual_seed(0)
    return Output(
        torch.randn(6, 3, generator=generator),
        torch.randn(6, 2, generator=generator).tanh(),
        torch.randn(6, 4, generator=generator),
        torch.randn(6, 4, 2, 2, generator=generator),
    )


@pytest.fixture
def target():
    generator = torch.Generator().manual_seed(1)
    emotion = torch.rand(6, 3, generator=generator).softmax(-1)
    valence_arousal = 2 * torch.rand(6, 2, generator=generator) - 1
    emotion[1], valence_arousal[4] = NAN, NAN
    return Target(emotion, valence_arousal)


@pytest.mark.parametrize(
    ("kind", "classes", "valence_arousal", "width"),
    [("classes", 3, False, 3), ("valence_arousal", 0, True, 2), ("both", 3, True, 5)],
)
def test_kinds(kind, classes, valence_arousal, width):
    task = Task.of(kind, ["happy", "sad", "fear"])
    assert (task.classes, task.valence_arousal, task.width) == (classes, valence_arousal, width)
    assert task.emotions == ("happiness", "sadness", "fear")[:classes]
    assert task.taxonomy.emotions == task.emotions


def test_emotions_by_name_of_a_taxonomy_keep_its_order():
    assert Task.of("classes", "raf_db").emotions[:2] == ("surprise", "fear")


@pytest.mark.parametrize("kind", ["classes", "valence_arousal", "both"])
def test_the_head_is_split_into_logits_and_bounded_values(kind):
    task = Task.of(kind, ["happy", "sad", "fear"])
    raw = 9 * torch.randn(4, task.width)
    logits, valence_arousal = task.split(raw)
    assert torch.equal(logits, raw[:, : task.classes])
    assert torch.equal(valence_arousal, raw[:, task.classes :].tanh())
    assert valence_arousal.shape == (4, 2 * task.valence_arousal)


def test_prediction_holds_probabilities(output):
    prediction = Task.of("both", ["happy", "sad", "fear"]).predict(output)
    torch.testing.assert_close(prediction.emotion.sum(-1), torch.ones(6))
    assert torch.equal(prediction.emotion.argmax(-1), output.logits.argmax(-1))
    assert torch.equal(prediction.valence_arousal, output.valence_arousal)
    assert torch.equal(prediction.features, output.features)


def test_supervised_loss_is_the_sum_over_the_task(output, target):
    emotion = soft_cross_entropy(output.logits, target.emotion)
    valence_arousal = squared_error(output.valence_arousal, target.valence_arousal)
    valence_arousal = valence_arousal + concordance_loss(output.valence_arousal, target.valence_arousal)
    for kind, expected in (
        ("classes", emotion),
        ("valence_arousal", valence_arousal),
        ("both", emotion + valence_arousal),
    ):
        torch.testing.assert_close(
            Task.of(kind, ["happy", "sad", "fear"]).supervised(output, target), expected
        )


def test_consistency_weighs_faces_and_leaves_concordance_out(output, target):
    weight = torch.tensor([1, 1, 0.5, 0, 1, 0])
    emotion = soft_cross_entropy(output.logits, target.emotion, weight)
    valence_arousal = squared_error(output.valence_arousal, target.valence_arousal, weight)
    for kind, expected in (
        ("classes", emotion),
        ("valence_arousal", valence_arousal),
        ("both", emotion + valence_arousal),
    ):
        loss = Task.of(kind, ["happy", "sad", "fear"]).consistency(output, target, weight)
        torch.testing.assert_close(loss, expected)


def test_mse_consistency_weighs_faces_and_squares_differences_of_probabilities(output, target):
    weight = torch.tensor([1, 1, 0.5, 0, 1, 0])
    emotion = squared_difference(output.logits.softmax(-1), target.emotion, weight)
    valence_arousal = squared_error(output.valence_arousal, target.valence_arousal, weight)
    for kind, expected in (
        ("classes", emotion),
        ("valence_arousal", valence_arousal),
        ("both", emotion + valence_arousal),
    ):
        loss = Task.of(kind, ["happy", "sad", "fear"]).mse_consistency(output, target, weight)
        torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("kind", ["classes", "valence_arousal", "both"])
def test_nothing_accepted_leaves_nothing_to_learn(kind, output, target):
    output = Output(*(part.requires_grad_() for part in output[:4]))
    task = Task.of(kind, ["happy", "sad", "fear"])
    task.consistency(output, target, torch.zeros(6)).backward()
    task.mse_consistency(output, target, torch.zeros(6)).backward()
    for part in (output.logits, output.valence_arousal):
        assert part.grad is None or part.grad.abs().sum() == 0


def test_predictions_become_targets():
    emotion, valence_arousal = torch.rand(3, 4).bfloat16(), torch.rand(3, 2)
    target = as_target(emotion, valence_arousal)
    assert target.emotion.dtype == torch.float32
    assert torch.equal(target.valence_arousal, valence_arousal)
    unknown = as_target(emotion, torch.zeros(3, 0)).valence_arousal
    assert unknown.shape == (3, 2)
    assert unknown.isnan().all()


@pytest.mark.parametrize("column", [0, 1])
def test_one_dimension_may_be_without_labels(column, output, target):
    """Its loss is that of the other dimension, and its gradient 0."""
    task = Task.of("valence_arousal", "basic7")
    guess = output.valence_arousal.requires_grad_()
    truth = target.valence_arousal.clone()
    truth[:, column] = NAN
    loss = task.supervised(output, Target(target.emotion, truth))
    other = slice(1 - column, 2 - column)
    expected = squared_error(guess[:, other], truth[:, other])
    torch.testing.assert_close(loss, expected + concordance_loss(guess[:, other], truth[:, other]))
    loss.backward()
    assert guess.grad.isfinite().all()
    assert guess.grad[:, column].abs().sum() == 0


def test_example():
    (example,) = doctest.DocTestFinder(recurse=False).find(Task, "example", globs={"Task": Task})
    assert doctest.DocTestRunner().run(example) == (0, 1)
