import pytest
import torch

from fer_lightning.errors import InputError
from fer_lightning.methods.sit_fer.levels import LEVELS, SETTINGS, InstanceLevel, TextLevel, nearest_by_class

UNIT = torch.nn.functional.normalize


def rows(n, width=6, seed=0):
    return UNIT(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def filled(temperature=0.1, nearest=False, faces=9, accepted=4):
    level = InstanceLevel(3, 6, temperature, nearest)
    level.labeled.resize(faces)
    level.accepted.resize(accepted)
    return level


def test_nearest_of_each_class_equals_the_loops():
    query, features = rows(5), rows(9, seed=1)
    label = torch.eye(3)[torch.tensor([0, 0, 2, 2, 0, 2, 0, 0, 2])]  # no face of class 1
    label[4] = 0  # of unknown emotion
    expected = torch.zeros(5, 3)
    for b in range(5):
        for k in range(9):
            if label[k].sum() > 0:
                c = int(label[k].argmax())
                expected[b, c] = max(expected[b, c], float(query[b] @ features[k]))
    found = nearest_by_class(query, features, label)
    torch.testing.assert_close(found, expected)
    assert (found[:, 1] == 0).all()


def test_a_bank_of_zeros_scores_0_and_a_stored_face_1_on_itself():
    level = filled(1.0, nearest=True)
    q = rows(1)
    assert torch.equal(level(q), torch.zeros(1, 3))
    level.labeled.write(torch.tensor([7]), q, torch.eye(3)[[2]])
    torch.testing.assert_close(level(q), torch.tensor([[0.0, 0.0, 1.0]]))


def test_an_empty_memory_makes_all_classes_equal():
    level = InstanceLevel(3, 6, 0.1)
    torch.testing.assert_close(level(rows(2)).softmax(-1), torch.full((2, 3), 1 / 3))
    assert torch.equal(InstanceLevel(3, 6, 1.0, nearest=True)(rows(2)), torch.zeros(2, 3))


def test_instance_probability_equals_the_loops_over_labeled_and_accepted_faces():
    level, q = filled(0.5), rows(4, seed=5)
    soft = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    level.labeled.write(torch.tensor([0, 3]), rows(2, seed=1), torch.eye(3)[[0, 2]])
    level.labeled.write(torch.tensor([5]), rows(1, seed=3), torch.zeros(1, 3))  # an unknown emotion
    level.accepted.push(rows(2, seed=2), soft)
    b, labels = torch.cat([rows(2, seed=1), rows(2, seed=2)]), torch.cat([torch.eye(3)[[0, 2]], soft])
    expected = torch.zeros(4, 3)
    for i in range(4):
        e = [float(torch.exp(q[i] @ b[k] / 0.5)) for k in range(4)]
        for k in range(4):
            expected[i] += e[k] / sum(e) * labels[k]
    torch.testing.assert_close(level(q).softmax(-1), expected)


def test_a_matching_bank_gives_over_nine_tenths():
    level = filled(0.1, faces=3)
    q = torch.eye(6)[:3]
    level.labeled.write(torch.arange(3), q, torch.eye(3))
    p = level(q).softmax(-1)
    assert (p.diagonal() > 0.9).all()
    torch.testing.assert_close(p.sum(-1), torch.ones(3))


def test_levels_are_exact_under_autocast():
    level, text = filled(0.05), TextLevel(3, 6, 0.05, learned=True)
    text.anchors.copy_(rows(3))
    level.labeled.write(torch.arange(9), rows(9, seed=1), torch.eye(3).repeat(3, 1))
    for each in (level, text):
        exact = each(rows(4, seed=2))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(each(rows(4, seed=2)), exact)


def test_text_level():
    anchors, q = rows(3), rows(4, seed=1).requires_grad_()
    fixed, learned = TextLevel(3, 6, 0.1), TextLevel(3, 6, 0.1, learned=True)
    for level in (fixed, learned):
        level.anchors.copy_(anchors)
        torch.testing.assert_close(level(q), q @ anchors.T / 0.1)
    assert not list(fixed.parameters())
    fixed(q).square().sum().backward()
    assert q.grad.abs().sum() > 0
    assert fixed.anchors.grad is None
    learned(q).square().sum().backward()
    assert learned.map.weight.grad.abs().sum() > 0
    assert learned.anchors.grad is None


def test_settings_add_up():
    assert set(SETTINGS) == {"sfew400", "rafdb4000", "rafdb2000", "rafdb5000"}
    for name, s in SETTINGS.items():
        assert sum(s.weights_before) == pytest.approx(1)
        assert sum(s.loss_weights) == pytest.approx(1)
        assert sum(s.weights) == pytest.approx(1.6 if name == "sfew400" else 1)
        assert s.weights_before[2] == s.test_weights_before[2] == 0 or s.test_start == 0
        paper = s.as_in_paper()
        assert sum(paper.weights) == pytest.approx(1)
        assert paper.start == paper.test_start == 0.25
        assert paper.threshold == s.threshold
    assert SETTINGS["rafdb2000"].as_in_paper().loss_weights == pytest.approx((1, 1, 4 / 3))
    assert SETTINGS["sfew400"].as_in_paper().loss_weights == pytest.approx((1, 0.2857, 0.1429), abs=1e-4)


def test_levels_left_out_have_no_weight():
    s = SETTINGS["rafdb4000"].as_in_paper()
    assert s.only(LEVELS).weights == pytest.approx(s.weights)
    assert s.only(["text", "instance"]).weights == pytest.approx((0, 1 / 3, 1 / 3))
    assert s.only(["text", "instance"]).weights_before == pytest.approx((0, 1 / 2, 0))
    assert s.only(["semantic"]).test_weights == pytest.approx((1 / 3, 0, 0))
    assert s.only(["instance"]).weights_before == pytest.approx((0, 0, 1 / 3))  # alone it starts at once
    assert SETTINGS["rafdb4000"].only(["semantic", "text"]).weights == (0.4, 0.4, 0)  # of logits: as they are
    for wrong in ([], ["sematic"]):
        with pytest.raises(InputError, match="levels"):
            s.only(wrong)
