import math
from typing import Any

import lightning as L
import pytest
import torch
from faces import TINY, quiet_trainer, tiny_data

from fer_lightning.data.batch import Labeled, Target, Unlabeled
from fer_lightning.errors import InputError
from fer_lightning.methods import CoMatch
from fer_lightning.methods.comatch import graph_contrastive, pseudo_label_graph


def comatch(**options: Any) -> CoMatch:
    L.seed_everything(3, verbose=False)
    return CoMatch(**(TINY | {"threshold": 0.2, "graph_threshold": 0.15, "projection": 8} | options))


def batch(labeled=4, unlabeled=6):
    images = torch.randint(0, 255, (labeled + 3 * unlabeled, 3, 16, 16), dtype=torch.uint8)
    target = Target(torch.eye(7)[torch.arange(labeled) % 7], torch.full((labeled, 2), math.nan))
    views = images[labeled:].view(3, unlabeled, 3, 16, 16)
    return (
        Labeled(images[None, :labeled], target, torch.arange(labeled)),
        Unlabeled(views[:1], views[1:], torch.arange(unlabeled)),
    )


def remember(method, rows, length):
    """Fill the queue with so many rows."""
    method.queue.resize(length)
    z = torch.nn.functional.normalize(torch.randn(rows, 8), dim=-1)
    method.queue.push(z, torch.randn(rows, 7).mul(2).softmax(-1))


def test_terms_equal_the_slow_reference():
    method, (labeled, unlabeled) = comatch(unlabeled_weight=2.0, contrast_weight=3.0).eval(), batch()
    remember(method, 5, 5)
    with torch.no_grad():
        pseudo = method.pseudo_label(unlabeled)
        terms = method.losses(labeled, unlabeled, pseudo)
        weak, first, second = (
            method.student(images) for images in (unlabeled.weak[0], unlabeled.strong[0], unlabeled.strong[1])
        )
    smoothed, loss = [], 0.0
    for i in range(6):
        a = [math.exp(float(weak.projection[i] @ z) / 0.2) for z in method.queue.features]
        near = sum(w / sum(a) * p for w, p in zip(a, method.queue.probability, strict=True))
        p = 0.9 * weak.logits[i].softmax(-1) + 0.1 * near
        smoothed.append(p)
        if p.max() >= method.threshold:
            loss -= float(p @ first.logits[i].log_softmax(-1)) / 6
    smoothed = torch.stack(smoothed)
    torch.testing.assert_close(pseudo.target.emotion, smoothed)
    torch.testing.assert_close(pseudo.confidence, smoothed.amax(-1))
    assert terms["unlabeled"].item() == pytest.approx(2 * loss, rel=1e-4)
    graph = pseudo_label_graph(smoothed, method.graph_threshold)
    contrast = graph_contrastive(first.projection, second.projection, graph, 0.2)
    torch.testing.assert_close(terms["contrast"], 3 * contrast, rtol=1e-4, atol=1e-5)


def test_smoothing_waits_until_the_queue_is_full():
    method, (_, unlabeled) = comatch().eval(), batch()
    p = method.student(unlabeled.weak[0]).logits.softmax(-1)
    for rows, smoothed in ((0, False), (4, False), (5, True)):
        remember(method, rows, 5)
        target = method.pseudo_label(unlabeled).target.emotion
        assert torch.allclose(target, p, atol=1e-6) != smoothed
    method.model_share = 1.0  # no smoothing
    torch.testing.assert_close(method.pseudo_label(unlabeled).target.emotion, p)


def test_the_queue_holds_labels_and_predictions_from_before_the_smoothing():
    method, (labeled, unlabeled) = comatch(joint_forward=False), batch()
    remember(method, 16, 16)
    labeled.target.emotion[1] = math.nan
    seen = []
    method.alignment.register_forward_hook(lambda module, given, aligned: seen.append(aligned))
    with torch.no_grad():
        pseudo = method.pseudo_label(unlabeled)
        terms = method.losses(labeled, unlabeled, pseudo)
        method.update_state(labeled, unlabeled, pseudo, terms.outputs)
    aligned = seen[0]
    assert not torch.allclose(aligned, pseudo.target.emotion)  # it was smoothed afterwards
    assert torch.equal(method.queue.probability[:3], torch.eye(7)[[0, 2, 3]])  # the unknown one is not held
    assert torch.equal(method.queue.probability[3:9], aligned)
    torch.testing.assert_close(method.queue.features.norm(dim=-1), torch.ones(16))
    assert terms["supervised"].isfinite()


def test_the_queue_is_full_after_its_batches(tmp_path):
    method = comatch(queue_batches=3)
    quiet_trainer(tmp_path, max_steps=2, limit_val_batches=0).fit(method, tiny_data())
    assert len(method.queue.written) == 3 * (2 + 1) * 14
    assert method.queue.written.sum() == 2 * (2 + 1) * 14
    method = comatch(queue_batches=3)
    quiet_trainer(tmp_path, max_steps=3, limit_val_batches=0).fit(method, tiny_data())
    assert method.queue.written.all()


@pytest.mark.parametrize("target", ["labeled", "uniform"])
def test_alignment_aims_at_the_labels_or_at_all_emotions_alike(tmp_path, target):
    method = comatch(alignment_target=target)
    some = {"happiness": 9, "fear": 2, "anger": 2, "sadness": 2}
    labels = {emotion: some.get(emotion, 0) for emotion in method.task.emotions}
    data = tiny_data(labels_per_class=labels)
    quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(method, data)
    counts = torch.tensor([count + 1 for count in labels.values()])
    expected = counts / counts.sum() if target == "labeled" else torch.full((7,), 1 / 7)
    torch.testing.assert_close(method.alignment.target, expected)
    assert (method.alignment.means.sum(-1) > 0).sum() == 1  # one batch was seen


def test_the_contrast_alone_trains_the_projection():
    method, (labeled, unlabeled) = comatch(), batch()
    with torch.no_grad():
        pseudo = method.pseudo_label(unlabeled)
    terms = method.losses(labeled, unlabeled, pseudo)
    (terms["supervised"] + terms["unlabeled"]).backward(retain_graph=True)
    assert all(p.grad is None for p in method.student.projection.parameters())
    terms["contrast"].backward()
    assert all(p.grad.abs().sum() > 0 for p in method.student.projection.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())


def test_rejected_faces_are_in_the_graph_but_in_no_other_term():
    method, (labeled, unlabeled) = comatch(threshold=1.0), batch()
    with torch.no_grad():
        terms = method.losses(labeled, unlabeled, method.pseudo_label(unlabeled))
    assert terms["unlabeled"] == 0
    assert terms["contrast"] > 0


def test_bad_temperature_is_refused():
    with pytest.raises(InputError, match=r"temperature is 0\.0; it must be a number above 0"):
        comatch(temperature=0.0)
