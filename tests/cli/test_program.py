"""The program as its users meet it: defaults, what it prints, and its messages about bad input."""

import doctest
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from offline_wandb import offline_runs
from small_run import small_options, small_run

import fer_lightning
from fer_lightning.callbacks import wandb_run_id
from fer_lightning.cli import main, program
from fer_lightning.data.splits import SplitRequest, make_split
from fer_lightning.data.synthetic import SyntheticFaces


def fit(tmp_path: Path, *words: str) -> list[str]:
    """Two steps of FixMatch with three labels an emotion."""
    options = small_options(tmp_path / "run", "--data.labels_per_class=3", "--trainer.max_steps=2")
    return ["fit", *options, *words]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the program on bad input; return the line of its message."""
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message[message.index("error: ") :]


BAD = {
    "missing data root": (
        ["--data.dataset=FER2013", "--data.dataset.root=nowhere"],
        ["nowhere"],
    ),
    "budget larger than a class": (["--data.labels_per_class=50"], ["50", "10", "anger"]),
    "no unlabeled faces": (["--data.labels_per_class=null"], ["FixMatch", "(--data.labels_per_class)"]),
    "unknown backbone": (["--model.backbone=resnt18"], ["resnt18", "resnet18"]),
    "weight file that is not there": (["--model.weights=none.pth"], ["none.pth", "--model.weights"]),
    "unwritable directory": (
        ["--trainer.default_root_dir=/proc/run"],
        ["/proc/run", "(--trainer.default_root_dir)"],
    ),
    "label outside the emotions": (["--model.emotions=[happiness, fear]"], ["anger"]),
    "unknown taxonomy": (["--model.emotions=basic9"], ["basic9", "basic7"]),
    "both budgets": (["--data.labels_total=14"], ["labels_total", "labels_per_class"]),
    "task without classes": (["--model.targets=valence_arousal"], ["FixMatch", "(--model.targets)"]),
    "checkpoint that is not there": (["--ckpt_path=none.ckpt"], ["none.ckpt", "(--ckpt_path)"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_a_clear_message(case, tmp_path, capsys):
    words, expected = BAD[case]
    message = refused(fit(tmp_path, *words), capsys)
    assert [text for text in expected if text not in message] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here")
def test_a_device_that_is_not_there(tmp_path, capsys):
    assert "not available" in refused(fit(tmp_path, "--trainer.accelerator=cuda"), capsys)


def test_the_installed_program_is_quiet_and_splits_know_every_data_set(tmp_path):
    """In a process of its own: here, what one test imports another finds."""
    program = [sys.executable, "-m", "fer_lightning"]
    environment = os.environ | {"PYTHONPATH": str(Path(fer_lightning.__file__).parents[1])}
    words = ["splits", "make", "--dataset=SyntheticFaces", "--dataset.train=14", "--output=split.json"]
    done = subprocess.run([*program, *words], capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""
    words = ["fit", "--model=fixmatch", "--data.dataset=SyntheticFaces"]
    done = subprocess.run([*program, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr == "error: no method 'fixmatch' for --model; did you mean FixMatch?\n"


def test_errors_in_the_code_are_not_taken_for_bad_input(tmp_path, monkeypatch):
    def fail(self):
        raise ValueError("a fault")

    monkeypatch.setattr(program.Program, "after_fit", fail)
    with pytest.raises(ValueError, match="a fault"):
        main(fit(tmp_path))


def test_weight_file_that_matches_nothing(tmp_path, capsys):
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "w.pth")
    assert "other.weight" in refused(fit(tmp_path, f"--model.weights={tmp_path / 'w.pth'}"), capsys)


def test_run_is_never_written_over(tmp_path, capsys):
    assert main(fit(tmp_path)) == 0
    message = refused(fit(tmp_path), capsys)
    assert "already holds a run" in message
    assert "--resume auto" in message
    assert main(fit(tmp_path, "--resume=auto", "--trainer.max_steps=2")) == 0


def test_labels_that_overlap_the_test_set_are_refused(tmp_path, capsys):
    faces = SyntheticFaces(train=70, val=14, test=28).load(16)
    make_split(faces, SplitRequest(labels_per_class=3)).save(tmp_path / "split.json")
    manifest = json.loads((tmp_path / "split.json").read_text())
    manifest["labeled"].append(manifest["test"][0])
    (tmp_path / "split.json").write_text(json.dumps(manifest))
    assert "split.json" in refused(fit(tmp_path, f"--data.manifest={tmp_path / 'split.json'}"), capsys)


def write_faces(folder: Path, count: int) -> None:
    """Write images of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(count)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))


def test_own_table_with_an_image_that_does_not_decode(tmp_path, capsys):
    write_faces(tmp_path, 42)
    emotions = ("happy", "sad", "angry", "fear", "disgust", "surprise", "neutral")
    rows = [{"path": f"{i}.png", "label": emotions[i % 7] if i < 28 else None} for i in range(42)]
    (tmp_path / "5.png").write_bytes(b"no image")
    pd.DataFrame(rows).to_csv(tmp_path / "faces.csv", index=False)
    small = (word for word in fit(tmp_path) if "dataset" not in word and "labels_per_class" not in word)
    words = [*small, "--data.dataset=FaceTable", f"--data.dataset.table={tmp_path / 'faces.csv'}"]
    words.append("--data.val=none")
    assert "5.png" in refused(words, capsys)
    assert main([*words, "--data.dataset.on_bad_image=skip"]) == 0


def test_own_folders_train_without_any_configuration(tmp_path, capsys):
    for emotion in ("happy", "sad", "angry", "fear", "disgust", "surprise", "neutral"):
        write_faces(tmp_path / "faces/labeled" / emotion, 10)
    write_faces(tmp_path / "faces/unlabeled", 12)
    words = "fit --model FixMatch --data.dataset FaceFolder --data.dataset.labeled faces/labeled "
    words += "--data.dataset.unlabeled faces/unlabeled --data.batch_size 14 --data.workers 0 "
    words += "--data.val carved --model.backbone wrn_10_1 --trainer.accelerator cpu --trainer.max_steps 2"
    assert main(words.split()) == 0
    (run_dir,) = Path("runs").glob("FixMatch-*")
    assert (run_dir / "checkpoints/best.ckpt").exists()
    *_, trained, _, following = capsys.readouterr().out.splitlines()
    assert trained.endswith(f"everything is in {run_dir}")
    assert main(following.removeprefix("Next: fer-lightning ").split()) == 0  # there are no test faces
    assert len(pd.read_csv(run_dir / "predictions-unlabeled.csv")) == 12


def test_training_ends_with_the_best_epoch_and_the_next_command(tmp_path, capsys):
    last = small_run(tmp_path / "run", "--data.labels_per_class=3")
    *_, trained, best, following = capsys.readouterr().out.splitlines()
    assert trained == f"Trained 16 steps; everything is in {tmp_path / 'run'}"
    scores = pd.read_csv(tmp_path / "run/metrics.csv").set_index("epoch")["val/score"].dropna()
    assert best == f"Best epoch {scores.idxmax():.0f} of 0 to 1: val/score {scores.max():.4f}"
    command = following.removeprefix("Next: fer-lightning ").split()
    assert command[-1] == str(last.with_name("best.ckpt"))
    assert main(command) == 0
    assert pd.read_csv(tmp_path / "run/test.csv")["checkpoint"].tolist() == ["best.ckpt"]


def test_predictions_are_not_kept_in_memory(tmp_path):
    small_run(tmp_path / "run", "--data.labels_per_class=3", "--trainer.max_epochs=1")
    done = program.Program(["predict", "--config", str(tmp_path / "run/config.yaml")])
    assert done.trainer.predict_loop.predictions == []
    assert len(pd.read_csv(tmp_path / "run/predictions-test.csv")) == 28


def test_training_without_validation_ends_with_the_last_checkpoint(tmp_path, capsys):
    last = small_run(tmp_path / "run", "--data.labels_per_class=3", "--data.val=none")
    *_, trained, following = capsys.readouterr().out.splitlines()
    assert trained.startswith("Trained 16 steps")
    assert following.endswith(f"--ckpt_path {last}")


def no_run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> program.Program:
    """Parse and build, and go no further."""
    monkeypatch.setattr(program.Program, "fit", lambda self, **kwargs: None, raising=False)
    monkeypatch.setattr(program.Program, "after_fit", lambda self: None)
    return program.Program(words)


@pytest.mark.parametrize(
    ("length", "steps", "epochs"),
    [
        ([], 20_000, 20_000),  # epochs are counted for the progress bar alone, see EpochCount
        (["--trainer.max_steps=30"], 30, 30),
        (["--trainer.max_epochs=3"], -1, 3),
        (["--trainer.max_time=00:00:01:00"], -1, None),
    ],
)
def test_a_run_without_a_length_has_one(tmp_path, capsys, monkeypatch, length, steps, epochs):
    words = [word for word in small_options(tmp_path / "run") if "max_epochs" not in word]
    trainer = no_run(["fit", *words, *length], monkeypatch).trainer
    assert (trainer.max_steps, trainer.max_epochs) == (steps, epochs)
    assert ("Training for 20,000 steps" in capsys.readouterr().out) == (not length)
    assert trainer.num_sanity_val_steps == 0


@pytest.mark.parametrize(
    ("options", "strategy"),
    [
        (["--trainer.devices=2"], "ddp_find_unused_parameters_true"),
        (["--trainer.devices=1", "--trainer.num_nodes=2"], "ddp_find_unused_parameters_true"),
        (["--trainer.devices=1"], "auto"),
        (["--trainer.devices=auto"], "auto"),
        (["--trainer.devices=2", "--trainer.strategy=ddp_spawn"], "ddp_spawn"),
    ],
)
def test_several_devices_look_for_unused_parameters(tmp_path, monkeypatch, options, strategy):
    built = {}

    class Trainer(L.Trainer):
        def __init__(self, *args, strategy="auto", **kwargs):
            built["strategy"] = strategy
            super().__init__(*args, accelerator="cpu", devices=1, logger=False)

    run = no_run(["fit", *small_options(tmp_path / "run")], monkeypatch)
    run.trainer_class = Trainer
    for option in options:
        name, value = option.removeprefix("--trainer.").split("=")
        run.config_init.fit.trainer[name] = yaml.safe_load(value)
    run.instantiate_trainer()
    assert built["strategy"] == strategy


def test_wandb_writes_into_the_run_and_goes_on_with_it(tmp_path):
    """Resuming and testing go on with the run of the checkpoint; the configuration can start another."""
    wandb = pytest.importorskip("wandb")
    logger = ["--trainer.logger=lightning.pytorch.loggers.WandbLogger", "--trainer.logger.project=tests"]
    last, config = tmp_path / "run/checkpoints/last.ckpt", tmp_path / "run/config.yaml"
    assert main(fit(tmp_path, *logger)) == 0
    wandb.finish()
    longer = ["--trainer.max_steps=4", "--change_length=true"]
    assert main(fit(tmp_path, *logger, *longer, f"--ckpt_path={last}")) == 0
    wandb.finish()
    assert yaml.safe_load(config.read_text())["trainer"]["logger"]["init_args"]["id"] is None
    assert main(["test", "--config", str(config), "--ckpt_path", str(last)]) == 0
    wandb.finish()
    runs = offline_runs(tmp_path / "run/wandb")
    assert len(runs) == 3
    assert {run.id for run in runs} == {wandb_run_id(last)}
    assert (tmp_path / "run/metrics.csv").exists()  # CSV always


def test_wandb_keeps_an_id_of_the_user_s_own(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setattr(program, "wandb_run_id", lambda checkpoint: "theirs")
    logger = ["--trainer.logger=WandbLogger", "--trainer.logger.project=tests"]
    checkpoint = tmp_path / "last.ckpt"
    torch.save({"method": "fer_lightning.methods.fixmatch.FixMatch", "state_dict": {}}, checkpoint)
    words = fit(tmp_path, *logger, f"--ckpt_path={checkpoint}")
    assert no_run(words, monkeypatch).trainer.loggers[1].version == "theirs"
    assert no_run([*words, "--trainer.logger.id=mine"], monkeypatch).trainer.loggers[1].version == "mine"


def test_the_examples_of_the_docstrings_run(tmp_path):
    examples = doctest.DocTestFinder(recurse=False)
    (example,) = examples.find(program.Program, "Program", globs={})
    for each in example.examples:  # what training prints is not compared
        exec(each.source, example.globs)
    assert example.globs["steps"] == 2
    small_run(tmp_path / "runs/mine", "--data.labels_per_class=3")
    (example,) = examples.find(fer_lightning.load, "load", globs={})
    assert doctest.DocTestRunner().run(example) == (0, 6)


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"fer-lightning \d+\.\d+\.\d+\n", capsys.readouterr().out)
