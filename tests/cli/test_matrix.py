import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from light_method import LightMethod
from rich.console import Console

from fer_lightning.cli.matrix import run_cells, run_matrix
from fer_lightning.cli.matrix_file import read_matrix
from fer_lightning.cli.processes import Processes, visible_gpus
from fer_lightning.cli.versions import Version
from fer_lightning.outputs.results import read_rows

# Stands in for `python -m fer_lightning`: leaves the files of a run, and its own command line in calls.txt.
PROGRAM = """
import json, pathlib, signal, sys, time
verb, *arguments = sys.argv[1:]
options = dict(word[2:].split("=", 1) for word in arguments if "=" in word)
here = options.get("trainer.default_root_dir") or pathlib.Path(options["ckpt_path"]).parents[1]
here = pathlib.Path(here)
with open(here / "calls.txt", "a") as calls:
    print(verb, *arguments, file=calls)
checkpoints = here / "checkpoints"
checkpoints.mkdir(exist_ok=True)
if verb == "fit":
    assert options["resume"] == "auto"
    goes_on = (checkpoints / "last.ckpt").exists()
    (here / "run.json").write_text("{}")
    if options.get("mode") == "crash":
        sys.exit("ValueError: the reason")
    if options.get("mode") == "wait" and not goes_on:
        try:
            (here / "waiting").touch()
            time.sleep(60)
        except KeyboardInterrupt:
            (checkpoints / "last.ckpt").touch()
            sys.exit(1)
    if options.get("mode") == "deaf":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        (here / "waiting").touch()
        time.sleep(60)
    if options.get("mode") == "quit":
        sys.exit(0)
    for name in ("best", "last"):
        (checkpoints / f"{name}.ckpt").touch()
    (here / "config.yaml").touch()
    (here / "metrics.csv").write_text("step,val/score\\n1,0.75\\n2,\\n3,0.5\\n")
    (here / "pseudo_labels.csv").write_text(
        "epoch,emotion,coverage,purity\\n0,all,0,\\n1,all,0.25,0.875\\n1,fear,1,1\\n"
    )
    seed = int(options["seed_everything"])
    run = dict(seed_everything=seed, data_seed=seed, split="0123456789abcdef", commit="c0ffee", steps=7,
               wall_s=1.5, device="cpu", dataset="synthetic", labels="10 per class", finished=True,
               method="light_method.LightMethod", revision=int(options.get("revision", 1)))
    run["data_seed"] += options.get("mode") == "other seed"
    (here / "run.json").write_text(json.dumps(run))
else:
    checkpoint, results = pathlib.Path(options["ckpt_path"]), here / "test.csv"
    new = not results.exists()
    with results.open("a") as lines:
        if new:
            print("checkpoint,dataset,split,epoch,step,accuracy,uar,ece", file=lines)
            print("best.ckpt,other,fedcba987654,3,7,0.1,0.1,0.5", file=lines)
        epoch, accuracy = (3, 0.5) if checkpoint.stem == "best" else (9, 0.25)
        own = ("synthetic", "0123456789ab")
        print(checkpoint, *own, epoch, 7, accuracy, accuracy, 0.125, sep=",", file=lines)
"""


@pytest.fixture
def program(tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return [sys.executable, "-S", str(file)]


@pytest.fixture
def write(tmp_path):
    def write(runs, **more):
        (tmp_path / "common.yaml").write_text("model: {class_path: light_method.LightMethod}")
        content = {
            "results": str(tmp_path / "results.csv"),
            "root": str(tmp_path / "runs"),
            "configs": [str(tmp_path / "common.yaml")],
            "runs": runs,
        }
        file = tmp_path / "matrix.yaml"
        file.write_text(yaml.safe_dump(content | more))
        return file

    return write


def drive(matrix, program, jobs=1, **options):
    output = io.StringIO()
    console = Console(file=output)
    status = run_cells(matrix.cells(), matrix.results, jobs, program, console=console, **options)
    return status, output.getvalue()


def calls(tmp_path, run):
    return [line.split() for line in (tmp_path / "runs" / run / "calls.txt").read_text().splitlines()]


def test_a_run_is_trained_tested_twice_and_leaves_its_row(tmp_path, program, write):
    args = {"data.labels": 10, "data.val": None, "model.lr": 0.03, "model.stem": "small"}
    matrix = read_matrix(write([{"name": "supervised", "args": args}], seeds=[3]))
    assert drive(matrix, program)[0] == 0
    here = tmp_path / "runs" / "supervised-seed3"
    fit, best, last = calls(tmp_path, "supervised-seed3")
    assert fit == [
        *("fit", "--config", f"{tmp_path}/common.yaml"),
        *("--data.labels=10", "--data.val=null", "--model.lr=0.03", "--model.stem=small"),
        *("--seed_everything=3", "--data.seed=3", f"--trainer.default_root_dir={here}", "--resume=auto"),
    ]
    test = ["test", "--config", f"{here}/config.yaml"]
    assert [best, last] == [
        [*test, f"--ckpt_path={here}/checkpoints/{name}.ckpt"] for name in ("best", "last")
    ]
    assert read_rows(matrix.results) == [
        {
            "name": "supervised",
            "seed": "3",
            "method": "LightMethod",
            "revision": "1",
            "dataset": "synthetic",
            "labels": "10 per class",
            "split": "0123456789ab",
            "commit": "c0ffee",
            "steps": "7",
            "wall_s": "1.5",
            "device": "cpu",
            "config_hash": Version.of(matrix.cells()[0].config).config_hash,
            "config": f"{tmp_path}/common.yaml data.labels=10 data.val=null model.lr=0.03 model.stem=small",
            "best_epoch": "3",
            "best/accuracy": "0.5",
            "best/uar": "0.5",
            "best/ece": "0.125",
            "last/accuracy": "0.25",
            "last/uar": "0.25",
            "last/ece": "0.125",
            "val/score": "0.75",
            "audit/coverage": "0.25",
            "audit/purity": "0.875",
        }
    ]


@pytest.mark.parametrize("jobs", [1, 2])
def test_only_what_has_no_row_is_run(tmp_path, program, write, jobs):
    assert drive(read_matrix(write([{"name": "supervised"}])), program, jobs)[0] == 0
    matrix = read_matrix(write([{"name": "supervised"}, {"name": "fixmatch"}], seeds=[0, 1]))
    assert drive(matrix, program, jobs)[0] == 0
    assert len(read_rows(matrix.results)) == 4
    assert len(calls(tmp_path, "supervised-seed0")) == 3  # one fit and two tests, of the first time


def test_a_failed_run_shows_why_and_the_others_run(program, write):
    matrix = read_matrix(write([{"name": "bad", "args": {"mode": "crash"}}, {"name": "good"}]))
    status, text = drive(matrix, program)
    assert status == 1
    assert "bad (seed 0) failed: fit ended with status 1" in text
    assert "ValueError: the reason" in text
    assert [row["name"] for row in read_rows(matrix.results)] == ["good"]


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("quit", "run.json is not finished"), ("other seed", "was trained with data_seed 1")],
)
def test_a_run_unlike_its_cell_gets_no_row(program, write, mode, reason):
    matrix = read_matrix(write([{"name": "bad", "args": {"mode": mode}}]))
    status, text = drive(matrix, program)
    assert (status, read_rows(matrix.results)) == (1, [])
    assert reason in text


def test_a_finished_training_is_only_tested(tmp_path, program, write):
    matrix = read_matrix(write([{"name": "supervised"}]))
    drive(matrix, program)
    matrix.results.unlink()
    drive(matrix, program)
    assert [call[0] for call in calls(tmp_path, "supervised-seed0")] == [
        "fit",
        "test",
        "test",
        "test",
        "test",
    ]
    assert read_rows(matrix.results)[0]["best/accuracy"] == "0.5"


def test_without_validation_faces_only_the_last_checkpoint_is_tested(tmp_path, program, write):
    matrix = read_matrix(write([{"name": "supervised"}]))
    drive(matrix, program)
    matrix.results.unlink()
    here = tmp_path / "runs" / "supervised-seed0"
    (here / "checkpoints" / "best.ckpt").unlink()
    (here / "test.csv").unlink()
    assert drive(matrix, program)[0] == 0
    (row,) = read_rows(matrix.results)
    assert (row["best_epoch"], row["last/accuracy"]) == ("", "0.25")
    assert "best/accuracy" not in row


def stale(program, write):
    """A matrix whose one run has a row and a directory of other settings."""
    drive(read_matrix(write([{"name": "uda", "args": {"a": 1}}])), program)
    return read_matrix(write([{"name": "uda", "args": {"a": 2}}]))


def test_a_row_of_other_settings_is_stale_and_stays_without_the_option(program, write):
    matrix = stale(program, write)
    status, text = drive(matrix, program)
    assert status == 1
    assert "uda (seed 0) is stale: its settings have changed since its row in" in text
    assert "; run it again with --rerun_stale true" in text
    assert read_rows(matrix.results)[0]["config"].endswith("a=1")


def test_a_directory_of_other_settings_is_not_taken_for_this_one(program, write):
    matrix = stale(program, write)
    matrix.results.unlink()
    status, text = drive(matrix, program)
    assert status == 1
    assert "was begun; delete it, or add --rerun_stale true" in text
    assert read_rows(matrix.results) == []


def test_a_stale_run_is_run_again_on_request_and_its_directory_kept(tmp_path, program, write):
    for a in (1, 2, 3):
        matrix = read_matrix(write([{"name": "uda", "args": {"a": a}}]))
        assert drive(matrix, program, rerun_stale=True)[0] == 0
    (row,) = read_rows(matrix.results)
    assert row["config"].endswith("a=3")
    directories = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert directories == ["uda-seed0", "uda-seed0-stale1", "uda-seed0-stale2"]
    assert len(calls(tmp_path, "uda-seed0")) == 3
    drive(matrix, program, rerun_stale=True)  # which is of today, and not run again
    assert len(calls(tmp_path, "uda-seed0")) == 3


def test_a_raised_revision_makes_the_row_and_the_directory_stale(program, write, monkeypatch):
    matrix = read_matrix(write([{"name": "uda"}]))
    drive(matrix, program)
    monkeypatch.setattr(LightMethod, "revision", 2)
    status, text = drive(matrix, program)
    assert status == 1
    assert "LightMethod went from revision 1 to 2 since its row" in text
    matrix.results.unlink()  # a run that was begun with other code is not tested, nor trained further
    status, text = drive(matrix, program)
    assert status == 1
    assert f"LightMethod went from revision 1 to 2 since {matrix.cells()[0].directory} was begun" in text


def test_a_row_has_the_revision_of_the_process_that_trained(program, write):
    matrix = read_matrix(write([{"name": "uda", "args": {"revision": 7}}]))
    drive(matrix, program)
    assert read_rows(matrix.results)[0]["revision"] == "7"


def test_a_run_that_failed_before_its_first_checkpoint_may_have_its_settings_mended(program, write):
    drive(read_matrix(write([{"name": "uda", "args": {"mode": "crash"}}])), program)
    matrix = read_matrix(write([{"name": "uda"}]))
    assert drive(matrix, program)[0] == 0
    (row,) = read_rows(matrix.results)
    assert row["config_hash"] == Version.of(matrix.cells()[0].config).config_hash


def test_a_finished_run_without_its_checkpoint_is_still_of_its_own_settings(tmp_path, program, write):
    matrix = stale(program, write)
    matrix.results.unlink()
    (tmp_path / "runs" / "uda-seed0" / "checkpoints" / "last.ckpt").unlink()
    assert drive(matrix, program)[0] == 1
    assert read_rows(matrix.results) == []


def test_a_directory_of_a_run_by_hand_is_left_alone(tmp_path, program, write):
    matrix = read_matrix(write([{"name": "uda"}]))
    here = tmp_path / "runs" / "uda-seed0"
    here.mkdir(parents=True)
    (here / "run.json").write_text("{}")
    status, text = drive(matrix, program)
    assert status == 1
    assert f"{here} holds something else than a matrix's run" in text
    assert drive(matrix, program, rerun_stale=True)[0] == 1
    assert (here / "run.json").read_text() == "{}"


def test_two_drivers_do_not_train_in_one_directory(tmp_path, program, write):
    matrix = read_matrix(write([{"name": "supervised"}]))
    here = tmp_path / "runs" / "supervised-seed0"
    here.mkdir(parents=True)
    with (here / "log.txt").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        status, text = drive(matrix, program)
    assert status == 1
    assert "another process is at work" in text
    assert drive(matrix, program)[0] == 0


def test_a_run_stopped_before_its_first_checkpoint_starts_again(tmp_path, program, write):
    matrix = read_matrix(write([{"name": "supervised"}]))
    drive(matrix, program)
    here = tmp_path / "runs" / "supervised-seed0"
    matrix.results.unlink()
    (here / "checkpoints" / "last.ckpt").unlink()
    (here / "run.json").write_text("{}")
    assert drive(matrix, program)[0] == 0
    assert [call[0] for call in calls(tmp_path, "supervised-seed0")] == ["fit", "test", "test"] * 2


DRIVER = """
import sys
from pathlib import Path
from fer_lightning.cli.matrix import run_cells
from fer_lightning.cli.matrix_file import read_matrix
matrix = read_matrix(Path(sys.argv[1]))
sys.exit(run_cells(matrix.cells(), matrix.results, int(sys.argv[2]), sys.argv[3:]))
"""


@contextmanager
def driving(tmp_path, file, jobs, program, waiting):
    """Start a driver, and wait until those runs of it wait."""
    command = [sys.executable, "-c", DRIVER, str(file), str(jobs), *program]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    driver = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        while not all((tmp_path / "runs" / f"{name}-seed0" / "waiting").exists() for name in waiting):
            assert driver.poll() is None
            time.sleep(0.01)
        yield driver
    finally:
        driver.kill()


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_matrix_goes_on_from_its_checkpoints(tmp_path, program, write, number, jobs):
    waiting = ["a", "b"][:jobs]
    file = write([*({"name": name, "args": {"mode": "wait"}} for name in waiting), {"name": "later"}])
    with driving(tmp_path, file, jobs, program, waiting) as driver:
        driver.send_signal(number)
        output, _ = driver.communicate()
    assert driver.returncode == 130
    assert "failed" not in output
    assert not (tmp_path / "runs" / "later-seed0").exists()

    matrix = read_matrix(file)
    assert drive(matrix, program)[0] == 0
    assert [row["name"] for row in read_rows(matrix.results)] == [*waiting, "later"]
    stopped, resumed, *_ = calls(tmp_path, "a-seed0")
    assert resumed == stopped


@pytest.mark.parametrize("nohup", [False, True])
def test_the_end_of_a_terminal_stops_a_matrix_unless_nohup_was_asked_for(nohup):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
    processes = Processes([sys.executable], 1)
    try:
        with processes.stopping_on_signals():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert processes.stopped is not nohup


def test_a_second_signal_kills_what_ignores_the_first(tmp_path, program, write):
    file = write([{"name": "a", "args": {"mode": "deaf"}}])
    with driving(tmp_path, file, 1, program, ["a"]) as driver:
        driver.send_signal(signal.SIGINT)
        while "once more to kill" not in driver.stderr.readline():
            pass
        driver.send_signal(signal.SIGINT)
        assert driver.wait() == 130


def test_the_verb_prints_the_table_and_where_the_pictures_are(tmp_path, program, write, capsys):
    drive(read_matrix(write([{"name": "supervised"}])), program)
    pictures = tmp_path / "runs" / "supervised-seed0" / "figures"
    pictures.mkdir()
    (pictures / "views.png").touch()
    assert run_matrix(tmp_path / "matrix.yaml") == 0  # nothing left to run
    printed = capsys.readouterr().out
    assert "50.00" in printed
    assert f"Pictures in {pictures}: views.png" in printed


def environments(tmp_path, matrix, variable, jobs, **options):
    """Value of a variable in the processes of each run."""
    script = tmp_path / "environment.py"
    script.write_text(
        "import json, os, sys, time; here = sys.argv[-2].split('=')[1]; time.sleep(0.2); "
        f"json.dump(os.environ.get('{variable}'), open(here + '/value', 'w'))"
    )
    drive(matrix, [sys.executable, "-S", str(script)], jobs, **options)
    return [json.loads((cell.directory / "value").read_text()) for cell in matrix.cells()]


def test_several_jobs_share_the_cores_unless_told(tmp_path, write, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for given, jobs, expected in ((None, 1, None), (None, 4, "2"), ("3", 4, "3")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        matrix = read_matrix(write([{"name": f"r{given}{jobs}"}]))
        assert environments(tmp_path, matrix, "OMP_NUM_THREADS", jobs) == [expected]


@pytest.mark.parametrize(
    ("visible", "gpus", "jobs", "expected"),
    [
        ("0,1", None, 2, {"0", "1"}),
        ("GPU-a,GPU-b", None, 4, {"GPU-a", "GPU-b"}),  # more runs than GPUs: two on each
        ("0,1", None, 1, {"0,1"}),  # a run by itself has them all
        ("0,1", ["3"], 1, {"3"}),
        ("5", None, 2, {"5"}),
        ("", None, 2, {""}),
    ],
)
def test_each_slot_has_a_gpu_of_its_own(tmp_path, write, monkeypatch, visible, gpus, jobs, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    matrix = read_matrix(write([{"name": name} for name in "abcd"]))
    found = environments(tmp_path, matrix, "CUDA_VISIBLE_DEVICES", jobs, gpus=gpus)
    assert set(found) == expected


def test_gpus_are_those_that_the_driver_lists_where_no_variable_names_them(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho GPU-a\necho GPU-b\n")
    program.chmod(0o755)
    assert visible_gpus() == ["GPU-a", "GPU-b"]
