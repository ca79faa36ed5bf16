"""What a user can cause ends in one message and status 2, and loses nothing; our faults keep a traceback."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from small_run import small_options, small_run

from fer_lightning.cli import main
from fer_lightning.cli.program import Program
from fer_lightning.cli.refusals import REPORT, message_of
from fer_lightning.models.network import make_backbone

BUDGET = ("--data.labels_per_class=3", "--trainer.max_steps=2")


def refused(words, capsys):
    """Run the program; return its message, in one line."""
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    return shown[shown.rindex("error: ") :].strip()


OPTIONS = {
    # Lightning's own refusals, as it words them.
    "--trainer.strategy=foo": "invalid strategy name",
    "--trainer.accelerator=foo": "invalid accelerator name",
    "--trainer.devices=0": "not a valid input",
    "--trainer.devices=-1": "should be an int > 0",
    "--trainer.profiler=foo": "can only be one of ['simple', 'advanced'",
    "--trainer.max_time=tomorrow": "not a valid duration",
    "--trainer.max_epochs=-5": "You passed in -5",
    "--trainer.limit_train_batches=2.5": "invalid value 2.5",
    "--trainer.val_check_interval=100": "must be less than or equal to the number of the training batches",
    "--trainer.gradient_clip_algorithm=foo": "Allowed algorithms",
    # What it would accept, and divide by or ignore.
    "--trainer.accumulate_grad_batches=0": "at least 1, not 0",
    "--trainer.num_nodes=0": "at least 1, not 0",
    "--trainer.check_val_every_n_epoch=-1": "at least 1, not -1",
    "--trainer.val_check_interval=0": "val_check_interval must be above 0",
    "--trainer.gradient_clip_val=-1": "at least 0, not -1",
    # What a run here is not made for.
    "--trainer.precision=64-true": "float32: use 32-true, bf16-mixed or 16-mixed",
    "--trainer.precision=bf16-true": "float32: use 32-true, bf16-mixed or 16-mixed",
    "--trainer.barebones=true": "(--trainer.barebones)",
    "--trainer.enable_checkpointing=false": "(--trainer.enable_checkpointing)",
    "--trainer.overfit_batches=2": "(--trainer.overfit_batches)",
    "--weights_only=false": "no option --weights_only",
    # Numbers.
    "--model.lr=-1": "--model.lr must be a number above 0, not -1",
    "--model.lr=inf": "the loss is not finite at step 1",
    "--model.dropout=3": "--model.dropout must be a number from 0 to 1, not 3",
    "--model.std=[0,1,1]": "--model.std must be a number above 0, not 0",
    "--seed_everything=-1": "-1 is not in bounds",
    "--data.seed=-1": "--data.seed must be a whole number of at least 0, not -1",
    "--checkpoint_every_minutes=0": "--checkpoint_every_minutes must be a number above 0, not 0",
    # Names.
    "--model.emotions=[]": "two at least",
    "--model.emotions=[happy]": "two at least",
    "--model.backbone_arguments={widht: 1}": "no argument widht; there are depth, stem_stride, width",
    "--model.backbone_arguments={checkpoint_path: a.pth}": "options of their own: weights",
    "--resume=yes": "--resume must be auto or never, not yes",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_cannot_be_meant(option, tmp_path, capsys):
    assert OPTIONS[option] in refused(["fit", *small_options(tmp_path / "run", *BUDGET, option)], capsys)
    assert option == "--model.lr=inf" or not (tmp_path / "run").exists()  # nothing begun, nothing left


@pytest.mark.parametrize(
    "option",
    ["--trainer.precision=bf16-mixed", "--trainer.max_time=00:00:00:05", "--trainer.sync_batchnorm=true"],
)
def test_an_option_that_is_unusual_works(option, tmp_path):
    small_run(tmp_path / "run", *BUDGET, option)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("module") / "run"
    small_run(run_dir, *BUDGET)
    return run_dir


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fit --config {last}", "last.ckpt is no text file"),
        ("fit --config {folder}", "not a file"),
        ("fit --config gone.yaml", "does not exist"),
        ("results {last}", "last.ckpt is no text file"),
        ("results gone.csv", "gone.csv does not exist"),
        ("results {folder}", "does not exist"),
        ("matrix {last} --jobs 1", "last.ckpt"),
        ("matrix gone.yaml --jobs 0", "jobs must be a whole number above 0, not 0"),
        ("configs /proc/here", "/proc/here"),
        ("test --config {config} --ckpt_path {folder}", "is a folder"),
        ("test --config {config} --ckpt_path {config}", "cannot be read as a checkpoint"),
        ("test --config {config} --ckpt_path http://localhost/a.ckpt", "a checkpoint is a local file"),
        ("test --config {config} --model.lr 0.5", "lr 0.03 there, 0.5 here"),
        ("fit --config {config} --resume auto --model.threshold 0.5", "threshold 0.95 there, 0.5 here"),
        ("fit --config {config} --resume auto --data.image_size 20", "images of 16 pixels"),
        ("fit --config {config} --resume auto --trainer.max_steps 9", "(--change_length)"),
        ("fit --config {config}", "already holds a run"),
        ("predict --model FixMatch --data.dataset SyntheticFaces", "nothing to predict"),
    ],
)
def test_files_and_runs_that_are_not_what_they_should_be(run, words, said, capsys):
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != ".lock"}
    names = {"folder": run, "config": run / "config.yaml", "last": run / "checkpoints" / "last.ckpt"}
    assert said in refused(words.format(**names).split(), capsys)
    assert before == {file: file.read_bytes() for file in before}


def test_a_weight_file_that_fills_little_of_the_network_is_asked_for(tmp_path, capsys):
    few = dict(list(make_backbone("wrn_10_1", arguments={"width": 0.25}).state_dict().items())[:3])
    torch.save(few, tmp_path / "few.pth")
    options = small_options(tmp_path / "run", *BUDGET, f"--model.weights={tmp_path / 'few.pth'}")
    assert "3 of " in (message := refused(["fit", *options], capsys))
    assert "set partial_weights to true" in message
    assert main(["fit", *options, "--model.partial_weights=true"]) == 0
    assert "few.pth: 3 of " in capsys.readouterr().err


def test_one_face_is_too_few_for_batch_norm(tmp_path, capsys):
    words = small_options(tmp_path / "run", *BUDGET, "--data.batch_size=1", method="Supervised")
    words += ["--model.backbone=resnet18", "--model.backbone_arguments={}"]
    assert "batch norm needs more than one face" in refused(["fit", *words], capsys)


def test_names_that_are_no_valid_unicode_are_predicted(tmp_path):
    for part, count in (("labeled/happy", 4), ("labeled/sad", 4), ("test/happy", 2), ("test/sad", 2)):
        (tmp_path / part).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 255, (20, 20, 3), dtype=np.uint8)
            name = os.fsdecode(f"{part}/{number}-".encode() + b"\xe9.png")
            (tmp_path / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    own = ["--data.dataset=FaceFolder", "--data.dataset.labeled=labeled", "--data.dataset.test=test"]
    options = [
        word for word in small_options(tmp_path / "run", "--trainer.max_steps=1") if "dataset" not in word
    ]
    options += [*own, "--data.val=none", "--data.batch_size=2"]
    options[0] = "--model=Supervised"
    assert main(["fit", *options]) == 0
    assert main(["predict", "--config", str(tmp_path / "run/config.yaml")]) == 0
    table = pd.read_csv(tmp_path / "run/predictions-test.csv")
    assert r"test/happy/0-\udce9.png" in set(table["name"])


def test_a_fault_of_ours_keeps_its_traceback_and_says_where_to_report_it(monkeypatch):
    def fail(program):
        raise ValueError("a fault")

    monkeypatch.setattr(Program, "before_instantiate_classes", fail)
    with pytest.raises(ValueError, match="a fault") as raised:
        main(["fit", "--model=FixMatch", "--data.dataset=SyntheticFaces"])
    assert raised.value.__notes__ == [REPORT]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "/there/run.json"), "/there/run.json: Permission denied"),
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory (CUDA out of"),
        (
            RuntimeError("DataLoader worker (pid 3) is killed by signal: Bus error."),
            "take fewer data.workers",
        ),
        (ValueError("ours"), None),
        (OSError("without a file"), None),
    ],
)
def test_what_is_the_user_s_to_mend(error, said):
    message = message_of(error, ["fit"])
    assert (message is None) if said is None else (said in message)


def test_output_that_nobody_reads_any_more_is_no_fault():
    command = ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m fer_lightning fit --help | head -1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stderr == ""
    assert done.stdout.startswith("usage: fer-lightning fit")
