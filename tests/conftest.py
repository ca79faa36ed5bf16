"""No test may reach the network or a display, or print bars."""

import os
import sys

os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}

import pytest
import torch


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    """What a test writes lands in a folder of its own, and no words of pytest reach a program."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fer-lightning"])


@pytest.fixture(autouse=True)
def _no_run_of_wandb_outlives_its_test():
    """W&B would let the next logger of the process write into it."""
    yield
    if (wandb := sys.modules.get("wandb")) and wandb.run:
        wandb.finish()


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """The suite runs on several processes; more threads than cores would only slow each other down."""
    torch.set_num_threads(1)
