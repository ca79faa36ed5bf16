"""What no method may do in training, whatever its paper says; a new one is covered the day it is exported."""

import copy
import math
from dataclasses import replace

import lightning as L
import numpy as np
import pytest
import torch
from every import METHODS, UNLABELED, build, data
from faces import TinyFaces, quiet_trainer

from fer_lightning.data.batch import Unlabeled
from fer_lightning.data.datasets.base import Faces


class OtherTruth(TinyFaces):
    """The same images; some faces show the next emotion, and the opposite valence_arousal."""

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
            truth = self.datamodule.unlabeled_truth.emotion[unlabeled.index]
            pseudo = super().pseudo_label(unlabeled)
            return pseudo._replace(
                target=pseudo.target._replace(emotion=truth), weight=torch.ones_like(pseudo.weight)
            )

    first, second = states_with_another_truth(lambda: build("fixmatch", Cheat), "fixmatch", tmp_path)
    assert not torch.equal(first["student.head.weight"], second["student.head.weight"])


@pytest.mark.parametrize("name", UNLABELED)
def test_no_accepted_belief_means_no_unlabeled_loss(name, tmp_path):
    terms = []

    class Doubting(METHODS[name]):
        def pseudo_label(self, unlabeled):
            pseudo = super().pseudo_label(unlabeled)
            if pseudo is None:  # as SSER before its first stage of beliefs
                return None
            return pseudo._replace(weight=torch.zeros_like(pseudo.weight))

        def losses(self, labeled, unlabeled, pseudo):
            terms.append(super().losses(labeled, unlabeled, pseudo))
            return terms[-1]

    model = trained(lambda: build(name, Doubting), tmp_path, data(name))
    assert len(terms) == 7
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
    assert 0 < len(faces.unlabeled) < faces.batch_size * faces.mu
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
def test_labels_alone_come_first_if_asked_for(name, tmp_path):
    given = []

    class Spy(METHODS[name]):
        def pseudo_label(self, unlabeled):
            given.append(self.global_step)
            return super().pseudo_label(unlabeled)

    trained(lambda: build(name, Spy, labeled_only_steps=3), tmp_path, data(name))
    assert given == [3, 4, 5, 6]


@pytest.mark.parametrize("name", UNLABELED)
def test_believing_changes_nothing_but_what_the_method_keeps(name, tmp_path):
    """Asked what it believes when it does not train, a method answers and stays as it is."""
    faces = data(name)
    model = trained(lambda: build(name), tmp_path, faces).eval()
    before = copy.deepcopy(model.state_dict())
    shape = (*((model.views.weak,) if model.views.weak > 1 else ()), 6, 3, 16, 16)
    weak = torch.randint(0, 255, shape, dtype=torch.uint8)
    strong = torch.randint(0, 255, (model.views.strong or 1, 6, 3, 16, 16), dtype=torch.uint8).squeeze(0)
    with torch.no_grad():
        pseudo = model.pseudo_label(Unlabeled(weak, strong, torch.arange(6)))
    assert ((pseudo.confidence >= 0) & (pseudo.confidence <= 1 + 1e-6)).all()
    assert ((pseudo.weight >= 0) & (pseudo.weight <= 1)).all()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
