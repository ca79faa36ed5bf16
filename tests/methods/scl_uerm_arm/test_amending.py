import copy

import pytest
import torch
from torch import nn

from fer_lightning.errors import InputError
from fer_lightning.methods.scl_uerm_arm.amending import Amending
from fer_lightning.models.network import make_backbone


def slow(neck, maps, generic=None):
    """The module in evaluation, one plane, cluster and kernel position at a time."""
    r, kernel = neck.arrange.upscale_factor, neck.de_albino.weight[0, 0]
    batch, channels, h, w = maps.shape
    planes = torch.zeros(batch, channels // r**2, r * h, r * w)
    for c in range(channels):
        g, i, j = c // r**2, c % r**2 // r, c % r
        planes[:, g, i::r, j::r] = maps[:, c]
    stride = max(r // 2, 1)
    rows, columns = ((size - 2 * r) // stride + 1 for size in planes.shape[2:])
    out = torch.zeros(*planes.shape[:2], rows, columns)
    for y in range(rows):
        for x in range(columns):
            window = planes[..., y * stride : y * stride + 2 * r, x * stride : x * stride + 2 * r]
            out[..., y, x] = (window * kernel).sum((2, 3))
    norm = neck.norm
    out = (out - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
    out = out * norm.weight[:, None, None] + norm.bias[:, None, None]
    unique = out.mean(1)
    generic = unique.mean(0) if generic is None else generic
    return (unique if neck.alpha is None else unique + neck.alpha * generic).flatten(1)


def amending(channels=512, **options):
    torch.manual_seed(0)
    neck = Amending(channels, **options).eval()
    nn.init.uniform_(neck.norm.running_var, 0.5, 2)
    nn.init.normal_(neck.norm.running_mean)
    if neck.sharing in ("ema", "ema_train"):
        nn.init.normal_(neck.generic)
        neck.known.fill_(True)
    return neck


def test_dimensions_of_resnet_18():
    neck, fc = Amending(512), nn.Linear(Amending(512).width, 7)
    maps = torch.randn(3, 512, 7, 7)
    assert neck.arrange(maps).shape == (3, 2, 112, 112)
    assert neck.de_albino(neck.arrange(maps)[:, :1]).shape == (3, 1, 11, 11)
    assert neck(maps).shape == (3, 121)
    assert fc(neck(maps)).shape == (3, 7)
    assert sum(p.numel() for m in (neck, fc) for p in m.parameters()) == 1883


@pytest.mark.parametrize(
    ("channels", "r"), [(512, 16), (2048, 16), (768, 16), (128, 8), (64, 8), (96, 4), (16, 4), (6, 1)]
)
def test_clusters_are_as_large_as_the_channels_allow(channels, r):
    neck = Amending(channels)
    assert neck.arrange.upscale_factor == r
    assert neck.de_albino.kernel_size == (2 * r, 2 * r)
    assert neck.de_albino.stride == (max(r // 2, 1),) * 2
    assert neck.norm.num_features == channels // r**2


@pytest.mark.parametrize("sharing", ["ema", "ema_train", "batch", "off"])
@pytest.mark.parametrize(("channels", "r"), [(512, None), (64, 4)])
def test_equals_the_slow_reference(channels, r, sharing):
    neck = amending(channels, shuffle=r, sharing=sharing)
    maps = torch.randn(3, channels, 7, 7)
    generic = None if sharing == "batch" else getattr(neck, "generic", None)
    torch.testing.assert_close(neck(maps), slow(neck, maps, generic), rtol=1e-4, atol=1e-5)


def test_visits_of_the_clusters():
    """2.25 at a corner, 6 on an edge, 16 inside, averaged over the pixels of a cluster."""
    neck = Amending(256)
    image = torch.ones(1, 1, 112, 112, requires_grad=True)
    nn.functional.conv2d(
        image, torch.ones_like(neck.de_albino.weight), stride=neck.de_albino.stride
    ).sum().backward()
    visits = nn.functional.avg_pool2d(image.grad, 16)[0, 0]
    assert visits[0, 0] == visits[0, 6] == visits[6, 0] == visits[6, 6] == 2.25
    assert (visits[0, 2:5] == 6).all()
    assert (visits[2:5, 0] == 6).all()
    assert (visits[2:5, 2:5] == 16).all()


def test_one_kernel_for_all_planes():
    neck = amending(512, sharing="off")
    with torch.no_grad():
        neck.norm.running_mean[1] = neck.norm.running_mean[0]
        neck.norm.running_var[1] = neck.norm.running_var[0]
    maps = torch.randn(2, 512, 7, 7)
    torch.testing.assert_close(neck(maps), neck(maps.roll(256, 1)))  # the planes change places


@pytest.mark.parametrize(
    "shape", [(64, 12, 12), (64, 6, 6), (128, 12, 12), (16, 4, 4), (16, 3, 5), (20, 2, 2)]
)
@pytest.mark.parametrize("sharing", ["ema", "off"])
def test_any_size_gives_the_same_width(shape, sharing):
    neck = Amending(shape[0], sharing=sharing)
    features = neck(torch.randn(5, *shape))
    assert features.shape == (5, neck.width) == (5, 121)
    features.square().sum().backward()
    for name, parameter in neck.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_other_sizes_are_brought_to_eleven_as_adaptive_pooling_does():
    neck = amending(64)
    for planes in (torch.randn(3, 21, 5), torch.randn(3, 9, 9), torch.randn(3, 11, 11)):
        expected = nn.functional.adaptive_avg_pool2d(planes, 11)
        torch.testing.assert_close(neck._resized(planes), expected)


@pytest.mark.parametrize("backbone", ["wrn_28_2", "wrn_10_1", "resnet18"])
def test_backbones(backbone):
    model = make_backbone(backbone)
    maps = model.forward_features(torch.randn(2, 3, 48, 48))
    assert Amending(model.num_features)(maps).shape == (2, 121)


def test_a_face_alone_is_as_in_any_batch_but_in_the_mode_of_the_batch():
    maps = torch.randn(6, 16, 4, 4)
    for sharing in ("ema", "ema_train", "off"):
        neck = amending(16, sharing=sharing)
        alone = torch.cat([neck(each[None]) for each in maps])
        torch.testing.assert_close(neck(maps), alone, atol=1e-5, rtol=0)
    neck = amending(16, sharing="batch")
    alone = torch.cat([neck(each[None]) for each in maps])
    assert not torch.allclose(neck(maps), alone, atol=1e-2)


def test_running_average_begins_with_the_first_batch_and_follows():
    neck = Amending(16, sharing="ema")
    batches = torch.randn(3, 8, 16, 4, 4)
    copied = copy.deepcopy(neck)
    copied.sharing = "off"
    copied.alpha = None  # gives F_unique, flat
    means = [copied(batch).mean(0).view(11, 11) for batch in batches]
    expected = means[0]
    for batch, mean in zip(batches, means, strict=True):
        features = neck(batch)
        expected = 0.9 * expected + 0.1 * mean
        torch.testing.assert_close(neck.generic, expected)
        torch.testing.assert_close(features.mean(0).view(11, 11), 2 * mean)  # of the batch itself, alpha is 1
    before = neck.generic.clone()
    neck.eval()(batches[0])
    assert torch.equal(neck.generic, before)


def test_running_average_in_training_has_no_gradient_of_its_own():
    maps = torch.randn(8, 16, 4, 4, requires_grad=True)
    neck, off = Amending(16, sharing="ema_train"), Amending(16, sharing="off")
    off.load_state_dict(neck.state_dict(), strict=False)
    neck(torch.randn(8, 16, 4, 4))
    weight = torch.randn(8, 121)
    (neck(maps) * weight).sum().backward()
    assert neck.alpha.grad.abs() > 0
    through_generic, maps.grad = maps.grad, None
    (off(maps) * weight).sum().backward()
    torch.testing.assert_close(through_generic, maps.grad)


def test_two_passes_before_one_backward():
    """As a step that looks at weak and strong views apart."""
    for sharing in ("ema", "ema_train"):
        neck = Amending(16, sharing=sharing)
        first, second = neck(torch.randn(4, 16, 4, 4)), neck(torch.randn(4, 16, 4, 4))
        (first.square().sum() + second.square().sum()).backward()
        assert neck.alpha.grad.isfinite()


def test_averaged_over_two_ranks_it_is_that_of_the_global_batch():
    """The means of equal parts, averaged after each step over any number of passes within it."""
    ranks = [Amending(16).train() for _ in range(2)]
    whole = Amending(16).train()
    for neck in ranks:
        neck.load_state_dict(whole.state_dict())
    for neck in (*ranks, whole):  # batch statistics would differ: only the average is looked at
        neck.norm.eval()
    for _ in range(3):
        for _ in range(2):
            maps = torch.randn(8, 16, 4, 4)
            whole(maps)
            for neck, part in zip(ranks, maps.chunk(2), strict=True):
                neck(part)
        mean = (ranks[0].generic + ranks[1].generic) / 2
        for neck in ranks:
            neck.generic.copy_(mean)
        torch.testing.assert_close(mean, whole.generic)


def test_half_precision():
    neck = Amending(16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert neck(torch.randn(4, 16, 4, 4)).dtype == torch.float32
    assert neck.generic.dtype == torch.float32
    assert neck.generic.isfinite().all()


def test_bad_sizes_are_named():
    with pytest.raises(InputError, match=r"shuffle is 3"):
        Amending(16, shuffle=3)
    with pytest.raises(InputError, match="1 x 1, too small"):
        Amending(16)(torch.randn(2, 16, 1, 1))
