"""The program as its users meet it: help, configs, and what it says of bad input."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from methods.test_every_method import EXPERIMENTS, SMALL_NETWORK, configs, tiny

from fer_lightning.cli import main
from fer_lightning.cli.program import choose_run_dir
from fer_lightning.data.synthetic import SyntheticFaces
from fer_lightning.errors import InputError


def refused(words: list[str], capsys) -> str:
    """Run the program on bad input; return the message, which comes without a traceback."""
    try:
        status = main(words)
    except SystemExit as stop:  # what the parser itself refuses
        status = stop.code
    assert status == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def fixmatch(tmp_path: Path, *words: str) -> list[str]:
    return [
        "fit",
        *configs("fixmatch"),
        *tiny(tmp_path / "run", *SMALL_NETWORK, "--trainer.max_steps=2"),
        *words,
    ]


def test_help_costs_nothing_and_names_every_verb():
    code = (
        "import sys; from fer_lightning.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(EXPERIMENTS.parent)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    for verb in ("fit", "validate", "test", "predict", "splits", "matrix", "results"):
        assert f"\n  {verb} " in done.stdout


def test_help_documents_every_hyper_parameter(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model.help", "FixMatch"])
    said = capsys.readouterr().out
    for text in (
        "--model.tau",
        "confidence from which",
        "--model.lr",
        "highest learning rate",
        "--model.ema_decay",
    ):
        assert text in said


def test_wandb_logger_writes_into_the_run(tmp_path):
    logger = ["--trainer.logger=lightning.pytorch.loggers.WandbLogger", "--trainer.logger.project=tests"]
    assert main(fixmatch(tmp_path, *logger)) == 0
    assert list((tmp_path / "run").glob("wandb/offline-run-*"))
    assert (tmp_path / "run/metrics.csv").exists()  # CSV always


BAD = {
    "missing data root": (
        ["--data.dataset=FER2013", "--data.dataset.root=nowhere"],
        ["nowhere"],
    ),
    "budget larger than a class": (["--data.labels_per_class=50"], ["50", "12", "anger"]),
    "no unlabeled faces": (["--data.labels_per_class=null"], ["FixMatch", "--data.labels_per_class"]),
    "unknown backbone": (["--model.backbone=resnt18"], ["resnt18", "resnet18"]),
    "weight file that is not there": (["--model.weights=none.pth"], ["none.pth", "--model.weights"]),
    "distributed sampler": (["--trainer.use_distributed_sampler=true"], ["use_distributed_sampler false"]),
    "unwritable directory": (["--trainer.default_root_dir=/proc/run"], ["/proc/run", "default_root_dir"]),
    "label outside the emotions": (["--model.emotions=[happiness, fear]"], ["anger"]),
    "unknown taxonomy": (["--model.emotions=basic9"], ["basic9", "basic7"]),
    "impossible batch": (["--data.batch_size=0"], ["--data.batch_size"]),
    "both budgets": (["--data.labels_total=14"], ["labels_total", "labels_per_class"]),
    "task without classes": (["--model.targets=valence_arousal"], ["FixMatch", "--model.targets"]),
    "unknown option": (["--model.taw=0.9"], ["taw"]),
    "checkpoint that is not there": (["--ckpt_path=none.ckpt"], ["none.ckpt"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_a_clear_message(case, tmp_path, capsys):
    words, expected = BAD[case]
    said = refused(fixmatch(tmp_path, *words), capsys)
    assert [text for text in expected if text not in said] == []


def test_weight_file_that_matches_nothing(tmp_path, capsys):
    import torch

    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "w.pth")
    said = refused(fixmatch(tmp_path, f"--model.weights={tmp_path / 'w.pth'}"), capsys)
    assert "other.weight" in said


def test_run_is_never_written_over(tmp_path, capsys):
    assert main(fixmatch(tmp_path)) == 0
    said = refused(fixmatch(tmp_path), capsys)
    assert "already holds a run" in said
    assert "--ckpt_path" in said


def test_labels_that_overlap_the_test_set_are_refused(tmp_path, capsys):
    import json

    from fer_lightning.data.splits import SplitRequest, make_split

    faces = SyntheticFaces(train=84, val=14, test=21).load(16)
    make_split(faces, SplitRequest(labels_per_class=3)).save(tmp_path / "split.json")
    manifest = json.loads((tmp_path / "split.json").read_text())
    manifest["labeled"].append(manifest["test"][0])
    (tmp_path / "split.json").write_text(json.dumps(manifest))
    said = refused(fixmatch(tmp_path, f"--data.manifest={tmp_path / 'split.json'}"), capsys)
    assert "split.json" in said


def test_own_table_with_an_image_that_does_not_decode(tmp_path, capsys):
    import cv2

    rng = np.random.default_rng(0)
    rows = []
    for i in range(42):
        cv2.imwrite(str(tmp_path / f"{i}.png"), rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))
        emotion = ("happy", "sad", "angry", "fear", "disgust", "surprise", "neutral")[i % 7]
        rows.append({"path": f"{i}.png", "label": emotion if i < 28 else None})
    (tmp_path / "5.png").write_bytes(b"no image")
    pd.DataFrame(rows).to_csv(tmp_path / "faces.csv", index=False)
    words = [
        *(
            "fit",
            "--config",
            str(EXPERIMENTS / "trainer.yaml"),
            "--config",
            str(EXPERIMENTS / "data/table.yaml"),
        ),
        *("--config", str(EXPERIMENTS / "methods/fixmatch.yaml")),
        *(word for word in tiny(tmp_path / "run", *SMALL_NETWORK) if "dataset" not in word),
        *(
            f"--data.dataset.table={tmp_path / 'faces.csv'}",
            "--data.val=none",
            "--trainer.max_steps=2",
        ),
    ]
    assert "5.png" in refused(words, capsys)
    assert main([*words, "--data.dataset.on_bad_image=skip"]) == 0


def test_run_directory_is_the_one_asked_for_or_the_checkpoints_or_new(tmp_path, monkeypatch):
    monkeypatch.delenv("FER_LIGHTNING_RUN_DIR", raising=False)
    assert choose_run_dir("fit", "here", None, "m.FixMatch") == Path("here")
    assert choose_run_dir("test", None, "runs/a/checkpoints/best.ckpt", "m.FixMatch") == Path("runs/a")
    new = choose_run_dir("fit", None, None, "m.FixMatch")
    assert new.parent == Path("runs")
    assert new.name.startswith("FixMatch-")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="It saved nothing"):
        choose_run_dir("fit", str(tmp_path), None, "m.FixMatch")
