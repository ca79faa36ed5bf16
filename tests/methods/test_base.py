from typing import Any

import lightning as L
import pytest
import torch
from faces import TINY, TinyFaces, quiet_trainer, tiny_data
from torch import nn

import fer_lightning
from fer_lightning.data.batch import Views
from fer_lightning.data.datasets.base import DataError
from fer_lightning.errors import CheckpointError
from fer_lightning.methods import FixMatch, Supervised
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.divergence import Diverged
from fer_lightning.methods.step_losses import Losses
from fer_lightning.pseudo_labels import make_pseudo_labels


def fixmatch(**options: Any) -> FixMatch:
    L.seed_everything(3, verbose=False)
    return FixMatch(**(TINY | {"threshold": 0.3} | options))


def test_teacher_shares_no_storage_and_never_trains():
    method = fixmatch()
    theirs = {t.data_ptr() for t in method.teacher.state_dict().values()}
    assert theirs.isdisjoint({t.data_ptr() for t in method.student.state_dict().values()})
    method.train()
    assert method.student.training
    assert not any(m.training for m in method.teacher.module.modules())
    assert not any(p.requires_grad for p in method.teacher.parameters())


def test_teacher_moves_once_per_optimizer_step_under_accumulation(tmp_path):
    method = fixmatch(ema_decay=0.9, ema_warmup=False)
    moves = []
    update = method.teacher.update
    method.teacher.update = lambda student, step: (moves.append(step), update(student, step))
    before = method.teacher.module.head.weight.clone()
    quiet_trainer(tmp_path, accumulate_grad_batches=5, max_epochs=1).fit(method, tiny_data())
    assert len(moves) == 1  # five batches, one step
    expected = 0.9 * before + 0.1 * method.student.head.weight
    torch.testing.assert_close(method.teacher.module.head.weight, expected)


def test_decay_warms_up_from_little_memory_to_the_decay_set():
    method = fixmatch(ema_decay=0.999)
    decays = [method.teacher.get_decay(step + 2) for step in (0, 10, 1000, 10**6)]
    assert decays == pytest.approx([1 - 2 ** (-2 / 3), 1 - 12 ** (-2 / 3), 1 - 1002 ** (-2 / 3), 0.999])


def test_the_teacher_predicts_and_without_decay_there_is_none(tmp_path):
    images = torch.randint(0, 255, (3, 3, 16, 16), dtype=torch.uint8)
    method = fixmatch().eval()
    nn.init.zeros_(method.student.head.weight)
    assert not torch.equal(method(images).emotion, method.task.predict(method.student(images)).emotion)
    alone = fixmatch(ema_decay=0).eval()
    assert alone.teacher is None
    torch.testing.assert_close(alone(images).emotion, alone.student(images).logits.softmax(-1))
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(alone, tiny_data())
    assert "val/student_accuracy" not in trainer.callback_metrics


def test_norms_and_biases_are_not_decayed(tmp_path):
    trainer = quiet_trainer(tmp_path, max_steps=1)
    method = fixmatch(weight_decay=0.1)
    trainer.fit(method, tiny_data())
    groups = {g["weight_decay"]: g["params"] for g in trainer.optimizers[0].param_groups}
    assert all(p.ndim > 1 for p in groups[0.1])
    assert all(p.ndim <= 1 for p in groups[0.0])
    assert sum(map(len, groups.values())) == len(list(method.student.parameters()))


def test_joint_and_separate_forwards_agree_when_batch_statistics_are_frozen():
    batches = [torch.randint(0, 255, (n, 3, 16, 16), dtype=torch.uint8) for n in (2, 5)]
    joint, separate = fixmatch(joint_forward=True), fixmatch(joint_forward=False)
    separate.load_state_dict(joint.state_dict())
    for network in (joint.student, separate.student):
        network.eval()
    for a, b in zip(joint.forward_views(*batches), separate.forward_views(*batches), strict=True):
        for ours, theirs in zip(a[:4], b[:4], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert a.projection is b.projection is None
    joint.student.train(), separate.student.train()
    assert not torch.allclose(
        joint.forward_views(*batches)[0].logits, separate.forward_views(*batches)[0].logits
    )


def test_labeled_only_steps_come_before_the_method(tmp_path):
    seen = []

    class Spy(FixMatch):
        def pseudo_label(self, unlabeled):
            seen.append(self.global_step)
            return super().pseudo_label(unlabeled)

    method = Spy(**TINY, labeled_only_steps=3)
    quiet_trainer(tmp_path, max_steps=5).fit(method, tiny_data())
    assert seen == [3, 4]


def test_fixmatch_terms_match_a_slow_reference():
    method = fixmatch(unlabeled_weight=2.0, joint_forward=False).eval()  # eval: no batch statistics
    data = tiny_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    with torch.no_grad():
        weak = method.student(batch["unlabeled"].weak[0]).logits.softmax(-1)
        method.threshold = float(weak.max(-1).values.median())
        pseudo = method.pseudo_label(batch["unlabeled"])
        terms = method.losses(batch["labeled"], batch["unlabeled"], pseudo)
        strong = method.student(batch["unlabeled"].strong[0]).logits.log_softmax(-1)
        x = method.student(batch["labeled"].weak[0]).logits.log_softmax(-1)
    unlabeled = 0.0
    for q, log_p in zip(weak, strong, strict=True):
        if max(q) >= method.threshold:
            unlabeled += -float(log_p[int(q.argmax())]) / len(weak)
    supervised = -sum(float(x[i, y]) for i, y in enumerate(batch["labeled"].target.label)) / len(x)
    assert float(terms["unlabeled"]) == pytest.approx(2 * unlabeled, rel=1e-4)
    assert float(terms["supervised"]) == pytest.approx(supervised, rel=1e-4)
    assert 0 < pseudo.weight.sum() < len(weak)  # the reference met both cases


def test_nothing_accepted_is_no_loss_and_no_nan(tmp_path):
    trainer = quiet_trainer(tmp_path, max_steps=3)
    trainer.fit(fixmatch(threshold=1.0), tiny_data())
    assert trainer.callback_metrics["train/unlabeled"] == 0
    assert trainer.callback_metrics["train/loss"].isfinite()


@pytest.mark.parametrize("targets", ["classes", "valence_arousal", "both"])
def test_supervised_learns_each_task(tmp_path, targets):
    L.seed_everything(0, verbose=False)
    method = Supervised(**TINY, targets=targets, lr=0.1, ema_decay=0.9)
    trainer = quiet_trainer(tmp_path, max_epochs=3)
    trainer.fit(method, tiny_data(labels_per_class=None, steps_per_epoch=30, batch_size=28))
    metrics = trainer.callback_metrics
    if targets != "valence_arousal":
        assert metrics["val/accuracy"] > 0.5
        assert {"val/uar", "val/f1", "val/ece", "val/recall/fear", "val/student_accuracy"} <= set(metrics)
    if targets != "classes":
        assert metrics["val/ccc_valence"] > 0.5
        assert {"val/pcc_arousal", "val/rmse_valence", "val/sagr_arousal"} <= set(metrics)
    assert metrics["val/score"] > 0.5


def test_fixmatch_needs_classes():
    with pytest.raises(ValueError, match="targets is"):
        FixMatch(**TINY, targets="valence_arousal")


def test_method_without_unlabeled_faces_gets_none(tmp_path):
    seen = []

    class Spy(Supervised):
        def training_step(self, batch, batch_idx):
            seen.append(set(batch))
            return super().training_step(batch, batch_idx)

    quiet_trainer(tmp_path, max_steps=1).fit(Spy(**TINY), tiny_data(labels_per_class=None))
    assert seen == [{"labeled"}]
    with pytest.raises(DataError, match="has none left"):
        quiet_trainer(tmp_path, max_steps=1).fit(fixmatch(), tiny_data(labels_per_class=None))


def test_views_are_as_many_as_the_method_declares(tmp_path):
    shapes = []

    class Many(Supervised):
        views = Views(labeled=2, weak=3, strong=1)

        def pseudo_label(self, unlabeled):
            p = self.task.predict(self.student(unlabeled.weak[0]))
            return make_pseudo_labels(unlabeled.index, p.emotion, p.valence_arousal, None)

        def losses(self, labeled, unlabeled, pseudo):
            shapes.append([views.shape[:2] for views in (labeled.weak, unlabeled.weak, unlabeled.strong)])
            assert not torch.equal(unlabeled.weak[0], unlabeled.weak[1])
            return self.labeled_losses(labeled)

    quiet_trainer(tmp_path, max_steps=1).fit(Many(**TINY), tiny_data())
    assert shapes == [[(2, 14), (3, 28), (1, 28)]]


def test_checkpoint_opens_as_its_method_with_plain_tensors_only(tmp_path):
    method = fixmatch(threshold=0.4, emotions="affectnet7")
    trainer = quiet_trainer(tmp_path, max_steps=2)
    trainer.fit(method, tiny_data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    torch.load(tmp_path / "a.ckpt", weights_only=True)
    opened = fer_lightning.load(tmp_path / "a.ckpt")
    assert type(opened) is FixMatch
    assert opened.threshold == 0.4
    assert opened.task.emotions[0] == "neutral"
    assert not opened.training
    images = torch.randint(0, 255, (2, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(opened(images).emotion, method.eval()(images).emotion)


def test_wrong_checkpoints_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        fer_lightning.load(tmp_path / "none.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match="no checkpoint of this package"):
        fer_lightning.load(tmp_path / "foreign.ckpt")
    trainer = quiet_trainer(tmp_path, max_steps=1)
    trainer.fit(fixmatch(), tiny_data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = fixmatch(emotions="raf_db")
    with pytest.raises(CheckpointError, match="surprise"):
        quiet_trainer(tmp_path).test(other, tiny_data(), ckpt_path=tmp_path / "a.ckpt")


def test_label_outside_the_models_emotions_is_an_error(tmp_path):
    method = Supervised(**TINY, emotions=["happiness", "sadness"])
    with pytest.raises(ValueError, match="anger"):
        quiet_trainer(tmp_path).fit(method, tiny_data())


def test_buffers_take_the_size_the_checkpoint_gives_them(tmp_path):
    class Memory(Supervised):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.register_buffer("memory", torch.zeros(0))

    big = Memory(**TINY)
    big.memory = torch.arange(5.0)
    small = Memory(**TINY)
    small.load_state_dict(big.state_dict())
    torch.testing.assert_close(small.memory, torch.arange(5.0))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    class Broken(Supervised):
        def labeled_losses(self, labeled):
            nan = torch.nan if self.global_step >= first else 1.0
            return Losses(broken=super().labeled_losses(labeled)["supervised"] * nan)

    for first in (0, 7):
        with pytest.raises(Diverged, match=rf"at step {first} .*broken nan"):
            quiet_trainer(tmp_path, max_epochs=20, limit_val_batches=0).fit(Broken(**TINY), tiny_data())


def test_bfloat16_is_finite_and_decides_in_float32(tmp_path):
    class Spy(FixMatch):
        def pseudo_label(self, unlabeled):
            pseudo = super().pseudo_label(unlabeled)
            assert pseudo.confidence.dtype == torch.float32
            assert torch.unique(pseudo.confidence).numel() > 20  # bfloat16 would leave few values
            return pseudo

    trainer = quiet_trainer(tmp_path, precision="bf16-mixed", max_epochs=1)
    trainer.fit(Spy(**TINY, threshold=0.3), tiny_data())
    assert trainer.callback_metrics["train/loss"].isfinite()


def test_a_class_without_labels_is_no_obstacle(tmp_path):
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    budget = {e: 0 if e == "fear" else 4 for e in TinyFaces().load(16).taxonomy.emotions}
    trainer.fit(fixmatch(), tiny_data(dataset=TinyFaces(missing=2), labels_per_class=budget))
    assert trainer.callback_metrics["train/loss"].isfinite()


def test_pool_smaller_than_a_batch(tmp_path):
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(fixmatch(), tiny_data(dataset=TinyFaces(train=35)))  # 7 unlabeled faces for batches of 28
    assert trainer.callback_metrics["train/loss"].isfinite()


def test_prediction_of_a_face_depends_on_no_other():
    method = fixmatch().eval()
    images = torch.randint(0, 255, (6, 3, 16, 16), dtype=torch.uint8)
    together = method(images).emotion
    alone = torch.cat([method(image[None]).emotion for image in images])
    torch.testing.assert_close(together, alone)


def test_the_optimizer_and_its_schedule(tmp_path):
    trainer = quiet_trainer(tmp_path, max_steps=4)
    trainer.fit(fixmatch(lr=0.5, schedule="cosine"), tiny_data())
    (optimizer,) = trainer.optimizers
    assert type(optimizer) is torch.optim.SGD
    assert all(g["momentum"] == 0.9 and g["nesterov"] for g in optimizer.param_groups)
    # Once a step: after 4 of 4 the learning rate is 0, whatever the epochs are.
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0, 0])


def test_each_step_draws_by_the_seed_of_the_run_and_its_number(tmp_path):
    draws = {}

    class Drawing(Supervised):
        def labeled_losses(self, labeled):
            draws[seed].append(float(torch.rand(())))
            return super().labeled_losses(labeled)

    for seed in (1, 2):
        draws[seed] = []
        L.seed_everything(seed, verbose=False)
        quiet_trainer(tmp_path, max_steps=3).fit(Drawing(**TINY), tiny_data())
    assert len({*draws[1], *draws[2]}) == 6


def test_every_hyperparameter_is_documented():
    import inspect

    for cls in (SemiSupervised, FixMatch):
        for name in inspect.signature(cls.__init__).parameters:
            if name not in ("self", "kwargs"):
                assert f"        {name}: " in cls.__doc__, f"{cls.__name__}.{name}"


@pytest.mark.slow
def test_compiled_networks_keep_their_names_and_predictions(tmp_path):
    plain, compiled = fixmatch(), fixmatch(compile=True)
    for method in (plain, compiled):
        quiet_trainer(tmp_path, max_steps=3).fit(method, tiny_data())
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    images = torch.randint(0, 255, (3, 3, 16, 16), dtype=torch.uint8)
    ours, theirs = plain.eval()(images).emotion, compiled.eval()(images).emotion
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)
