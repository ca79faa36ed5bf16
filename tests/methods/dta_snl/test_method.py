"""DTA + SNL, reconstructed, against its equations; what every method must show is in test_every_*.py."""

from itertools import pairwise
from typing import Any

import lightning as L
import pytest
import torch
from faces import TINY, quiet_trainer, tiny_data
from torch.nn.functional import cross_entropy

from fer_lightning.data.batch import Labeled, Target, Unlabeled
from fer_lightning.errors import InputError
from fer_lightning.methods import DTASNL
from fer_lightning.methods.dta_snl.local_attention import LocalAttention
from fer_lightning.models.network import Pool
from fer_lightning.pseudo_labels.margins import class_margin


def dta_snl(**options: Any) -> DTASNL:
    L.seed_everything(3, verbose=False)
    return DTASNL(**(TINY | {"joint_forward": False, "start_epoch": 1} | options))


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 255, (*shape, 3, 16, 16), dtype=torch.uint8)


def faces(rows: int = 16) -> tuple[Labeled, Unlabeled]:
    torch.manual_seed(0)
    target = Target(torch.eye(7)[torch.arange(rows) % 7], torch.full((rows, 2), torch.nan))
    labeled = Labeled(images(1, rows), target, torch.arange(rows))
    return labeled, Unlabeled(images(1, rows), images(1, rows), torch.arange(rows))


def fit(tmp_path: Any, steps: int = 7, **options: Any) -> DTASNL:
    method = dta_snl(**({"lr": 0.1} | options))
    quiet_trainer(tmp_path, max_steps=steps, limit_val_batches=0).fit(method, tiny_data())
    return method


def same(a: DTASNL, b: DTASNL) -> bool:
    theirs = b.student.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in a.student.state_dict().items())


def some_rejected(method: DTASNL, share: float = 0.5) -> None:
    """Set the threshold so that this share of ``faces()`` is rejected."""
    with torch.no_grad():
        q = method(faces()[1].weak[0]).emotion.max(-1).values
    method.dta.threshold.fill_(float(q.quantile(share)))


def test_teacher_accepts_above_the_threshold_and_gives_negatives_below():
    method = dta_snl(negative_threshold=0.142).eval()
    some_rejected(method)
    torch.nn.init.zeros_(method.student.head.weight)  # the student does not count
    with torch.no_grad():
        q = method.teacher.module(faces()[1].weak[0]).logits.softmax(-1)
        pseudo = method.pseudo_label(faces()[1])
    assert 0 < pseudo.weight.sum() < 16
    for j, row in enumerate(q.tolist()):
        top = row.index(max(row))
        accepted = max(row) >= float(method.dta.threshold[top])
        assert pseudo.weight[j] == accepted
        expected = [not accepted and c != top and p < 0.142 for c, p in enumerate(row)]
        assert pseudo.negative[j].tolist() == expected
    assert pseudo.negative.any()


def test_no_face_is_in_both_losses_unless_set():
    for samples, both in (("low", False), ("all", True)):
        method = dta_snl(negative_threshold=0.142, samples=samples).eval()
        some_rejected(method)
        with torch.no_grad():
            pseudo = method.pseudo_label(faces()[1])
        accepted = pseudo.weight > 0
        assert bool(pseudo.negative[accepted].any()) == both
        assert pseudo.negative[~accepted].any()
        assert not pseudo.negative[torch.arange(16), pseudo.target.label].any()


def test_lowest_gives_as_many_as_set():
    method = dta_snl(select="lowest", lowest=2, samples="all").eval()
    with torch.no_grad():
        pseudo = method.pseudo_label(faces()[1])
        q = method(faces()[1].weak[0]).emotion
    assert (pseudo.negative.sum(1) == 2).all()
    assert all(q[j][pseudo.negative[j]].max() <= q[j][~pseudo.negative[j]].min() for j in range(16))


def test_top_k_gives_none_until_student_and_teacher_were_compared():
    method = dta_snl(select="top_k", samples="all")
    labeled, unlabeled = faces()
    with torch.no_grad():
        pseudo = method.pseudo_label(unlabeled)
        assert not pseudo.negative.any()
        strong = []
        method.student.register_forward_hook(lambda module, given, output: strong.append(output.logits))
        terms = method.losses(labeled, unlabeled, pseudo)
        assert int(method.k) == 7  # it changes no state
        method.update_state(labeled, unlabeled, pseudo, terms.outputs)
    places = [int((row > row[y]).sum()) for row, y in zip(strong[-1], pseudo.target.label, strict=True)]
    assert int(method.k) == max(2, max(places) + 1)
    method.k.fill_(3)
    with torch.no_grad():
        assert (method.pseudo_label(unlabeled).negative.sum(1) == 4).all()


def test_terms_match_a_slow_reference():
    method = dta_snl(
        negative_threshold=0.142, supervised_weight=0.5, unlabeled_weight=2.0, negative_weight=3.0, guard=0.14
    ).eval()
    some_rejected(method)
    labeled, unlabeled = faces()
    with torch.no_grad():
        pseudo = method.pseudo_label(unlabeled)
        terms = method.losses(labeled, unlabeled, pseudo)
        x, s = method.student(labeled.weak[0]).logits, method.student(unlabeled.strong[0]).logits
    negative = 0.0
    p = s.softmax(-1)
    assert (p[pseudo.negative] > 0.14).any()  # so that the guard has something to leave out
    for row, negatives in zip(p, pseudo.negative & (p <= 0.14), strict=True):
        if negatives.any():
            negative -= float((1 - row[negatives]).log().mean()) / 16
    accepted = pseudo.weight > 0
    positive = cross_entropy(s[accepted], pseudo.target.label[accepted], reduction="sum") / 16
    assert negative > 0
    assert float(terms["negative"]) == pytest.approx(3 * negative, rel=1e-5)
    assert float(terms["unlabeled"]) == pytest.approx(2 * float(positive), rel=1e-5)
    expected = 0.5 * cross_entropy(x, labeled.target.label)
    torch.testing.assert_close(terms["supervised"], expected)


def test_running_confidence_is_the_teachers_on_labeled_batches():
    method = dta_snl(min_threshold=0.05, momentum=0.5)
    labeled, _ = faces()
    with torch.no_grad():
        q = method.teacher.module(labeled.weak[0]).logits.softmax(-1)
    before = method.dta.confidence.clone()
    method.update_labeled_state(labeled, method.labeled_losses(labeled).outputs)
    right = q.argmax(-1) == labeled.target.label
    assert right.any()
    for c in range(7):
        mine = q.max(-1).values[right & (labeled.target.label == c)]
        mean = mine.mean() if len(mine) else before[c]
        assert float(method.dta.confidence[c]) == pytest.approx(float((before[c] + mean) / 2), rel=1e-5)
    assert torch.equal(method.dta.threshold, class_margin(method.dta.confidence, 1, min_margin=0.05))


def test_threshold_rises_with_the_epochs(tmp_path):
    seen = []

    class Spy(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append((trainer.current_epoch + 1, pl_module.dta.confidence.clone(), outputs["pseudo"]))
            expected = class_margin(pl_module.dta.confidence, trainer.current_epoch + 1, min_margin=0.1)
            assert torch.equal(pl_module.dta.threshold, expected)

    method = dta_snl(min_threshold=0.1)
    quiet_trainer(tmp_path, max_epochs=3, callbacks=[Spy()]).fit(method, tiny_data())
    assert [epoch for epoch, _, _ in seen] == [1] * 5 + [2] * 5 + [3] * 5
    for (epoch, mu, _), (_, _, pseudo) in pairwise(seen):  # of the batches before
        assert torch.equal(pseudo.threshold, class_margin(mu, epoch, min_margin=0.1))


def test_by_epochs_the_threshold_rests_within_one(tmp_path):
    seen = []

    class Spy(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(outputs["pseudo"].threshold)

    method = dta_snl(update="epoch", min_threshold=0.05, ema_decay=0.9)
    quiet_trainer(tmp_path, max_epochs=2, callbacks=[Spy()]).fit(method, tiny_data())
    assert all(torch.equal(each, seen[0]) for each in seen[:5])
    assert all(torch.equal(each, seen[5]) for each in seen[5:])
    assert not torch.equal(seen[0], seen[5])


def test_unlabeled_faces_set_the_threshold_if_asked_to(tmp_path):
    method = fit(tmp_path, statistic="unlabeled")
    torch.testing.assert_close(method.dta.threshold, method.dta.adaptive.state.per_class())
    assert not torch.allclose(method.dta.threshold, torch.full((7,), 1 / 7), rtol=1e-4)


def test_without_the_parts_it_is_fixmatch_by_a_teacher():
    method = dta_snl(attention=0, dta=False, snl=False, unit_features=False).eval()
    assert type(method.student.neck) is Pool
    labeled, unlabeled = faces()
    with torch.no_grad():
        pseudo = method.pseudo_label(unlabeled)
        assert method.losses(labeled, unlabeled, pseudo).keys() == {"supervised", "unlabeled"}
    assert pseudo.threshold.tolist() == pytest.approx([0.95] * 7)
    assert pseudo.negative is None
    assert not any(name.startswith("dta") for name in method.state_dict())


def test_network_follows_the_options():
    neck = dta_snl(attention=3, reduction=4, drop="channel", drop_rate=0.1, residual=True).student.neck
    assert isinstance(neck, LocalAttention)
    assert (neck.maps, neck.drop, neck.drop_rate, neck.residual) == (3, "channel", 0.1, True)
    assert neck.pool.unit
    features = dta_snl().eval()(images(4)).features
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4))


def test_no_negatives_is_as_without_negative_learning(tmp_path):
    without, nothing = fit(tmp_path, snl=False), fit(tmp_path, negative_threshold=0.0)
    assert same(without, nothing)
    assert not same(without, fit(tmp_path, negative_threshold=0.15))


def test_nothing_is_learned_from_unlabeled_faces_before_the_start(tmp_path):
    options = {"negative_threshold": 0.15, "min_threshold": 0.1}
    for steps, alike in ((5, True), (6, False)):
        labels = fit(tmp_path, labeled_only_steps=steps, steps=steps, **options)
        assert same(labels, fit(tmp_path, start_epoch=2, steps=steps, **options)) == alike
    assert not same(labels, fit(tmp_path, start_epoch=1, steps=5, **options))


def test_leafs_rule_keeps_the_fewest_emotions_that_hold_the_mass():
    method = dta_snl(select="mass", samples="all").eval()
    q = torch.tensor([[0.85, 0.06, 0.05, 0.04, 0, 0, 0], [0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05]])
    negative = method.complementary(q, torch.zeros(2))
    assert negative.sum(1).tolist() == [5, 4]
    assert not negative[0, :2].any()
    assert not negative[1, :3].any()


def test_teacher_moves_by_its_decay_and_gets_no_gradient(tmp_path):
    method = dta_snl(ema_warmup=False)
    before = method.teacher.module.head.weight.clone()
    quiet_trainer(tmp_path, max_steps=1).fit(method, tiny_data())
    assert all(p.grad is None for p in method.teacher.parameters())
    expected = 0.999 * before + 0.001 * method.student.head.weight
    torch.testing.assert_close(method.teacher.module.head.weight, expected)
    assert not torch.equal(before, method.student.head.weight)


@pytest.mark.parametrize(
    "options",
    [
        {"statistic": "unlabeled", "scope": "global"},
        {"update": "epoch", "scope": "global"},
        {"select": "top_k"},
    ],
)
def test_switches_resume_bit_for_bit(tmp_path, options):
    options |= {"min_threshold": 0.1, "dropout": 0.2, "lr": 0.1}

    class Keep(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 7:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

    whole = dta_snl(**options)
    quiet_trainer(tmp_path, max_epochs=3, callbacks=[Keep()]).fit(whole, tiny_data())
    resumed = dta_snl(**options)
    quiet_trainer(tmp_path, max_epochs=3).fit(resumed, tiny_data(), ckpt_path=tmp_path / "mid.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_it_needs_a_teacher():
    with pytest.raises(InputError, match="ema_decay is 0"):
        dta_snl(ema_decay=0)
