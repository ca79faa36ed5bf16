"""Two processes on the CPU (gloo): each sees its own faces, and both end with the same state."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ddp_run import RESUMED
from every import METHODS

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """What the two ranks ended with, for every method: one launch, because importing takes longest."""
    folder = tmp_path_factory.mktemp("ddp")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    command = [sys.executable, str(HERE / "ddp_run.py"), str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]

    def load(name: str, suffix: str = "") -> list[dict]:
        files = [folder / name / f"rank{rank}{suffix}.pt" for rank in (0, 1)]
        return [torch.load(file, weights_only=True) for file in files]

    return load


@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_share_the_faces_and_end_equal(ended, name):
    first, second = ended(name)
    assert first["state"].keys() == second["state"].keys()
    for key, value in first["state"].items():
        assert torch.equal(value, second["state"][key]), key
        assert not value.is_floating_point() or value.isfinite().all(), key
    assert first["running"]
    for key, value in first["running"].items():
        assert torch.equal(value, second["running"][key]), key
    assert len(first["labeled"]) == 15
    for mine, theirs in zip(first["labeled"], second["labeled"], strict=True):
        assert len(mine) == len(theirs) == 7  # half of the global batch
        assert not set(mine) & set(theirs)
    for mine, theirs in zip(first["unlabeled"], second["unlabeled"], strict=True):
        assert not set(mine) & set(theirs)
    assert first["metrics"] == second["metrics"]
    assert 0 <= first["metrics"]["val/accuracy"] <= 1


@pytest.mark.parametrize("name", RESUMED)
def test_two_ranks_resume_in_mid_epoch_as_if_never_stopped(ended, name):
    for whole, resumed in zip(ended(name), ended(name, "-resumed"), strict=True):
        assert resumed["labeled"] == whole["labeled"][7:]
        for key, value in whole["state"].items():
            assert torch.equal(value, resumed["state"][key]), key
