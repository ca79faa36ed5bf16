"""Where a run writes and what it goes on from, by the options and by what started the process."""

import os
import re
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
import yaml

from fer_lightning.cli.run_directory import choose_place, first_process, forget_run_dir, lock
from fer_lightning.errors import InputError


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("FER_LIGHTNING_RUN_DIR", "RANK", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def run(tmp_path):
    """A run directory; give the names of its checkpoints."""

    def make(name, *checkpoints, root=None):
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "run.json").write_text("{}")
        content = {"trainer": {"default_root_dir": str(folder) if root is None else root}}
        (folder / "config.yaml").write_text(yaml.safe_dump(content))
        for each in checkpoints:
            (folder / "checkpoints" / each).touch()
        return folder

    return make


def place(verb="fit", **options):
    return choose_place(verb, "m.FixMatch", **options)


def test_a_new_run_has_a_name_of_its_own(tmp_path):
    assert place(requested=str(tmp_path)) == (tmp_path, None)
    assert re.fullmatch(r"runs/FixMatch-\d{8}-\d{6}", str(place().run_dir))


def test_a_job_has_the_same_directory_whenever_it_is_started(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    assert str(place().run_dir) == "runs/FixMatch-71"


def test_a_task_of_a_job_array_has_one_of_its_own(monkeypatch):
    for name, value in (("JOB_ID", "73"), ("ARRAY_JOB_ID", "71"), ("ARRAY_TASK_ID", "2")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert str(place().run_dir) == "runs/FixMatch-71_2"


def test_it_goes_on_where_the_checkpoint_lies(run):
    folder = run("a", "last.ckpt")
    last = folder / "checkpoints" / "last.ckpt"
    assert place(checkpoint=str(last)) == (folder, last)
    assert place("test", checkpoint=str(last)) == (folder, last)
    assert place("test", checkpoint=str(last), requested="b") == (Path("b"), last)


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ({"resume": "auto"}, {}),
        ({}, {"SLURM_RESTART_COUNT": "1"}),
        ({}, {"TORCHELASTIC_RESTART_COUNT": "2"}),
    ],
)
def test_it_goes_on_by_itself(run, monkeypatch, options, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    folder = run("a", "last.ckpt")
    assert place(requested=str(folder), **options).checkpoint == folder / "checkpoints" / "last.ckpt"
    assert place(requested=str(run("b")), **options).checkpoint is None  # stopped before its first
    assert place(requested=str(folder.parent / "c"), **options).checkpoint is None  # the first start


def test_a_first_start_by_slurm_or_torchrun_does_not(run, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    with pytest.raises(InputError, match="already holds a run"):
        place(requested=str(run("a", "last.ckpt")))


@pytest.mark.parametrize("kept", ["last.ckpt", "best.ckpt"])
@pytest.mark.parametrize("environment", [{}, {"LOCAL_RANK": "0", "RANK": "0"}], ids=["alone", "torchrun"])
def test_a_run_is_never_written_over(run, monkeypatch, kept, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    here, other = run("here", kept), run("other", "last.ckpt")
    for options in ({}, {"checkpoint": str(other / "checkpoints/last.ckpt")}):
        with pytest.raises(InputError, match="already holds a run") as refused:
            place(requested=str(here), **options)
        assert refused.value.option == "trainer.default_root_dir"


def test_going_on_from_the_best_epoch_does_not_replace_the_later_ones(run):
    best = run("a", "best.ckpt", "last.ckpt") / "checkpoints" / "best.ckpt"
    with pytest.raises(InputError, match=r"Go on from .*last\.ckpt, or choose another directory"):
        place(checkpoint=str(best))
    assert place(checkpoint=str(best), requested=str(best.parents[2] / "b")).checkpoint == best


def test_the_best_alone_may_be_gone_on_from(run):
    best = run("a", "best.ckpt") / "checkpoints" / "best.ckpt"
    assert place(checkpoint=str(best)).checkpoint == best


@pytest.mark.parametrize("verb", ["test", "validate", "predict"])
def test_the_configuration_of_a_run_brings_its_best_checkpoint(run, verb):
    both, last = run("a", "best.ckpt", "last.ckpt"), run("b", "last.ckpt")
    for folder, name in ((both, "best.ckpt"), (last, "last.ckpt")):
        found = place(verb, configs=[folder / "config.yaml"], requested=str(folder))
        assert found == (folder, folder / "checkpoints" / name)
    for word in ("best", "last"):
        found = place(verb, configs=[both / "config.yaml"], requested=str(both), checkpoint=word)
        assert found.checkpoint == both / "checkpoints" / f"{word}.ckpt"


def test_a_run_that_was_moved_is_found_by_its_configuration(run):
    folder = run("moved", "best.ckpt", root="/where/it/was")
    config = folder / "config.yaml"
    assert place("test", configs=[config], requested="/where/it/was").run_dir == folder
    found = place("test", configs=[config], requested="b", checkpoint=str(folder / "checkpoints/best.ckpt"))
    assert found.run_dir == Path("b")


@pytest.mark.parametrize("verb", ["test", "validate", "predict"])
def test_a_random_network_is_not_evaluated(run, verb):
    for options in ({}, {"requested": "new"}, {"requested": str(run(f"empty-{verb}"))}):
        with pytest.raises(InputError, match=f"nothing to {verb}") as refused:
            place(verb, **options)
        assert refused.value.option == "ckpt_path"


@pytest.mark.parametrize(
    "address", ["http://localhost/a.ckpt", "s3://a/b", "registry:model", "hpc", "none.ckpt"]
)
def test_a_checkpoint_is_a_local_file(address):
    for verb in ("fit", "test"):
        with pytest.raises(InputError, match="does not exist here") as refused:
            place(verb, checkpoint=address)
        assert refused.value.option == "ckpt_path"


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),  # torchrun, the first process of the second machine
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False),  # started by Lightning within a job of one task
    ],
)
def test_the_first_process(monkeypatch, environment, first):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert first_process() is first


def test_two_processes_do_not_train_in_one_directory(tmp_path):
    code = "import sys; from pathlib import Path; from fer_lightning.cli.run_directory import lock\n"
    code += "held = lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {other.pid} on .* is training in"):
            lock(tmp_path)
        other.kill()
    lock(tmp_path).close()


def test_two_runs_of_one_process_have_a_directory_each(monkeypatch):
    seconds = count()
    monkeypatch.setattr("time.strftime", lambda form: str(next(seconds)))
    first = place().run_dir
    assert place().run_dir == first  # as its other ranks would have it
    forget_run_dir()
    assert place().run_dir != first
