import math

import lightning as L
import pytest
import torch
from faces import TINY, tiny_data
from full_run import KeepCheckpoint, full_fit

from fer_lightning.callbacks.relabel_audit import relabel_rows
from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.methods import SCLUERMARM
from fer_lightning.outputs.csv_files import read_csv

OPTIONS = {
    "threshold": 0.2,
    "labeled_only_steps": 0,
    "ema_decay": 0.9,
    "dropout": 0.2,
    "relabel_epoch": 2,
    "relabel_margin": 0.0,
    "low_only": False,
}


def run(folder, ckpt_path=None, options=None, **trainer):
    L.seed_everything(3, verbose=False)
    method = SCLUERMARM(**(TINY | OPTIONS | (options or {})))
    data = tiny_data(label_noise=0.3)
    return full_fit(folder, ckpt_path, method, data, **({"max_epochs": 3} | trainer))


def test_rows_counted_by_hand():
    truth = torch.tensor([0, 0, 0, 0, 1, 1, 1, -1, 1])
    original = torch.tensor([0, 1, 1, 0, 1, 0, 1, 0, -1])
    current = torch.tensor([0, 1, 0, 0, 1, 0, 1, 0, -1])
    pending = torch.tensor([0, 0, 0, 1, 1, 2, 1, 1, -1])
    rows = relabel_rows(truth, original, current, pending, ("a", "b", "c"))
    assert rows["a"] == {
        "labels": 4,
        "wrong": 2,
        "moved": 2,
        "changed": 3,
        "repaired": 2,
        "broken": 1,
        "wrong_now": 1,
        "repaired_share": 1.0,
        "broken_share": 0.5,
    }
    assert rows["b"] == {
        "labels": 3,
        "wrong": 1,
        "moved": 1,
        "changed": 1,
        "repaired": 0,
        "broken": 0,
        "wrong_now": 1,
        "repaired_share": 0.0,
        "broken_share": 0.0,
    }
    assert rows["c"]["labels"] == 0
    assert math.isnan(rows["c"]["repaired_share"])
    assert math.isnan(rows["c"]["broken_share"])
    assert {k: rows["all"][k] for k in ("labels", "wrong", "moved")} == {"labels": 7, "wrong": 3, "moved": 3}
    assert rows["all"]["repaired_share"] == pytest.approx(2 / 3)
    assert rows["all"]["broken_share"] == pytest.approx(1 / 4)


def test_table_of_a_run(tmp_path):
    trainer = run(tmp_path)
    method, data = trainer.lightning_module, trainer.datamodule
    table = read_csv(tmp_path / "relabels.csv")
    assert [(int(r["epoch"]), r["emotion"]) for r in table] == [
        (epoch, emotion) for epoch in range(3) for emotion in (*method.task.emotions, "all")
    ]
    every = [{k: float(v) for k, v in r.items() if k != "emotion"} for r in table if r["emotion"] == "all"]
    truth, given = data.labeled_truth.label, data.labeled_target.label
    learnt = method.relabeling.labels_current
    assert [row["step"] for row in every] == [5, 10, 15]
    assert all(row["labels"] == 28 and row["wrong"] == (given != truth).sum() > 0 for row in every)
    assert every[0]["moved"] == every[0]["changed"] == 0  # not before the second epoch
    assert every[1]["moved"] == every[1]["changed"] > 0
    last = every[2]
    assert last["changed"] == (learnt != given).sum()
    assert last["repaired"] == ((given != truth) & (learnt == truth)).sum()
    assert last["broken"] == ((given == truth) & (learnt != truth)).sum()
    assert last["wrong_now"] == last["wrong"] - last["repaired"] + last["broken"]
    for name in ("repaired", "broken"):
        assert float(trainer.callback_metrics[f"audit/{name}"]) == pytest.approx(
            last[f"{name}_share"], rel=1e-5
        )


@pytest.mark.parametrize("batch", [7, 12])
def test_resuming_gives_the_same_table(tmp_path, batch):
    run(tmp_path, callbacks=[KeepCheckpoint(batch, tmp_path / "kept.ckpt")])
    whole = (tmp_path / "relabels.csv").read_text()
    run(tmp_path, tmp_path / "kept.ckpt")
    assert (tmp_path / "relabels.csv").read_text() == whole


@pytest.mark.parametrize("options", [{"relabel": False}, {"uncertainty": "none"}])
def test_nothing_relabeled_leaves_no_table(tmp_path, options):
    run(tmp_path, options=options, max_epochs=1)
    assert not (tmp_path / "relabels.csv").exists()
    full_fit(tmp_path / "fixmatch", max_epochs=1)
    assert not (tmp_path / "fixmatch" / "relabels.csv").exists()


def test_truth_changes_nothing_but_the_table(tmp_path, monkeypatch):
    honest = run(tmp_path / "honest").lightning_module.state_dict()
    truth = SemiSupervisedFaces.labeled_truth.fget

    def rolled(data):
        target = truth(data)
        return target._replace(emotion=target.emotion.roll(1, 1))

    monkeypatch.setattr(SemiSupervisedFaces, "labeled_truth", property(rolled))
    other = run(tmp_path / "other").lightning_module.state_dict()
    for name, value in honest.items():
        assert torch.equal(value, other[name]), name
    tables = [(tmp_path / folder / "relabels.csv").read_text() for folder in ("honest", "other")]
    assert tables[0] != tables[1]
