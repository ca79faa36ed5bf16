import math
from pathlib import Path

import pytest

from fer_lightning.files import NotWritten
from fer_lightning.outputs.csv_files import append_csv, read_csv, write_csv


def test_round_trip_in_stable_columns(tmp_path):
    file = tmp_path / "new" / "table.csv"
    write_csv(file, [{"b": 1, "a": 0.1 + 0.2}, {"a": math.nan, "c": 'x, "y"\nz'}], columns=["a"])
    assert file.read_text().splitlines()[0] == "a,b,c"
    assert read_csv(file) == [{"a": "0.3", "b": "1", "c": ""}, {"a": "", "b": "", "c": 'x, "y"\nz'}]


def test_a_missing_file_has_no_rows(tmp_path):
    assert read_csv(tmp_path / "none.csv") == []


def test_a_line_cut_off_by_a_kill_does_not_count(tmp_path):
    file = tmp_path / "table.csv"
    write_csv(file, [{"step": 99, "loss": 1.5}])
    append_csv(file, {"step": 149, "loss": 1.25}, ["step", "loss"])
    file.write_text(file.read_text()[:-5])  # "14" of 149 would pass for a step
    assert read_csv(file) == [{"step": "99", "loss": "1.5"}]


def test_a_failing_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "table.csv"
    write_csv(file, [{"a": 1}])

    class Unwritable:
        def __str__(self):
            raise OSError("no space left")

    with pytest.raises(NotWritten, match=r"table.csv: no space left; .* free there"):
        write_csv(file, [{"a": 2}, {"a": Unwritable()}])
    assert read_csv(file) == [{"a": "1"}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full: /dev/full")
def test_a_full_disk_is_named():
    with pytest.raises(NotWritten, match=r"cannot write /dev/full: No space left on device; .*ckpt_path"):
        append_csv(Path("/dev/full"), {"step": 1}, ["step"])
