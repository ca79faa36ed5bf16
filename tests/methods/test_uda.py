import math

import lightning as L
import pytest
import torch
from faces import TINY, quiet_trainer, tiny_data
from varied import opinionated, varied_batch

from fer_lightning.data.batch import Target
from fer_lightning.errors import InputError
from fer_lightning.methods import UDA
from fer_lightning.methods.uda import annealed, signal_threshold


def build(**options):
    L.seed_everything(3, verbose=False)
    model = UDA(**(TINY | {"threshold": 0.3} | options))
    return opinionated(model)


@torch.no_grad()
def test_terms_match_a_slow_reference():
    model, (labeled, unlabeled) = build(unlabeled_weight=2.0, temperature=0.5), varied_batch()
    q = model.student(unlabeled.weak[0]).logits.softmax(-1)
    model.threshold = float(q.max(-1).values.median())
    pseudo = model.pseudo_label(unlabeled)
    terms = model.losses(labeled, unlabeled, pseudo)
    log_s = model.student(unlabeled.strong[0]).logits.log_softmax(-1).tolist()
    x = model.student(labeled.weak[0]).logits.log_softmax(-1)
    loss, accepted = 0.0, 0
    for row, strong in zip(q.tolist(), log_s, strict=True):
        if max(row) >= model.threshold:
            powers = [each**2 for each in row]  # 1 / 0.5
            loss += -sum(a / sum(powers) * b for a, b in zip(powers, strong, strict=True)) / 12
            accepted += 1
    assert 0 < accepted < 12
    assert int(pseudo.weight.sum()) == accepted
    assert float(terms["unlabeled"]) == pytest.approx(2 * loss, rel=1e-4)
    assert float(terms["supervised"]) == pytest.approx(-float(x.diagonal().mean()), rel=1e-4)


@torch.no_grad()
def test_the_target_is_sharpened_and_the_confidence_is_not(monkeypatch):
    model, (_, unlabeled) = build(temperature=0.5, threshold=0.7), varied_batch(7, 1)
    output = model.student(unlabeled.weak[0])
    logits = torch.tensor([[0.6, 0.3, 0.1, 0, 0, 0, 0]]).log()
    monkeypatch.setattr(model.student, "forward", lambda images: output._replace(logits=logits))
    pseudo = model.pseudo_label(unlabeled)
    expected = torch.tensor([[0.7826, 0.1957, 0.0217]])
    torch.testing.assert_close(pseudo.target.emotion[:, :3], expected, atol=5e-5, rtol=0)
    assert pseudo.confidence.item() == pytest.approx(0.6)
    assert pseudo.weight.item() == 0  # 0.7826 would have been enough


def test_the_gradient_is_that_of_the_divergence():
    model, (labeled, unlabeled) = build(threshold=0.0), varied_batch()
    with torch.no_grad():
        pseudo = model.pseudo_label(unlabeled)
    model.losses(labeled, unlabeled, pseudo)["unlabeled"].backward()
    ours = model.student.head.weight.grad.clone()
    model.zero_grad()
    log_s = model.student(unlabeled.strong[0]).logits.log_softmax(-1)
    torch.nn.functional.kl_div(log_s, pseudo.target.emotion, reduction="batchmean").backward()
    torch.testing.assert_close(ours, model.student.head.weight.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "start", "middle", "end"),
    [
        ("none", 1, 1, 1),
        ("linear", 1 / 7, 4 / 7, 1),
        ("log", 1 / 7, 1 / 7 + 6 / 7 * 0.917915, 1 / 7 + 6 / 7 * 0.993262),
        ("exp", 1 / 7 + 6 / 7 * 0.006738, 1 / 7 + 6 / 7 * 0.082085, 1),
    ],
)
def test_signal_threshold(schedule, start, middle, end):
    values = [signal_threshold(schedule, progress, 7) for progress in (0, 0.5, 1)]
    assert values == pytest.approx([start, middle, end], abs=1e-6)
    assert values == sorted(values)


@pytest.mark.parametrize("classes", range(2, 12))
def test_without_annealing_no_probability_is_too_high(classes):
    assert signal_threshold("none", 0.3, classes) == 1


def test_annealed_labels_are_unknown_and_valence_and_arousal_stay():
    target = Target(torch.eye(3), torch.ones(3, 2))
    probability = torch.tensor([[0.9, 0.1, 0], [0.6, 0.4, 0], [0.3, 0.2, 0.5]])
    left = annealed(target, probability, 0.5)
    assert left.label.tolist() == [-1, 1, 2]  # more of another class is no reason, nor is equality
    assert torch.equal(left.valence_arousal, target.valence_arousal)


def test_annealing_takes_the_mean_of_the_faces_left(monkeypatch):
    labeled, unlabeled = varied_batch()
    monkeypatch.setattr(UDA, "progress", 0.1)
    model, plain = build(annealing="linear"), build()
    p = model.student(labeled.weak[0]).logits.softmax(-1).diagonal().detach()
    eta = 0.1 * 6 / 7 + 1 / 7
    left = p[p <= eta]
    assert 0 < len(left) < 7
    with torch.no_grad():
        pseudo = model.pseudo_label(unlabeled)
        ours, theirs = (m.losses(labeled, unlabeled, pseudo) for m in (model, plain))
    assert float(ours["supervised"]) == pytest.approx(-float(left.log().mean()), rel=1e-4)
    assert float(theirs["supervised"]) == pytest.approx(-float(p.log().mean()), rel=1e-4)
    assert ours["unlabeled"] == theirs["unlabeled"]


@pytest.mark.parametrize("annealing", ["linear", "log", "exp"])
def test_annealed_training_is_finite(tmp_path, annealing):
    L.seed_everything(3, verbose=False)
    trainer = quiet_trainer(tmp_path, max_steps=4, limit_val_batches=0)
    trainer.fit(UDA(**TINY, annealing=annealing, threshold=0.2, targets="both"), tiny_data())
    assert math.isfinite(trainer.callback_metrics["train/loss"])


@pytest.mark.parametrize("temperature", [0, -1.0])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(InputError, match=f"temperature is {temperature}; it must be a number above 0"):
        UDA(**TINY, temperature=temperature)
