"""A checkpoint is opened as data: it runs no code and imports none that is not of this package."""

import os
import sys

import pytest
import torch
from every import METHODS, build
from faces import TINY, tiny_data
from full_run import fix_match, full_fit

import fer_lightning
from fer_lightning.errors import CheckpointError, InputError
from fer_lightning.methods import FixMatch
from fer_lightning.outputs.checkpoint_files import read_checkpoint


class Own(FixMatch):
    """A user's own method."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    full_fit(run_dir, max_epochs=1)
    return run_dir / "checkpoints" / "last.ckpt"


def changed(checkpoint, path, **changes):
    torch.save(torch.load(checkpoint, weights_only=True) | changes, path)
    return path


def test_it_predicts_faces_of_any_size_at_the_size_of_the_training(checkpoint):
    method = fer_lightning.load(checkpoint)
    assert method.image_size == 16
    data = tiny_data()
    data.setup("test")
    faces = next(iter(data.test_dataloader())).image
    large = torch.nn.functional.interpolate(faces.float(), scale_factor=2, mode="nearest").to(torch.uint8)
    with torch.inference_mode():
        assert torch.equal(method(large).emotion, method(list(large)).emotion)
        torch.testing.assert_close(method(large).emotion, method(faces).emotion)
        with pytest.raises(InputError, match="uint8 RGB"):
            method(faces.float())


@pytest.mark.parametrize("name", METHODS)
def test_no_method_takes_floats(name):
    with pytest.raises(InputError, match=r"uint8 RGB in 0 \.\.\. 255.*float32"):
        build(name).eval()(torch.rand(2, 3, 16, 16) * 255)


class Bomb:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mknod, (str(self.file),)


def test_a_pickle_is_not_run(checkpoint, tmp_path):
    path = changed(checkpoint, tmp_path / "a.ckpt", extra=Bomb(tmp_path / "ran"))
    for attempt in (fer_lightning.load, lambda file: full_fit(tmp_path / "run", file)):
        with pytest.raises(CheckpointError, match="carries code, which is never run"):
            attempt(path)
    assert not (tmp_path / "ran").exists()


def test_a_module_of_the_working_directory_is_not_imported(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text("import os\nos.mknod('ran')\nclass Method: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match=r"theirs\.Method, which is no method of this package"):
        fer_lightning.load(changed(checkpoint, tmp_path / "a.ckpt", method="theirs.Method"))
    assert not (tmp_path / "ran").exists()
    assert "theirs" not in sys.modules


def test_a_method_of_one_s_own_is_given(checkpoint, tmp_path):
    path = changed(checkpoint, tmp_path / "a.ckpt", method=f"{Own.__module__}.Own")
    assert type(fer_lightning.load(path, method=Own)) is Own
    for refused, said in (({}, "no method of this package"), ({"method": FixMatch}, "not by fer_lightning")):
        with pytest.raises(CheckpointError, match=said):
            fer_lightning.load(path, **refused)


@pytest.mark.parametrize(
    "name", ["fer_lightning.data.views.WeakView", "fer_lightning.methods.Gone", "fer_lightning", ""]
)
def test_what_is_no_method_is_not_taken_for_one(checkpoint, tmp_path, name):
    with pytest.raises(CheckpointError):
        fer_lightning.load(changed(checkpoint, tmp_path / "a.ckpt", method=name))


@pytest.mark.parametrize(
    "hyper_parameters",
    [
        {"_instantiator": "lightning.pytorch.cli.instantiate_module"},
        {"_class_path": "theirs.Method"},
        {"backbone_arguments": {"checkpoint_path": "theirs.pth"}},
    ],
)
def test_hyper_parameters_that_open_something_are_refused(checkpoint, tmp_path, hyper_parameters):
    given = read_checkpoint(checkpoint)["hyper_parameters"] | hyper_parameters
    path = changed(checkpoint, tmp_path / "a.ckpt", hyper_parameters=given)
    (key,) = hyper_parameters.get("backbone_arguments", hyper_parameters)
    for attempt in (fer_lightning.load, lambda file: full_fit(tmp_path / "run", file)):
        with pytest.raises(CheckpointError, match=f"has the hyper-parameter {key}"):
            attempt(path)


def write(path, content):
    if content is None:
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 bytes.*cannot be read"),
        (b"some text", "cannot be read"),
        (b"PK\x03\x04", "cannot be read"),
        ({"weights": 1}, "no checkpoint of this package"),
        (torch.zeros(3), "no checkpoint of this package"),
        (None, "is a folder"),
    ],
    ids=["empty", "text", "cut off", "dict", "tensor", "folder"],
)
def test_what_is_no_checkpoint_is_told(tmp_path, content, said):
    write(tmp_path / "a.ckpt", content)
    with pytest.raises(CheckpointError, match=said) as refused:
        fer_lightning.load(tmp_path / "a.ckpt")
    assert refused.value.option == "ckpt_path"
    assert "\n" not in str(refused.value)


def test_a_weight_file_is_for_another_option(tmp_path):
    torch.save(fix_match().state_dict(), tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="bare weights are for a method's parameter weights"):
        fer_lightning.load(tmp_path / "a.ckpt")
    assert FixMatch(**TINY).image_size is None
