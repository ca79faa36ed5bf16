from typing import Any

import lightning as L
import pytest
import torch
from faces import TINY

from fer_lightning.data.batch import Labeled, Target, Unlabeled
from fer_lightning.errors import InputError
from fer_lightning.methods import MeanTeacher


def mean_teacher(**options: Any) -> MeanTeacher:
    L.seed_everything(3, verbose=False)
    return MeanTeacher(**(TINY | options))


def batch(labeled=4, unlabeled=6):
    images = torch.randint(0, 255, (labeled + 2 * unlabeled, 3, 16, 16), dtype=torch.uint8)
    target = Target(torch.eye(7)[torch.arange(labeled) % 7], 2 * torch.rand(labeled, 2) - 1)
    weak = images[labeled:].view(2, unlabeled, 3, 16, 16)
    return (
        Labeled(images[None, :labeled], target, torch.arange(labeled)),
        Unlabeled(weak, weak[:0], torch.arange(unlabeled)),
    )


def terms(method, labeled, unlabeled):
    with torch.no_grad():
        pseudo = method.pseudo_label(unlabeled)
    return method.losses(labeled, unlabeled, pseudo)


def test_gradient_reaches_the_student_and_never_the_teacher():
    """Where the teacher's prediction stands in both places, as in USB, there is no gradient at all."""
    method = mean_teacher().train()
    terms(method, *batch())["unlabeled"].backward()
    assert all(p.grad is not None for p in method.student.parameters())
    assert all(p.grad.abs().sum() > 0 for p in method.student.head.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())


def test_equals_the_slow_reference():
    method = mean_teacher(unlabeled_weight=3.0, targets="both").eval()
    with torch.no_grad():
        method.student.head.weight.normal_()  # another network than the teacher
    labeled, unlabeled = batch()
    with torch.no_grad():
        student, teacher = method.student(unlabeled.weak[1]), method.teacher.module(unlabeled.weak[0])
    expected = 0.0
    for i in range(6):
        p, q = student.logits[i].softmax(-1), teacher.logits[i].softmax(-1)
        expected += sum(float(p[c] - q[c]) ** 2 for c in range(7)) / 7 / 6
        valence_arousal = student.valence_arousal[i] - teacher.valence_arousal[i]
        expected += sum(float(d) ** 2 for d in valence_arousal) / 2 / 6
    loss = terms(method, labeled, unlabeled)["unlabeled"]
    assert loss.item() == pytest.approx(3 * expected, rel=1e-4)


def test_the_weight_rises_over_the_ramp(monkeypatch):
    method, (labeled, unlabeled) = mean_teacher(unlabeled_weight=50.0, ramp=0.4).eval(), batch()
    with torch.no_grad():
        method.student.head.weight.normal_()
    whole = terms(method, labeled, unlabeled)["unlabeled"]
    assert whole > 0
    for progress, share in ((0.0, 0.0), (0.1, 0.25), (0.4, 1.0), (0.9, 1.0)):
        monkeypatch.setattr(MeanTeacher, "progress", progress)
        torch.testing.assert_close(terms(method, labeled, unlabeled)["unlabeled"], share * whole)


def test_every_probability_is_a_pseudo_label_as_it_is():
    method, (_, unlabeled) = mean_teacher().eval(), batch()
    pseudo = method.pseudo_label(unlabeled)
    p = method.teacher.module(unlabeled.weak[0]).logits.softmax(-1)
    assert torch.equal(pseudo.target.emotion, p)
    assert torch.equal(pseudo.confidence, p.amax(-1))
    assert torch.equal(pseudo.weight, torch.ones(6))
    assert pseudo.threshold.isnan().all()


def test_order_of_the_faces_does_not_matter():
    method, (labeled, unlabeled) = mean_teacher(joint_forward=False), batch()
    with torch.no_grad():
        method.student.head.weight.normal_()
    order = torch.randperm(6)
    shuffled = unlabeled._replace(weak=unlabeled.weak[:, order], index=order)
    loss, other = (terms(method, labeled, u)["unlabeled"] for u in (unlabeled, shuffled))
    torch.testing.assert_close(loss, other, rtol=1e-4, atol=1e-6)


def test_without_a_teacher_it_is_refused():
    with pytest.raises(InputError, match="ema_decay is 0; Mean Teacher needs a teacher"):
        mean_teacher(ema_decay=0)
