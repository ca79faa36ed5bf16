import pytest
import timm
import torch

from fer_lightning.models.wide_resnet import WideResNet


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
