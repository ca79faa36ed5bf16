import csv

import pytest
import torch
from faces import TINY, TinyFaces, tiny_data
from full_run import full_trainer

from fer_lightning.methods import FixMatch, Supervised


def predict(run_dir, method, data):
    answers = full_trainer(run_dir).predict(method, data)
    with (run_dir / f"predictions-{data.predict_on}.csv").open(newline="") as lines:
        return list(csv.DictReader(lines)), answers


def test_a_row_per_face_with_names(tmp_path):
    method = FixMatch(**TINY, targets="both")
    data = tiny_data(eval_batch_size=8)
    rows, answers = predict(tmp_path, method, data)
    assert [row["name"] for row in rows] == data.faces.names[data.test].tolist()
    assert [*rows[0]] == ["name", "emotion", "confidence", *method.task.emotions, "valence", "arousal"]
    emotion = torch.cat([prediction.emotion for _, prediction in answers])
    valence_arousal = torch.cat([prediction.valence_arousal for _, prediction in answers])
    for row, p, (valence, arousal) in zip(rows, emotion, valence_arousal, strict=True):
        assert row["emotion"] == method.task.emotions[p.argmax()]
        assert float(row["confidence"]) == pytest.approx(float(p.max()), rel=1e-5)
        assert [float(row[e]) for e in method.task.emotions] == pytest.approx(p.tolist(), rel=1e-5)
        assert float(row["valence"]) == pytest.approx(float(valence), rel=1e-5)
        assert float(row["arousal"]) == pytest.approx(float(arousal), rel=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["predictions-test.csv"]


def test_valence_and_arousal_alone(tmp_path):
    rows, _ = predict(tmp_path, Supervised(**TINY, targets="valence_arousal"), tiny_data(predict_on="val"))
    assert [*rows[0]] == ["name", "valence", "arousal"]
    assert len(rows) == 28


def test_names_are_quoted(tmp_path):
    class Named(TinyFaces):
        def load(self, image_size):
            faces = super().load(image_size)
            faces.names = faces.names.astype("U40")
            faces.names[-1] = 'a, "b".jpg'
            return faces

    rows, _ = predict(tmp_path, Supervised(**TINY), tiny_data(dataset=Named()))
    assert 'a, "b".jpg' in [row["name"] for row in rows]


def test_fillers_that_make_ranks_equal_are_left_out(tmp_path):
    class Filled(Supervised):
        def predict_step(self, batch, batch_idx):
            index, prediction = super().predict_step(batch, batch_idx)
            return torch.where(index % 2 == 0, index, -1), prediction

    data = tiny_data()
    rows, _ = predict(tmp_path, Filled(**TINY), data)
    assert [row["name"] for row in rows] == data.faces.names[data.test][::2].tolist()
