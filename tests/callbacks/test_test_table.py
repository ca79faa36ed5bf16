import pytest
from faces import TinyFaces, tiny_data
from full_run import fix_match, full_fit, full_trainer

from fer_lightning.outputs.csv_files import read_csv


def tiny_split():
    data = tiny_data()
    data.setup("fit")
    return data.split.sha256


def check(run_dir, name, method=None, data=None):
    trainer = full_trainer(run_dir)
    path = run_dir / "checkpoints" / name if name else None
    trainer.test(method or fix_match(), data or tiny_data(), ckpt_path=path, verbose=False)
    return {key.removeprefix("test/"): float(value) for key, value in trainer.callback_metrics.items()}


def test_a_row_per_checkpoint(tmp_path):
    full_fit(tmp_path, max_epochs=3)
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    best, last = check(tmp_path, "best.ckpt"), check(tmp_path, "last.ckpt")
    assert check(tmp_path, "best.ckpt") == best
    table = read_csv(tmp_path / "test.csv")
    assert [row["checkpoint"] for row in table] == ["last.ckpt", "best.ckpt"]
    assert [*table[0]][:6] == ["checkpoint", "dataset", "split", "epoch", "step", "accuracy"]
    assert {(row["dataset"], row["split"]) for row in table} == {("tiny196", tiny_split()[:12])}
    assert (table[0]["epoch"], table[0]["step"]) == ("2", "15")
    for row, measured in zip(table, (last, best), strict=True):
        assert row.keys() - {"checkpoint", "dataset", "split", "epoch", "step"} == measured.keys()
        for name, value in measured.items():
            assert float(row[name]) == pytest.approx(value, rel=1e-5)
    # A test changes nothing of what the training left behind.
    assert files == {name: (tmp_path / name).read_bytes() for name in files}


def test_another_data_set_or_split_has_a_row_and_files_of_its_own(tmp_path):
    full_fit(tmp_path, max_epochs=1)
    check(tmp_path, "last.ckpt")
    others = [tiny_data(seed=5), tiny_data(dataset=TinyFaces(test=14))]
    for data in others:
        check(tmp_path, "last.ckpt", data=data)
        full_trainer(tmp_path).predict(fix_match(), data, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    own, *rest = read_csv(tmp_path / "test.csv")
    assert own["split"] == tiny_split()[:12]
    assert [(row["dataset"], row["split"]) for row in rest] == [
        (data.faces.dataset, data.split.sha256[:12]) for data in others
    ]
    names = {f"predictions-{data.faces.dataset}-{data.split.sha256[:8]}-test.csv" for data in others}
    assert {file.name for file in tmp_path.glob("predictions*.csv")} == names


def test_weights_in_memory_have_a_row_of_their_own(tmp_path):
    check(tmp_path, None)
    (row,) = read_csv(tmp_path / "test.csv")
    assert (row["checkpoint"], row["step"]) == ("current", "0")
