import json
import shutil

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
import torch
from faces import TINY, TinyFaces, tiny_data
from small_run import small_run

from fer_lightning import explore
from fer_lightning.data.views import WeakView
from fer_lightning.errors import InputError
from fer_lightning.methods import FixMatch, Supervised


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    options = ("--data.labels_per_class=4", "--model.threshold=0.15", "--data.seed=5")
    return small_run(tmp_path_factory.mktemp("explore") / "run", *options)


@pytest.fixture(scope="module")
def run(checkpoint):
    return explore.open_run(checkpoint)


def untrained(method, data=None) -> explore.Run:
    data = explore.prepared(data or tiny_data(), method)
    return explore.Run(method.eval(), data, None, {}, pd.DataFrame(), pd.DataFrame())


def test_a_run_is_opened_with_its_split_and_records(run, checkpoint):
    split = json.loads((checkpoint.parent.parent / "split.json").read_text())
    assert type(run.method) is FixMatch
    assert run.data.faces.names[run.data.labeled].tolist() == split["labeled"]
    assert run.data.seed == 5
    assert run.record["split"] == run.data.split.sha256
    assert run.metrics["step"].max() == 15
    assert set(run.audit["epoch"]) == {0, 1}


def test_evaluation_equals_validation(run):
    predicted = explore.evaluate(run, "val").metrics.compute()
    logged = run.metrics.dropna(subset="val/accuracy").iloc[-1]
    for name in ("accuracy", "uar", "ece"):
        assert float(predicted[name]) == pytest.approx(logged[f"val/{name}"], abs=1e-4)


def test_a_row_a_feature_and_a_picture_are_of_the_same_face(run):
    evaluation, task = explore.evaluate(run, "test"), run.method.task
    table, rows = evaluation.table, run.data.test
    assert table.index.tolist() == rows.tolist()
    assert table["name"].tolist() == run.data.faces.names[rows].tolist()
    assert table["truth"].tolist() == [task.emotions[label] for label in run.data.faces.label[rows]]
    probability = table[list(task.emotions)]
    assert np.allclose(probability.sum(axis=1), 1, atol=1e-5)
    assert table["prediction"].tolist() == probability.idxmax(axis=1).tolist()
    assert table["confidence"].tolist() == probability.max(axis=1).tolist()

    pictures = explore.images(run, table.index[[3, 1]])
    assert np.array_equal(pictures[0], run.data.faces.images[rows[3]])
    with torch.no_grad():
        alone = run.method(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    assert np.allclose(alone.features, evaluation.features[[3, 1]], atol=1e-5)


def test_a_limit_takes_faces_from_all_over_the_part(run):
    assert explore.evaluate(run, "test", 4).table.index.tolist() == run.data.test[[0, 9, 18, 27]].tolist()
    assert len(explore.evaluate(run, "test", 1000).table) == 28


def test_an_empty_part_is_an_error():
    alone = untrained(Supervised(**TINY), tiny_data(labels_per_class=None))
    with pytest.raises(InputError, match="no unlabeled faces"):
        explore.audit_pseudo_labels(alone)


def test_valence_and_arousal_stand_beside_the_truth():
    run = untrained(Supervised(**TINY, targets="valence_arousal"))
    table = explore.evaluate(run, "test").table
    assert "truth" not in table
    face = table.iloc[5]
    assert (face["true_valence"], face["true_arousal"]) == tuple(
        run.data.faces.valence_arousal[table.index[5]].tolist()
    )
    distance = np.hypot(face["valence"] - face["true_valence"], face["arousal"] - face["true_arousal"])
    assert face["error"] == pytest.approx(distance, rel=1e-5)
    assert explore.mistakes(table)["error"].is_monotonic_decreasing


def test_pseudo_labels_are_those_of_the_method_compared_with_the_truth(run):
    audited = explore.audit_pseudo_labels(run)
    table, audit = audited.table, audited.audit
    assert table.index.tolist() == run.data.unlabeled.tolist()
    accepted = table["weight"] > 0
    assert (accepted == (table["confidence"] >= 0.15)).all()
    assert audit.loc["all", "seen"] == len(table)
    assert audit.loc["all", "coverage"] == pytest.approx(accepted.mean())
    label = table["prediction"].iloc[0]
    chosen = table[accepted & (table["prediction"] == label)]
    assert audit.loc[label, "purity"] == pytest.approx((chosen["truth"] == label).mean())


class Watched(FixMatch):
    """Notes the batches that it makes pseudo-labels of."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.batches = []

    def pseudo_label(self, unlabeled):
        assert not self.training
        self.batches.append(unlabeled)
        return super().pseudo_label(unlabeled)


def test_the_method_gets_the_right_faces_in_the_views_of_training():
    run = untrained(Watched(**TINY), tiny_data(weak=WeakView(flip=0, padding=0)))
    table = explore.audit_pseudo_labels(run, 60).table
    batches = run.method.batches
    assert [len(each.index) for each in batches] == [28, 28, 4]
    index = torch.cat([each.index for each in batches])
    assert run.data.unlabeled[index].tolist() == table.index.tolist()
    weak = torch.cat([each.weak[0] for each in batches]).permute(0, 2, 3, 1)
    assert np.array_equal(weak, explore.images(run, table.index))


def test_groups_are_compared(run):
    evaluation = explore.evaluate(run, "test")
    table = explore.group_table(evaluation)
    groups = sorted(set(evaluation.table["group"].dropna()))
    assert groups
    assert table.index.tolist() == [*groups, "largest gap"]
    for group in groups:
        mine = evaluation.table[evaluation.table["group"] == group]
        expected = (mine["truth"] == mine["prediction"]).mean()
        assert table.loc[group, "accuracy"] == pytest.approx(expected, abs=1e-6)
    accuracy = table["accuracy"].drop("largest gap")
    assert table.loc["largest gap", "accuracy"] == pytest.approx(accuracy.max() - accuracy.min())
    assert explore.group_table(explore.evaluate(untrained(Supervised(**TINY)))).empty


def test_predictions_stand_in_for_a_method_without_pseudo_labels():
    run = untrained(Supervised(**TINY))
    table = explore.audit_pseudo_labels(run, 40).table
    predicted = explore.evaluate(run, "unlabeled", 40).table
    assert table["prediction"].tolist() == predicted["prediction"].tolist()
    assert np.allclose(table["confidence"], predicted["confidence"])
    assert (table["weight"] == 1).all()


def test_a_checkpoint_without_its_run_needs_data(checkpoint, tmp_path):
    lost = tmp_path / "lost.ckpt"
    shutil.copy(checkpoint, lost)
    with pytest.raises(InputError, match=r"no run around it .*data="):
        explore.open_run(lost)
    run = explore.open_run(lost, data=tiny_data(dataset=TinyFaces(70, 14, 21)))
    assert run.run_dir is None
    assert run.metrics.empty
    assert len(explore.evaluate(run, "test").table) == 21


def test_what_cannot_be_opened_is_named(checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.ckpt does not exist"):
        explore.open_run(tmp_path / "nowhere.ckpt")
    with pytest.raises(InputError, match=r"(?s)config\.yaml cannot be used.*place"):
        explore.open_run(checkpoint, place="/elsewhere")


def test_options_of_the_data_set_may_change_but_not_its_faces(checkpoint):
    with pytest.raises(InputError, match="not both"):
        explore.open_run(checkpoint, data=tiny_data(), test=35)
    with pytest.raises(InputError, match="test35"):
        explore.open_run(checkpoint, test=35)


TABLE = pd.DataFrame(
    {
        "truth": ["fear", "anger", None, "anger"],
        "prediction": ["fear", "fear", "fear", "neutral"],
        "confidence": [0.9, 0.5, 0.99, 0.7],
    },
    index=[4, 5, 6, 7],
)


def test_mistakes_are_known_ones_the_firmest_first():
    assert explore.mistakes(TABLE).index.tolist() == [7, 5]


def test_captions():
    assert explore.captions(TABLE)[1:3] == ["fear 50%\nis anger", "fear 99%\nis ?"]
    point = pd.DataFrame({"valence": [0.5], "arousal": [-0.25], "true_valence": [0.1], "true_arousal": [0.0]})
    assert explore.captions(point) == ["v +0.50 a -0.25\nis +0.10, +0.00"]


def test_neighbors_are_the_nearest_by_angle():
    rng = np.random.default_rng(0)
    query, bank = rng.normal(size=(3, 5)), rng.normal(size=(9, 5))
    bank[4] = 7 * query[1]
    position, cosine = explore.neighbors(query.astype(np.float32), bank.astype(np.float32), k=4)
    for q in range(3):
        cosines = [a @ query[q] / np.linalg.norm(a) / np.linalg.norm(query[q]) for a in bank]
        assert position[q].tolist() == np.argsort(cosines)[::-1][:4].tolist()
        assert np.allclose(cosine[q], np.sort(cosines)[::-1][:4], atol=1e-6)
    assert position[1, 0] == 4
    two = np.eye(2, dtype=np.float32)
    assert explore.neighbors(two, two, k=5)[0].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_embeddings_keep_groups_apart_and_repeat(method):
    pytest.importorskip("sklearn", reason="install the extra `notebooks`")
    features = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    features[10:] += 20
    points = explore.embed(features, method)
    assert points.shape == (20, 2)
    within = np.linalg.norm(points[:10] - points[:10].mean(0), axis=1).max()
    assert np.linalg.norm(points[:10].mean(0) - points[10:].mean(0)) > within
    assert np.array_equal(points, explore.embed(features, method))


def test_embedding_marks_the_mistaken(run):
    evaluation = explore.evaluate(run, "test")
    points = np.arange(56, dtype=np.float32).reshape(28, 2)
    (axes,) = explore.embedding(points, evaluation, "test").axes
    drawn = {}
    for group, color in zip(axes.collections[:-1], np.repeat(explore.COLORS[:7], 2), strict=True):
        assert all(matplotlib.colors.same_color(each, color) for each in group.get_facecolor())
        drawn |= {tuple(point): len(group.get_paths()[0]) for point in group.get_offsets().tolist()}
    assert len(drawn) == 28
    right = (evaluation.table["truth"] == evaluation.table["prediction"]).tolist()
    kinds = [drawn[tuple(point)] for point in points.tolist()]
    circles = {kind for kind, is_right in zip(kinds, right, strict=True) if is_right}
    crosses = {kind for kind, is_right in zip(kinds, right, strict=True) if not is_right}
    assert not circles & crosses


def test_contact_sheet_shows_every_face_under_its_title():
    pictures = np.full((5, 16, 16, 3), np.arange(5)[:, None, None, None] * 50, np.uint8)
    (axes,) = explore.contact_sheet(pictures, list("abcde"), columns=3).axes
    (mosaic,) = axes.images
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert list(places) == list("abcde")
    for (x, y), picture in zip(places.values(), pictures, strict=True):
        below, beside = int(y) + 2, int(x) - 8
        assert np.array_equal(mosaic.get_array()[below : below + 15, beside : beside + 16], picture[:15])
    assert (mosaic.get_array()[-16:, -16:] == 255).all()  # the sixth place is empty


def test_contact_sheet_of_nobody_is_white():
    (axes,) = explore.contact_sheet(np.empty((0, 16, 16, 3), np.uint8), []).axes
    assert (axes.images[0].get_array() == 255).all()


def test_curves_of_the_run(run):
    losses, scores = explore.learning_curves(run.metrics).axes
    lines = {line.get_label(): line.get_xdata().tolist() for line in (*losses.lines, *scores.lines)}
    assert lines["val/accuracy"] == [7, 15]
    assert {"train/loss", "train/supervised", "train/unlabeled", "val/uar"} < lines.keys()
    assert lines["train/loss"][-1] == 15

    by_emotion, over_time = explore.pseudo_labels_over_time(run.audit).axes
    assert [tick.get_text() for tick in by_emotion.get_xticklabels()] == list(run.method.task.emotions)
    assert over_time.lines[0].get_xdata().tolist() == [0, 1]


def test_calibration_counts_the_faces_whose_truth_is_known():
    above, below = explore.calibration(TABLE, "few").axes
    assert sum(bar.get_height() for bar in below.patches) == 3
    assert above.get_title() == f"few: ECE {(0.1 + 0.5 + 0.7) / 3:.1%}"
