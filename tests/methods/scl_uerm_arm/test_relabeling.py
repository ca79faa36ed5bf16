import math

import pytest
import torch

from fer_lightning.data.batch import Target
from fer_lightning.methods.scl_uerm_arm.relabeling import Relabeling

P = torch.tensor([[0.6362, 0.2587, 0.1052], [0.4215, 0.3891, 0.1894], [0.2242, 0.5515, 0.2242]])
ALL = torch.arange(3)


def relabeling(label=(0, 1, 0), **options):
    module = Relabeling(**({"certain_share": 0.7, "margin": 0.2, "low_only": False} | options))
    module.start(torch.as_tensor(label))
    return module


def test_golden_values():
    """P_max - P_label is 0, 0.0324 and 0.3273: the third face alone is above 0.2."""
    module = relabeling()
    module.propose(ALL, P, torch.tensor([0.9, 0.4, 0.3]))
    assert module.pending.tolist() == [0, 1, 1]
    assert module.labels_current.tolist() == [0, 1, 0]
    module.commit()
    assert module.labels_current.tolist() == [0, 1, 1]
    assert module.labels_original.tolist() == [0, 1, 0]
    assert module.flips.tolist() == [0, 0, 1]


@pytest.mark.parametrize(("margin", "expected"), [(0.0, [0, 0, 1]), (0.33, [0, 1, 0])])
def test_threshold(margin, expected):
    module = relabeling(margin=margin)
    module.propose(ALL, P, torch.rand(3))
    assert module.pending.tolist() == expected


@pytest.mark.parametrize("certainty", [(0.9, 0.4, 0.3), (0.3, 0.4, 0.9)])
def test_low_group_alone(certainty):
    module = relabeling(low_only=True)  # int(0.7 * 3) = 2 of 3 faces are certain
    module.propose(ALL, P, torch.tensor(certainty))
    assert module.pending.tolist() == ([0, 1, 1] if certainty[2] < 0.4 else [0, 1, 0])


def test_a_label_may_come_back_unless_flips_are_counted():
    back = torch.tensor([[0.9, 0.1, 0.0]])
    for max_flips, expected in ((None, 0), (2, 0), (1, 1), (0, 0)):
        module = relabeling(max_flips=max_flips)
        for p in (P[2:], back):
            module.propose(torch.tensor([2]), p, torch.ones(1))
            module.commit()
        assert module.labels_current[2] == expected, max_flips


def test_the_last_time_in_an_epoch_counts():
    module, keep = relabeling(), torch.tensor([[0.9, 0.1, 0.0]])
    module.propose(torch.tensor([2]), P[2:], torch.ones(1))
    assert module.pending[2] == 1
    module.propose(torch.tensor([2]), keep, torch.ones(1))
    assert module.pending[2] == 0
    module.propose(torch.tensor([2, 0, 2]), torch.cat([keep, keep, P[2:]]), torch.ones(3))  # in one batch too
    assert module.pending[2] == 1
    module.propose(torch.tensor([2, 0, 2]), torch.cat([P[2:], keep, keep]), torch.ones(3))
    assert module.pending[2] == 0


def test_target_is_soft_until_the_label_changes_and_unknown_stays_unknown():
    nan = math.nan
    emotion = torch.tensor([[0.8, 0.2, 0], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1], [nan, nan, nan]])
    target = Target(emotion, torch.zeros(4, 2))
    module = relabeling(target.label)
    p = torch.cat([P, P[2:]])
    module.propose(torch.arange(4), p, torch.rand(4))
    module.commit()
    index = torch.tensor([3, 2, 0, 1])
    learnt = module.target(Target(emotion[index], target.valence_arousal), index)
    expected = torch.stack([emotion[3], torch.tensor([0.0, 1, 0]), emotion[0], emotion[1]])
    torch.testing.assert_close(learnt.emotion, expected, equal_nan=True)
    assert module.labels_current[3] == -1


def test_labels_survive_reloading():
    module = relabeling()
    module.propose(ALL, P, torch.rand(3))
    opened = Relabeling(0.7, 0.2)
    opened.load_state_dict(module.state_dict())
    for name, value in module.state_dict().items():
        assert torch.equal(getattr(opened, name), value), name


def test_two_ranks_decide_as_one_of_their_common_batch(monkeypatch):
    """The uncertain faces are those of the global batch, here all on the second rank."""
    batch = (torch.arange(6), torch.cat([P, P]), torch.tensor([0.9, 0.8, 0.7, 0.6, 0.2, 0.1]))
    whole = relabeling((0, 1, 0) * 2, low_only=True)
    whole.propose(*batch)
    assert whole.pending.tolist() == [0, 1, 0, 0, 1, 1]
    monkeypatch.setattr("fer_lightning.methods.scl_uerm_arm.relabeling.gather", lambda *rows: list(batch))
    for part in (slice(0, 3), slice(3, 6)):
        rank = relabeling((0, 1, 0) * 2, low_only=True)
        rank.propose(*(rows[part] for rows in batch))
        assert torch.equal(rank.pending, whole.pending)
