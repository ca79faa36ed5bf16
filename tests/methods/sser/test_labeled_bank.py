import pytest
import torch

from fer_lightning.data.batch import Evaluated, Target
from fer_lightning.methods.sser import labeled_bank
from fer_lightning.methods.sser.labeled_bank import LabeledBank

IMAGES = torch.rand(11, 3, 4, 4)
LABEL = torch.eye(7)[torch.arange(11) % 7]
EVERY = torch.ones(11, dtype=torch.bool)


def encode(images):
    return images.flatten(1)


def batch(positions):
    index = torch.tensor(positions)
    label = torch.where((index >= 0)[:, None], LABEL[index], torch.nan)
    return Evaluated(
        IMAGES[index], Target(label, torch.zeros(len(index), 2)), index, torch.full_like(index, -1)
    )


def filled(batches, chosen=EVERY):
    bank = LabeledBank(7)
    bank.fill(batches, encode, chosen)
    return bank


def test_the_bank_holds_the_chosen_faces_in_order():
    batches = [batch([0, 1, 2, 3]), batch([4, 5, 6, 7]), batch([8, 9, 10, -1])]
    bank = filled(batches)
    assert bank.rows.dtype == torch.float16
    assert torch.equal(bank.rows, encode(IMAGES).half())
    assert torch.equal(bank.label, LABEL)
    chosen = torch.arange(11) % 3 == 1
    assert torch.equal(filled(batches, chosen).label, LABEL[chosen])
    bank.fill(batches[:1], encode, EVERY)  # what was there is forgotten
    assert torch.equal(bank.label, LABEL[:4])


@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_has_the_faces_of_all(monkeypatch, rank):
    parts = [[batch([0, 1, 2]), batch([6, 7, 8])], [batch([3, 4, 5]), batch([9, 10, -1])]]
    turn = iter(range(2))

    def gather(*rows):
        """As distributed.gather, with the other rank's part computed here."""
        other = parts[1 - rank][next(turn)]
        theirs = other.index, encode(other.image).half(), other.target.emotion
        pairs = [(rows, theirs), (theirs, rows)][rank]
        return [torch.cat(each) for each in zip(*pairs, strict=True)]

    monkeypatch.setattr(labeled_bank, "gather", gather)
    bank = filled(parts[rank])
    assert torch.equal(bank.rows, encode(IMAGES).half())
    assert torch.equal(bank.label, LABEL)


def test_a_checkpoint_brings_its_size():
    bank = filled([batch([0, 1, 2, 3])])
    empty = LabeledBank(7)
    empty.load_state_dict(bank.state_dict())
    assert torch.equal(empty.rows, bank.rows)
    assert empty.rows.dtype == torch.float16


def test_encoding_leaves_no_gradient():
    weight = torch.nn.Linear(48, 5)
    bank = LabeledBank(7)
    bank.fill([batch([0, 1])], lambda x: weight(encode(x)), EVERY)
    assert not bank.rows.requires_grad
