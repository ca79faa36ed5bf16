import lightning as L
import pytest
import torch
from faces import TINY, quiet_trainer, tiny_data
from varied import opinionated, varied_batch

from fer_lightning.errors import InputError
from fer_lightning.methods import PseudoLabel


def method_and_batch(**options):
    L.seed_everything(3, verbose=False)
    return opinionated(PseudoLabel(**(TINY | options))).train(), *varied_batch()


def test_terms_match_a_slow_reference():
    method, labeled, unlabeled = method_and_batch(unlabeled_weight=2.0)
    method.eval()
    with torch.no_grad():
        p = method.student(unlabeled.weak[0]).logits.softmax(-1)
        method.threshold = float(p.max(-1).values.median())
        pseudo = method.pseudo_label(unlabeled)
        terms = method.losses(labeled, unlabeled, pseudo)
        x = method.student(labeled.weak[0]).logits.log_softmax(-1)
    accepted = [row for row in p if max(row) >= method.threshold]
    assert 0 < len(accepted) < 12
    expected = sum(-float(max(row).log()) for row in accepted) / 12  # the label is the most likely class
    assert float(terms["unlabeled"]) == pytest.approx(2 * expected, rel=1e-4)
    assert float(terms["supervised"]) == pytest.approx(-sum(float(x[i, i]) for i in range(7)) / 7, rel=1e-4)
    assert int(pseudo.weight.sum()) == len(accepted)


def test_the_prediction_of_the_same_view_is_taught_and_the_target_is_not():
    method, labeled, unlabeled = method_and_batch(threshold=0.0)
    with torch.no_grad():
        pseudo = method.pseudo_label(unlabeled)
    assert not pseudo.target.emotion.requires_grad
    method.losses(labeled, unlabeled, pseudo)["unlabeled"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.student.head.parameters())
    assert method.views == (1, 1, 0, False)


def test_separate_forwards_let_target_and_prediction_be_one_prediction():
    """In train mode too: the weak views share batch statistics with no other faces."""
    method, labeled, unlabeled = method_and_batch(threshold=0.0)
    with torch.no_grad():
        pseudo = method.pseudo_label(unlabeled)
        loss = method.losses(labeled, unlabeled, pseudo)["unlabeled"]
    assert float(loss) == pytest.approx(float(-pseudo.confidence.log().mean()), rel=1e-4)
    joint, _, _ = method_and_batch(threshold=0.0, joint_forward=True)
    with torch.no_grad():
        other = joint.losses(labeled, unlabeled, joint.pseudo_label(unlabeled))["unlabeled"]
    assert float(other) != pytest.approx(float(loss), rel=1e-4)


@pytest.mark.parametrize(
    ("progress", "ramp", "weight"), [(0, 0.4, 0), (0.1, 0.4, 0.25), (0.5, 0.4, 1), (0, 0, 1)]
)
def test_the_weight_rises_over_the_first_part_of_the_run(monkeypatch, progress, ramp, weight):
    method, labeled, unlabeled = method_and_batch(threshold=0.0, ramp=ramp)
    method.eval()
    with torch.no_grad():
        pseudo = method.pseudo_label(unlabeled)
        full = method.losses(labeled, unlabeled, pseudo)  # without a trainer the run is over
        monkeypatch.setattr(PseudoLabel, "progress", progress)
        now = method.losses(labeled, unlabeled, pseudo)
    assert float(full["unlabeled"]) > 0
    assert float(now["unlabeled"]) == pytest.approx(weight * float(full["unlabeled"]))
    assert float(now["supervised"]) == float(full["supervised"])


def test_in_training_the_ramp_follows_the_steps(tmp_path):
    values = []

    class Spy(PseudoLabel):
        def losses(self, labeled, unlabeled, pseudo):
            terms = super().losses(labeled, unlabeled, pseudo)
            values.append(float(terms["unlabeled"].detach()) / float(-pseudo.confidence.log().mean()))
            return terms

    quiet_trainer(tmp_path, max_steps=10, limit_val_batches=0).fit(
        Spy(**TINY, threshold=0.0), tiny_data(unlabeled_ratio=1)
    )
    assert values == pytest.approx([0, 0.25, 0.5, 0.75, *[1] * 6], rel=1e-3)


@pytest.mark.parametrize("ramp", [-0.1, 1.5])
def test_a_ramp_outside_the_run_is_refused(ramp):
    with pytest.raises(InputError, match=rf"ramp is {ramp}; it must be a number from 0 to 1"):
        PseudoLabel(**TINY, ramp=ramp)
