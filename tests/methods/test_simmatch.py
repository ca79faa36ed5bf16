"""SimMatch against its equations; what every method must show is in test_every_*.py."""

import copy
import math
from typing import Any

import lightning as L
import pytest
import torch
from faces import TINY, quiet_trainer, tiny_data
from torch.nn.functional import normalize

from fer_lightning.data.batch import Labeled, Target, Unlabeled
from fer_lightning.errors import InputError
from fer_lightning.methods import SimMatch
from fer_lightning.task import Output


def simmatch(**options: Any) -> SimMatch:
    L.seed_everything(3, verbose=False)
    return SimMatch(**(TINY | {"threshold": 0.2, "projection": 8} | options))


def batch(labeled=4, unlabeled=6):
    images = torch.randint(0, 255, (labeled + 2 * unlabeled, 3, 16, 16), dtype=torch.uint8)
    target = Target(torch.eye(7)[torch.arange(labeled) % 7], torch.full((labeled, 2), math.nan))
    views = images[labeled:].view(2, 1, unlabeled, 3, 16, 16)
    return (
        Labeled(images[None, :labeled], target, torch.arange(labeled)),
        Unlabeled(views[0], views[1], torch.arange(unlabeled)),
    )


def step(method, labeled, unlabeled):
    """A training step but for the optimizer's part: its pseudo-labels and its terms."""
    with torch.no_grad():
        pseudo = method.pseudo_label(unlabeled)
    terms = method.losses(labeled, unlabeled, pseudo)
    with torch.no_grad():
        method.update_state(labeled, unlabeled, pseudo, terms.outputs)
    return pseudo, terms


def fill_bank(method, faces=5, written=5):
    """Make a bank for that many faces and write the first of them."""
    method.bank.resize(faces)
    z = normalize(torch.randn(written, method.bank.features.shape[1]), dim=-1)
    method.bank.write(torch.arange(written), z, torch.eye(7)[torch.arange(written) % 3])


def test_golden_values():
    """Two labeled faces of one emotion, one of another; a face near to the first two."""
    method = simmatch(emotions=["happy", "sad"], projection=2, threshold=0.7).eval()
    method.bank.resize(3)
    z = torch.tensor([[1.0, 0], [0.6, 0.8], [0, 1]])
    method.bank.write(torch.arange(3), z, torch.tensor([[1.0, 0], [1, 0], [0, 1]]))
    none, near = torch.zeros(1, 0), normalize(torch.tensor([[0.9, 0.1]]), dim=-1)
    output = Output(torch.tensor([[0.7, 0.3]]).log(), none, none, none, near)
    method.teacher.module.register_forward_hook(lambda *_: output)
    _, unlabeled = batch(unlabeled=1)
    pseudo = method.pseudo_label(unlabeled)
    assert pseudo.target.emotion[0].tolist() == pytest.approx([0.72999, 0.27001], abs=1e-5)
    assert pseudo.weight.tolist() == [1]
    assert pseudo.similarity[0].tolist() == pytest.approx([0.95651, 0.04343, 0.00006], abs=1e-5)


def test_terms_equal_the_slow_reference():
    method, (labeled, unlabeled) = simmatch(unlabeled_weight=2.0, similarity_weight=3.0).eval(), batch()
    with torch.no_grad():
        method.student.head.weight.normal_()  # another network than the teacher
        fill_bank(method)
        pseudo = method.pseudo_label(unlabeled)
        terms = method.losses(labeled, unlabeled, pseudo)
        weak, strong = method.teacher.module(unlabeled.weak[0]), method.student(unlabeled.strong[0])
    semantic, instance = 0.0, 0.0
    for i in range(6):
        p = weak.logits[i].softmax(-1)
        s = [math.exp(float(weak.projection[i] @ z) / 0.1) for z in method.bank.features]
        s = [x / sum(s) for x in s]
        label = method.bank.probability.argmax(-1).tolist()
        unfolded = [x * float(p[y]) for x, y in zip(s, label, strict=True)]
        r = [math.exp(float(strong.projection[i] @ z) / 0.1) for z in method.bank.features]
        instance -= (
            sum(u / sum(unfolded) * math.log(x / sum(r)) for u, x in zip(unfolded, r, strict=True)) / 6
        )
        p = 0.9 * p
        for x, y in zip(s, label, strict=True):
            p[y] += 0.1 * x
        torch.testing.assert_close(pseudo.target.emotion[i], p)
        if p.max() >= method.threshold:
            semantic -= float(p @ strong.logits[i].log_softmax(-1)) / 6
    assert terms["unlabeled"].item() == pytest.approx(2 * semantic, rel=1e-4)
    assert terms["similarity"].item() == pytest.approx(3 * instance, rel=1e-4)


def test_bank_counts_once_every_labeled_face_is_in_it():
    method, (labeled, unlabeled) = simmatch().eval(), batch()
    p = method.inference_network(unlabeled.weak[0]).logits.softmax(-1)
    for written, counts in ((0, False), (4, False), (5, True)):
        fill_bank(method, 5, written)
        pseudo = method.pseudo_label(unlabeled)
        assert torch.allclose(pseudo.target.emotion, p, atol=1e-6) != counts
        similarity = method.losses(labeled, unlabeled, pseudo)["similarity"]
        assert similarity.isfinite()
        assert (similarity > 0) == counts
    method.model_share = 1.0  # no aggregation
    torch.testing.assert_close(method.pseudo_label(unlabeled).target.emotion, p)


def test_no_face_is_similar_to_a_labeled_one_without_an_emotion():
    method, (labeled, unlabeled) = simmatch(), batch()
    labeled.target.emotion[1] = math.nan
    fill_bank(method, 4, 0)
    step(method, labeled, unlabeled)
    assert method.bank.written.all()
    pseudo, terms = step(method, labeled, unlabeled)
    assert pseudo.similarity[:, 1].abs().sum() == 0
    torch.testing.assert_close(pseudo.similarity.sum(-1), torch.ones(6))
    torch.testing.assert_close(pseudo.target.emotion.sum(-1), torch.ones(6))
    assert terms["similarity"] > 0
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(p.grad.isfinite().all() for p in method.student.parameters())


@pytest.mark.parametrize("ema_decay", [0.999, 0.0])
def test_the_teacher_makes_pseudo_labels_and_fills_the_bank_if_there_is_one(ema_decay):
    method, (labeled, unlabeled) = simmatch(ema_decay=ema_decay, joint_forward=False), batch()
    fill_bank(method, 4, 4)
    method.alignment.eval()
    before = method.pseudo_label(unlabeled).target.emotion.detach()
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    pseudo, _ = step(method, labeled, unlabeled)
    assert torch.equal(pseudo.target.emotion, before) == bool(ema_decay)
    z = method.inference_network(labeled.weak[0]).projection
    torch.testing.assert_close(method.bank.features, z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.bank.features.norm(dim=-1), torch.ones(4))  # face by face
    assert torch.equal(method.bank.probability, labeled.target.emotion)


def test_state_moves_in_the_third_hook_alone():
    method, (labeled, unlabeled) = simmatch(), batch()
    fill_bank(method, 4, 4)
    before = {
        name: value.clone() for name, value in method.named_buffers() if name.startswith(("bank", "al"))
    }
    first, second = (copy.deepcopy(method) for _ in range(2))
    with torch.no_grad():
        pseudo = first.pseudo_label(unlabeled)
        terms = first.losses(labeled, unlabeled, pseudo)
    assert all(torch.equal(first.get_buffer(name), value) for name, value in before.items())
    with torch.no_grad():
        first.update_state(labeled, unlabeled, pseudo, terms.outputs)
    assert not torch.equal(first.bank.features, before["bank.features"])
    p = pseudo.outputs[0].logits.softmax(-1)
    torch.testing.assert_close(first.alignment.means[-1], p.mean(0))
    step(second, labeled, unlabeled)
    assert all(torch.equal(first.get_buffer(name), second.get_buffer(name)) for name in before)


def test_similarity_trains_the_projection_though_the_bank_is_written_before_the_backward_pass():
    method, (labeled, unlabeled) = simmatch(), batch()
    fill_bank(method, 4, 4)
    features = method.bank.features.clone()
    _, terms = step(method, labeled, unlabeled)
    assert not torch.equal(method.bank.features, features)
    (terms["supervised"] + terms["unlabeled"]).backward(retain_graph=True)
    assert all(p.grad is None for p in method.student.projection.parameters())
    terms["similarity"].backward()
    assert all(p.grad.abs().sum() > 0 for p in method.student.projection.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())


def test_bank_holds_every_labeled_face_with_its_label(tmp_path):
    method, data = simmatch(), tiny_data()
    quiet_trainer(tmp_path, max_steps=4, limit_val_batches=0).fit(method, data)
    assert method.bank.written.all()
    assert torch.equal(method.bank.probability, data.info().labeled.emotion)


@pytest.mark.parametrize("target", ["labeled", "uniform"])
def test_alignment_aims_at_the_labels_or_at_all_emotions_alike(tmp_path, target):
    method = simmatch(alignment_target=target)
    some = {"happiness": 9, "fear": 2, "anger": 2, "sadness": 2}
    labels = {emotion: some.get(emotion, 0) for emotion in method.task.emotions}
    data = tiny_data(labels_per_class=labels)
    quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(method, data)
    counts = torch.tensor([count + 1 for count in labels.values()])
    expected = counts / counts.sum() if target == "labeled" else torch.full((7,), 1 / 7)
    torch.testing.assert_close(method.alignment.target, expected)


def test_bad_temperature_is_refused():
    with pytest.raises(InputError, match=r"temperature is -1\.0; it must be a number above 0"):
        simmatch(temperature=-1.0)
