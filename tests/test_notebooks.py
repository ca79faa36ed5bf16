import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from small_run import small_run

nbformat = pytest.importorskip("nbformat", reason="install the extra `notebooks`")
nbclient = pytest.importorskip("nbclient", reason="install the extra `notebooks`")
pytest.importorskip("ipykernel", reason="install the extra `notebooks`")
pytest.importorskip("sklearn", reason="install the extra `notebooks`")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs_and_traces_of_a_machine(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        assert cell.metadata == {}
        assert cell.get("execution_count") is None
        assert cell.get("outputs", []) == []


RUNS = {
    "both": (
        ("--model.targets=both", "--model.threshold=0.15", "--data.labels_per_class=4"),
        "FixMatch",
        # curves; confusion, calibration, concordance; two embeddings; audit; pseudo-labels; four sheets
        12,
    ),
    "nothing_unlabeled": (("--model.targets=valence_arousal",), "Supervised", 7),
}


@pytest.mark.parametrize("kind", RUNS)
def test_explore_checkpoint(tmp_path, monkeypatch, kind):
    options, method, wanted = RUNS[kind]
    checkpoint = small_run(tmp_path / "run", *options, method=method)
    monkeypatch.setenv("FER_CHECKPOINT", os.fspath(checkpoint))
    monkeypatch.setenv("PYTHONPATH", os.fspath(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(ROOT / "notebooks" / "explore_checkpoint.ipynb", as_version=4)
    folder = {"metadata": {"path": ROOT / "notebooks"}}  # as Jupyter does
    client = nbclient.NotebookClient(notebook, timeout=300, resources=folder)
    client.execute()  # raises at a cell that does
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == wanted
    for picture in pictures:
        pixels = imread(io.BytesIO(base64.b64decode(picture)))
        assert np.ptp(pixels[..., :3]) > 0.5  # something is drawn
