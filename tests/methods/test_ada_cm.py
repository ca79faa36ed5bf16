"""Ada-CM against its equations; what every method must show is in test_every_*.py."""

import math
from typing import Any

import lightning as L
import pytest
import torch
from faces import TINY, quiet_trainer, tiny_data
from torch.nn.functional import cross_entropy

from fer_lightning.data.batch import Labeled, Target, Unlabeled
from fer_lightning.errors import InputError
from fer_lightning.methods import AdaCM


def ada_cm(**options: Any) -> AdaCM:
    L.seed_everything(3, verbose=False)
    return AdaCM(**(TINY | {"joint_forward": False} | options))


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 255, (*shape, 3, 16, 16), dtype=torch.uint8)


def faces(rows: int = 16) -> tuple[Labeled, Unlabeled]:
    torch.manual_seed(0)
    target = Target(torch.eye(7)[torch.arange(rows) % 7], torch.full((rows, 2), torch.nan))
    labeled = Labeled(images(1, rows), target, torch.arange(rows))
    return labeled, Unlabeled(images(2, rows), images(1, rows), torch.arange(rows))


def step(method: AdaCM, rows: int = 16, accepted: list[int] | None = None):
    """A step's pseudo-labels, with these faces accepted if given, and its terms."""
    labeled, unlabeled = faces(rows)
    assert method.gradient_through_weak_views
    pseudo = method.pseudo_label(unlabeled)
    if accepted is not None:
        weight = torch.zeros(rows)
        weight[accepted] = 1
        pseudo = pseudo._replace(weight=weight)
    return pseudo, method.losses(labeled, unlabeled, pseudo)


def test_pseudo_labels_are_the_mean_of_two_weak_views():
    method = ada_cm().eval()
    _, unlabeled = faces()
    with torch.no_grad():
        p = sum(method.student(view).logits.softmax(-1) for view in unlabeled.weak) / 2
        method.margin.copy_(torch.linspace(0.1, 0.3, 7))
        pseudo = method.pseudo_label(unlabeled)
    torch.testing.assert_close(pseudo.confidence, p.max(-1).values)
    assert torch.equal(pseudo.target.label, p.argmax(-1))
    expected = [float(row.max() >= method.margin[row.argmax()]) for row in p]
    assert pseudo.weight.tolist() == expected
    assert torch.equal(pseudo.threshold, method.margin)


def test_no_confident_face_is_contrast_alone_and_trains_the_network():
    method = ada_cm(min_margin=1.0)
    _, terms = step(method)
    assert terms["unlabeled"] == 0
    assert terms["contrast"] > 0
    terms["contrast"].backward()
    assert all(p.grad.isfinite().all() for p in method.student.backbone.parameters())
    assert method.student.backbone.conv1.weight.grad.abs().sum() > 0
    assert method.student.head.weight.grad is None  # the weak views' logits teach nothing


def test_confident_faces_alone_are_no_contrast():
    _, terms = step(ada_cm(min_margin=0.0))
    assert terms["contrast"] == 0
    assert terms["unlabeled"] > 0


def test_one_rejected_face_has_no_other_to_differ_from():
    _, terms = step(ada_cm(), accepted=list(range(15)))
    assert terms["contrast"].item() == pytest.approx(0, abs=1e-6)


def test_terms_match_a_slow_reference():
    method = ada_cm().eval()
    labeled, unlabeled = faces()
    accepted = [0, 3, 9]
    with torch.no_grad():
        pseudo, terms = step(method, accepted=accepted)
        a, b = (method.student(view).features for view in unlabeled.weak)
        x, s = method.student(labeled.weak[0]).logits, method.student(unlabeled.strong[0]).logits
    rows = [(i, z) for view in (a, b) for i, z in enumerate(view) if i not in accepted]
    contrast = 0.0
    for n, (i, z) in enumerate(rows):
        others = [(j, math.exp(float(z @ o) / 0.07)) for k, (j, o) in enumerate(rows) if k != n]
        contrast -= math.log(sum(e for j, e in others if j == i) / sum(e for _, e in others)) / len(rows)
    assert float(terms["contrast"]) == pytest.approx(0.1 * contrast, rel=1e-4)
    assert float(terms["supervised"]) == pytest.approx(
        0.5 * float(cross_entropy(x, labeled.target.label)), rel=1e-5
    )
    expected = cross_entropy(s[accepted], pseudo.target.label[accepted], reduction="sum") / 16
    assert float(terms["unlabeled"]) == pytest.approx(float(expected), rel=1e-5)


def test_one_accepted_face_of_sixteen_weighs_a_sixteenth():
    method = ada_cm().eval()
    with torch.no_grad():
        pseudo, terms = step(method, accepted=[5])
        logits = method.student(faces()[1].strong[0, 5:6]).logits
    expected = cross_entropy(logits, pseudo.target.label[5:6]) / 16
    assert float(terms["unlabeled"]) == pytest.approx(float(expected), rel=1e-5)


def test_each_view_is_forwarded_once():
    method = ada_cm()
    passes = []
    method.student.register_forward_hook(lambda module, given, output: passes.append(len(given[0])))
    step(method)
    assert passes == [16] * 4  # two weak views, the labeled and the strong one
    passes.clear()
    method.eval()
    labeled, unlabeled = faces()
    with torch.no_grad():
        pseudo = method.pseudo_label(unlabeled)
        first = method.losses(labeled, unlabeled, pseudo)
        again = method.losses(labeled, unlabeled, pseudo)  # from the given outputs on the weak views
    assert passes == [16] * 6
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_features_have_unit_length_and_predictions_repeat():
    method = ada_cm(dropout=0.5).eval()
    given = images(5)
    torch.testing.assert_close(method(given).features.norm(dim=1), torch.ones(5))
    assert torch.equal(method(given).emotion, method(given).emotion)
    plain = ada_cm(unit_features=False).eval()
    assert not torch.allclose(plain(given).features.norm(dim=1), torch.ones(5))
    with torch.no_grad():
        assert step(plain)[1]["contrast"].isfinite()


def test_margins_are_measured_by_the_teacher_after_each_epoch(tmp_path):
    seen = []

    class Spy(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            seen.append(pl_module.margin.clone())

    method = ada_cm(min_margin=0.05, dropout=0.3, ema_decay=0.9)
    data = tiny_data(eval_batch_size=10)  # 28 faces: the last batch is filled up
    quiet_trainer(tmp_path, max_epochs=3, callbacks=[Spy()]).fit(method, data)
    assert seen[0].tolist() == pytest.approx([0.05] * 7)
    assert not torch.equal(seen[1], seen[2])
    # After the third: a loop over the labeled faces.
    rows = torch.from_numpy(data.faces.label[data.labeled])
    pictures = next(iter(data.labeled_loader())).image
    confidence: dict[int, list[float]] = {}
    with torch.no_grad():
        for batch in data.labeled_loader():
            p = method.teacher.module(batch.image).logits.softmax(-1)
            for i, index in enumerate(batch.index.tolist()):
                if index >= 0 and int(p[i].argmax()) == int(rows[index]):
                    confidence.setdefault(int(rows[index]), []).append(float(p[i].max()))
    assert len(pictures) == 10
    assert confidence
    for c in range(7):
        mean = sum(confidence.get(c, [])) / max(1, len(confidence.get(c, [])))
        expected = max(0.05, 0.97 / (1 + math.exp(-3)) * mean)
        assert float(method.margin[c]) == pytest.approx(expected, rel=1e-5)


def test_teacher_moves_by_its_decay_towards_a_student_that_rests(tmp_path):
    method = ada_cm(lr=1e-30, optimizer="adamw", shrink=0.0, ema_warmup=False)
    with torch.no_grad():
        method.student.head.weight.add_(1.0)
    before, resting = method.teacher.module.head.weight.clone(), method.student.head.weight.clone()
    quiet_trainer(tmp_path, max_steps=5).fit(method, tiny_data())
    kept = 0.999**5
    assert torch.equal(method.student.head.weight, resting)
    expected = kept * before + (1 - kept) * resting
    torch.testing.assert_close(method.teacher.module.head.weight, expected, rtol=1e-6, atol=1e-6)


def test_student_shrinks_after_the_teacher_has_moved(tmp_path):
    def fit(shrink: float) -> AdaCM:
        method = ada_cm(lr=0.1, schedule="constant", shrink=shrink, ema_warmup=False)
        quiet_trainer(tmp_path, max_steps=1).fit(method, tiny_data())
        return method

    plain, shrunk = fit(0.0), fit(0.5)
    for name, value in plain.student.named_parameters():
        torch.testing.assert_close(shrunk.student.get_parameter(name), value * (1 - 0.5 * 0.1))
    for ours, theirs in zip(plain.student.buffers(), shrunk.student.buffers(), strict=True):
        assert torch.equal(ours, theirs)  # parameters only
    for ours, theirs in zip(plain.teacher.parameters(), shrunk.teacher.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_without_weight_the_contrast_changes_nothing(tmp_path):
    def fit(temperature: float, contrast_weight: float) -> dict[str, torch.Tensor]:
        method = ada_cm(temperature=temperature, contrast_weight=contrast_weight)
        quiet_trainer(tmp_path, max_steps=3).fit(method, tiny_data())
        return method.state_dict()

    first, second, with_it = fit(0.07, 0.0), fit(0.5, 0.0), fit(0.07, 0.1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["student.head.weight"], with_it["student.head.weight"])


def test_labels_come_first_with_their_weight():
    method = ada_cm().eval()
    labeled, _ = faces()
    with torch.no_grad():
        terms = method.labeled_losses(labeled)
        expected = 0.5 * cross_entropy(method.student(labeled.weak[0]).logits, labeled.target.label)
    assert terms.keys() == {"supervised"}
    torch.testing.assert_close(terms["supervised"], expected)


def test_valence_and_arousal_are_the_mean_of_both_views():
    method = ada_cm(targets="both").eval()
    _, unlabeled = faces()
    with torch.no_grad():
        pseudo = method.pseudo_label(unlabeled)
        both = [method.student(view).valence_arousal for view in unlabeled.weak]
    torch.testing.assert_close(pseudo.target.valence_arousal, (both[0] + both[1]) / 2)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("ema_decay", 0, "ema_decay is 0; Ada-CM needs a teacher"),
        ("temperature", 0.0, r"temperature is 0\.0; it must be a number above 0"),
    ],
)
def test_options_that_cannot_be(option, value, message):
    with pytest.raises(InputError, match=message):
        ada_cm(**{option: value})
