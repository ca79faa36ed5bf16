"""The program is stopped from outside, killed and started again, by hand, by SLURM and by torchrun."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_run import small_options, small_run

from fer_lightning.cli import main
from fer_lightning.outputs.csv_files import read_csv

TESTS = Path(__file__).parents[1]
BUDGET = "--data.labels_per_class=3"


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def state(run_dir):
    content = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return {name: content[name] for name in ("state_dict", "global_step", "batches_taken")}


def assert_same_run(run_dir, whole):
    ours, theirs = state(run_dir), state(whole)
    for name, tensor in theirs.pop("state_dict").items():
        assert torch.equal(ours["state_dict"][name], tensor), name
    assert {name: ours[name] for name in theirs} == theirs
    for table in ("metrics.csv", "pseudo_labels.csv"):
        assert read_csv(run_dir / table) == read_csv(whole / table), table
    assert json.loads((run_dir / "run.json").read_text())["finished"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happens to."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    small_run(run_dir, BUDGET)
    return run_dir


def test_a_job_of_slurm_is_put_back_into_the_queue_and_goes_on(tmp_path, whole):
    """The same command twice: SLURM tells that time is up (SIGUSR1), and starts the job again."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho $@ > {tmp_path / 'asked.txt'}\n")
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    job = {f"SLURM_{name}": "0" for name in ("PROCID", "LOCALID", "NODEID", "RESTART_COUNT")}
    job |= {"SLURM_JOB_ID": "71", "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NAME": "fer"}
    job |= {"PATH": f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}"}
    options = [word for word in small_options(tmp_path, BUDGET) if "default_root_dir" not in word]
    stop = [
        "--trainer.callbacks=stop.Press",
        "--trainer.callbacks.batch=5",
        "--trainer.callbacks.signal=SIGUSR1",
    ]
    command = [sys.executable, "-m", "fer_lightning", "fit", *options, *stop]
    quiet = {"capture_output": True, "text": True, "cwd": tmp_path}
    done = subprocess.run(command, env=environment(**job), **quiet)
    run_dir = tmp_path / "runs" / "FixMatch-71"
    assert done.returncode == 130, done.stderr[-2000:]
    assert "Job 71 is back in the queue" in done.stderr
    assert (tmp_path / "asked.txt").read_text() == "requeue 71\n"
    assert (json.loads((run_dir / "run.json").read_text())["steps"], state(run_dir)["global_step"]) == (5, 5)

    again = environment(**job | {"SLURM_RESTART_COUNT": "1"})
    done = subprocess.run(command, env=again, **quiet)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same_run(run_dir, whole)


def test_a_run_killed_in_mid_epoch_goes_on_from_its_last_checkpoint(tmp_path, whole):
    run_dir = tmp_path / "run"
    kill = [
        "--trainer.callbacks=stop.Press",
        "--trainer.callbacks.batch=7",
        "--trainer.callbacks.signal=SIGKILL",
    ]
    options = small_options(run_dir, BUDGET, "--checkpoint_every_n_steps=3", "--data.workers=1")
    done = subprocess.run([sys.executable, "-m", "fer_lightning", "fit", *options, *kill], env=environment())
    assert done.returncode == -signal.SIGKILL
    assert state(run_dir)["global_step"] == 6
    assert main(["fit", *options, "--resume=auto"]) == 0  # at once: the lock ended with the process
    assert_same_run(run_dir, whole)


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(tmp_path, whole, monkeypatch):
    run_dir = tmp_path / "run"
    options = small_options(run_dir, BUDGET)
    with monkeypatch.context() as full:
        full.setattr("fer_lightning.outputs.checkpoint_files.torch.save", _disk_full)
        assert main(["fit", *options]) == 2
    assert not list((run_dir / "checkpoints").glob("*.ckpt"))
    assert main(["fit", *options]) == 0
    assert_same_run(run_dir, whole)


def _disk_full(*arguments):
    raise OSError(28, "No space left on device")


def test_a_training_that_diverges_keeps_its_last_good_checkpoint(tmp_path, capsys):
    run_dir = tmp_path / "run"
    options = small_options(run_dir, BUDGET, "--trainer.callbacks=stop.Spoil", "--checkpoint_every_n_steps=1")
    assert main(["fit", *options, "--trainer.callbacks.step=4"]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert "error: the loss is not finite at step 4 (supervised nan" in message
    assert "(--model.lr)" in message
    saved = state(run_dir)
    assert saved["global_step"] == 4
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


def agents(run_dir: Path, *options: str) -> list[subprocess.Popen]:
    """Two agents of torchrun on this machine, as on two, with a process each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [word for word in small_options(run_dir, BUDGET, *options) if "devices" not in word]
    started = []
    for rank in ("0", "1"):
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={rank}"]
        command += ["--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={port}"]
        command += ["-m", "fer_lightning", "fit", *words, "--trainer.devices=1", "--trainer.num_nodes=2"]
        log = (run_dir.parent / f"{run_dir.name}-agent{rank}.txt").open("a")
        started.append(
            subprocess.Popen(command, env=environment(), stdout=log, stderr=log, start_new_session=True)
        )
    return started


def log(run_dir: Path, rank: int) -> str:
    return (run_dir.parent / f"{run_dir.name}-agent{rank}.txt").read_text()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_agents_of_torchrun_are_one_run_and_go_on_after_a_kill(tmp_path):
    whole, run_dir = tmp_path / "whole", tmp_path / "run"
    assert [agent.wait() for agent in agents(whole)] == [0, 0], log(whole, 0)[-3000:]
    slow = ["--trainer.callbacks=stop.Slow", "--checkpoint_every_n_steps=3"]
    first, second = agents(run_dir, *slow)
    last = run_dir / "checkpoints" / "last.ckpt"
    while not last.exists():
        assert first.poll() is None, log(run_dir, 0)[-3000:]
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(second.pid)], capture_output=True, text=True).stdout.split()
    for pid in (*map(int, children), second.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert [first.wait() != 0, second.wait() != 0] == [True, True]
    assert f"rank 0 stops: rank 1 (process {children[0]} on" in log(run_dir, 0)
    assert state(run_dir)["global_step"] < 16
    assert [agent.wait() for agent in agents(run_dir, *slow, "--resume=auto")] == [0, 0], log(run_dir, 0)[
        -3000:
    ]
    assert_same_run(run_dir, whole)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"whole", "run"}


@pytest.mark.slow
def test_torchrun_does_not_write_over_a_run_and_leaves_one_directory(tmp_path, whole):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    command = [*torchrun, "1", "-m", "fer_lightning", "fit", *small_options(whole, BUDGET)]
    before = (whole / "checkpoints" / "last.ckpt").read_bytes()
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert "already holds a run" in done.stderr
    assert (whole / "checkpoints" / "last.ckpt").read_bytes() == before

    options = [word for word in small_options(tmp_path, BUDGET) if "default_root_dir" not in word]
    command = [*torchrun, "2", "-m", "fer_lightning", "fit", *options, "--trainer.devices=2"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "runs").iterdir())) == 1
