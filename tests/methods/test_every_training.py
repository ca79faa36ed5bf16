"""What no method may do in training; a new one is covered the day it is exported."""

import copy
import math
from dataclasses import replace
from typing import get_args, get_type_hints

import lightning as L
import numpy as np
import pytest
import torch
from every import METHODS, UNLABELED, build, data
from faces import TinyFaces, quiet_trainer

from fer_lightning.data.batch import Labeled, Target, Unlabeled
from fer_lightning.data.datasets.base import Faces
from fer_lightning.errors import InputError
from fer_lightning.methods import SemiSupervised
from fer_lightning.ranges import (
    Momentum,
    NonNegativeFloat,
    NonNegativeInt,
    OpenShare,
    OverOne,
    PositiveFloat,
    PositiveInt,
    Share,
)


class OtherTruth(TinyFaces):
    """The same images; some faces show the next emotion, and the opposite valence and arousal."""

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self.names = names

    def load(self, image_size: int) -> Faces:
        faces = super().load(image_size)
        other = np.isin(faces.names, list(self.names))
        emotion, valence_arousal = faces.emotion.copy(), faces.valence_arousal.copy()
        emotion[other] = np.roll(emotion[other], 1, axis=1)
        valence_arousal[other] *= -1
        return replace(faces, emotion=emotion, valence_arousal=valence_arousal)


def trained(method, tmp_path, faces, **options):
    L.seed_everything(3, verbose=False)
    model = method()
    quiet_trainer(tmp_path, **({"max_steps": 7, "limit_val_batches": 0} | options)).fit(model, faces)
    return model


def states_with_another_truth(method, name, tmp_path):
    """Final states after training on the same faces, with the truth about the unlabeled ones and another."""
    faces = data(name)
    first = trained(method, tmp_path, faces)
    faces.split.save(tmp_path / "split.json")
    other = data(name, dataset=OtherTruth(set(faces.split.unlabeled)), manifest=tmp_path / "split.json")
    second = trained(method, tmp_path, other)
    truth = [d.faces.label[d.unlabeled] for d in (faces, other)]
    assert (truth[0] != truth[1]).all()
    assert (faces.faces.label[faces.labeled] == other.faces.label[other.labeled]).all()
    return first.state_dict(), second.state_dict()


@pytest.mark.parametrize("name", UNLABELED)
def test_the_truth_about_unlabeled_faces_changes_nothing(name, tmp_path):
    first, second = states_with_another_truth(lambda: build(name, dropout=0.1), name, tmp_path)
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def test_a_method_that_cheats_is_found_out(tmp_path):
    class Cheat(METHODS["fixmatch"]):
        def pseudo_label(self, unlabeled):
            truth = self.trainer.datamodule.unlabeled_truth.emotion[unlabeled.index]
            pseudo = super().pseudo_label(unlabeled)
            return pseudo._replace(
                target=pseudo.target._replace(emotion=truth), weight=torch.ones_like(pseudo.weight)
            )

    first, second = states_with_another_truth(lambda: build("fixmatch", Cheat), "fixmatch", tmp_path)
    assert not torch.equal(first["student.head.weight"], second["student.head.weight"])


@pytest.mark.parametrize("name", UNLABELED)
def test_no_accepted_pseudo_label_means_no_unlabeled_loss(name, tmp_path):
    terms = []

    class Doubting(METHODS[name]):
        def pseudo_label(self, unlabeled):
            pseudo = super().pseudo_label(unlabeled)
            return pseudo._replace(weight=torch.zeros_like(pseudo.weight))

        def losses(self, labeled, unlabeled, pseudo):
            terms.append(super().losses(labeled, unlabeled, pseudo))
            return terms[-1]

    model = trained(lambda: build(name, Doubting), tmp_path, data(name))
    assert len(terms) == (5 if name == "sser" else 7)  # its first stage learns from the labels alone
    for step in terms:
        assert "supervised" in step
        values = {key: float(term.detach()) for key, term in step.items()}
        assert values.get("unlabeled", 0) == 0
        assert all(map(math.isfinite, values.values())), values
    assert any("unlabeled" in step for step in terms)
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_a_class_without_labels_and_a_pool_smaller_than_a_batch(name, tmp_path):
    budget = {e: 0 if e == "fear" else 4 for e in TinyFaces().load(16).taxonomy.emotions}
    faces = data(name, dataset=TinyFaces(train=35, missing=2), labels_per_class=budget)
    model = trained(lambda: build(name), tmp_path, faces, max_steps=12)
    assert 0 < len(faces.unlabeled) < faces.batch_size * faces.unlabeled_ratio
    assert "fear" not in {model.task.emotions[c] for c in faces.faces.label[faces.labeled]}
    assert all(v.isfinite().all() for v in model.state_dict().values() if v.is_floating_point())
    probability = model.eval()(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)).emotion
    assert torch.allclose(probability.sum(1), torch.ones(2))


@pytest.mark.parametrize("name", METHODS)
def test_gradients_reach_the_student_and_nothing_that_is_frozen(name, tmp_path):
    class Spy(METHODS[name]):
        def on_after_backward(self):
            super().on_after_backward()
            for key, parameter in self.named_parameters():
                if not parameter.requires_grad:
                    assert parameter.grad is None, key
                elif parameter.grad is not None:
                    reached.add(key)

    reached: set[str] = set()
    model = trained(lambda: build(name, Spy), tmp_path, data(name), max_steps=10)
    frozen = [key for key, parameter in model.named_parameters() if not parameter.requires_grad]
    teacher = [key for key, _ in model.named_parameters() if key.startswith("teacher")]
    assert set(teacher) <= set(frozen)
    missed = {key for key, _ in model.named_parameters()} - set(frozen) - reached
    assert not missed, "parameters that nothing trains"


@pytest.mark.parametrize("name", UNLABELED)
def test_labels_alone_come_first_if_set(name, tmp_path):
    given = []

    class Spy(METHODS[name]):
        def pseudo_label(self, unlabeled):
            given.append(self.global_step)
            return super().pseudo_label(unlabeled)

    trained(lambda: build(name, Spy, labeled_only_steps=3), tmp_path, data(name))
    assert given == [3, 4, 5, 6]


def batch_for(model, n=6):
    """A labeled and an unlabeled batch in the method's views."""
    generator = torch.Generator().manual_seed(1)

    def images(views):
        return torch.randint(0, 255, (views, n, 3, 16, 16), dtype=torch.uint8, generator=generator)

    views, index = model.views, torch.arange(n)
    target = Target(torch.eye(7)[index % 7], torch.full((n, 2), torch.nan))
    return Labeled(images(views.labeled), target, index), Unlabeled(
        images(views.weak), images(views.strong), index
    )


def tensors(value):
    """All tensors in nested tuples."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from tensors(each)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", UNLABELED)
def test_pseudo_labels_and_losses_change_no_state(name, training, tmp_path):
    """Called twice they return the same; batch statistics of a network in training are not theirs to keep."""
    model = trained(lambda: build(name), tmp_path, data(name), max_steps=10).train(training)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0
    labeled, unlabeled = batch_for(model)
    before, seen = copy.deepcopy(model.state_dict()), []
    for _ in range(2):
        torch.manual_seed(0)
        with torch.set_grad_enabled(model.gradient_through_weak_views):
            pseudo = model.pseudo_label(unlabeled)
        seen.append((pseudo, model.losses(labeled, unlabeled, pseudo), model.labeled_losses(labeled)))
    for key, value in model.state_dict().items():
        if not key.endswith(("num_batches_tracked", "generic", "known")):  # statistics of layers, as these
            assert torch.equal(value, before[key]), key
    (pseudo, terms, alone), (again, other, other_alone) = seen
    for first, second in zip(tensors(pseudo), tensors(again), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)
    assert len(list(tensors(pseudo))) >= 6  # two targets, weight, confidence, index, threshold
    assert ((pseudo.confidence >= 0) & (pseudo.confidence <= 1 + 1e-6)).all()
    assert ((pseudo.weight >= 0) & (pseudo.weight <= 1)).all()
    for first, second in ((terms, other), (alone, other_alone)):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", METHODS)
def test_a_plain_loader_trains_a_method_or_is_told_what_is_missing(name, tmp_path):
    model = build(name)
    labeled, unlabeled = batch_for(model)
    batches = [{"labeled": labeled, "unlabeled": unlabeled}] * 3
    trainer = quiet_trainer(tmp_path, max_steps=3)
    if name in ("flexmatch", "softmatch", "comatch", "simmatch", "scl_uerm_arm", "sit_fer", "sser", "ada_cm"):
        with pytest.raises(InputError, match="a datamodule with a method `info`"):
            trainer.fit(model, torch.utils.data.DataLoader(batches, batch_size=None))
    else:
        trainer.fit(model, torch.utils.data.DataLoader(batches, batch_size=None))
        assert trainer.global_step == 3


OUTSIDE: dict[type, list[float]] = {
    PositiveInt: [0, 1.5],
    NonNegativeInt: [-1],
    PositiveFloat: [0.0, -1],
    NonNegativeFloat: [-1],
    Share: [1.5, -0.1],
    OpenShare: [0, 1],
    Momentum: [1, 2, -0.1],
    OverOne: [1],
}
"""Values that each type refuses."""


def numbers(name):
    """The numeric options of a method and of its bases, each with the type of its number."""
    hints = {}
    for cls in METHODS[name].__mro__:
        if issubclass(cls, SemiSupervised) and "__init__" in vars(cls):
            hints = get_type_hints(vars(cls)["__init__"]) | hints
    for option, hint in hints.items():
        for number in {hint, *get_args(hint)}:
            if isinstance(number, type) and issubclass(number, int | float) and number is not bool:
                yield option, number


@pytest.mark.parametrize("name", METHODS)
def test_every_number_has_a_range_and_is_refused_outside_of_it_by_name(name):
    found = dict(numbers(name))
    assert {"lr", "ema_decay", "dropout", "warmup_steps", "std"} <= found.keys()
    assert {option for option, number in found.items() if number not in OUTSIDE} == {"mean"}
    for option, number in found.items():
        for value in OUTSIDE.get(number, []):
            given = (0.5, 0.5, value) if option == "std" else value
            with pytest.raises(InputError, match=rf"^{option} is .*; it must be") as refused:
                METHODS[name](**{option: given})
            assert refused.value.option == f"model.{option}"
