from typing import Any

import lightning as L
import pytest
import torch
from faces import TINY, TinyFaces, quiet_trainer, tiny_data

from fer_lightning.data.batch import Labeled, Target, Unlabeled
from fer_lightning.errors import InputError
from fer_lightning.methods import SSER
from fer_lightning.methods.sser.clusters import cluster_labels
from fer_lightning.methods.sser.coupling import accept, couple, image_evidence
from fer_lightning.methods.sser.entropy import entropy
from fer_lightning.methods.sser.triplet import (
    activation_matrix,
    class_distance,
    squared_distance,
    triplet_loss,
)
from fer_lightning.pseudo_labels import PseudoLabels, sharpen
from fer_lightning.task import as_target


def sser(**options: Any) -> SSER:
    L.seed_everything(3, verbose=False)
    return SSER(**(TINY | {"threshold": 0.3, "ema_decay": 0.9} | options))


def fit(method, tmp_path, ckpt_path=None, data=None, **options):
    trainer = quiet_trainer(tmp_path, **({"limit_val_batches": 0} | options))
    trainer.fit(method, data or tiny_data(class_balanced=True), ckpt_path=ckpt_path)
    return trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """After 10 steps, in the last stage; with more labels of some emotions than of others."""
    method = sser()
    budget = dict(zip(TinyFaces().load(16).taxonomy.emotions, (1, 9, 2, 3, 4, 5, 6), strict=True))
    data = tiny_data(class_balanced=True, labels_per_class=budget)
    fit(method, tmp_path_factory.mktemp("sser"), data=data, max_epochs=2)
    return method.eval()


def pair(method, n=6):
    """A labeled and an unlabeled batch."""
    torch.manual_seed(5)
    target = Target(torch.eye(7)[torch.arange(14) % 7], torch.zeros(14, 2))
    images = [torch.randint(0, 255, (*s, 3, 16, 16), dtype=torch.uint8) for s in ((1, 14), (2, n), (1, n))]
    return Labeled(images[0], target, torch.arange(14)), Unlabeled(*images[1:], torch.arange(n))


def pseudo_labels_of(method, unlabeled, weight):
    n = len(unlabeled.index)
    label = torch.eye(7)[torch.arange(n) % 7]
    return PseudoLabels(
        as_target(label, torch.zeros(n, 0)), weight, label.max(-1).values, unlabeled.index, torch.zeros(7)
    )


# The stages


class Watch(L.Callback):
    """Notes the stage, the bank and the snapshot after each batch, and the teacher before it."""

    def __init__(self) -> None:
        self.stage, self.learned_from_unlabeled, self.bank, self.snapshot, self.teacher = [], [], [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.teacher.append({k: v.clone() for k, v in pl_module.inference_network.state_dict().items()})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.stage.append(int(pl_module.stage))
        self.learned_from_unlabeled.append(outputs["pseudo"] is not None)
        self.bank.append(pl_module.evidence.bank.rows.clone())
        self.snapshot.append({k: v.clone() for k, v in pl_module.evidence.snapshot.state_dict().items()})


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    ("accumulate", "stages"),
    [
        (1, [0, 0, 1, 1, 1, 1, 2, 2, 2, 2]),
        (2, [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]),  # 6 steps, at the end of batches 2, 4, 5, 7, 9 and 10
    ],
)
@pytest.mark.parametrize("ema_decay", [0.9, 0.0])
def test_a_stage_freezes_the_inference_network_and_encodes_the_labeled_faces_anew(
    tmp_path, accumulate, stages, ema_decay
):
    watch = Watch()
    options = {"max_epochs": 2, "accumulate_grad_batches": accumulate, "callbacks": [watch]}
    fit(sser(ema_decay=ema_decay), tmp_path, **options)
    assert watch.stage == stages
    assert watch.learned_from_unlabeled == [stage > 0 for stage in stages]
    for i in range(1, 10):
        if stages[i] > stages[i - 1]:
            assert same(watch.snapshot[i], watch.teacher[i])
            assert not torch.equal(watch.bank[i], watch.bank[i - 1])
            assert len(watch.bank[i]) == 28
        else:
            assert same(watch.snapshot[i], watch.snapshot[i - 1])
            assert torch.equal(watch.bank[i], watch.bank[i - 1])
    assert len(watch.bank[0]) == 0


def test_bank_is_what_the_snapshot_makes_of_the_labeled_faces(trained):
    for batch in trained.data.labeled_loader():
        rows = activation_matrix(trained.evidence.snapshot(batch.image).maps)
        torch.testing.assert_close(
            trained.evidence.bank.rows[batch.index].float(), rows, rtol=1e-2, atol=1e-3
        )
        assert torch.equal(trained.evidence.bank.label[batch.index], batch.target.emotion)
    torch.testing.assert_close(trained.evidence.prior, torch.tensor([2.0, 10, 3, 4, 5, 6, 7]) / 37)


def test_bank_is_capped_in_the_proportions_of_the_classes(tmp_path):
    method = sser(bank_size=14)
    fit(method, tmp_path, max_steps=3)
    assert method.evidence.bank.label.sum(0).tolist() == [2] * 7


@pytest.mark.parametrize(("accumulate", "after"), [(1, 2), (1, 3), (1, 7), (2, 4), (2, 7)])
def test_resuming_amid_an_epoch_is_exact(tmp_path, accumulate, after):
    """At the edge of a stage too, which the resumed run must begin."""

    class Keep(L.Callback):
        batches = 0

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.batches += 1
            if self.batches == after:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

    options = {"max_epochs": 2, "accumulate_grad_batches": accumulate}
    whole = sser(dropout=0.2)
    fit(whole, tmp_path, callbacks=[Keep()], **options)
    resumed = sser(dropout=0.2)
    fit(resumed, tmp_path, ckpt_path=tmp_path / "mid.ckpt", **options)
    assert same(whole.state_dict(), resumed.state_dict())


def test_pseudo_labels_without_data_and_trainer_are_the_same(trained, tmp_path):
    trained.trainer.save_checkpoint(tmp_path / "a.ckpt")
    opened = SSER.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True).eval()
    _, unlabeled = pair(trained)
    with torch.no_grad():
        ours, theirs = trained.pseudo_label(unlabeled), opened.pseudo_label(unlabeled)
    torch.testing.assert_close(ours.target.emotion, theirs.target.emotion)
    assert int(opened.stage) == 2


# Pseudo-labels


@pytest.mark.parametrize("coupling", ["agreement", "product", "mean"])
def test_pseudo_label_is_the_coupled_evidence_of_both_views(trained, coupling, monkeypatch):
    _, unlabeled = pair(trained)
    monkeypatch.setattr(trained, "coupling", coupling)
    with torch.no_grad():
        pseudo = trained.pseudo_label(unlabeled)
        p_mod, p_img = torch.zeros(6, 7), torch.zeros(6, 7)
        for view in unlabeled.weak:
            old, new = trained.evidence.snapshot(view), trained.teacher.module(view)
            p_mod += (0.5 * old.logits.softmax(-1) + 0.5 * new.logits.softmax(-1)) / 2
            rows = activation_matrix(old.maps)
            p_img += (
                image_evidence(rows, trained.evidence.bank.rows, trained.evidence.bank.label, 10, 0.1) / 2
            )
    p_ci = couple(p_mod, p_img, trained.evidence.prior, coupling)
    torch.testing.assert_close(pseudo.target.emotion, sharpen(p_ci, 0.5), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(pseudo.confidence, p_ci.max(-1).values, rtol=1e-3, atol=1e-5)
    assert torch.equal(pseudo.weight, accept(p_ci, p_mod, p_img, 0.3, coupling).float())
    assert pseudo.threshold.tolist() == pytest.approx([0.3] * 7)


@pytest.mark.parametrize(("share", "network"), [(0.0, "teacher"), (1.0, "snapshot")])
def test_the_share_of_the_snapshot_weights_the_stages(trained, share, network):
    _, unlabeled = pair(trained)
    chosen = trained.evidence.snapshot if network == "snapshot" else trained.teacher.module
    trained.evidence.snapshot_share = share
    try:
        with torch.no_grad():
            p_mod, _, _ = trained.evidence(unlabeled.weak, trained.inference_network)
            expected = torch.stack([chosen(view).logits.softmax(-1) for view in unlabeled.weak]).mean(0)
            other = trained.evidence.snapshot if network == "teacher" else trained.teacher.module
            against = torch.stack([other(view).logits.softmax(-1) for view in unlabeled.weak]).mean(0)
    finally:
        trained.evidence.snapshot_share = 0.5
    torch.testing.assert_close(p_mod, expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(p_mod, against, rtol=1e-3, atol=1e-5)


def test_model_alone_does_not_use_the_bank(trained):
    _, unlabeled = pair(trained)
    rows, default = trained.evidence.bank.rows, trained.coupling
    try:
        changed = {}
        for coupling in ("model", "product", "image"):
            trained.coupling = coupling
            labels = []
            for bank in (rows, rows.flip(0)):  # the labels of other faces
                trained.evidence.bank.rows = bank
                with torch.no_grad():
                    labels.append(trained.pseudo_label(unlabeled).target.emotion)
            changed[coupling] = not torch.equal(*labels)
    finally:
        trained.evidence.bank.rows, trained.coupling = rows, default
    assert changed == {"model": False, "product": True, "image": True}


def test_valence_and_arousal_come_from_the_models(tmp_path):
    method = sser(targets="both")
    fit(method, tmp_path, max_steps=5)
    method.eval()
    _, unlabeled = pair(method)
    with torch.no_grad():
        pseudo = method.pseudo_label(unlabeled)
        networks = (method.evidence.snapshot, method.teacher.module)
        predictions = [network(view).valence_arousal for view in unlabeled.weak for network in networks]
    expected = torch.stack(predictions).mean(0)
    torch.testing.assert_close(pseudo.target.valence_arousal, expected, rtol=1e-3, atol=1e-5)


# Losses


def test_stage_zero_learns_labels_and_triplets_alone(trained):
    labeled, _ = pair(trained)
    with torch.no_grad():
        terms = trained.labeled_losses(labeled)
        x = trained.student(labeled.weak[0])
    rows = activation_matrix(x.maps)
    amt = triplet_loss(squared_distance(rows, rows), class_distance(labeled.target.label), 0.2)
    assert set(terms) == {"supervised", "triplet"}
    assert amt > 0
    torch.testing.assert_close(terms["triplet"], 0.3 * amt)
    torch.testing.assert_close(terms["supervised"], trained.task.supervised(x, labeled.target))


def test_terms_match_their_equations(trained):
    labeled, unlabeled = pair(trained)
    pseudo = pseudo_labels_of(trained, unlabeled, torch.tensor([1.0, 0, 1, 1, 0, 0]))
    trained.max_triplet_pseudo_labels, trained.unlabeled_weight, trained.entropy_weight = 2, 2.0, 0.1
    try:
        with torch.no_grad():
            terms = trained.losses(labeled, unlabeled, pseudo)
            x, s = trained.forward_views(labeled.weak[0], unlabeled.strong[0])
    finally:
        trained.max_triplet_pseudo_labels, trained.unlabeled_weight = 64, 1.0
    rows = activation_matrix(torch.cat([x.maps, s.maps[[0, 2]]]))  # the first two that are accepted
    label = torch.cat([labeled.target.label, torch.tensor([0, 2])])
    amt = triplet_loss(squared_distance(rows, rows), class_distance(label), 0.2)
    log_p = s.logits.log_softmax(-1)
    torch.testing.assert_close(terms["triplet"], 0.3 * amt)
    torch.testing.assert_close(terms["unlabeled"], -2 * (log_p[0, 0] + log_p[2, 2] + log_p[3, 3]) / 6)
    torch.testing.assert_close(terms["entropy"], 0.1 * entropy(s.logits, pseudo.weight))


def test_nothing_accepted_is_no_unlabeled_loss_and_labeled_triplets_alone(trained):
    labeled, unlabeled = pair(trained)
    pseudo = pseudo_labels_of(trained, unlabeled, torch.zeros(6))
    terms = trained.losses(labeled, unlabeled, pseudo)
    assert terms["unlabeled"] == 0
    assert terms["entropy"] == 0
    with torch.no_grad():
        torch.testing.assert_close(terms["triplet"], trained.labeled_losses(labeled)["triplet"])
    trained.zero_grad()
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in trained.student.parameters())
    trained.zero_grad()


@pytest.mark.parametrize("entropy_on", ["accepted", "all"])
def test_entropy_is_minimized_on_accepted_faces_or_on_all(trained, entropy_on):
    labeled, unlabeled = pair(trained)
    weight = torch.tensor([1.0, 0, 1, 0, 0, 0])
    trained.entropy_on = entropy_on
    try:
        with torch.no_grad():
            term = trained.losses(labeled, unlabeled, pseudo_labels_of(trained, unlabeled, weight))["entropy"]
            logits = trained.forward_views(labeled.weak[0], unlabeled.strong[0])[1].logits
    finally:
        trained.entropy_on = "accepted"
    expected = entropy(logits, weight if entropy_on == "accepted" else None)
    torch.testing.assert_close(term, 0.1 * expected)


def test_entropy_rises_over_the_first_fifth_of_stage_one(tmp_path):
    """Stage 1 takes half of 20 steps here, so the ramp takes the two steps 10 and 11."""
    ratios = []

    class Spy(SSER):
        def losses(self, labeled, unlabeled, pseudo):
            terms = super().losses(labeled, unlabeled, pseudo)
            p = self.student(unlabeled.strong[0]).logits
            ratios.append(float((terms["entropy"] / entropy(p)).detach()))
            return terms

    options = TINY | {
        "stages": [0.5, 0.5],
        "entropy_on": "all",
        "entropy_weight": 0.1,
        "joint_forward": False,
    }
    fit(Spy(**options), tmp_path, max_steps=20, max_epochs=-1)
    assert ratios == pytest.approx([0, 0.05, *[0.1] * 8], rel=1e-2)


def test_clusters_take_the_place_of_labels_in_the_triplets(tmp_path):
    method = sser(triplets="clusters", unlabeled_weight=0.0, entropy_weight=0.0)
    fit(method, tmp_path, max_steps=5)
    labeled, unlabeled = pair(method)
    pseudo = pseudo_labels_of(method, unlabeled, torch.zeros(6))
    with torch.no_grad():
        x, s = method.eval().forward_views(labeled.weak[0], unlabeled.strong[0])
        term = method.losses(labeled, unlabeled, pseudo)["triplet"]
    rows = activation_matrix(torch.cat([x.maps, s.maps]))
    label = cluster_labels(rows, torch.cat([labeled.target.label, torch.full((6,), -1)]), 7)
    assert (label >= 0).all()  # rejected faces fall into clusters too
    expected = triplet_loss(squared_distance(rows, rows), class_distance(label), 0.2)
    torch.testing.assert_close(term, 0.3 * expected)


@pytest.mark.parametrize(
    ("option", "gone"),
    [({"triplet_weight": 0.0}, "triplet"), ({"entropy_weight": 0.0}, "entropy"), ({}, None)],
)
def test_a_weight_of_zero_leaves_the_term_out_and_no_other(tmp_path, option, gone):
    method = sser(**option)
    fit(method, tmp_path, max_steps=10)
    labeled, unlabeled = pair(method)
    terms = method.losses(labeled, unlabeled, pseudo_labels_of(method, unlabeled, torch.ones(6)))
    assert set(terms) == {"supervised", "unlabeled", "triplet", "entropy"} - {gone}


def test_one_stage_alone_makes_no_pseudo_labels(tmp_path):
    method = sser(stages=[1.0])
    fit(method, tmp_path, max_steps=10)
    assert int(method.stage) == 0
    assert not method.learns_from_unlabeled


def test_no_gradient_reaches_teacher_and_snapshot(trained):
    labeled, unlabeled = pair(trained)
    trained.train()
    assert not any(m.training for m in (*trained.evidence.snapshot.modules(), *trained.teacher.modules()))
    with torch.no_grad():
        pseudo = trained.pseudo_label(unlabeled)
    assert pseudo.weight.sum() > 0
    trained.zero_grad()
    sum(trained.losses(labeled, unlabeled, pseudo).values()).backward()
    trained.eval()
    for network in (trained.evidence.snapshot, trained.teacher):
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert all(p.grad is not None for p in trained.student.parameters())
    trained.zero_grad()


def test_what_is_worth_watching_is_logged(tmp_path):
    trainer = fit(sser(), tmp_path, max_epochs=2)
    assert 0 <= trainer.callback_metrics["train/agreement"] <= 1
    assert 0 < trainer.callback_metrics["train/active_triplets"] <= 1
    assert {"train/mean_weight", "train/entropy", "train/triplet"} <= set(trainer.callback_metrics)


@pytest.mark.parametrize(
    "option",
    [
        {"max_triplet_pseudo_labels": -1},
        {"snapshot_share": 1.5},
        {"neighbors": 0},
        {"neighbor_temperature": 0.0},
        {"smoothing": 0.0},
        {"sharpening_temperature": 0.0},
        {"bank_size": 0},
        {"stages": [0.5, 0.4]},
        {"stages": [1.2, -0.2]},
        {"stages": []},
    ],
)
def test_impossible_options_are_named(option):
    (name,) = option
    with pytest.raises(InputError, match=rf"{name} is"):
        sser(**option)
