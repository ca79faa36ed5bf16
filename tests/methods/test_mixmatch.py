import math
from typing import Any

import lightning as L
import pytest
import torch
from faces import TINY

from fer_lightning.data.batch import Labeled, Target, Unlabeled
from fer_lightning.data.mixup import beta_share
from fer_lightning.errors import InputError
from fer_lightning.methods import MixMatch, mixmatch
from fer_lightning.task import Output


def mixmatch_of(**options: Any) -> MixMatch:
    L.seed_everything(3, verbose=False)
    return MixMatch(**(TINY | options)).eval()  # eval: no batch statistics


def batch(labeled=4, unlabeled=6):
    images = torch.randint(0, 255, (labeled + 2 * unlabeled, 3, 16, 16), dtype=torch.uint8)
    target = Target(torch.eye(7)[torch.arange(labeled) % 7], 2 * torch.rand(labeled, 2) - 1)
    weak = images[labeled:].view(2, unlabeled, 3, 16, 16)
    return (
        Labeled(images[None, :labeled], target, torch.arange(labeled)),
        Unlabeled(weak, weak[:0], torch.arange(unlabeled)),
    )


def test_guess_golden_values(monkeypatch):
    method, (_, unlabeled) = mixmatch_of(emotions=["happy", "sad", "fear"]), batch(unlabeled=1)
    views = torch.tensor([[[0.7, 0.2, 0.1]], [[0.5, 0.3, 0.2]]])
    nothing = torch.zeros(1, 0)
    outputs = [Output(p.log(), *[nothing] * 3) for p in views]
    monkeypatch.setattr(method, "forward_views", lambda *_: outputs)
    pseudo = method.pseudo_label(unlabeled)
    assert pseudo.target.emotion[0].tolist() == pytest.approx([0.80899, 0.14045, 0.05056], abs=1e-5)
    assert pseudo.confidence.tolist() == pytest.approx([0.80899], abs=1e-5)
    assert pseudo.weight.tolist() == [1]
    assert pseudo.threshold.isnan().all()


@pytest.mark.parametrize("faces", [(4, 4), (4, 12), (6, 2)])  # unlabeled ratio of 1, 3, 1/3
def test_equals_the_slow_reference(faces):
    method = mixmatch_of(unlabeled_weight=5.0, mixup_alpha=0.75, targets="both")
    labeled, unlabeled = batch(*faces)
    (b, u), pseudo = faces, method.pseudo_label(unlabeled)
    torch.manual_seed(9)
    terms = method.losses(labeled, unlabeled, pseudo)
    torch.manual_seed(9)
    share, order = float(beta_share(0.75)), torch.randperm(b + 2 * u)
    images = torch.cat([labeled.weak[0], unlabeled.weak[0], unlabeled.weak[1]]) / 255
    emotion = torch.cat([labeled.target.emotion, *[pseudo.target.emotion] * 2])
    valence_arousal = torch.cat([labeled.target.valence_arousal, *[pseudo.target.valence_arousal] * 2])
    supervised, squared, rows = 0.0, 0.0, []
    for i in range(b + 2 * u):
        image, y, va = (
            share * t[i] + (1 - share) * t[int(order[i])] for t in (images, emotion, valence_arousal)
        )
        output = method.student(image[None])
        rows.append((output, va))
        if i < b:
            supervised -= float(y @ output.logits[0].log_softmax(-1)) / b
        else:
            squared += float((output.logits[0].softmax(-1) - y).square().mean()) / (2 * u)
            squared += float((output.valence_arousal[0] - va).square().mean()) / (2 * u)
    task = method.task
    logits, valence_arousal, *others = zip(*(output[:4] for output, _ in rows[:b]), strict=True)
    head = Output(*map(torch.cat, (logits, valence_arousal, *others)))
    unknown = Target(torch.full((b, 7), math.nan), torch.stack([va for _, va in rows[:b]]))
    supervised += float(task.supervised(head, unknown))
    assert terms["unlabeled"].item() == pytest.approx(5 * squared, rel=1e-4)
    assert terms["supervised"].item() == pytest.approx(supervised, rel=1e-4)


def test_without_mixing_it_is_consistency_of_both_views(monkeypatch):
    monkeypatch.setattr(mixmatch, "beta_share", lambda alpha, device: torch.tensor(1.0))
    method, (labeled, unlabeled) = mixmatch_of(unlabeled_weight=1.0), batch()
    pseudo = method.pseudo_label(unlabeled)
    terms = method.losses(labeled, unlabeled, pseudo)
    expected = method.task.supervised(method.student(labeled.weak[0]), labeled.target)
    torch.testing.assert_close(terms["supervised"], expected)
    each = [(method.student(v).logits.softmax(-1) - pseudo.target.emotion).square() for v in unlabeled.weak]
    torch.testing.assert_close(terms["unlabeled"], torch.stack(each).mean())


def test_the_weight_rises_over_the_ramp(monkeypatch):
    method, (labeled, unlabeled) = mixmatch_of(), batch()
    pseudo = method.pseudo_label(unlabeled)

    def unlabeled_term():
        torch.manual_seed(0)
        return method.losses(labeled, unlabeled, pseudo)["unlabeled"]

    whole = unlabeled_term()
    assert whole > 0
    for progress, share in ((0.0, 0.0), (0.1, 0.25), (0.4, 1.0)):
        monkeypatch.setattr(MixMatch, "progress", progress)
        torch.testing.assert_close(unlabeled_term(), share * whole)


def test_an_unknown_label_spoils_its_mixtures_alone():
    method, (labeled, unlabeled) = mixmatch_of().train(), batch()
    labeled.target.emotion[1] = math.nan
    terms = method.losses(labeled, unlabeled, method.pseudo_label(unlabeled))
    sum(terms.values()).backward()
    assert all(term.isfinite() and term > 0 for term in terms.values())
    assert all(p.grad.isfinite().all() for p in method.student.parameters())


def test_images_are_mixed_in_the_unit_interval(monkeypatch):
    method, (labeled, unlabeled), seen = mixmatch_of(), batch(), []
    pseudo, forward_views = method.pseudo_label(unlabeled), method.forward_views
    monkeypatch.setattr(
        method, "forward_views", lambda *images: seen.extend(images) or forward_views(*images)
    )
    method.losses(labeled, unlabeled, pseudo)
    assert [len(images) for images in seen] == [4, 12]
    assert all(images.dtype == torch.float32 for images in seen)
    assert all(0 <= images.min() < 0.4 < 0.6 < images.max() <= 1 for images in seen)


@pytest.mark.parametrize("name", ["temperature", "mixup_alpha"])
def test_values_of_zero_are_refused(name):
    with pytest.raises(InputError, match=rf"{name} is 0; it must be a number above 0"):
        mixmatch_of(**{name: 0})
