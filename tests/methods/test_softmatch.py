import math

import lightning as L
import pytest
import torch
from faces import TINY, TinyFaces, quiet_trainer, tiny_data
from varied import opinionated, varied_batch

from fer_lightning.errors import InputError
from fer_lightning.methods import SoftMatch


def build(**options):
    """Only the adaptive parts train: batch statistics stay out of what is compared."""
    L.seed_everything(3, verbose=False)
    model = opinionated(SoftMatch(**(TINY | options)))
    model.alignment.train(), model.gaussian.train()
    return model


@torch.no_grad()
def test_steps_match_a_slow_reference():
    model, (labeled, unlabeled) = (
        build(momentum=0.5, unlabeled_weight=2.0, alignment_target="uniform"),
        varied_batch(),
    )
    q = model.student(unlabeled.weak[0]).logits.softmax(-1).tolist()
    log_s = model.student(unlabeled.strong[0]).logits.log_softmax(-1)
    mean = [sum(row[c] for row in q) / 12 for c in range(7)]  # of every batch, hence the running one
    mu, variance = 1 / 7, 1.0
    for _ in range(3):
        pseudo = model.pseudo_label(unlabeled)
        confidence = []
        for row in q:
            tilted = [x * (1 / 7 + 1e-6) / (m + 1e-6) for x, m in zip(row, mean, strict=True)]
            confidence.append(max(tilted) / sum(tilted))
        average = sum(confidence) / 12
        mu = 0.5 * mu + 0.5 * average
        variance = 0.5 * variance + 0.5 * sum((c - average) ** 2 for c in confidence) / 11
        weight = [math.exp(-(min(c - mu, 0) ** 2) / (2 * variance / 4)) for c in confidence]
        torch.testing.assert_close(pseudo.weight, torch.tensor(weight), rtol=1e-4, atol=1e-5)
        labels = [row.index(max(row)) for row in q]
        assert pseudo.target.label.tolist() == labels  # of the probabilities as they are, not aligned
        loss = -sum(w * float(log_s[i, c]) for i, (w, c) in enumerate(zip(weight, labels, strict=True))) / 12
        terms = model.losses(labeled, unlabeled, pseudo)
        assert float(terms["unlabeled"]) == pytest.approx(2 * loss, rel=1e-3)
        model.update_state(labeled, unlabeled, pseudo, terms.outputs)
    assert pseudo.threshold.isnan().all()
    assert 0 < pseudo.weight.min() < pseudo.weight.max() == 1


@torch.no_grad()
def test_alignment_moves_weights_and_never_labels():
    _, unlabeled = varied_batch()
    model = build(momentum=0.0)
    plain = model.pseudo_label(unlabeled)
    rarest = int(model.student(unlabeled.weak[0]).logits.softmax(-1).mean(0).argmin())
    prior = torch.full((7,), 0.01)
    prior[rarest] = 0.94
    model.alignment.aim(prior)
    aligned = model.pseudo_label(unlabeled)
    q = model.student(unlabeled.weak[0]).logits.softmax(-1)
    assert not torch.equal(model.alignment(q).argmax(-1), q.argmax(-1))
    assert torch.equal(aligned.target.emotion, plain.target.emotion)
    assert torch.equal(aligned.confidence, plain.confidence)
    assert not torch.allclose(aligned.weight, plain.weight)


@pytest.mark.parametrize("alignment_target", ["labeled", "uniform"])
def test_the_target_is_the_labels_shares_or_uniform(tmp_path, alignment_target):
    budget = dict.fromkeys(TinyFaces().load(16).taxonomy.emotions, 2) | {"happiness": 9}
    L.seed_everything(3, verbose=False)
    model, data = SoftMatch(**TINY, alignment_target=alignment_target), tiny_data(labels_per_class=budget)
    quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(model, data)
    target = model.alignment.target
    happiness = model.task.emotions.index("happiness")
    if alignment_target == "uniform":
        torch.testing.assert_close(target, torch.full((7,), 1 / 7))
    else:
        assert target[happiness].item() == pytest.approx(10 / 28)
        torch.testing.assert_close(target.sum(), torch.tensor(1.0))
        assert (target[torch.arange(7) != happiness] == target[(happiness + 1) % 7]).all()


def test_a_gaussian_without_width_is_refused():
    with pytest.raises(InputError, match="n_sigma is 0; it must be a number above 0"):
        SoftMatch(**TINY, n_sigma=0)
