import pytest
import timm
import torch
from torch import nn

from fer_lightning.errors import InputError
from fer_lightning.models.network import FaceNetwork, make_backbone
from fer_lightning.models.weights import WeightsError
from fer_lightning.task import Task

CLASSES, BOTH = Task.of("classes", "basic7"), Task.of("both", "basic7")
SMALL = {"layers": (1, 1, 1, 1), "channels": (16, 16, 32, 32)}
# One of each layout: maps; tokens after one, two and five of their own; channels last.
BACKBONES = {
    "wrn_10_1": {"width": 0.25},
    "resnet18": SMALL,
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2},
    "deit_tiny_distilled_patch16_224": {
        "img_size": 32,
        "patch_size": 8,
        "depth": 1,
        "embed_dim": 24,
        "num_heads": 2,
    },
    "vit_small_patch14_reg4_dinov2": {
        "img_size": 32,
        "patch_size": 8,
        "depth": 1,
        "embed_dim": 24,
        "num_heads": 2,
    },
    "swin_tiny_patch4_window7_224": {
        "img_size": 32,
        "depths": (1, 1),
        "embed_dim": 12,
        "num_heads": (1, 2),
        "window_size": 4,
    },
}


def faces(batch=2, size=32):
    return torch.randint(
        0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


class Bare(nn.Module):
    """A backbone that shows what it was given."""

    def __init__(self, channels):
        super().__init__()
        self.num_features = channels

    def forward_features(self, x):
        return x


@pytest.mark.parametrize("name", BACKBONES)
def test_every_layout_gives_maps_features_and_logits(name):
    backbone = make_backbone(name, arguments=BACKBONES[name])
    network = FaceNetwork(backbone, BOTH).eval()
    output = network(faces())
    k = backbone.num_features
    assert output.maps.shape[:2] == (2, k)
    assert output.maps.shape[2] == output.maps.shape[3]
    assert output.features.shape == (2, k)
    assert output.logits.shape == (2, 7)
    assert output.valence_arousal.shape == (2, 2)
    torch.testing.assert_close(output.features, output.maps.mean((2, 3)))


@pytest.mark.parametrize("name", [name for name in BACKBONES if not name.startswith("wrn")])
def test_maps_lie_where_timm_says_they_lie(name):
    backbone = make_backbone(name, arguments=BACKBONES[name]).eval()
    x = torch.randn(2, 3, 32, 32)
    last = len(backbone.feature_info) - 1
    (theirs,) = backbone.forward_intermediates(
        x, [last], norm=True, output_fmt="NCHW", intermediates_only=True
    )
    ours = FaceNetwork(backbone, CLASSES, mean=(0, 0, 0), std=(1, 1, 1)).feature_maps(x)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_parameter_learns(name):
    # Otherwise training on several devices would wait for gradients that never come.
    network = FaceNetwork(make_backbone(name, arguments=BACKBONES[name]), BOTH)
    output = network(faces())
    (output.logits.sum() + output.valence_arousal.sum()).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("stem", "side"), [("standard", 2), ("small", 6)])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_small_stem_keeps_the_size_of_the_maps(stem, side, in_channels):
    backbone = make_backbone("resnet18", in_channels, stem, arguments=SMALL)
    output = FaceNetwork(backbone, CLASSES, in_channels=in_channels).eval()(faces(size=48))
    assert output.maps.shape == (2, 32, side, side)
    assert backbone.conv1.in_channels == in_channels


def test_small_stem_keeps_the_center_of_pretrained_kernels(monkeypatch):
    create, built = timm.create_model, []

    def pretrained_model(name, pretrained, **options):  # there is no hub to fetch from
        assert pretrained
        built.append(create(name, **options))
        built.append(built[0].conv1.weight.clone())
        return built[0]

    monkeypatch.setattr(timm, "create_model", pretrained_model)
    backbone = make_backbone("resnet18", stem="small", pretrained=True, arguments=SMALL)
    assert torch.equal(backbone.conv1.weight, built[1][:, :, 2:5, 2:5])


@pytest.mark.parametrize("name", ["wrn_10_1", "vit_tiny_patch16_224"])
def test_a_backbone_without_resnet_stem_has_no_small_one(name):
    with pytest.raises(InputError, match=f"{name}.*leave stem at standard") as error:
        make_backbone(name, stem="small", arguments=BACKBONES[name])
    assert error.value.option == "model.stem"


def test_uint8_and_float_images_agree():
    network = FaceNetwork(make_backbone("wrn_10_1", arguments={"width": 0.25}), CLASSES).eval()
    torch.testing.assert_close(network(faces()).logits, network(faces().float() / 255).logits)


def test_normalization_is_per_channel_and_travels_with_the_weights():
    source = FaceNetwork(Bare(3), CLASSES, mean=(0.2, 0.4, 0.6), std=(0.5, 0.25, 0.1))
    network = FaceNetwork(Bare(3), CLASSES)
    network.load_state_dict(source.state_dict())
    image = torch.tensor([51, 102, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)  # .2, .4, 1
    maps = network(image).maps
    torch.testing.assert_close(maps[0, :, 0, 0], torch.tensor([0.0, 0.0, 4.0]))


@pytest.mark.parametrize(
    ("color", "luminance"), [((255, 0, 0), 0.299), ((0, 255, 0), 0.587), ((0, 0, 255), 0.114)]
)
def test_one_channel_is_the_luminance(color, luminance):
    network = FaceNetwork(Bare(1), CLASSES, in_channels=1, mean=(0, 0, 0), std=(1, 1, 1))
    image = torch.tensor(color, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    maps = network(image).maps
    torch.testing.assert_close(maps, torch.full((1, 1, 4, 4), luminance))


def test_one_channel_of_gray_is_gray():
    gray = faces()[:, :1].expand(-1, 3, -1, -1)
    maps = FaceNetwork(Bare(1), CLASSES, in_channels=1)(gray).maps
    torch.testing.assert_close(maps, (gray[:, :1] / 255 - 0.5) / 0.25)


def test_the_head_decides_in_float32_under_bfloat16():
    network = FaceNetwork(make_backbone("wrn_10_1", arguments={"width": 0.25}), BOTH).eval()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(faces())
    assert output.maps.dtype == torch.bfloat16  # autocast was at work
    assert output.logits.dtype == output.features.dtype == output.valence_arousal.dtype == torch.float32
    logits, valence_arousal = BOTH.split(network.head(output.features))
    assert torch.equal(output.logits, logits)
    assert torch.equal(output.valence_arousal, valence_arousal)


class Corners(nn.Module):
    """A neck that reads the four corners alone."""

    def __init__(self, channels):
        super().__init__()
        self.width = 4 * channels

    def forward(self, maps):
        return maps[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].flatten(1)


def test_a_neck_of_another_width_replaces_the_pooling():
    backbone = make_backbone("wrn_10_1", arguments={"width": 0.25})
    network = FaceNetwork(backbone, BOTH, neck=Corners(backbone.num_features)).eval()
    output = network(faces())
    assert output.features.shape == (2, 4 * backbone.num_features)
    assert network.head.weight.shape == (9, 4 * backbone.num_features)
    assert torch.equal(output.features.view(2, -1, 4)[:, :, 3], output.maps[:, :, -1, -1])


@pytest.mark.parametrize("unit", [False, True])
def test_unit_features_have_length_one(unit):
    backbone = make_backbone("wrn_10_1", arguments={"width": 0.25})
    output = FaceNetwork(backbone, BOTH, unit_features=unit).eval()(faces())
    lengths = output.features.norm(dim=-1)
    assert torch.allclose(lengths, torch.ones(2)) == unit


@pytest.mark.parametrize("width", [0, 5])
def test_projection_has_its_width_or_is_none(width):
    network = FaceNetwork(Bare(3), BOTH, projection=width).eval()
    with torch.autocast("cpu", torch.bfloat16):
        projection = network(faces()).projection
    if width:
        assert projection.shape == (2, 5)
        assert projection.dtype == torch.float32
        torch.testing.assert_close(projection.norm(dim=-1), torch.ones(2))
    else:
        assert projection is None


def test_a_head_of_its_own_replaces_the_linear_layer():
    head = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 9))
    network = FaceNetwork(Bare(3), BOTH, head=head).eval()
    output = network(faces())
    torch.testing.assert_close(output.logits, head(output.features)[:, :7])


def test_dropout_acts_on_the_features_in_training_alone():
    network = FaceNetwork(Bare(3), CLASSES, dropout=0.5, mean=(-1, -1, -1), std=(1, 1, 1))
    image = torch.zeros(200, 3, 4, 4, dtype=torch.uint8)
    assert set(network.eval()(image).features.flatten().tolist()) == {1.0}
    assert set(network.train()(image).features.flatten().tolist()) == {0.0, 2.0}


def test_weights_of_a_file_are_loaded_after_the_stem_is_made(tmp_path):
    source = make_backbone("resnet18", stem="small", arguments=SMALL)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    loaded = make_backbone("resnet18", stem="small", weights=str(tmp_path / "w.pt"), arguments=SMALL)
    assert torch.equal(loaded.conv1.weight, source.conv1.weight)


@pytest.mark.parametrize(("name", "near"), [("resnet81", "resnet18"), ("wrn_28_3", "wrn_28_2")])
def test_an_unknown_backbone_offers_near_names(name, near):
    with pytest.raises(InputError, match=f"no backbone '{name}'.*{near}"):
        make_backbone(name)


def test_arguments_the_backbone_refuses():
    with pytest.raises(InputError, match=r"'wrn_10_1' with {'depth': 12}: .* depth 6 n \+ 4"):
        make_backbone("wrn_10_1", arguments={"depth": 12})


def test_pretrained_weights_that_cannot_be_fetched():
    with pytest.raises(
        WeightsError, match=r"'resnet18' could not be fetched .*file as weights.*pretrained false"
    ) as error:
        make_backbone("resnet18", pretrained=True)  # the tests are offline
    assert error.value.option == "model.pretrained"


def test_two_sources_of_weights_exclude_each_other():
    with pytest.raises(InputError, match="exclude each other"):
        make_backbone("resnet18", pretrained=True, weights="w.pt")
