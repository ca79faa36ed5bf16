import numpy as np
import pytest
import torch
from faces import TINY, TinyFaces, tiny_data
from full_run import fix_match, full_fit, full_trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from fer_lightning.data.batch import Views
from fer_lightning.files import NotWritten
from fer_lightning.methods import Supervised
from fer_lightning.metrics import calibration_bins
from fer_lightning.outputs.figures import log_figure, run_directory, save_figure
from fer_lightning.outputs.plots import (
    audit_figure,
    confusion_figure,
    new_figure,
    reliability_figure,
    risk_coverage_figure,
    views_figure,
)


def figures(run_dir):
    return sorted(file.name for file in (run_dir / "figures").glob("*.png"))


def drawn(axes):
    return {tuple(map(round, text.get_position())): text.get_text() for text in axes.texts}


def small_figure():
    figure = new_figure(2, 2, 0.3, 0.1, 0.3, 0.1)
    figure.add_subplot().plot([0, 1])
    return figure


def test_a_run_draws_all_its_figures(tmp_path):
    full_fit(tmp_path, figures=True, max_epochs=1, num_sanity_val_steps=1)
    trainer = full_trainer(tmp_path, figures=True)
    trainer.test(fix_match(), tiny_data(), tmp_path / "checkpoints" / "last.ckpt", verbose=False)
    assert figures(tmp_path) == [
        "pseudo_labels.png",
        "test_confusion.png",
        "test_reliability.png",
        "val_confusion.png",
        "val_reliability.png",
        "views.png",
    ]
    for name in figures(tmp_path):
        pixels = np.asarray(Image.open(tmp_path / "figures" / name).convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20, f"{name} is empty"


def test_without_emotions_there_is_nothing_to_confuse(tmp_path):
    method = Supervised(**TINY, targets="valence_arousal")
    full_fit(tmp_path, method=method, figures=True, max_epochs=1, data=tiny_data())
    assert figures(tmp_path) == ["views.png"]


def test_pictures_reach_any_logger_that_shows_them(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tensorboard = TensorBoardLogger(tmp_path / "tb")
    trainer = full_trainer(tmp_path, loggers=[tensorboard])
    figure = small_figure()
    log_figure(trainer, "a_name", figure)
    assert not figure.axes  # released
    assert run_directory(trainer) == tmp_path
    assert figures(tmp_path) == ["a_name.png"]
    tensorboard.finalize("success")
    events = EventAccumulator(tensorboard.log_dir).Reload()
    assert events.Tags()["images"] == ["figures/a_name"]


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    trainer = full_trainer(tmp_path)
    monkeypatch.setattr(type(trainer), "is_global_zero", False)
    log_figure(trainer, "a_name", small_figure())
    assert not (tmp_path / "figures").exists()


def test_drawing_needs_no_pyplot(tmp_path, monkeypatch):
    """Pyplot keeps figures, and on some machines opens windows."""
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    full_fit(tmp_path, figures=True, max_epochs=1)
    assert len(figures(tmp_path)) == 4


def test_confusion_shows_shares_of_the_true_emotion_and_faces():
    axes = confusion_figure(np.array([[30, 10], [0, 20]]), ["anger", "fear"], "faces").axes[0]
    assert drawn(axes) == {(0, 0): "75%\n30", (1, 0): "25%\n10", (1, 1): "100%\n20"}  # (column, row)
    assert axes.get_title() == "faces: accuracy 83.3%, UAR 87.5%"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["anger", "fear"]


def test_an_emotion_that_no_face_shows_does_not_count_in_uar():
    axes = confusion_figure(np.array([[4, 0], [0, 0]]), ["anger", "fear"], "faces").axes[0]
    assert axes.get_title() == "faces: accuracy 100.0%, UAR 100.0%"


def test_reliability_shows_the_same_error_as_the_metric():
    confidence = torch.cat([torch.full((100,), 1.0), torch.full((100,), 0.95)])
    bins = calibration_bins(confidence, torch.arange(200) >= 10)
    figure = reliability_figure(bins.numpy(), "faces")
    assert figure.axes[0].get_title() == "faces: ECE 2.5%"
    assert [bar.get_height() for bar in figure.axes[1].patches] == [0] * 14 + [200]
    assert figure.axes[0].patches[0].get_height() == pytest.approx(0.95)  # accuracy


def test_audit_tells_unknown_from_zero():
    rows = {
        "anger": {"coverage": 0.0, "purity": float("nan"), "threshold": float("nan")},
        "fear": {"coverage": 0.5, "purity": 0.75, "threshold": 0.9},
    }
    history = [{"epoch": 4.0, "coverage": 0.2, "purity": 0.75, "mean_confidence": 0.95}]
    axes = audit_figure(rows, history).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0%", "50%", "–", "75%"]
    assert "epoch 4" in axes.get_title()


def test_every_view_has_a_row(tmp_path):
    faces = np.zeros((3, 8, 8, 3), np.uint8)
    figure = views_figure({"labeled": faces, "weak": faces}, {"labeled": ["a", "b", "c"]})
    assert [text.get_text() for text in figure.axes[0].texts] == ["labeled", "a", "b", "c"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["weak"]


@pytest.mark.parametrize("views", [Views(2, 1, 2), Views(1, 0, 1)], ids=["several", "none-weak"])
def test_picture_of_any_number_of_views(tmp_path, monkeypatch, views):
    from fer_lightning.callbacks import view_picture

    seen = {}
    monkeypatch.setattr(view_picture, "views_figure", lambda rows, captions: seen.update(rows, **captions))
    monkeypatch.setattr(view_picture, "log_figure", lambda *arguments: None)

    class LabelsAlone(Supervised):
        learns_from_unlabeled = False

    LabelsAlone.views = views
    full_fit(
        tmp_path, method=LabelsAlone(**TINY), data=tiny_data(dataset=TinyFaces()), figures=True, max_epochs=1
    )
    names = {2: ["labeled 1", "labeled 2"], 1: ["labeled"]}[views.labeled]
    names += ["weak"] * views.weak + {2: ["strong 1", "strong 2"], 1: ["strong"]}[views.strong]
    captions = seen.pop(names[0])
    assert len(captions) == 8
    assert set(captions) <= set(TinyFaces().load(16).taxonomy.emotions)
    assert [*seen] == names[1:]
    assert all(images.shape == (8, 16, 16, 3) for images in seen.values())


def test_the_risk_is_drawn_by_coverage_with_the_chosen_threshold():
    thresholds, coverage, risk = np.array([[0.9, 0.8, 0.6], [0.2, 0.6, 1.0], [0.0, 0.25, 0.4]])
    (axes,) = risk_coverage_figure(thresholds, coverage, risk, chosen=0.7).axes
    curve, chosen = axes.lines
    assert np.allclose(curve.get_xydata(), np.stack([coverage, risk], 1))
    assert np.allclose(chosen.get_xydata(), [[0.6, 0.25]])
    assert axes.get_title() == "risk 25.0% at a coverage of 60.0%"


def test_a_figure_is_saved_into_a_folder_that_is_made(tmp_path):
    save_figure(small_figure(), tmp_path / "new/small.png")
    assert Image.open(tmp_path / "new/small.png").size == (240, 240)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritten, match=r"file/small\.png"):
        save_figure(small_figure(), tmp_path / "file/small.png")
