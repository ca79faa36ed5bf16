from types import SimpleNamespace

import pytest
import torch

from fer_lightning.errors import InputError
from fer_lightning.methods.dta_snl.local_attention import LocalAttention
from fer_lightning.models.network import Pool

BACKBONE = SimpleNamespace(num_features=32)


def neck(**options):
    torch.manual_seed(0)
    return LocalAttention(BACKBONE, **options)


def maps(rows=6):
    return torch.rand(rows, 32, 7, 7, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("attention", [2, 3])
def test_attention_maps(attention):
    attended = neck(attention=attention).eval().attend(maps())
    assert attended.shape == (6, attention, 7, 7)
    assert ((attended > 0) & (attended < 1)).all()


def test_each_lanet_reads_its_own_channels():
    """What the grouped convolution computes, one LANet at a time."""
    module = neck(attention=3, reduction=8).eval()
    first, norm, _, last, end, _ = module.attention
    for m in range(3):
        mine = slice(4 * m, 4 * (m + 1))
        hidden = torch.nn.functional.conv2d(maps(), first.weight[mine])
        hidden = (hidden / (1 + norm.eps) ** 0.5).relu()  # norms are as they began
        out = torch.nn.functional.conv2d(hidden, last.weight[m : m + 1])
        expected = (out / (1 + end.eps) ** 0.5).sigmoid()[:, 0]
        torch.testing.assert_close(module.attend(maps())[:, m], expected)


def test_without_training_nothing_is_dropped():
    module = neck(drop_rate=1.0, dropout=0.5).eval()
    assert torch.equal(module(maps()), module(maps()))
    attention = module.attention(maps()).amax(1, keepdim=True)
    torch.testing.assert_close(module(maps()), (maps() * attention).mean((2, 3)))


def test_exactly_one_map_of_a_face_is_dropped():
    module = neck(drop_rate=1.0)
    x = maps(200)
    whole = module.attention(x)
    attended = module.attend(x)
    gone = (attended == 0).all(-1).all(-1)
    assert (gone.sum(1) == 1).all()
    assert set(gone.int().argmax(1).tolist()) == {0, 1}
    other = torch.where(gone[:, 0, None, None], whole[:, 1], whole[:, 0])
    torch.testing.assert_close(attended.amax(1), other)


def test_as_many_faces_lose_a_map_as_asked_for():
    module = neck(drop_rate=0.6)
    lost = (module.attend(maps(2000)) == 0).all(-1).all(-1).any(1).float().mean().item()
    assert lost == pytest.approx(0.6, abs=0.05)
    assert not (neck(drop_rate=0.0).attend(maps()) == 0).any()


@pytest.mark.parametrize("drop", ["channel", "none"])
def test_other_ways_to_drop_leave_the_maps(drop):
    module = neck(drop=drop, drop_rate=1.0)
    assert not (module.attend(maps()) == 0).any()
    assert (module(maps()) == 0).all() == (drop == "channel")


def test_residual_enhances():
    plain, enhanced = neck().eval(), neck(residual=True).eval()
    torch.testing.assert_close(enhanced(maps()), plain(maps()) + Pool(BACKBONE)(maps()))


def test_features_of_unit_length_train_every_part():
    module = neck(unit=True)
    features = module(maps())
    assert features.shape == (6, module.width)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(6))
    features.square().mul(torch.rand(32)).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in module.parameters() if p.ndim > 1)


def test_the_only_map_cannot_be_dropped():
    with pytest.raises(InputError, match=r"attention is 1"):
        neck(attention=1)
    neck(attention=1, residual=True)
    neck(attention=1, drop="none")
