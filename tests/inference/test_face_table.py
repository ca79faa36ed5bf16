import builtins

import pandas as pd
import pytest

from fer_lightning.errors import InputError
from fer_lightning.files import NotWritten
from fer_lightning.inference import face_table
from fer_lightning.inference.face_table import columns, open_table
from fer_lightning.task import Task

KINDS = columns(Task.of("both", ["happy", "sad"]))
FACE = {"source": "a, b.png", "frame": 0, "time": 0.04, "status": "face", "faces": 1}
FACE |= {"x": 1, "y": 2, "width": 3, "height": 4, "emotion": "sadness", "confidence": 0.75, "abstain": False}
FACE |= {"happiness": 0.25, "sadness": 0.75, "valence": -0.5, "arousal": 0.125}
NONE = {"source": "c.png", "frame": 0, "time": 0.0, "status": "no face", "faces": 0}


def read(file):
    return pd.read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)


def test_columns_follow_the_task():
    shared = ["source", "frame", "time", "status", "faces", "x", "y", "width", "height"]
    emotion = ["emotion", "confidence", "abstain", "happiness", "sadness"]
    assert list(KINDS) == [*shared, *emotion, "valence", "arousal"]
    assert list(columns(Task.of("classes", ["happy", "sad"]))) == [*shared, *emotion]
    assert list(columns(Task.of("valence_arousal", "basic7"))) == [*shared, "valence", "arousal"]


@pytest.mark.parametrize("name", ["new/t.csv", "t.CSV", "new/t.parquet"])
def test_rows_are_read_as_they_were_written(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    file = tmp_path / name
    with open_table(file, KINDS) as add:
        add([FACE, NONE])
        add([FACE])
    table = read(file.rename(file.with_suffix(file.suffix.lower())))
    assert table.columns.tolist() == list(KINDS)
    assert table.iloc[0].to_dict() == FACE
    assert table.iloc[2].to_dict() == FACE
    assert table.iloc[1].dropna().to_dict() == NONE


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_what_was_written_stays_after_an_error(tmp_path, name, monkeypatch):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    monkeypatch.setattr(face_table, "_PART", 2)
    file = tmp_path / name

    def stopped():
        with open_table(file, KINDS) as add:
            for _ in range(3):
                add([FACE])
            if name == "t.csv":
                assert len(read(file)) == 3  # also if it is killed here
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert len(read(file)) == 3


def test_a_table_without_rows_has_its_columns(tmp_path):
    with open_table(tmp_path / "t.csv", KINDS):
        pass
    assert read(tmp_path / "t.csv").columns.tolist() == list(KINDS)


def test_an_unwritable_place_and_an_unknown_ending_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(NotWritten, match=r"cannot write .*/file/t.* choose another place"):
            open_table(tmp_path / "file" / name, KINDS).__enter__()
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(NotWritten, match="cannot write"):
        open_table(tmp_path / "t.csv", KINDS).__enter__()
    with pytest.raises(InputError, match=r"t\.xlsx ends neither in \.csv nor in \.parquet") as caught:
        open_table(tmp_path / "t.xlsx", KINDS).__enter__()
    assert caught.value.option == "out"


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    ordinary = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return ordinary(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"fer-lightning\[parquet\]"):
        open_table(tmp_path / "t.parquet", KINDS).__enter__()
