import math
import warnings

import pytest
import torch

from fer_lightning.data.batch import Target
from fer_lightning.metrics import ContinuousMetrics, FaceMetrics
from fer_lightning.task import Prediction, Task

NAN = math.nan
EMOTIONS = ["happiness", "sadness", "fear"]
CLASSES = Task.of("classes", EMOTIONS)
CONTINUOUS = Task.of("valence_arousal", EMOTIONS)
BOTH = Task.of("both", EMOTIONS)


def one_hot(labels, classes=3):
    """Labels as rows; -1 is unknown."""
    rows = torch.eye(classes)[torch.tensor(labels).clamp(min=0)]
    rows[torch.tensor(labels) < 0] = NAN
    return rows


def prediction(emotion, valence_arousal=None):
    valence_arousal = torch.zeros(len(emotion), 0) if valence_arousal is None else valence_arousal
    return Prediction(emotion, valence_arousal, torch.zeros(len(emotion), 1))


def target(emotion, valence_arousal=None):
    return Target(emotion, torch.full((len(emotion), 2), NAN) if valence_arousal is None else valence_arousal)


def measured(task, guess, truth):
    metrics = FaceMetrics(task)
    metrics.update(guess, truth)
    return {name: value.item() for name, value in metrics.compute().items()}


# Six happy faces, all found; three sad ones, one found, one taken for happy, one for fearful; no fearful one.
TRUTH = one_hot([0] * 6 + [1] * 3)
GUESS = one_hot([0] * 6 + [1, 0, 2])


def test_classes_hand_computed_on_an_imbalanced_set():
    values = measured(CLASSES, prediction(GUESS), target(TRUTH))
    assert values.pop("recall/fear") != values.get("recall/fear")  # NaN: nobody shows fear
    assert values == pytest.approx(
        {
            "accuracy": 7 / 9,
            "uar": (1 + 1 / 3) / 2,
            "f1": (12 / 13 + 2 / 4 + 0) / 3,
            "ece": 2 / 9,  # all are certain, two are wrong
            "recall/happiness": 1,
            "recall/sadness": 1 / 3,
            "score": 7 / 9,
        }
    )


def test_confusion_is_truth_by_prediction_and_stays_readable():
    metrics = FaceMetrics(CLASSES)
    metrics.update(prediction(GUESS), target(TRUTH))
    metrics.compute()
    assert metrics.confusion.compute().tolist() == [[6, 0, 0], [1, 1, 1], [0, 0, 0]]


def test_calibration_hand_computed():
    # Of 15 bins, one ends at .667: three faces at .6, two of them right; one at .68, wrong.
    guess = torch.tensor([[0.6, 0.2, 0.2], [0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.68, 0.16, 0.16]])
    values = measured(CLASSES, prediction(guess), target(one_hot([0, 0, 0, 1])))
    assert values["ece"] == pytest.approx((3 * (2 / 3 - 0.6) + 0.68) / 4, abs=1e-6)


def test_a_probability_rounded_above_one_is_still_a_probability():
    guess = torch.tensor([[1 + 1e-6, 0.0, 0.0], [0.9, 0.1, 0.0]])
    assert measured(CLASSES, prediction(guess), target(one_hot([0, 0])))["ece"] == pytest.approx(
        0.05, abs=1e-5
    )


def test_a_soft_label_counts_as_its_most_likely_emotion():
    soft = torch.tensor([[0.6, 0.4, 0.0], [0.3, 0.3, 0.4]])
    assert measured(CLASSES, prediction(one_hot([0, 1])), target(soft))["accuracy"] == 0.5


def test_continuous_golden_values():
    truth, guess = torch.tensor([0.1, 0.4, -0.2, 0.7]), torch.tensor([0.0, 0.5, -0.1, 0.4])
    values = measured(
        CONTINUOUS,
        prediction(torch.zeros(4, 0), torch.stack([guess, truth], 1)),
        target(torch.zeros(4, 0), torch.stack([truth, truth], 1)),
    )
    expected = {"ccc": 0.833333, "pcc": 0.877058, "rmse": 0.173205, "sagr": 0.75}
    perfect = {"ccc": 1, "pcc": 1, "rmse": 0, "sagr": 1}
    assert values == pytest.approx(
        {f"{k}_valence": v for k, v in expected.items()}
        | {f"{k}_arousal": v for k, v in perfect.items()}
        | {"score": (0.833333 + 1) / 2},
        abs=1e-6,
    )


def test_a_constant_prediction_agrees_with_nothing_and_warns_of_nothing():
    truth = torch.tensor([[0.1, 0.4], [-0.2, 0.7]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = measured(
            CONTINUOUS,
            prediction(torch.zeros(2, 0), torch.zeros(2, 2)),
            target(torch.zeros(2, 0), truth),
        )
    assert (values["ccc_valence"], values["pcc_arousal"], values["score"]) == (0, 0, 0)


@pytest.fixture
def faces():
    """Forty faces; some emotions and some values are unknown."""
    generator = torch.Generator().manual_seed(0)
    emotion = torch.rand(40, 3, generator=generator).mul(3).softmax(-1)
    labels = torch.randint(-1, 3, (40,), generator=generator).tolist()
    valence_arousal = torch.rand(40, 2, generator=generator) * 2 - 1
    truth = (valence_arousal + torch.randn(40, 2, generator=generator) / 2).clamp(-1, 1)
    truth[torch.rand(40, 2, generator=generator) < 0.2] = NAN
    return prediction(emotion, valence_arousal), target(one_hot(labels), truth)


def rows(parts, chosen):
    return type(parts)(*(part[chosen] for part in parts))


def test_unknown_rows_do_not_count(faces):
    guess, truth = faces
    for task, known in ((CLASSES, truth.label >= 0), (CONTINUOUS, ~truth.valence_arousal.isnan().any(-1))):
        hidden = Target(truth.emotion.clone(), truth.valence_arousal.clone())
        hidden.emotion[~known], hidden.valence_arousal[~known] = NAN, NAN
        assert 0 < known.sum() < 40
        expected = measured(task, rows(guess, known), rows(truth, known))
        assert measured(task, guess, hidden) == pytest.approx(expected, abs=1e-6)


def test_valence_may_be_known_where_arousal_is_not(faces):
    guess, truth = faces
    expected = measured(CONTINUOUS, guess, truth)
    known = ~truth.valence_arousal[:, 0].isnan()
    alone = measured(CONTINUOUS, rows(guess, known), rows(truth, known))
    assert alone["ccc_valence"] == pytest.approx(expected["ccc_valence"], abs=1e-6)
    assert alone["ccc_arousal"] != pytest.approx(expected["ccc_arousal"], abs=1e-6)


def test_batches_add_up_to_the_whole_whatever_their_sizes(faces):
    guess, truth = faces
    metrics = FaceMetrics(BOTH)
    for batch in torch.arange(40).split([1, 0, 7, 1, 31]):
        metrics.update(rows(guess, batch), rows(truth, batch))
    metrics.update(rows(guess, slice(0, 3)), target(torch.full((3, 3), NAN)))  # a batch of fillers
    assert {k: v.item() for k, v in metrics.compute().items()} == pytest.approx(
        measured(BOTH, guess, truth), abs=1e-6
    )


def test_reset_forgets_everything(faces):
    guess, truth = faces
    metrics = FaceMetrics(BOTH)
    metrics.update(prediction(guess.emotion.flip(1), -guess.valence_arousal), truth)
    metrics.reset()
    metrics.update(guess, truth)
    assert {k: v.item() for k, v in metrics.compute().items()} == pytest.approx(measured(BOTH, guess, truth))


def test_a_task_with_both_is_scored_by_both(faces):
    values = measured(BOTH, *faces)
    mean_ccc = (values["ccc_valence"] + values["ccc_arousal"]) / 2
    assert values["score"] == pytest.approx((values["accuracy"] + mean_ccc) / 2)
    assert values.keys() == measured(CLASSES, *faces).keys() | measured(CONTINUOUS, *faces).keys()


def test_nothing_known_is_nan_rather_than_a_score():
    values = measured(CLASSES, prediction(GUESS), target(torch.full((9, 3), NAN)))
    assert all(math.isnan(value) for value in values.values())


def test_agreement_gathers_the_rows_of_all_ranks(faces):
    guess, truth = faces[0].valence_arousal, faces[1].valence_arousal
    others = iter([guess[25:], truth[25:]])  # what the other rank holds, in the order it is asked for
    metric = Agreement(
        dist_sync_fn=lambda mine, group: [mine, next(others)], distributed_available_fn=lambda: True
    )
    metric.update(guess[:10], truth[:10])
    metric.update(guess[10:25], truth[10:25])
    alone = ContinuousMetrics()
    alone.update(guess, truth)
    for name, value in alone.compute().items():
        torch.testing.assert_close(metric.compute()[name], value)
