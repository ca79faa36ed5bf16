import math
import warnings

import pytest
import torch

from fer_lightning.data.batch import Target
from fer_lightning.metrics import (
    BINS,
    CalibrationBins,
    ContinuousRows,
    FaceMetrics,
    GroupConfusion,
    calibration_bins,
    calibration_error,
    confidence_bin,
)
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
    assert values.pop("recall/fear") != values.get("recall/fear")  # NaN: no face shows fear
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


def test_a_constant_prediction_has_no_concordance_and_warns_of_nothing():
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


def test_a_dimension_without_labels_is_nan_and_left_out_of_the_score(faces):
    guess, truth = faces
    full = measured(CONTINUOUS, guess, truth)
    for known, unknown, column in (("valence", "arousal", 1), ("arousal", "valence", 0)):
        hidden = truth.valence_arousal.clone()
        hidden[:, column] = NAN
        values = measured(CONTINUOUS, guess, Target(truth.emotion, hidden))
        assert values["score"] == values[f"ccc_{known}"] == pytest.approx(full[f"ccc_{known}"])
        for name in ("ccc", "pcc", "rmse", "sagr"):
            assert math.isnan(values[f"{name}_{unknown}"])
    hidden[0, 0] = 0.5  # one label is no correlation, but an error
    values = measured(CONTINUOUS, guess, Target(truth.emotion, hidden))
    assert math.isnan(values["ccc_valence"])
    assert math.isnan(values["pcc_valence"])
    assert values["rmse_valence"] > 0


def test_the_score_of_both_leaves_out_what_has_no_labels(faces):
    guess, truth = faces
    unknown = torch.full_like(truth.emotion, NAN), torch.full_like(truth.valence_arousal, NAN)
    values = measured(BOTH, guess, Target(truth.emotion, unknown[1]))
    assert values["score"] == values["accuracy"]
    values = measured(BOTH, guess, Target(unknown[0], truth.valence_arousal))
    assert values["score"] == pytest.approx((values["ccc_valence"] + values["ccc_arousal"]) / 2)


def test_full_confidence_is_in_the_last_bin():
    confidence = torch.cat([torch.full((100,), 1.0), torch.full((100,), 0.95)])
    right = torch.arange(200) >= 10  # 90 of those at 1.0, all of those at 0.95
    assert calibration_error(calibration_bins(confidence, right)).item() == pytest.approx(0.025, abs=1e-7)
    guess = torch.stack([confidence, 1 - confidence, torch.zeros(200)], 1)
    values = measured(CLASSES, prediction(guess), target(one_hot((~right).long().tolist())))
    assert values["ece"] == pytest.approx(0.025, abs=1e-6)


def test_bins_are_half_open_and_hold_every_confidence():
    confidence = torch.tensor([0.0, 0.066, 0.067, 0.5, 0.933, 0.934, 1.0, NAN])
    assert confidence_bin(confidence).tolist() == [0, 0, 1, 7, 13, 14, 14, 0]
    assert confidence_bin(torch.arange(BINS, dtype=torch.float64) / BINS + 1e-9).tolist() == list(range(BINS))


def test_calibration_error_equals_a_loop_over_bins():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(300, generator=generator, dtype=torch.float64)
    right = torch.rand(300, generator=generator) < confidence
    expected = 0.0
    for b in range(15):
        inside = [
            (c, r) for c, r in zip(confidence.tolist(), right.tolist(), strict=True) if b <= c * 15 < b + 1
        ]
        if inside:
            accuracy, mean = (
                sum(part) / len(inside) for part in ([r for _, r in inside], [c for c, _ in inside])
            )
            expected += len(inside) / 300 * abs(accuracy - mean)
    assert calibration_error(calibration_bins(confidence, right)).item() == pytest.approx(expected)
    halves = calibration_bins(confidence[:90], right[:90]) + calibration_bins(confidence[90:], right[90:])
    assert calibration_error(halves).item() == pytest.approx(expected)
    assert calibration_error(torch.zeros(BINS, 3)).isnan()


# "young": 3 of 4 right, happiness 2 of 2, sadness 1 of 2. "old": 1 of 3, happiness 1 of 1, sadness 0 of 2,
# and a face without a label. No face is of "third", and the last face is of no group.
GROUP = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, -1])
GROUP_TRUTH = one_hot([0, 0, 1, 1, 0, 1, 1, -1, 0])
GROUP_GUESS = one_hot([0, 0, 1, 2, 0, 2, 2, 0, 0])
GROUP_VALUES = {
    "accuracy/group/young": 3 / 4,
    "accuracy/group/old": 1 / 3,
    "accuracy/group/third": NAN,
    "uar/group/young": 3 / 4,
    "uar/group/old": 1 / 2,
    "uar/group/third": NAN,
    "accuracy_gap": 3 / 4 - 1 / 3,
    "uar_gap": 1 / 4,
}


@pytest.mark.parametrize("later", [False, True])
def test_groups_hand_computed(later):
    names = ("young", "old", "third")
    metrics = FaceMetrics(CLASSES, () if later else names)
    metrics.set_groups(names)
    for rows_ in (slice(0, 5), slice(5, 9)):
        metrics.update(prediction(GROUP_GUESS[rows_]), target(GROUP_TRUTH[rows_]), GROUP[rows_])
    metrics.set_groups(names)  # of the same names it forgets nothing
    values = {name: value.item() for name, value in metrics.compute().items()}
    assert {k: values[k] for k in GROUP_VALUES} == pytest.approx(GROUP_VALUES, nan_ok=True)
    without = measured(CLASSES, prediction(GROUP_GUESS), target(GROUP_TRUTH))
    assert {k: v for k, v in values.items() if k not in GROUP_VALUES} == pytest.approx(without, nan_ok=True)
    metrics.reset()
    metrics.update(prediction(GROUP_GUESS), target(GROUP_TRUTH))  # all groups unknown
    values = metrics.compute()
    assert all(values[name].isnan() for name in GROUP_VALUES)


def test_groups_of_a_continuous_task(faces):
    guess, truth = faces
    group = torch.arange(40) % 3 - 1
    metrics = FaceMetrics(BOTH, ("a", "b"))
    metrics.update(guess, truth, group)
    values = metrics.compute()
    ccc = []
    for number, name in enumerate("ab"):
        alone = measured(BOTH, rows(guess, group == number), rows(truth, group == number))
        ccc.append((alone["ccc_valence"] + alone["ccc_arousal"]) / 2)
        assert values[f"ccc/group/{name}"].item() == pytest.approx(ccc[-1], abs=1e-6)
        assert values[f"accuracy/group/{name}"].item() == pytest.approx(alone["accuracy"])
        assert values[f"uar/group/{name}"].item() == pytest.approx(alone["uar"])
    assert values["ccc_gap"].item() == pytest.approx(abs(ccc[0] - ccc[1]), abs=1e-6)


def test_a_single_group_with_faces_has_no_gap():
    metrics = FaceMetrics(CLASSES, ("young", "old"))
    metrics.update(prediction(GROUP_GUESS[:4]), target(GROUP_TRUTH[:4]), GROUP[:4])
    assert metrics.compute()["accuracy_gap"].isnan()


def two_ranks(metric, mine, theirs):
    """A metric that has counted ``mine`` and is synchronized with another that has counted ``theirs``."""
    other = type(metric)(*(() if not isinstance(metric, GroupConfusion) else metric.matrix.shape[:2]))
    other.update(*theirs)
    states = {name: getattr(other, name) for name in other._defaults}
    held = iter([torch.cat(s) if isinstance(s, list) else s for s in states.values()])
    metric.dist_sync_fn = lambda tensor, group: [tensor, next(held)]
    metric.distributed_available_fn = lambda: True
    metric.update(*mine)
    return metric.compute()


def test_ranks_add_up():
    label, probability = target(GROUP_TRUTH).label, GROUP_GUESS
    batch = (probability, label, GROUP)
    alone = GroupConfusion(3, 3)
    alone.update(*batch)
    mine, theirs = (tuple(part[half] for part in batch) for half in (slice(0, 5), slice(5, 9)))
    assert torch.equal(two_ranks(GroupConfusion(3, 3), mine, theirs), alone.compute())
    bins = CalibrationBins()
    bins.update(probability, label)
    assert bins.compute()[:, 0].sum() == 8
    assert torch.equal(two_ranks(CalibrationBins(), mine[:2], theirs[:2]), bins.compute())


def test_continuous_rows_of_all_ranks_are_gathered(faces):
    batch = (faces[0].valence_arousal, faces[1].valence_arousal, torch.arange(40) % 3 - 1)
    mine, theirs = (tuple(part[half] for part in batch) for half in (slice(0, 25), slice(25, 40)))
    for gathered, whole in zip(two_ranks(ContinuousRows(), mine, theirs), batch, strict=True):
        torch.testing.assert_close(gathered, whole, equal_nan=True)
