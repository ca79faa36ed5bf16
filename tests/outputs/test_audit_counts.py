import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from fer_lightning.data.batch import Target
from fer_lightning.outputs.audit_counts import AuditCounts, audit_rows
from fer_lightning.pseudo_labels import PseudoLabels

EMOTIONS = ("anger", "fear", "neutral")
CPU = torch.device("cpu")


def pseudo_labels(
    predicted, weight, confidence, threshold=(0.5, 0.6, 0.7), valence_arousal=None, negative=None
):
    one_hot = torch.nn.functional.one_hot(torch.tensor(predicted), 3).float()
    valence_arousal = (
        torch.full((len(predicted), 2), torch.nan)
        if valence_arousal is None
        else torch.tensor(valence_arousal)
    )
    return PseudoLabels(
        Target(one_hot, valence_arousal),
        torch.tensor(weight),
        torch.tensor(confidence),
        torch.arange(len(predicted)),
        torch.tensor(threshold),
        None if negative is None else torch.tensor(negative).bool(),
    )


def judged(*batches, classes=3):
    counts = AuditCounts(classes, CPU)
    for pseudo, label, valence_arousal in batches:
        valence_arousal = (
            torch.full((len(label), 2), torch.nan)
            if valence_arousal is None
            else torch.tensor(valence_arousal)
        )
        counts.add(pseudo, torch.tensor(label), valence_arousal)
    return audit_rows(counts.state(), EMOTIONS[:classes])


def test_numbers_computed_by_hand():
    pseudo = pseudo_labels([0, 0, 0, 1, 1], [1.0, 1.0, 0.0, 0.5, 0.0], [0.9, 0.8, 0.4, 0.7, 0.3])
    rows = judged((pseudo, [0, 1, 0, 1, -1], None))
    assert rows["anger"] == pytest.approx(
        {
            "seen": 3,
            "accepted": 2,
            "coverage": 2 / 3,
            "purity": 1 / 2,
            "mean_weight": 2 / 3,
            "mean_confidence": 0.85,
            "ece": (0.1 + 0.8 + 0.6) / 3,
            "ece_accepted": (0.1 + 0.8) / 2,
            "confidence_gap": 0.85 - 0.5,
            "true_seen": 2,
            "true_coverage": 1 / 2,
            "threshold": 0.5,
            "complementary": math.nan,
            "complementary_error": math.nan,
        },
        nan_ok=True,
    )
    every = rows["all"]
    assert (every["seen"], every["accepted"], every["true_seen"]) == (5, 3, 4)
    assert every["coverage"] == pytest.approx(3 / 5)
    assert every["purity"] == pytest.approx(2 / 3)
    assert every["mean_weight"] == pytest.approx(2.5 / 5)
    assert every["threshold"] == pytest.approx(0.6)
    assert rows["fear"]["true_coverage"] == 1  # both faces that show it: one has the pseudo-label anger
    assert rows["neutral"]["seen"] == 0
    assert math.isnan(rows["neutral"]["coverage"])
    assert math.isnan(every["rmse_valence"])


def test_equals_a_loop_over_faces():
    rng = np.random.default_rng(0)
    batches, flat = [], []
    for _ in range(4):
        predicted, label = rng.integers(0, 3, 50), rng.integers(-1, 3, 50)
        confidence = rng.uniform(0, 1, 50).astype(np.float32)
        weight = (rng.uniform(0, 1, 50) * (rng.uniform(0, 1, 50) > 0.4)).astype(np.float32)
        pseudo = pseudo_labels(predicted.tolist(), weight.tolist(), confidence.tolist())
        batches.append((pseudo, label.tolist(), None))
        flat += list(zip(predicted, label, confidence, weight, strict=True))
    rows = judged(*batches)
    for k, emotion in [*enumerate(EMOTIONS), (None, "all")]:
        mine = [f for f in flat if k is None or f[0] == k]
        accepted = [f for f in mine if f[3] > 0]
        known = [f for f in accepted if f[1] >= 0]
        true = [f for f in flat if (f[1] >= 0 if k is None else f[1] == k)]
        purity = np.mean([b == t for b, t, _, _ in known])
        assert rows[emotion]["seen"] == len(mine)
        assert rows[emotion]["coverage"] == pytest.approx(len(accepted) / len(mine))
        assert rows[emotion]["purity"] == pytest.approx(purity)
        assert rows[emotion]["mean_weight"] == pytest.approx(np.mean([f[3] for f in mine]))
        assert rows[emotion]["mean_confidence"] == pytest.approx(np.mean([f[2] for f in accepted]))
        assert rows[emotion]["confidence_gap"] == pytest.approx(np.mean([f[2] for f in known]) - purity)
        assert rows[emotion]["true_coverage"] == pytest.approx(np.mean([f[3] > 0 for f in true]))
        for column, chosen in (("ece", mine), ("ece_accepted", accepted)):
            checked = [f for f in chosen if f[1] >= 0]
            error = binary_calibration_error(
                torch.tensor([f[2] for f in checked]), torch.tensor([int(f[0] == f[1]) for f in checked])
            )
            assert rows[emotion][column] == pytest.approx(float(error), abs=1e-6)


def test_valence_and_arousal_of_accepted_pseudo_labels_with_a_known_truth():
    valence_arousal = [[0.5, 0.0], [0.0, 0.0], [1.0, 1.0], [0.2, -0.2]]
    truth = [[0.1, 0.0], [0.3, math.nan], [-1.0, -1.0], [math.nan, math.nan]]
    pseudo = pseudo_labels([0, 0, 0, 0], [1.0, 1.0, 0.0, 1.0], [0.9] * 4, valence_arousal=valence_arousal)
    rows = judged((pseudo, [0, 0, 0, 0], truth))
    assert rows["all"]["rmse_valence"] == pytest.approx(((0.4**2 + 0.3**2) / 2) ** 0.5)
    assert rows["all"]["rmse_arousal"] == 0


def test_without_emotions_coverage_and_errors_remain():
    nothing = torch.zeros(2, 0)
    pseudo = PseudoLabels(
        Target(nothing, torch.tensor([[0.5, 0.5], [0.0, 0.0]])),
        torch.tensor([1.0, 0.0]),
        torch.tensor([0.9, 0.1]),
        torch.arange(2),
        torch.zeros(0),
    )
    rows = judged((pseudo, [-1, -1], [[0.0, 0.5], [0.0, 0.0]]), classes=0)
    assert rows.keys() == {"all"}
    assert rows["all"]["coverage"] == 0.5
    assert rows["all"]["rmse_valence"] == pytest.approx(0.5)
    assert math.isnan(rows["all"]["purity"])


def test_state_goes_on_and_reset_forgets():
    counts, other = AuditCounts(3, CPU), AuditCounts(3, CPU)
    label, valence_arousal = torch.tensor([0, 2]), torch.full((2, 2), torch.nan)
    counts.add(pseudo_labels([0, 1], [1.0, 0.0], [0.9, 0.2]), label, valence_arousal)
    other.load(counts.state())
    other.add(pseudo_labels([0, 1], [1.0, 0.0], [0.9, 0.2]), label, valence_arousal)
    assert audit_rows(other.state(), EMOTIONS)["all"]["seen"] == 4
    assert audit_rows(counts.state(), EMOTIONS)["all"]["seen"] == 2
    state = counts.state()
    counts.reset()
    assert audit_rows(counts.state(), EMOTIONS)["all"]["seen"] == 0
    assert audit_rows(state, EMOTIONS)["all"]["seen"] == 2  # a copy


def test_complementary_labels_computed_by_hand():
    negative = [[0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 1], [0, 0, 1]]
    pseudo = pseudo_labels([0, 0, 0, 1, 1], [1.0] * 5, [0.9] * 5, negative=negative)
    rows = judged((pseudo, [1, 0, 2, 0, -1], None))
    # Complementary labels of faces with the pseudo-label anger: 2, 1 and 0; of two with some, one is wrong.
    assert (rows["anger"]["complementary"], rows["anger"]["complementary_error"]) == (1, 1 / 2)
    # Complementary labels of a face with unknown truth count, but not whether they are right.
    assert (rows["fear"]["complementary"], rows["fear"]["complementary_error"]) == (3 / 2, 1)
    assert math.isnan(rows["neutral"]["complementary"])
    assert rows["all"]["complementary"] == pytest.approx(6 / 5)
    assert rows["all"]["complementary_error"] == pytest.approx(2 / 3)


def test_complementary_labels_are_of_the_batches_that_have_some():
    label = [0, 1]
    without = pseudo_labels([0, 0], [1.0, 1.0], [0.9, 0.9])
    nothing = pseudo_labels([0, 0], [1.0, 1.0], [0.9, 0.9], negative=[[0, 0, 0]] * 2)
    some = pseudo_labels([0, 0], [1.0, 1.0], [0.9, 0.9], negative=[[0, 1, 1]] * 2)
    row = judged((nothing, label, None))["all"]
    assert row["complementary"] == 0
    assert math.isnan(row["complementary_error"])
    row = judged((without, label, None), (some, label, None))["all"]
    assert (row["seen"], row["complementary"], row["complementary_error"]) == (4, 2, 1 / 2)


def test_complementary_labels_go_on_and_are_forgotten():
    counts, other = AuditCounts(3, CPU), AuditCounts(3, CPU)
    pseudo = pseudo_labels([0, 1], [1.0, 0.0], [0.9, 0.2], negative=[[0, 1, 1], [1, 0, 0]])
    label, valence_arousal = torch.tensor([0, 0]), torch.full((2, 2), torch.nan)
    counts.add(pseudo, label, valence_arousal)
    other.load(counts.state())
    other.add(pseudo, label, valence_arousal)
    assert torch.equal(other.state()["complementary"], 2 * counts.state()["complementary"])
    assert audit_rows(other.state(), EMOTIONS)["all"]["complementary"] == 3 / 2
    counts.reset()
    assert math.isnan(audit_rows(counts.state(), EMOTIONS)["all"]["complementary"])


def test_complementary_labels_of_all_ranks_are_summed(monkeypatch):
    counts = AuditCounts(3, CPU)
    pseudo = pseudo_labels([0, 1], [1.0, 0.0], [0.9, 0.2], negative=[[0, 1, 1], [1, 0, 0]])
    counts.add(pseudo, torch.tensor([0, 0]), torch.full((2, 2), torch.nan))
    alone = counts.state()["complementary"]
    # As if another rank had counted the same.
    monkeypatch.setattr("fer_lightning.outputs.audit_counts.total", lambda *sums: [2 * s for s in sums])
    assert torch.equal(counts.state()["complementary"], 2 * alone)
