import fcntl
import inspect
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
from rich.console import Console

import fer_lightning.methods
from fer_lightning.cli.matrix import _rich, read_matrix, run_cells, run_matrix, show_results
from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.errors import InputError
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.outputs.results import add_row, read_rows, summarise

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
    if (here / "run.json").exists() and "ckpt_path" not in options:
        sys.exit("already holds a run")
    (here / "run.json").write_text("{}")
    if options.get("mode") == "crash":
        sys.exit("ValueError: the reason")
    if options.get("mode") == "wait" and "ckpt_path" not in options:
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
    run = dict(seed=seed, split="0123456789abcdef", commit="c0ffee", steps=7, wall_s=1.5, device="cpu",
               dataset="synthetic", labels="10 per class", finished=True)
    run["seed"] += options.get("mode") == "other seed"
    (here / "run.json").write_text(json.dumps(run))
else:
    checkpoint, results = pathlib.Path(options["ckpt_path"]), here / "test.csv"
    new = not results.exists()
    with results.open("a") as lines:
        if new:
            print("checkpoint,epoch,step,accuracy,uar,ece", file=lines)
        epoch, accuracy = (3, 0.5) if checkpoint.stem == "best" else (9, 0.25)
        print(checkpoint, epoch, 7, accuracy, accuracy, 0.125, sep=",", file=lines)
"""


@pytest.fixture
def program(tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return [sys.executable, "-S", str(file)]


@pytest.fixture
def write(tmp_path):
    def write(runs, **more):
        (tmp_path / "common.yaml").touch()
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


def drive(matrix, program, jobs=1):
    output = io.StringIO()
    status = run_cells(matrix.cells(), matrix.results, jobs, program, Console(file=output))
    return status, output.getvalue()


def calls(tmp_path, run):
    return [line.split() for line in (tmp_path / "runs" / run / "calls.txt").read_text().splitlines()]


def test_a_run_is_trained_tested_twice_and_leaves_its_row(tmp_path, program, write):
    args = {"data.labels": 10, "data.val": None, "model.lr": 0.03, "model.stem": "small"}
    matrix = read_matrix(write([{"name": "floor", "args": args}], seeds=[3]))
    assert drive(matrix, program)[0] == 0
    here = tmp_path / "runs" / "floor-seed3"
    fit, best, last = calls(tmp_path, "floor-seed3")
    assert fit == [
        *("fit", "--config", f"{tmp_path}/common.yaml"),
        *("--data.labels=10", "--data.val=null", "--model.lr=0.03", "--model.stem=small"),
        *("--seed_everything=3", "--data.seed=3", f"--trainer.default_root_dir={here}"),
    ]
    test = ["test", "--config", f"{here}/config.yaml"]
    assert [best, last] == [
        [*test, f"--ckpt_path={here}/checkpoints/{name}.ckpt"] for name in ("best", "last")
    ]
    assert read_rows(matrix.results) == [
        {
            "name": "floor",
            "seed": "3",
            "dataset": "synthetic",
            "labels": "10 per class",
            "split": "0123456789ab",
            "commit": "c0ffee",
            "steps": "7",
            "wall_s": "1.5",
            "device": "cpu",
            "config": f"{tmp_path}/common.yaml data.labels=10 data.val=null model.lr=0.03 model.stem=small",
            "selected_epoch": "3",
            "selected/accuracy": "0.5",
            "selected/uar": "0.5",
            "selected/ece": "0.125",
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
    assert drive(read_matrix(write([{"name": "floor"}])), program, jobs)[0] == 0
    matrix = read_matrix(write([{"name": "floor"}, {"name": "fixmatch"}], seeds=[0, 1]))
    assert drive(matrix, program, jobs)[0] == 0
    assert len(read_rows(matrix.results)) == 4
    assert len(calls(tmp_path, "floor-seed0")) == 3  # one fit and two tests, of the first time


def test_seeds_come_one_after_the_other_and_a_run_may_have_its_own(write):
    matrix = read_matrix(write([{"name": "floor"}, {"name": "ceiling", "seeds": [0]}], seeds=[0, 1]))
    assert [(cell.name, cell.seed) for cell in matrix.cells()] == [("floor", 0), ("ceiling", 0), ("floor", 1)]


def test_arguments_and_configs_of_a_run_come_after_the_common_ones(tmp_path, write):
    (tmp_path / "own.yaml").touch()
    runs = [{"name": "ceiling", "configs": [str(tmp_path / "own.yaml")], "args": {"a": 2}}]
    (cell,) = read_matrix(write(runs, args={"a": 1, "b": True})).cells()
    assert cell.config == f"{tmp_path}/common.yaml {tmp_path}/own.yaml a=2 b=true"


def test_a_failed_run_shows_why_and_the_others_run(program, write):
    matrix = read_matrix(write([{"name": "bad", "args": {"mode": "crash"}}, {"name": "good"}]))
    status, text = drive(matrix, program)
    assert status == 1
    assert "bad (seed 0) failed: fit ended with status 1" in text
    assert "ValueError: the reason" in text
    assert [row["name"] for row in read_rows(matrix.results)] == ["good"]


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("quit", "run.json does not say that it finished"), ("other seed", "was trained with seed 1")],
)
def test_a_run_that_is_not_what_was_asked_for_gets_no_row(program, write, mode, reason):
    matrix = read_matrix(write([{"name": "bad", "args": {"mode": mode}}]))
    status, text = drive(matrix, program)
    assert (status, read_rows(matrix.results)) == (1, [])
    assert reason in text


def test_a_finished_training_is_only_tested(tmp_path, program, write):
    matrix = read_matrix(write([{"name": "floor"}]))
    drive(matrix, program)
    matrix.results.unlink()
    drive(matrix, program)
    assert [call[0] for call in calls(tmp_path, "floor-seed0")] == ["fit", "test", "test", "test", "test"]
    assert read_rows(matrix.results)[0]["selected/accuracy"] == "0.5"


def test_without_validation_faces_only_the_last_checkpoint_is_tested(tmp_path, program, write):
    matrix = read_matrix(write([{"name": "floor"}]))
    drive(matrix, program)
    matrix.results.unlink()
    here = tmp_path / "runs" / "floor-seed0"
    (here / "checkpoints" / "best.ckpt").unlink()
    (here / "test.csv").unlink()
    assert drive(matrix, program)[0] == 0
    (row,) = read_rows(matrix.results)
    assert (row["selected_epoch"], row["last/accuracy"]) == ("", "0.25")
    assert "selected/accuracy" not in row


def test_a_row_and_a_directory_of_another_configuration_are_not_taken_for_this_one(program, write):
    drive(read_matrix(write([{"name": "floor", "args": {"a": 1}}])), program)
    matrix = read_matrix(write([{"name": "floor", "args": {"a": 2}}]))
    status, text = drive(matrix, program)
    assert status == 1
    assert "Delete that row" in text
    matrix.results.unlink()
    status, text = drive(matrix, program)
    assert status == 1
    assert "Delete or rename it" in text
    assert read_rows(matrix.results) == []


def test_two_drivers_do_not_train_in_one_directory(tmp_path, program, write):
    matrix = read_matrix(write([{"name": "floor"}]))
    here = tmp_path / "runs" / "floor-seed0"
    here.mkdir(parents=True)
    with (here / "log.txt").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        status, text = drive(matrix, program)
    assert status == 1
    assert "another process is at work" in text
    assert drive(matrix, program)[0] == 0


def test_a_run_stopped_before_its_first_checkpoint_starts_again(tmp_path, program, write):
    matrix = read_matrix(write([{"name": "floor"}]))
    drive(matrix, program)
    here = tmp_path / "runs" / "floor-seed0"
    matrix.results.unlink()
    (here / "checkpoints" / "last.ckpt").unlink()
    (here / "run.json").write_text("{}")
    assert drive(matrix, program)[0] == 0
    assert [call[0] for call in calls(tmp_path, "floor-seed0")] == ["fit", "test", "test"] * 2


DRIVER = """
import sys
from pathlib import Path
from fer_lightning.errors import InputError
from fer_lightning.cli.matrix import read_matrix, run_cells
matrix = read_matrix(Path(sys.argv[1]))
sys.exit(run_cells(matrix.cells(), matrix.results, int(sys.argv[2]), sys.argv[3:]))
"""


@contextmanager
def driving(tmp_path, file, jobs, program, waiting):
    """Start a driver, and wait until those runs of it wait."""
    command = [sys.executable, "-c", DRIVER, str(file), str(jobs), *program]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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
    assert resumed == [*stopped, f"--ckpt_path={tmp_path}/runs/a-seed0/checkpoints/last.ckpt"]


def test_asked_to_stop_again_it_kills_what_does_not_listen(tmp_path, program, write):
    file = write([{"name": "a", "args": {"mode": "deaf"}}])
    with driving(tmp_path, file, 1, program, ["a"]) as driver:
        driver.send_signal(signal.SIGINT)
        while "once more to kill" not in driver.stderr.readline():
            pass
        driver.send_signal(signal.SIGINT)
        assert driver.wait() == 130


@pytest.mark.parametrize(
    ("runs", "more", "message"),
    [
        ([{"nmae": "floor"}], {}, "nmae"),
        ([{"name": "floor"}], {"sedes": [1]}, "sedes"),
        ([{"name": "floor", "seeds": ["x"]}], {}, "x"),
        ([{"name": "a/b"}], {}, "names a directory"),
        ([{"name": "a"}, {"name": "a"}], {}, "given twice"),
        ([{"name": "a", "configs": ["gone.yaml"]}], {}, r"gone\.yaml does not exist"),
    ],
)
def test_a_wrong_matrix_file_is_named_with_its_fault(write, runs, more, message):
    with pytest.raises(InputError, match=rf"(?s)matrix\.yaml: .*{message}"):
        read_matrix(write(runs, **more))


def test_a_matrix_file_that_is_not_there_or_no_mapping_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.yaml"):
        read_matrix(tmp_path / "gone.yaml")
    (tmp_path / "list.yaml").write_text("[]")
    with pytest.raises(InputError, match=r"list\.yaml: expected the keys results, root and runs"):
        read_matrix(tmp_path / "list.yaml")


def test_the_verbs_print_the_table_with_what_was_not_run(tmp_path, program, write, capsys):
    first, both = [{"name": "floor"}], [{"name": "floor"}, {"name": "fixmatch"}]
    matrix = read_matrix(write(first))
    drive(matrix, program)
    pictures = tmp_path / "runs" / "floor-seed0" / "figures"
    pictures.mkdir()
    (pictures / "views.png").touch()
    assert run_matrix(tmp_path / "matrix.yaml") == 0  # nothing left to run
    printed = capsys.readouterr().out
    assert "50.00" in printed
    assert f"Pictures in {pictures}: views.png" in printed

    assert show_results(matrix.results, matrix=write(both)) == 0
    assert "| fixmatch |  | 0 | not run | not run | not run | not run |" in capsys.readouterr().out
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results:results --><!-- /results -->")
    assert show_results(matrix.results, readme) == 0
    assert "| floor | 10 per class | 1 | 50.00 | 50.00 | 12.50 | 25.00 |" in readme.read_text()


def test_results_and_root_can_be_put_elsewhere(tmp_path, write):
    matrix = read_matrix(write([{"name": "floor"}]), results=tmp_path / "r.csv", root=tmp_path / "elsewhere")
    assert matrix.results == tmp_path / "r.csv"
    assert matrix.cells()[0].directory == tmp_path / "elsewhere" / "floor-seed0"


def test_several_jobs_share_the_cores_unless_told(tmp_path, write, monkeypatch):
    script = tmp_path / "threads.py"
    script.write_text(
        "import json, os, sys; here = sys.argv[-1].split('=')[1]; "
        "json.dump(os.environ.get('OMP_NUM_THREADS'), open(here + '/threads', 'w'))"
    )
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for given, jobs, expected in ((None, 1, None), (None, 4, "2"), ("3", 4, "3")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        matrix = read_matrix(write([{"name": f"r{given}{jobs}"}]))
        drive(matrix, [sys.executable, "-S", str(script)], jobs)
        assert json.loads((matrix.cells()[0].directory / "threads").read_text()) == expected


def test_the_table_of_a_narrow_terminal_cuts_nothing_off(tmp_path):
    row = {"seed": 0, "labels": 70, "audit/coverage": 1, "audit/purity": 0.5, "last/accuracy": 0.5}
    row |= {f"selected/{metric}": 0.5 for metric in ("accuracy", "uar", "ece")}
    for seed in (0, 1):
        add_row(tmp_path / "results.csv", row | {"name": "scl_uerm_arm", "seed": seed})
    summary = summarise(read_rows(tmp_path / "results.csv"))
    console = Console(file=io.StringIO(), width=80)
    console.print(_rich(summary, "title"))
    drawn = console.file.getvalue()
    assert "…" not in drawn
    assert "scl_uerm_arm" in drawn
    assert "100.00" in drawn


EXPERIMENTS = Path(__file__).parents[1] / "experiments"
MATRICES = [file.name for file in sorted(EXPERIMENTS.glob("*.yaml")) if "\nruns:" in file.read_text()]


def options_of(*classes):
    return {name for of in classes for name in inspect.signature(of.__init__).parameters}


@pytest.mark.parametrize("file", MATRICES)
def test_the_matrices_of_the_repository_name_options_that_exist(file, monkeypatch):
    monkeypatch.chdir(EXPERIMENTS.parent)
    for cell in read_matrix(EXPERIMENTS / file).cells():
        contents = [yaml.safe_load(Path(config).read_text()) for config in cell.configs]
        (method,) = [content["model"]["class_path"] for content in contents if "model" in content]
        chosen = getattr(fer_lightning.methods, method.rpartition(".")[2])
        parents = [c for c in chosen.__mro__ if issubclass(c, SemiSupervised)]
        known = {f"model.{name}" for name in options_of(*parents)}
        known |= {f"data.{name}" for name in options_of(SemiSupervisedFaces)}
        asked = {name for name in cell.args if not name.startswith("trainer.")}
        assert asked <= known, (str(cell), asked - known)
