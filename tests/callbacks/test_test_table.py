import pytest
from faces import TINY, tiny_data
from full_run import full_fit, full_trainer

from fer_lightning.methods import FixMatch
from fer_lightning.outputs.csv_files import read_csv


def check(run_dir, name, method=None):
    trainer = full_trainer(run_dir)
    path = run_dir / "checkpoints" / name if name else None
    trainer.test(method or FixMatch(**TINY), tiny_data(), ckpt_path=path, verbose=False)
    return {key.removeprefix("test/"): float(value) for key, value in trainer.callback_metrics.items()}


def test_a_row_per_checkpoint(tmp_path):
    full_fit(tmp_path, max_epochs=3)
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    best, last = check(tmp_path, "best.ckpt"), check(tmp_path, "last.ckpt")
    assert check(tmp_path, "best.ckpt") == best
    table = read_csv(tmp_path / "test.csv")
    assert [row["checkpoint"] for row in table] == ["last.ckpt", "best.ckpt"]
    assert [*table[0]][:4] == ["checkpoint", "epoch", "step", "accuracy"]
    assert (table[0]["epoch"], table[0]["step"]) == ("2", "15")
    for row, measured in zip(table, (last, best), strict=True):
        assert row.keys() - {"checkpoint", "epoch", "step"} == measured.keys()
        for name, value in measured.items():
            assert float(row[name]) == pytest.approx(value, rel=1e-5)
    # A test changes nothing of what the training left behind.
    assert files == {name: (tmp_path / name).read_bytes() for name in files}


def test_weights_in_memory_have_a_row_of_their_own(tmp_path):
    check(tmp_path, None)
    (row,) = read_csv(tmp_path / "test.csv")
    assert (row["checkpoint"], row["step"]) == ("current", "0")
