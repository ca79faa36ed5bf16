import copy

import lightning as L
import pytest
import torch
from faces import TINY, quiet_trainer, tiny_data
from torch import nn

from fer_lightning.data.batch import Labeled, Target, Unlabeled
from fer_lightning.errors import InputError
from fer_lightning.losses.classification import soft_cross_entropy
from fer_lightning.losses.contrastive import supervised_contrastive
from fer_lightning.methods import SCLUERMARM
from fer_lightning.methods.scl_uerm_arm.amending import Amending
from fer_lightning.methods.scl_uerm_arm.rank_regularization import rank_regularization
from fer_lightning.models.network import Pool


def method(**options):
    L.seed_everything(3, verbose=False)
    return SCLUERMARM(**(TINY | {"threshold": 0.2, "labeled_only_steps": 0} | options))


def faces(n=6, views=2):
    image = torch.randint(0, 255, (views, n, 3, 16, 16), dtype=torch.uint8)
    target = Target(torch.eye(7)[torch.arange(n) % 7], torch.zeros(n, 2))
    return Labeled(image, target, torch.arange(n))


def unlabeled_faces(n=8):
    weak, strong = torch.randint(0, 255, (2, 1, n, 3, 16, 16), dtype=torch.uint8)
    return Unlabeled(weak, strong, torch.arange(n))


def begun(n=6, **options):
    """A method that has begun with the labels of ``faces``, without a trainer."""
    model = method(**options)
    if model.relabeling is not None:
        model.relabeling.start(torch.arange(n) % 7)
    return model


def test_terms_are_those_of_the_parts():
    model, labeled = begun(contrast_weight=0.3, rank_weight=0.5, rank_margin=0.9).eval(), faces()
    terms = model.labeled_losses(labeled)
    x = model.student(labeled.weak.flatten(0, 1))
    z = model.student.head.classify(x.features)
    a = model.student.head.importance(x.features).sigmoid()
    y = labeled.target.label.repeat(2)
    torch.testing.assert_close(terms["supervised"], nn.functional.cross_entropy(a * z, y))
    torch.testing.assert_close(terms["contrast"], 0.3 * supervised_contrastive(x.projection, y, 0.07))
    mean = (a[:6, 0] + a[6:, 0]) / 2  # over the two views of a face
    torch.testing.assert_close(terms["rank"], 0.5 * rank_regularization(mean, 0.7, 0.9))
    assert terms.keys() == {"supervised", "contrast", "rank"}


def test_unlabeled_term_is_fixmatch_s():
    model, labeled, unlabeled = begun(unlabeled_weight=0.5, threshold=0.15).eval(), faces(), unlabeled_faces()
    with torch.no_grad():
        pseudo = model.pseudo_label(unlabeled)
    assert pseudo.weight.sum() > 0
    terms = model.losses(labeled, unlabeled, pseudo)
    s = model.student(unlabeled.strong[0])
    expected = 0.5 * soft_cross_entropy(s.logits, pseudo.target.emotion, pseudo.weight)
    torch.testing.assert_close(terms["unlabeled"], expected)


def test_plain_supervised_learning_is_left_when_every_part_is_off():
    model = begun(
        amending=False, contrast_weight=0, uncertainty="none", semi_supervised=False, dropout=0.0
    ).eval()
    labeled = faces()
    assert isinstance(model.student.neck, Pool)
    assert type(model.student.head) is nn.Linear
    assert model.relabeling is None
    assert (model.views.labeled, model.views.weak, model.views.strong) == (2, 0, 0)
    terms = model.labeled_losses(labeled)
    assert terms.keys() == {"supervised"}
    logits = model.student(labeled.weak.flatten(0, 1)).logits
    torch.testing.assert_close(
        terms["supervised"], nn.functional.cross_entropy(logits, labeled.target.label.repeat(2))
    )


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"contrast_weight": 0.0}, "contrast"),
        ({"rank_weight": 0.0}, "rank"),
        ({"uncertainty": "entropy"}, "rank"),
        ({"uncertainty": "rul"}, "rank"),
        ({"uncertainty": "none"}, "rank"),
    ],
)
def test_each_part_can_be_switched_off(options, missing):
    terms = begun(**options).labeled_losses(faces())
    assert terms.keys() == {"supervised", "contrast", "rank"} - {missing}


def test_switches_of_the_network():
    assert isinstance(method().student.neck, Amending)
    assert method(sharing="off").student.neck.alpha is None
    assert method(shuffle=2).student.neck.arrange.upscale_factor == 2
    gap = begun(contrast_source="maps").eval()
    assert gap.student.projection is None
    assert gap.map_projection.layers[0].in_features == gap.student.backbone.num_features
    labeled = faces()
    x = gap.student(labeled.weak.flatten(0, 1))
    h = gap.map_projection(x.maps.mean((2, 3)))
    expected = 0.1 * supervised_contrastive(h, labeled.target.label.repeat(2), 0.07)
    torch.testing.assert_close(gap.labeled_losses(labeled)["contrast"], expected)
    single = begun(labeled_views=1).eval()
    assert single.views.labeled == 1
    assert single.labeled_losses(faces(views=1))["supervised"].isfinite()


@pytest.mark.parametrize("uncertainty", ["scn", "rul", "entropy"])
def test_gradients_reach_every_part_but_not_through_relabeling(uncertainty):
    model, labeled = begun(uncertainty=uncertainty, relabel_epoch=1, rank_margin=0.9), faces()
    torch.manual_seed(5)
    torch.stack(list(model.labeled_losses(labeled).values())).sum().backward()
    for name, parameter in model.student.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith(("mu.0.bias", "log_variance.0.bias")):  # which a batch norm follows
            assert parameter.grad.abs().sum() > 0, name
    without = begun(uncertainty=uncertainty, relabel=False, rank_margin=0.9)
    torch.manual_seed(5)
    torch.stack(list(without.labeled_losses(labeled).values())).sum().backward()
    pairs = zip(model.student.parameters(), without.student.parameters(), strict=True)
    assert all(torch.equal(ours.grad, theirs.grad) for ours, theirs in pairs)


def test_mixture_of_two_faces_is_learned_as_both():
    model, labeled = begun(uncertainty="rul").eval(), faces()
    torch.manual_seed(5)
    loss = model.labeled_losses(labeled)["supervised"]
    x = model.student(labeled.weak.flatten(0, 1))
    torch.manual_seed(5)
    order, y = torch.randperm(12), labeled.target.label.repeat(2)
    mu = model.student.head.mu(x.features)
    s = model.student.head.log_variance(x.features).exp().mean(-1)
    share = (s / (s + s[order]))[:, None]
    logits = model.student.head.classify(share * mu + (1 - share) * mu[order])
    entropies = [nn.functional.cross_entropy(logits, label) for label in (y, y[order])]
    torch.testing.assert_close(loss, sum(entropies) / 2)


def test_current_labels_are_learned_and_contrasted():
    """A face whose label changed is learned, and contrasted, as if it had always had that label."""
    model, labeled = begun().eval(), faces()
    model.relabeling.labels_current[2] = 5
    other = labeled.target.emotion.clone()
    other[2] = torch.eye(7)[5]
    model2 = begun().eval()
    model2.relabeling.start(other.argmax(-1))
    expected = model2.labeled_losses(labeled._replace(target=labeled.target._replace(emotion=other)))
    for name, term in model.labeled_losses(labeled).items():
        torch.testing.assert_close(term, expected[name], msg=name)
    assert not torch.equal(
        model.labeled_losses(faces())["contrast"], begun().labeled_losses(faces())["contrast"]
    )


def test_labels_are_proposed_of_both_views_of_uncertain_faces():
    model, labeled = begun(relabel_epoch=1, relabel_margin=0.0).eval(), faces()
    x = model.student(labeled.weak.flatten(0, 1))
    p = x.logits.softmax(-1).view(2, 6, 7).mean(0)
    a = model.student.head.certainty(x).view(2, 6).mean(0)
    low = a.argsort()[:2]  # int(0.7 * 6) = 4 are certain
    expected = torch.arange(6)
    expected[low] = p.argmax(-1)[low]
    assert not torch.equal(expected, torch.arange(6))
    terms = model.labeled_losses(labeled)
    assert model.relabeling.pending.tolist() == list(range(6))  # losses change no state
    model.update_labeled_state(labeled, terms.outputs)
    assert torch.equal(model.relabeling.pending, expected)
    assert model.relabeling.labels_current.tolist() == list(range(6))
    model.on_train_epoch_end()
    assert torch.equal(model.relabeling.labels_current, expected)


class Labels(L.Callback):
    """Notes the labels that each epoch begins with."""

    def __init__(self):
        self.of_epoch = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.of_epoch.append(pl_module.relabeling.labels_current.clone())


def test_labels_change_from_their_epoch_on_and_survive_reloading(tmp_path):
    labels, data = Labels(), tiny_data()
    model = method(relabel_epoch=3, relabel_margin=0.0, low_only=False)
    trainer = quiet_trainer(tmp_path, max_epochs=4, callbacks=[labels])
    trainer.fit(model, data)
    given = data.info().labeled.label
    for epoch in (0, 1, 2):
        assert torch.equal(labels.of_epoch[epoch], given)
    assert not torch.equal(labels.of_epoch[3], given)
    assert torch.equal(model.relabeling.labels_original, given)
    assert model.relabeling.flips.sum() > 0
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    opened = SCLUERMARM.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    for name, value in model.relabeling.state_dict().items():
        assert torch.equal(getattr(opened.relabeling, name), value), name


def test_more_wrong_labels_are_repaired_than_right_ones_broken(tmp_path):
    """Over three seeds, since a hundred steps of a tiny network differ from each other."""
    truth, given, learned = [], [], []
    for seed in range(3):
        data = tiny_data(labels_per_class=15, label_noise=0.2, class_balanced=True, seed=seed)
        L.seed_everything(3 + seed, verbose=False)
        model = SCLUERMARM(**TINY, relabel_epoch=6, semi_supervised=False)
        quiet_trainer(tmp_path, max_epochs=20, limit_val_batches=0).fit(model, data)
        truth.append(data.labeled_truth.label)
        given.append(data.info().labeled.label)
        learned.append(model.relabeling.labels_current)
    truth, given, learned = map(torch.cat, (truth, given, learned))
    wrong = given != truth
    assert wrong.sum() > 50
    repaired = (learned == truth)[wrong].float().mean()
    broken = (learned != truth)[~wrong].float().mean()
    assert repaired > broken + 0.2


@pytest.mark.parametrize("sharing", ["ema", "ema_train", "off", "batch"])
def test_a_prediction_depends_on_its_face_alone_unless_set_otherwise(sharing, tmp_path):
    model = method(sharing=sharing)
    quiet_trainer(tmp_path, max_steps=3, limit_val_batches=0).fit(model, tiny_data())
    model.eval()
    images = torch.randint(0, 255, (6, 3, 16, 16), dtype=torch.uint8)
    together = model(images).emotion
    alone = torch.cat([model(image[None]).emotion for image in images])
    assert torch.allclose(together, alone, atol=1e-5) == (sharing != "batch")


@pytest.mark.parametrize(
    "options",
    [
        {"amending": False, "contrast_source": "maps"},
        {"sharing": "ema_train", "uncertainty": "rul", "contrast_source": "maps"},
        {"sharing": "batch", "uncertainty": "entropy", "low_only": False, "labeled_views": 1},
        {"sharing": "off", "uncertainty": "none", "contrast_weight": 0.0},
        {"targets": "both", "uncertainty": "rul", "max_flips": 1},
        {"semi_supervised": False, "joint_forward": False, "targets": "both"},
        {"joint_forward": False, "labeled_only_steps": 2},
    ],
)
def test_combinations_train_and_resume_exactly(tmp_path, options):
    class Keep(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 7:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

    def fit(callbacks, ckpt_path=None):
        model = method(dropout=0.1, **({"relabel_epoch": 1, "relabel_margin": 0.02} | options))
        trainer = quiet_trainer(tmp_path, max_epochs=3, callbacks=callbacks)
        trainer.fit(model, tiny_data(label_noise=0.2), ckpt_path=ckpt_path)
        return model

    whole, resumed = fit([Keep()]), fit([], tmp_path / "mid.ckpt")
    for (name, value), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
        assert not value.is_floating_point() or value.isfinite().all(), name
    if whole.relabeling is not None:
        assert not torch.equal(whole.relabeling.labels_current, whole.relabeling.labels_original)


def test_opened_without_data_it_predicts_and_makes_pseudo_labels():
    model = method().eval()
    opened = copy.deepcopy(model)
    assert opened.relabeling.labels_current.shape == (0,)
    with torch.no_grad():
        assert opened(unlabeled_faces().weak[0]).emotion.shape == (8, 7)
        assert opened.pseudo_label(unlabeled_faces()).weight.shape == (8,)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("certain_share", 0.0),
        ("certain_share", 1.0),
        ("temperature", 0.0),
        ("relabel_epoch", 0),
        ("max_flips", -1),
        ("rank_weight", -1.0),
        ("contrast_weight", -0.1),
        ("shuffle", 3),
    ],
)
def test_impossible_options_are_named(option, value):
    with pytest.raises(InputError, match=rf"{option} is {value}"):
        method(**{option: value})
