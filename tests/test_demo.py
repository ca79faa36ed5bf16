"""`make demo`, whole: trains for minutes, so it is slow."""

from pathlib import Path

import pandas as pd
import pytest

from fer_lightning.cli import main

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_fixmatch_beats_labels_alone_clearly_on_synthetic_faces(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # the paths in a matrix file are those of the repository
    results = tmp_path / "results.csv"
    assert main(["matrix", "experiments/demo.yaml", "--root", str(tmp_path), "--results", str(results)]) == 0
    accuracy = pd.read_csv(results).set_index("name")["best/accuracy"]
    assert accuracy["fixmatch"] > accuracy["supervised"] + 0.08
    for name in ("supervised", "fixmatch"):
        assert (tmp_path / f"{name}-seed0/figures/views.png").exists()
