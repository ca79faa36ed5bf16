import shutil

import lightning as L
import numpy as np
import pytest
import torch
from faces import TINY, TinyFaces, tiny_data
from full_run import KeepCheckpoint, full_fit

from fer_lightning.callbacks import audit
from fer_lightning.methods import FixMatch, Supervised
from fer_lightning.outputs.csv_files import read_csv


class Complementary(FixMatch):
    """Takes improbable emotions for complementary labels."""

    def pseudo_label(self, unlabeled):
        q = self(unlabeled.weak[0]).emotion
        return super().pseudo_label(unlabeled)._replace(negative=q < 1 / 7)


class Spy(L.Callback):
    """Counts by hand what the audit should say of every epoch."""

    def __init__(self):
        self.epochs = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pseudo, truth = outputs["pseudo"], trainer.datamodule.unlabeled_truth.label
        epoch = self.epochs.setdefault(trainer.current_epoch, [])
        for i, index in enumerate(batch["unlabeled"].index.tolist()):
            label = int(pseudo.target.emotion[i].argmax())
            epoch.append((label, int(truth[index]), float(pseudo.weight[i])))


def rows_of(run_dir):
    return {(int(r["epoch"]), r["emotion"]): r for r in read_csv(run_dir / "pseudo_labels.csv")}


def test_table_compares_pseudo_labels_with_the_truth(tmp_path):
    spy = Spy()
    trainer = full_fit(tmp_path, callbacks=[spy])
    rows = rows_of(tmp_path)
    emotions = trainer.lightning_module.task.emotions
    assert len(rows) == 2 * 8
    for epoch, faces in spy.epochs.items():
        assert len(faces) == 5 * 28
        for k, emotion in [*enumerate(emotions), (None, "all")]:
            mine = [f for f in faces if k is None or f[0] == k]
            accepted = [f for f in mine if f[2] > 0]
            row = rows[epoch, emotion]
            assert int(row["step"]) == 5 * (epoch + 1)
            assert (float(row["seen"]), float(row["accepted"])) == (len(mine), len(accepted))
            if accepted:
                assert float(row["purity"]) == pytest.approx(np.mean([b == t for b, t, _ in accepted]))
            else:
                assert row["purity"] == ""
            assert float(row["threshold"]) == pytest.approx(0.2)
    assert sum(float(rows[e, "all"]["accepted"]) for e in (0, 1)) > 20  # else little was tested
    assert (tmp_path / "figures" / "pseudo_labels.png").stat().st_size > 5000
    logged = trainer.callback_metrics
    assert float(logged["audit/coverage"]) == pytest.approx(float(rows[1, "all"]["coverage"]), rel=1e-5)
    assert float(logged["audit/threshold/fear"]) == pytest.approx(0.2)


class KeepLast(L.Callback):
    """Keeps a copy of the last checkpoint as it was when the second epoch began."""

    def __init__(self, run_dir):
        self.run_dir = run_dir

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            shutil.copy(self.run_dir / "checkpoints" / "last.ckpt", self.run_dir / "kept.ckpt")


@pytest.mark.parametrize("moment", ["mid-epoch", "epoch-end"])
def test_resuming_neither_loses_nor_repeats_a_pseudo_label(tmp_path, moment):
    keep = KeepCheckpoint(7, tmp_path / "kept.ckpt") if moment == "mid-epoch" else KeepLast(tmp_path)
    full_fit(tmp_path, callbacks=[keep])
    whole = (tmp_path / "pseudo_labels.csv").read_text()
    full_fit(tmp_path, tmp_path / "kept.ckpt")
    assert (tmp_path / "pseudo_labels.csv").read_text() == whole
    assert len(rows_of(tmp_path)) == 2 * 8


class NoTruth(TinyFaces):
    """Faces of which a part were never labeled by anybody."""

    def load(self, image_size):
        faces = super().load(image_size)
        faces.partition = faces.partition.astype("U9")
        faces.partition[28:140] = "unlabeled"
        faces.emotion[28:140] = np.nan
        faces.valence_arousal[28:140] = np.nan
        return faces


def test_without_truth_purity_is_empty(tmp_path):
    full_fit(tmp_path, data=tiny_data(dataset=NoTruth()), max_epochs=1)
    row = rows_of(tmp_path)[0, "all"]
    assert float(row["accepted"]) > 0
    assert float(row["coverage"]) > 0
    assert [row[c] for c in ("purity", "ece", "confidence_gap", "true_coverage")] == [""] * 4


def test_valence_and_arousal_are_compared_with_the_truth(tmp_path):
    method = FixMatch(**TINY, threshold=0.0, targets="both")
    trainer = full_fit(tmp_path, method=method, max_epochs=1)
    row = rows_of(tmp_path)[0, "all"]
    assert 0 < float(row["rmse_valence"]) < 2
    assert float(trainer.callback_metrics["audit/rmse_arousal"]) == pytest.approx(
        float(row["rmse_arousal"]), rel=1e-5
    )


def test_nothing_to_audit_leaves_no_table(tmp_path):
    full_fit(tmp_path / "supervised", method=Supervised(**TINY), max_epochs=1)
    full_fit(tmp_path / "warm", method=FixMatch(**TINY, labeled_only_steps=100), max_epochs=1)
    for run in ("supervised", "warm"):
        assert not (tmp_path / run / "pseudo_labels.csv").exists()


def test_truth_is_in_no_checkpoint(tmp_path):
    trainer = full_fit(tmp_path, max_epochs=1)
    truth = trainer.datamodule.unlabeled_truth

    def tensors(value):
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, dict | list | tuple):
            for each in value.values() if isinstance(value, dict) else value:
                yield from tensors(each)

    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(len(truth.label) not in tensor.shape for tensor in tensors(content))


class ComplementarySpy(L.Callback):
    """Counts by hand how often an emotion, and the true one, is a complementary label in an epoch."""

    def __init__(self):
        self.epochs = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        truth = trainer.datamodule.unlabeled_truth.label[batch["unlabeled"].index]
        faces = self.epochs.setdefault(trainer.current_epoch, [])
        for negative, true in zip(outputs["pseudo"].negative.tolist(), truth.tolist(), strict=True):
            faces.append((sum(negative), negative[true]))


def complementary():
    L.seed_everything(3, verbose=False)
    return Complementary(**TINY, threshold=0.2, ema_decay=0.9, dropout=0.2)


def test_complementary_labels_are_compared_with_the_truth(tmp_path):
    spy = ComplementarySpy()
    trainer = full_fit(tmp_path, method=complementary(), callbacks=[spy])
    rows = rows_of(tmp_path)
    for epoch, faces in spy.epochs.items():
        wrong = [w for n, w in faces if n]
        assert 0 < sum(wrong) < len(wrong)
        row = rows[epoch, "all"]
        assert float(row["complementary"]) == pytest.approx(np.mean([n for n, _ in faces]), rel=1e-6)
        assert float(row["complementary_error"]) == pytest.approx(np.mean(wrong), rel=1e-6)
        for name in ("complementary", "complementary_error"):
            logged = float(trainer.callback_metrics[f"audit/{name}"])
            assert epoch == 0 or logged == pytest.approx(float(row[name]), rel=1e-5)


def test_resuming_neither_loses_nor_repeats_a_complementary_label(tmp_path):
    full_fit(tmp_path, method=complementary(), callbacks=[KeepCheckpoint(7, tmp_path / "kept.ckpt")])
    whole = (tmp_path / "pseudo_labels.csv").read_text()
    full_fit(tmp_path, tmp_path / "kept.ckpt", method=complementary())
    assert (tmp_path / "pseudo_labels.csv").read_text() == whole


def test_without_complementary_labels_their_columns_are_empty(tmp_path):
    trainer = full_fit(tmp_path, max_epochs=1)
    row = rows_of(tmp_path)[0, "all"]
    assert (row["complementary"], row["complementary_error"]) == ("", "")
    assert "audit/complementary" not in trainer.callback_metrics


def test_a_coverage_of_zero_is_in_the_picture(tmp_path, monkeypatch):
    drawn = []
    draw = audit.audit_figure
    monkeypatch.setattr(
        audit, "audit_figure", lambda rows, history: drawn.append(history) or draw(rows, history)
    )
    full_fit(tmp_path, method=FixMatch(**TINY, threshold=1.0))
    assert [[row["coverage"] for row in history] for history in drawn] == [[0.0], [0.0, 0.0]]
