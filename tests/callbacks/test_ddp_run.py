import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from faces import TinyFaces

from fer_lightning.outputs.csv_files import read_csv

HERE = Path(__file__).parent


def test_two_processes_leave_one_run_behind(tmp_path):
    path = [str(HERE.parent), str(HERE.parents[1])]
    done = subprocess.run(
        [sys.executable, str(HERE / "ddp_full_run.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    # One rank was asked to stop, both did, with a checkpoint that holds the beliefs of both.
    assert [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)] == ["130", "130"]
    audit = read_csv(whole / "pseudo_labels.csv")
    assert [float(row["seen"]) for row in audit if row["emotion"] == "all"] == [140, 140]
    assert read_csv(parts / "pseudo_labels.csv") == audit
    assert read_csv(parts / "metrics.csv") == read_csv(whole / "metrics.csv")
    ours, theirs = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (parts, whole)
    )
    for name, tensor in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], tensor), name

    assert json.loads((whole / "run.json").read_text())["devices"] == 2
    assert {file.name for file in (whole / "figures").iterdir()} >= {"views.png", "val_confusion.png"}
    assert (parts / "figures" / "test_reliability.png").exists()
    assert [row["checkpoint"] for row in read_csv(parts / "test.csv")] == ["last.ckpt"]

    faces = TinyFaces().load(16)
    with (parts / "predictions-test.csv").open(newline="") as lines:
        names = [row["name"] for row in csv.DictReader(lines)]
    assert sorted(names) == sorted(faces.names[faces.partition == "test"])
    assert not list(parts.glob(".predictions*"))
    assert "self.log('audit" not in done.stderr  # Lightning's warning of values that differ between ranks
