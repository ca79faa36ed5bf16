import logging

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from fer_lightning.models import wide_resnet  # noqa: F401  (registers its backbones with timm)
from fer_lightning.models.weights import WeightsError, load_weights


def backbone(width=0.25, in_chans=3):
    return timm.create_model("wrn_10_1", width=width, in_chans=in_chans)


@pytest.fixture
def source():
    torch.manual_seed(1)
    network = backbone()
    for buffer in network.buffers():  # so that a buffer that is not copied shows
        buffer.add_(3)
    return network


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


def assert_equal(network, state):
    ours = network.state_dict()
    assert ours.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: prefixed(s, "module."),
        lambda s: prefixed(s, "backbone."),
        lambda s: prefixed(s, "module.model.backbone."),
        lambda s: prefixed(s, "_orig_mod.encoder."),
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": prefixed(s, "module."), "optimizer": {"lr": 0.1}},
    ],
    ids=["plain", "module", "backbone", "stacked", "compiled", "container", "container_prefix"],
)
@pytest.mark.parametrize("suffix", [".pth", ".ckpt"])
def test_what_is_understood(tmp_path, source, wrap, suffix):
    path = tmp_path / f"weights{suffix}"
    torch.save(wrap(source.state_dict()), path)
    network = backbone()
    report = load_weights(network, path)
    assert_equal(network, source.state_dict())
    assert "45 of 45 tensors loaded" in report
    assert ";" not in report  # nothing misshapen, lacking or left over
    assert ("1 left over (head.bias)" in report) == (
        "head.bias" in str(wrap(source.state_dict()).get("state_dict"))
    )


def test_safetensors(tmp_path, source):
    save_file(prefixed(source.state_dict(), "module."), tmp_path / "w.safetensors")
    network = backbone()
    load_weights(network, tmp_path / "w.safetensors")
    assert_equal(network, source.state_dict())


def test_the_teacher_wins_over_the_student_in_a_file_of_both(tmp_path, source):
    student = prefixed(backbone().state_dict(), "student.backbone.")
    torch.save(
        {"state_dict": student | prefixed(source.state_dict(), "teacher.module.backbone.")},
        tmp_path / "w.ckpt",
    )
    network = backbone()
    load_weights(network, tmp_path / "w.ckpt")
    assert_equal(network, source.state_dict())


def test_what_is_left_over_is_named(tmp_path, source):
    torch.save(
        source.state_dict() | {"fc.weight": torch.zeros(7, 16), "fc.bias": torch.zeros(7)}, tmp_path / "w.pt"
    )
    assert "; 2 left over (fc.bias, fc.weight)" in load_weights(backbone(), tmp_path / "w.pt")


def test_half_precision_files_are_cast(tmp_path, source):
    torch.save(
        {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()},
        tmp_path / "w.pt",
    )
    network = backbone()
    load_weights(network, tmp_path / "w.pt")
    assert network.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(network.conv1.weight, source.conv1.weight, atol=1e-3, rtol=1e-3)


def test_another_shape_and_missing_names_are_reported_and_left_alone(tmp_path, source, caplog):
    state = source.state_dict()
    del state["norm.weight"]
    torch.save(state, tmp_path / "w.pt")
    network = backbone(in_chans=1)
    before = network.conv1.weight.clone()
    with caplog.at_level(logging.INFO, logger="fer_lightning"):
        report = load_weights(network, tmp_path / "w.pt")
    assert "43 of 45 tensors loaded" in report
    assert "1 of another shape (conv1.weight)" in report
    assert "1 not in the file (norm.weight)" in report
    assert report in caplog.messages
    assert torch.equal(network.conv1.weight, before)
    assert torch.equal(network.norm.weight, torch.ones(16))
    assert torch.equal(network.norm.bias, source.norm.bias)


@pytest.mark.parametrize(("kept", "enough"), [(18, False), (19, True)])
def test_less_than_half_of_the_network_is_refused_unless_partial(tmp_path, source, kept, enough):
    state = source.state_dict()
    counters = {k: v for k, v in state.items() if v.ndim == 0}
    weights = {k: v for k, v in state.items() if v.ndim}
    assert len(weights) == 38
    some = dict(list(weights.items())[:kept]) | counters
    torch.save(some, tmp_path / "w.pt")
    network = backbone()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    if not enough:
        with pytest.raises(WeightsError, match=rf"{kept + 7} of 45 tensors loaded.*less than half") as error:
            load_weights(network, tmp_path / "w.pt")
        assert error.value.option == "model.weights"
        assert_equal(network, before)
    report = load_weights(network, tmp_path / "w.pt", partial=not enough)
    assert f"{kept + 7} of 45 tensors loaded" in report
    assert_equal(network, before | some)


def test_nothing_matches(tmp_path):
    torch.save({"stem.kernel": torch.zeros(3, 3), "num_batches_tracked": torch.tensor(1)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="none of its 2 tensors fits") as error:
        load_weights(backbone(), tmp_path / "w.pt")
    for part in ("w.pt", "stem.kernel", "blocks.0.conv1.weight", "this backbone"):
        assert part in str(error.value)
    assert error.value.option == "model.weights"


def test_counters_alone_are_no_match(tmp_path, source):
    state = {k: v for k, v in source.state_dict().items() if k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="none of its"):
        load_weights(backbone(), tmp_path / "w.pt")


class Mischief:
    def __reduce__(self):
        return open, ("ran", "w")


@pytest.mark.parametrize("content", [Mischief(), {"state_dict": Mischief()}, nn.Linear(2, 2)])
def test_code_is_refused_and_not_run(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"w\.pt cannot be read as weights"):
        load_weights(backbone(), tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()  # the working directory of a test is its temporary folder


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_garbage(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load_weights(backbone(), path)


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"epoch": 3}, torch.zeros(2), {}])
def test_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="not a state dict"):
        load_weights(backbone(), tmp_path / "w.pt")


def test_missing_file(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere\.pt does not exist; weights is") as error:
        load_weights(backbone(), tmp_path / "nowhere.pt")
    assert error.value.option == "model.weights"
