import lightning as L
import pytest
import torch
from faces import TINY, quiet_trainer, tiny_data

import fer_lightning
from fer_lightning.data.batch import Labeled, Target, Unlabeled
from fer_lightning.errors import InputError
from fer_lightning.methods import SITFER
from fer_lightning.methods.sit_fer import method as module
from fer_lightning.methods.sit_fer.levels import SETTINGS
from fer_lightning.methods.sit_fer.text_anchors import chosen_anchor
from fer_lightning.pseudo_labels import PseudoLabels

PLAIN = {"ema_decay": 0.0, "joint_forward": False, "dropout": 0.5}


def make(**options):
    torch.manual_seed(2)
    return SITFER(**(TINY | PLAIN | options))


def fit(tmp_path, callbacks=(), data=None, **options):
    L.seed_everything(3, verbose=False)
    model = make(**options)
    quiet_trainer(tmp_path, callbacks=list(callbacks)).fit(model, data or tiny_data())
    return model


def faces(n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 255, (n, 3, 16, 16), dtype=torch.uint8, generator=generator)


def batches(n=6):
    target = Target(torch.eye(7)[torch.arange(n) % 7], torch.full((n, 2), torch.nan))
    views = faces(n, 1)[None], faces(n, 2)[None]
    return Labeled(faces(n)[None], target, torch.arange(n)), Unlabeled(*views, torch.arange(n))


def ready(**options):
    """A method whose anchors and memory hold something, without a trainer, at the end of a run."""
    model = make(**options)
    kind = {"auto": "simplex"}.get(model.hparams.text_anchor, model.hparams.text_anchor)
    model.levels.text.anchors.copy_(module.text_anchors(kind, model.task.emotions, 16))
    model.levels.instance.labeled.resize(6)
    model.levels.instance.accepted.resize(4 if model.paper else 0)
    model.levels.progress.fill_(1)
    labeled, _ = batches()
    with torch.no_grad():
        model.eval()
        model.levels.instance.labeled.write(
            labeled.index, model.student(labeled.weak[0]).features, labeled.target.emotion
        )
    return model


class Watch(L.Callback):
    """Notes the memory before the first step, and what each step logs."""

    def __init__(self):
        self.written, self.anchors, self.logged = None, None, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.written is None:
            self.written = pl_module.levels.instance.labeled.written.clone()
            self.features = pl_module.levels.instance.labeled.features.clone()
            self.anchors = pl_module.levels.text.anchors.clone()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.logged |= trainer.logged_metrics


def test_p_hat_is_the_mean_of_three_distributions():
    model = ready()
    _, unlabeled = batches()
    with torch.no_grad():
        levels = model.levels(model.student(unlabeled.weak[0])).softmax(-1)
        pseudo = model.pseudo_label(unlabeled)
    torch.testing.assert_close(levels.sum(-1), torch.ones(3, 6))
    p = levels.mean(0)
    torch.testing.assert_close(pseudo.confidence, p.amax(-1))
    assert torch.equal(pseudo.target.label, p.argmax(-1))
    torch.testing.assert_close(model(unlabeled.weak[0]).emotion, p)
    torch.testing.assert_close(p.sum(-1), torch.ones(6))


def test_the_instance_level_starts_late():
    model = ready(start=0.5)
    levels = model.levels(model.student(faces())).softmax(-1)
    model.levels.progress.fill_(0.49)
    torch.testing.assert_close(model(faces()).emotion, levels[:2].mean(0))
    model.levels.progress.fill_(0.5)
    torch.testing.assert_close(model(faces()).emotion, levels.mean(0))


@pytest.mark.parametrize("kept", [["semantic"], ["text"], ["instance"], ["semantic", "instance"]])
def test_levels_left_out_do_not_count(kept):
    model = ready(levels=kept)
    levels = model.levels(model.student(faces())).softmax(-1)
    chosen = torch.stack([levels[("semantic", "text", "instance").index(level)] for level in kept])
    torch.testing.assert_close(model(faces()).emotion, chosen.mean(0))


def test_semantic_inference_is_the_classifier_alone():
    model = ready(inference="semantic")
    prediction = model(faces())
    torch.testing.assert_close(prediction.emotion, model.student(faces()).logits.softmax(-1))
    fused = ready()(faces())
    assert not torch.allclose(prediction.emotion, fused.emotion)
    assert torch.equal(prediction.features, fused.features)


def test_losses_of_the_paper():
    model = ready(setting="rafdb2000", dropout=0.0)
    labeled, unlabeled = batches()
    pseudo = model.pseudo_label(unlabeled)
    half = pseudo._replace(weight=torch.tensor([1.0, 0, 0, 1, 0, 1]))
    terms = model.losses(labeled, unlabeled, half)
    x, s = model.student(labeled.weak[0]), model.student(unlabeled.strong[0])
    label, pseudo_label = labeled.target.label, pseudo.target.label
    ce = torch.nn.functional.cross_entropy
    torch.testing.assert_close(terms["supervised"], ce(x.logits, label))
    torch.testing.assert_close(terms["text"], ce(x.features @ model.levels.text.anchors.T / 0.1, label))
    expected = (ce(s.logits, pseudo_label, reduction="none") * half.weight).mean()
    torch.testing.assert_close(terms["unlabeled"], 4 / 3 * expected)


def test_losses_of_the_code():
    model = ready(mode="code", setting="rafdb2000", dropout=0.0)
    labeled, unlabeled = batches()
    pseudo = model.pseudo_label(unlabeled)._replace(weight=torch.tensor([1.0, 0, 0, 1, 0, 1]))
    terms = model.losses(labeled, unlabeled, pseudo)
    x, s = model.student(labeled.weak[0]), model.student(unlabeled.strong[0])
    ce = torch.nn.functional.cross_entropy
    torch.testing.assert_close(terms["supervised"], 0.3 * ce(x.logits, labeled.target.label))
    torch.testing.assert_close(
        terms["text"], 0.3 * ce(x.features @ model.levels.text.anchors.T, labeled.target.label)
    )
    accepted = pseudo.weight > 0
    torch.testing.assert_close(
        terms["unlabeled"], 0.4 * ce(s.logits[accepted], pseudo.target.label[accepted])
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_p_hat_of_the_code(setting):
    """Scores of logits, cosines and nearest faces, weighed as the scripts do, by loops over the faces."""
    model, s = ready(mode="code", setting=setting, text_anchor="random"), SETTINGS[setting]
    labeled, unlabeled = batches()
    u = model.student(unlabeled.weak[0])
    bank, labels = model.levels.instance.labeled.features, labeled.target.label
    levels = torch.zeros(3, 6, 7)
    levels[0] = u.logits
    for b in range(6):
        for c in range(7):
            levels[1, b, c] = u.features[b] @ model.levels.text.anchors[c]
        for k in range(6):
            levels[2, b, labels[k]] = max(levels[2, b, labels[k]], float(u.features[b] @ bank[k]))
    for done, w, tested in (
        (0.05, s.weights_before, s.test_weights_before),
        (1.0, s.weights, s.test_weights),
    ):
        model.levels.progress.fill_(done)
        h = sum(w[i] * levels[i] for i in range(3)).softmax(-1)
        torch.testing.assert_close(model.pseudo_label(unlabeled).confidence, h.amax(-1))
        p = sum(tested[i] * levels[i].softmax(-1) for i in range(3)) / sum(tested)
        torch.testing.assert_close(model(unlabeled.weak[0]).emotion, p)
    assert model.threshold == s.threshold
    assert (model.supervised_weight, model.text_weight, model.unlabeled_weight) == s.loss_weights


@pytest.mark.parametrize(("mode", "accepted"), [("paper", 1.0), ("code", 0.0)])
def test_only_the_code_wants_more_than_the_threshold(mode, accepted):
    model = make(mode=mode, levels=["semantic"], setting="rafdb2000")
    with torch.no_grad():
        model.student.head.weight.zero_(), model.student.head.bias.zero_()
        _, unlabeled = batches()
        model.threshold = float(model.eval().pseudo_label(unlabeled).confidence[0])
        assert model.threshold == pytest.approx(1 / 7)
        assert (model.pseudo_label(unlabeled).weight == accepted).all()


@pytest.mark.parametrize("mode", ["paper", "code"])
def test_no_accepted_face_is_no_loss(mode):
    model = ready(mode=mode).train()
    labeled, unlabeled = batches()
    with torch.no_grad():
        pseudo = model.pseudo_label(unlabeled)
    assert pseudo.weight.sum() == 0
    terms = model.losses(labeled, unlabeled, pseudo)
    assert float(terms["unlabeled"].detach()) == 0
    sum(terms.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_text_supervision_reaches_the_backbone_and_not_the_anchors():
    model = ready()
    labeled, _ = batches()
    model.labeled_losses(labeled)["text"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.student.backbone.parameters())
    assert not model.levels.text.anchors.requires_grad
    assert not list(model.levels.text.parameters())
    with torch.no_grad():
        pseudo = model.pseudo_label(batches()[1])
    assert not any(t.requires_grad for t in (pseudo.target.emotion, pseudo.weight, pseudo.confidence))


def test_options_override_the_setting():
    model = make(threshold=0.6, text_weight=3.0, unlabeled_weight=2.0, start=0.0)
    assert (model.threshold, model.text_weight, model.unlabeled_weight, model.levels.start) == (
        0.6,
        3.0,
        2.0,
        0.0,
    )
    code = make(mode="code", text_weight=3.0)
    assert (code.supervised_weight, code.text_weight) == (0.4, pytest.approx(1.2))
    assert SITFER(**TINY, unit_features=False).student.neck.unit is False
    for wrong, message in (
        ({"text_temperature": 0.0}, "text_temperature"),
        ({"levels": ["sematic"]}, "levels"),
        ({"text_encoder": {"modle": "x"}}, "modle"),
    ):
        with pytest.raises(InputError, match=message):
            make(**wrong)


# In training


def test_memory_begins_with_every_labeled_face_and_the_anchors_never_change(tmp_path):
    watch = Watch()
    data = tiny_data()
    model = fit(tmp_path, [watch], data)
    assert watch.written.shape == (28,)
    assert watch.written.all()
    torch.testing.assert_close(watch.features.norm(dim=-1), torch.ones(28))
    assert torch.equal(model.levels.text.anchors, watch.anchors)
    torch.testing.assert_close(model.levels.text.anchors.norm(dim=-1), torch.ones(7))
    truth = torch.from_numpy(data.faces.emotion_in(model.task.taxonomy)[data.labeled])
    assert torch.equal(model.levels.instance.labeled.probability, truth)
    assert not torch.equal(model.levels.instance.labeled.features, watch.features)  # renewed
    assert {f"train/confidence/{level}" for level in ("semantic", "text", "instance")} <= set(watch.logged)
    assert "train/text" in watch.logged


def test_memory_of_the_code_begins_empty_and_holds_no_unlabeled_face(tmp_path):
    watch = Watch()
    model = fit(tmp_path, [watch], mode="code", threshold=0.0)
    assert not watch.written.any()
    assert model.levels.instance.labeled.written.any()
    assert len(model.levels.instance.accepted.written) == 0


def test_accepted_faces_enter_the_queue_with_all_of_p_hat(tmp_path):
    model = fit(tmp_path, threshold=0.0)
    assert model.levels.instance.accepted.written.all()
    assert len(model.levels.instance.accepted.written) == 28
    p = model.levels.instance.accepted.probability
    torch.testing.assert_close(p.sum(-1), torch.ones(28))
    assert (p.amax(-1) < 1).all()
    assert not fit(tmp_path, threshold=1.0).levels.instance.accepted.written.any()
    assert len(fit(tmp_path, queue=5, threshold=0.0).levels.instance.accepted.written) == 5


def test_rows_of_the_paper_s_memory_have_no_dropout(tmp_path):
    for mode, same in (("paper", True), ("code", False)):
        model = ready(mode=mode).train()
        rows = []
        for _ in range(2):
            labeled, _ = batches()
            model.update_labeled_state(labeled, model.labeled_losses(labeled).outputs)
            rows.append(model.levels.instance.labeled.features.clone())
        assert torch.equal(*rows) is same


def test_without_the_instance_level_nothing_is_remembered(tmp_path):
    model = fit(tmp_path, levels=["semantic", "text"])
    assert len(model.levels.instance.labeled.written) == len(model.levels.instance.accepted.written) == 0


def test_checkpoint_predicts_alike_without_text_encoder_or_cache(tmp_path, monkeypatch):
    L.seed_everything(3, verbose=False)
    model = make(ema_decay=0.9)
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(model, tiny_data())
    trainer.save_checkpoint(tmp_path / "end.ckpt")

    def asked(*_, **__):
        raise AssertionError("a checkpoint knows its anchors")

    monkeypatch.setattr(module, "text_anchors", asked)
    opened = fer_lightning.load(tmp_path / "end.ckpt")
    torch.testing.assert_close(opened(faces()).emotion, model.eval()(faces()).emotion, rtol=0, atol=0)
    before = trainer.test(model, tiny_data(), verbose=False)
    after = quiet_trainer(tmp_path).test(opened, tiny_data(), verbose=False)
    assert before == after
    # Nor is the text asked for again when the run goes on.
    quiet_trainer(tmp_path).fit(make(ema_decay=0.9), tiny_data(), ckpt_path=tmp_path / "end.ckpt")
    with pytest.raises(AssertionError):
        fit(tmp_path)


def test_learned_projection_is_trained(tmp_path):
    model = fit(tmp_path, anchor_projection="learned", lr=0.1)
    assert not torch.allclose(model.levels.text.map.weight, torch.eye(16), atol=1e-3)


@pytest.mark.parametrize("score", ["labels", "nearest"])
def test_faces_of_unknown_emotion_do_not_count(score):
    model = ready(instance_score=score).train()
    labeled, _ = batches()
    emotion = labeled.target.emotion.clone()
    emotion[2:] = torch.nan
    labeled = labeled._replace(target=labeled.target._replace(emotion=emotion))
    model.update_labeled_state(labeled, model.labeled_losses(labeled).outputs)
    p = model.levels(model.student(faces())).softmax(-1)[2]
    assert p.isfinite().all()
    if score == "labels":
        assert (p[:, 2:] < 1e-6).all()
    else:
        torch.testing.assert_close(p[:, 2:], p[:, 2:3].expand(-1, 5))


def test_pseudo_labels_of_both_targets(tmp_path):
    model = fit(tmp_path, targets="both", threshold=0.0)
    prediction = model.eval()(faces())
    assert prediction.valence_arousal.shape == (6, 2)
    assert isinstance(pseudo := model.pseudo_label(batches()[1]), PseudoLabels)
    assert pseudo.target.valence_arousal.isfinite().all()


def test_without_weights_the_run_says_that_its_anchors_contain_no_text(tmp_path, caplog):
    fit(tmp_path)
    assert "simplex anchors of this run contain no text" in caplog.text
    caplog.clear()
    fit(tmp_path, text_anchor="random")
    assert "random anchors of this run contain no text" in caplog.text


def test_auto_takes_open_clip_where_its_weights_are(monkeypatch, tmp_path):
    weights = tmp_path / "clip.bin"
    weights.touch()
    assert chosen_anchor("auto", "ViT-B-32", str(weights)) == "open_clip"
    assert chosen_anchor("auto", f"local-dir:{tmp_path}") == "open_clip"
    assert chosen_anchor("auto") == "simplex"
    assert chosen_anchor("auto", f"local-dir:{tmp_path}/gone") == "simplex"
    assert chosen_anchor("random") == "random"
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "open_clip_model.safetensors").touch()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, local_files_only: folder)
    assert chosen_anchor("auto") == "open_clip"
