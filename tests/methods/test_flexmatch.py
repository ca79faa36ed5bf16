import lightning as L
import pytest
import torch
from faces import TINY, quiet_trainer, tiny_data
from varied import opinionated, varied_batch

from fer_lightning.data.batch import Unlabeled
from fer_lightning.methods import FixMatch, FlexMatch


def build(method=FlexMatch, **options):
    L.seed_everything(3, verbose=False)
    model = method(**(TINY | {"threshold": 0.2} | options))
    return opinionated(model)


def bystander(model, faces):
    """Only the thresholds train: batch statistics stay out of what is compared."""
    model.eval()
    model.curriculum.resize(faces)
    model.curriculum.train()
    return model


@torch.no_grad()
def test_at_first_every_pseudo_label_is_accepted():
    model, (labeled, unlabeled) = bystander(build(threshold=0.99), 12), varied_batch()
    pseudo = model.pseudo_label(unlabeled)
    assert pseudo.weight.tolist() == [1] * 12
    assert pseudo.threshold.tolist() == [0] * 7
    s = model.student(unlabeled.strong[0]).logits.log_softmax(-1)
    expected = -sum(float(s[i, c]) for i, c in enumerate(pseudo.target.label)) / 12
    assert float(model.losses(labeled, unlabeled, pseudo)["unlabeled"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("warmup", [True, False])
@torch.no_grad()
def test_steps_match_a_slow_reference(warmup):
    model, (labeled, unlabeled) = (
        bystander(build(threshold=0.35, threshold_warmup=warmup), 10),
        varied_batch(),
    )
    q = model.student(unlabeled.weak[0]).logits.softmax(-1).tolist()
    assert len({row.index(max(row)) for row in q}) > 1
    selected, beta, accepted = [-1] * 10, [0.0] * 7, []
    for step in range(4):
        index = [(3 * i + 7 * step) % 10 for i in range(12)]
        faces = unlabeled._replace(index=torch.tensor(index))
        pseudo = model.pseudo_label(faces)
        tau = [0.35 * b / (2 - b) for b in beta]  # of the steps before this one
        weight = [float(max(row) >= tau[row.index(max(row))]) for row in q]
        assert pseudo.weight.tolist() == weight
        torch.testing.assert_close(pseudo.threshold, torch.tensor(tau))
        s = model.student(unlabeled.strong[0]).logits.log_softmax(-1)
        labels = [row.index(max(row)) for row in q]
        loss = -sum(w * float(s[i, c]) for i, (w, c) in enumerate(zip(weight, labels, strict=True))) / 12
        terms = model.losses(labeled, faces, pseudo)
        assert float(terms["unlabeled"]) == pytest.approx(loss, rel=1e-4)
        model.update_state(labeled, faces, pseudo, terms.outputs)
        for i, row in zip(index, q, strict=True):
            if max(row) >= 0.35:
                selected[i] = row.index(max(row))
        largest = max(selected.count(c) for c in range(-1 if warmup else 0, 7))
        beta = [selected.count(c) / largest for c in range(7)]
        accepted.append(sum(weight))
    assert accepted[0] == 12
    assert min(accepted) < 12  # the reference met faces that are rejected


@torch.no_grad()
def test_with_all_classes_learned_alike_it_is_fixmatch():
    flex, fix = bystander(build(), 12), build(FixMatch).eval()
    fix.load_state_dict({k: v for k, v in flex.state_dict().items() if not k.startswith("curriculum")})
    flex.curriculum.beta.fill_(1)
    labeled, unlabeled = varied_batch()
    flex.threshold = fix.threshold = flex.curriculum.threshold = float(
        fix.pseudo_label(unlabeled).confidence.median()
    )
    ours, theirs = flex.pseudo_label(unlabeled), fix.pseudo_label(unlabeled)
    assert 0 < ours.weight.sum() < 12
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.target.emotion, theirs.target.emotion)
    assert flex.losses(labeled, unlabeled, ours) == fix.losses(labeled, unlabeled, theirs)


@torch.no_grad()
def test_the_order_of_the_batch_does_not_matter():
    labeled, unlabeled = varied_batch()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    shuffled = Unlabeled(unlabeled.weak[:, order], unlabeled.strong[:, order], unlabeled.index[order])
    losses, states = [], []
    for faces in (unlabeled, shuffled):
        model = bystander(build(threshold=0.3), 12)
        for _ in range(2):
            pseudo = model.pseudo_label(faces)
            terms = model.losses(labeled, faces, pseudo)
            model.update_state(labeled, faces, pseudo, terms.outputs)
        losses.append(float(terms["unlabeled"]))
        states.append(model.curriculum.selected)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert torch.equal(*states)
    assert (states[0] >= 0).any()


def test_training_fills_the_pool_by_index_and_warm_up_lowers_the_thresholds(tmp_path):
    thresholds, seen = {}, []

    class Spy(FlexMatch):
        def pseudo_label(self, unlabeled):
            seen.append(unlabeled.index)
            return super().pseudo_label(unlabeled)

    for warmup in (True, False):
        seen.clear()
        model, data = build(Spy, threshold_warmup=warmup).train(), tiny_data()
        assert len(model.curriculum.selected) == 0
        quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(model, data)
        selected = model.curriculum.selected
        assert len(selected) == len(data.unlabeled)
        unseen = torch.ones(len(selected), dtype=torch.bool)
        unseen[torch.cat(seen)] = False
        assert (selected[unseen] == -1).all()
        assert (selected[~unseen] >= 0).any()
        thresholds[warmup] = model.curriculum.per_class()
    assert thresholds[False].max() == pytest.approx(0.2)
    assert thresholds[True].max() < 0.2


def test_pseudo_labels_are_the_same_after_loading_without_data(tmp_path):
    model = build().train()
    trainer = quiet_trainer(tmp_path, max_steps=4, limit_val_batches=0)
    trainer.fit(model, tiny_data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    opened = FlexMatch.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True).eval()
    _, unlabeled = varied_batch()
    with torch.no_grad():
        ours, theirs = opened.pseudo_label(unlabeled), model.eval().pseudo_label(unlabeled)
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.threshold, theirs.threshold)
    assert ours.threshold.max() > 0
