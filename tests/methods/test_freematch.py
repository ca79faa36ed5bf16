import lightning as L
import pytest
import torch
from faces import TINY, quiet_trainer, tiny_data
from varied import opinionated, varied_batch

from fer_lightning.methods import FreeMatch
from fer_lightning.methods.freematch import self_adaptive_fairness


def build(**options):
    """Only the thresholds train: batch statistics stay out of what is compared."""
    L.seed_everything(3, verbose=False)
    model = opinionated(FreeMatch(**(TINY | options)))
    model.adaptive.train()
    return model


@torch.no_grad()
def test_steps_match_a_slow_reference():
    model, (labeled, unlabeled) = (
        build(momentum=0.5, unlabeled_weight=2.0, fairness_weight=0.1),
        varied_batch(),
    )
    q = model.student(unlabeled.weak[0]).logits.softmax(-1).tolist()
    s = model.student(unlabeled.strong[0]).logits
    tau, p, h, accepted = 1 / 7, [1 / 7] * 7, [1 / 7] * 7, []
    labels = [row.index(max(row)) for row in q]
    for _ in range(3):
        pseudo = model.pseudo_label(unlabeled)
        tau = 0.5 * tau + 0.5 * sum(map(max, q)) / 12  # the batch first, then the mask
        p = [0.5 * p[c] + 0.5 * sum(row[c] for row in q) / 12 for c in range(7)]
        h = [0.5 * h[c] + 0.5 * labels.count(c) / 12 for c in range(7)]
        thresholds = [tau * each / max(p) for each in p]
        weight = [float(max(row) >= thresholds[c]) for row, c in zip(q, labels, strict=True)]
        torch.testing.assert_close(pseudo.threshold, torch.tensor(thresholds))
        assert pseudo.weight.tolist() == weight
        terms = model.losses(labeled, unlabeled, pseudo)
        log_s = s.log_softmax(-1)
        loss = -sum(w * float(log_s[i, c]) for i, (w, c) in enumerate(zip(weight, labels, strict=True))) / 12
        assert float(terms["unlabeled"]) == pytest.approx(2 * loss, rel=1e-4)
        fairness = self_adaptive_fairness(s, torch.tensor(weight), torch.tensor(p), torch.tensor(h))
        assert float(terms["fairness"]) == pytest.approx(0.1 * float(fairness), rel=1e-4)
        model.update_state(labeled, unlabeled, pseudo, terms.outputs)
        accepted.append(sum(weight))
    assert min(accepted) < 12  # the reference met faces that are rejected
    assert max(accepted) > 0


@torch.no_grad()
def test_without_weight_the_fairness_is_gone_and_the_rest_stays():
    labeled, unlabeled = varied_batch()
    with_it, without = build(fairness_weight=0.5), build(fairness_weight=0.0)
    ours, theirs = (m.losses(labeled, unlabeled, m.pseudo_label(unlabeled)) for m in (with_it, without))
    assert theirs["fairness"] == 0
    assert ours["fairness"] != 0
    assert all(ours[name] == theirs[name] for name in ("supervised", "unlabeled"))


def test_fairness_alone_spreads_the_predictions():
    """A step against its gradient makes the accepted faces' predictions more like the running ones."""
    labeled, unlabeled = varied_batch()
    model = build(unlabeled_weight=0.0, fairness_weight=1.0)
    with torch.no_grad():
        pseudo = model.pseudo_label(unlabeled)._replace(weight=torch.ones(12))
    before = model.losses(labeled, unlabeled, pseudo)["fairness"]
    before.backward()
    with torch.no_grad():
        for parameter in model.student.head.parameters():
            parameter -= 1e-3 * parameter.grad
        after = model.losses(labeled, unlabeled, pseudo)["fairness"]
    assert before < 0
    assert after < before


def test_thresholds_of_training_reach_the_checkpoint(tmp_path):
    L.seed_everything(3, verbose=False)
    model = FreeMatch(**TINY, momentum=0.9)
    trainer = quiet_trainer(tmp_path, max_steps=4, limit_val_batches=0)
    trainer.fit(model, tiny_data())
    assert model.adaptive.tau > 1 / 7
    assert float(model.adaptive.p.sum()) == pytest.approx(1, abs=1e-5)
    assert float(model.adaptive.h.sum()) == pytest.approx(1, abs=1e-5)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    opened = FreeMatch.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert torch.equal(opened.adaptive.state.per_class(), model.adaptive.state.per_class())
