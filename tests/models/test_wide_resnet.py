import pytest
import timm
import torch
import torch.nn.functional as F

from fer_lightning.models.wide_resnet import PreActivationBlock, WideResNet


def test_wrn_28_2_has_the_published_number_of_parameters():
    # 1,467,610 with the classifier of 10 classes that the literature counts: 128 * 10 + 10 of them.
    trunk = sum(p.numel() for p in timm.create_model("wrn_28_2").parameters())
    assert trunk + 128 * 10 + 10 == 1_467_610


@pytest.mark.parametrize(
    ("name", "blocks", "width"), [("wrn_28_2", 12, 2), ("wrn_16_2", 6, 2), ("wrn_10_1", 3, 1)]
)
def test_shapes(name, blocks, width):
    network = timm.create_model(name, in_chans=1).eval()
    assert len(network.blocks) == blocks
    maps = network.forward_features(torch.randn(2, 1, 32, 32))
    assert maps.shape == (2, 64 * width, 8, 8)
    assert network.num_features == 64 * width
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, 64 * width)


def test_depth_and_width_can_be_overridden():
    network = timm.create_model("wrn_10_1", depth=16, width=1.5)
    assert (len(network.blocks), network.num_features) == (6, 96)


@pytest.mark.parametrize("depth", [4, 9, 12, 27])
def test_impossible_depth(depth):
    with pytest.raises(ValueError, match=rf"depth 6 n \+ 4 .* not {depth}"):
        WideResNet(depth, 2)


def test_a_block_that_changes_nothing_passes_its_input_on():
    network = WideResNet(16, 1)
    block = network.blocks[1]  # second of its stage
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(("inside", "outside", "stride"), [(4, 8, 2), (4, 8, 1), (8, 8, 2)])
def test_a_block_that_changes_something_is_the_published_one(inside, outside, stride):
    block = PreActivationBlock(inside, outside, stride)
    x = torch.randn(2, inside, 9, 9)
    ready = F.leaky_relu(F.batch_norm(x, None, None, training=True), 0.1)
    inner = F.conv2d(ready, block.conv1.weight, stride=stride, padding=1)
    inner = F.leaky_relu(F.batch_norm(inner, None, None, training=True), 0.1)
    skip = F.conv2d(ready, block.shortcut.weight, stride=stride)
    torch.testing.assert_close(block(x), skip + F.conv2d(inner, block.conv2.weight, padding=1))


def test_no_strided_1x1_convolution():
    # On a CPU its backward pass writes out of bounds (uxlfoundation/oneDNN#6035) and may end the process.
    convolutions = [m for m in WideResNet(28, 0.25).modules() if isinstance(m, torch.nn.Conv2d)]
    assert not [c for c in convolutions if c.kernel_size == (1, 1) and c.stride != (1, 1)]
