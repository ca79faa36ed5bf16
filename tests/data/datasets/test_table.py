import logging

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_lightning.data.datasets import FaceTable
from fer_lightning.data.datasets.base import DataError
from fer_lightning.emotions import UnknownEmotion

FULL = """path,label,valence,arousal,subject,group,partition
a.png,happy,0.8,0.1,007,NA,train
sub/b.png,,-0.5,,007,NA,
c.png,,,,008,,
d.png,Anger,,,,,val
e.png,sad,-1,1,,,test
f.png,joy,0.9,0.9,,,unlabeled
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / "sub").mkdir()
    for value, name in enumerate(("a.png", "sub/b.png", "c.png", "d.png", "e.png", "f.png")):
        Image.fromarray(np.full((20, 16, 3), (10 * value, 0, 0), np.uint8)).save(tmp_path / name)
    return tmp_path


def load(home, text, **options):
    (home / "faces.csv").write_text(text)
    return FaceTable(home / "faces.csv", **options).load(8)


def test_every_column_reaches_the_index(home):
    faces = load(home, FULL)
    assert faces.names.tolist() == ["a.png", "sub/b.png", "c.png", "d.png", "e.png", "f.png"]
    assert faces.partition.tolist() == ["train", "train", "unlabeled", "val", "test", "unlabeled"]
    happy, anger, sad = (faces.taxonomy.index(name) for name in ("happy", "anger", "sad"))
    assert faces.label.tolist() == [happy, -1, -1, anger, sad, -1]
    nan = np.nan
    wanted = [[0.8, 0.1], [-0.5, nan], [nan, nan], [nan, nan], [-1, 1], [nan, nan]]
    np.testing.assert_equal(faces.valence_arousal, np.array(wanted, np.float32))
    assert faces.subject.tolist() == ["007", "007", "008", "", "", ""]
    assert faces.group.tolist() == ["NA", "NA", "", "", "", ""]
    assert [faces.images[row][0, 0, 0] for row in range(6)] == [0, 10, 20, 30, 40, 50]


def test_parquet_is_read_like_csv(home):
    load(home, FULL)
    table = pd.read_csv(home / "faces.csv", dtype={"subject": str}, keep_default_na=False, na_values=[""])
    table.to_parquet(home / "faces.parquet")
    assert table.valence.dtype == np.float64
    read, wanted = FaceTable(home / "faces.parquet").load(8), load(home, FULL)
    for column in ("names", "partition", "emotion", "valence_arousal", "subject"):
        np.testing.assert_equal(getattr(read, column), getattr(wanted, column))


def test_a_path_and_a_label_are_enough(home):
    faces = load(home, "path,label\na.png,happy\nc.png,\n")
    assert faces.partition.tolist() == ["train", "unlabeled"]


def test_continuous_labels_alone_are_labels(home):
    faces = load(home, "path,valence,arousal\na.png,0,0\nc.png,1,-1\n")
    assert faces.partition.tolist() == ["train", "train"]
    assert faces.label.tolist() == [-1, -1]


def test_columns_may_have_other_names_and_images_another_root(home, tmp_path_factory):
    table = tmp_path_factory.mktemp("elsewhere") / "faces.csv"
    table.write_text("file, expression\na.png, Sad\n")
    columns = {"path": "file", "label": "expression"}
    faces = FaceTable(table, root=home, columns=columns).load(8)
    assert faces.names.tolist() == ["a.png"]
    assert faces.label.tolist() == [faces.taxonomy.index("sad")]


def test_contempt_makes_eight_emotions(home):
    assert load(home, "path,label\na.png,happy\n").taxonomy.name == "basic7"
    assert load(home, "path,label\na.png,happy\nc.png,contempt\n").taxonomy.name == "basic8"


@pytest.mark.parametrize("missing", ["", "NA", "n/a", "NaN", "nan", "null", "None", "<NA>"])
def test_the_usual_spellings_of_a_missing_label_are_no_label(home, missing):
    header = "path,label,valence,arousal,subject,group"
    faces = load(home, f"{header}\na.png,happy,0,0,NA,None\nc.png,{missing},{missing},{missing},nan,NA\n")
    assert faces.partition.tolist() == ["train", "unlabeled"]
    assert np.isnan(faces.valence_arousal[1]).all()
    assert faces.subject.tolist() == ["NA", "nan"]
    assert faces.group.tolist() == ["None", "NA"]


def test_a_path_may_be_spelled_as_a_missing_label(home):
    (home / "a.png").rename(home / "NA")
    assert load(home, "path,label\nNA,happy\n").names.tolist() == ["NA"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_class_numbers_from_pandas_are_read(home, kind):
    table = pd.DataFrame({"path": ["a.png", "c.png", "d.png"], "label": [2, None, 0]})
    assert table.label.dtype == np.float64
    getattr(table, f"to_{kind}")(home / f"faces.{kind}", index=False)
    faces = FaceTable(home / f"faces.{kind}", emotions=["sad", "happy", "fear"]).load(8)
    assert faces.label.tolist() == [2, -1, 0]


def test_the_home_folder_may_be_written_as_a_tilde(home, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("HOME", str(home))
    text = "path,label\n~/a.png,happy\nc.png,sad\n"
    faces = load(home, text)
    assert faces.names.tolist() == ["~/a.png", "c.png"]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "faces.csv").write_text(text)
    assert len(FaceTable(elsewhere / "faces.csv", root="~").load(8)) == 2


# The same face twice


def spellings(home):
    (home / "alias.png").symlink_to("a.png")
    return ["a.png", "./a.png", "sub/../a.png", str(home / "a.png"), "alias.png"]


@pytest.mark.parametrize("spelling", range(5))
def test_two_rows_of_one_file_are_both_named(home, spelling):
    other = spellings(home)[spelling]
    with pytest.raises(DataError, match="1 of 3 rows repeat the file of another") as error:
        load(home, f"path,label\na.png,happy\nc.png,sad\n{other},sad\n")
    for part in ("row 2 (line 4)", repr(other), "row 0 (line 2)", "'a.png'", "on_duplicate"):
        assert part in str(error.value)


def test_the_first_row_of_each_file_may_be_kept(home, caplog):
    rows = "".join(f"{path},sad\n" for path in spellings(home))
    with caplog.at_level(logging.WARNING):
        faces = load(home, f"path,label\na.png,happy\n{rows}c.png,sad\n", on_duplicate="first")
    assert faces.names.tolist() == ["a.png", "c.png"]
    assert faces.taxonomy.emotions[faces.label[0]] == "happiness"
    assert faces.images[1][0, 0, 0] == 20
    assert "5 of 7 rows repeat the file of another" in caplog.text


# Left out


def test_a_dropped_emotion_takes_its_rows_along(home, caplog):
    text = "path,label,subject\ngone.png,contempt,1\na.png,happy,2\nc.png,7,3\nd.png,bored,4\n"
    emotions = ["anger", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt"]
    with caplog.at_level(logging.WARNING):
        faces = load(home, text, drop=["contempt", "bored"], emotions=emotions)
    assert faces.names.tolist() == ["a.png"]
    assert faces.subject.tolist() == ["2"]
    assert faces.images[0][0, 0, 0] == 0
    assert "contempt" not in faces.taxonomy.emotions
    assert "2 faces of contempt are left out" in caplog.text


def test_rows_are_counted_as_in_the_file_after_some_are_dropped(home):
    text = "path,label\na.png,contempt\nc.png,happy\ngone.png,sad\n"
    with pytest.raises(DataError, match=r"row 2 \(line 4\): there is no file"):
        load(home, text, drop=["contempt"])


def test_a_table_of_nothing_but_dropped_faces_is_refused(home):
    with pytest.raises(DataError, match="no faces"):
        load(home, "path,label\na.png,happy\n", drop=["happy"])


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("file,label\na.png,happy\n", {}, r"faces\.csv has no column path; it has: file, label"),
        (
            "path,label\na.png,happy\n",
            {"columns": {"label": "emotion"}},
            "no column emotion; it has: path, label",
        ),
        (
            "path,label\na.png,happy\n",
            {"columns": {"lable": "label"}},
            "columns names lable, which is none of",
        ),
        (
            "path,label\na.png,happy\nc.png,bored\n",
            {},
            r"faces\.csv, row 1 .line 3.: 'bored' is not a known emotion",
        ),
        (
            "path,label\na.png,happy\nc.png,3\n",
            {},
            "row 1 .line 3.: the label 3 is a class number: give `emotions`",
        ),
        (
            "path,label\na.png,contempt\n",
            {"emotions": "basic7"},
            "row 0 .line 2.: 'contempt' is outside .*basic7",
        ),
        (
            "path,valence,arousal\na.png,0,0\nc.png,-7,0\n",
            {},
            "row 1 .line 3.: valence is -7, outside.*AFEW-VA",
        ),
        ("path,valence,arousal\na.png,0,1.01\n", {}, "row 0 .line 2.: arousal is 1.01, outside"),
        ("path,valence,arousal\na.png,0,high\n", {}, "row 0 .line 2.: arousal is 'high', not a number"),
        (
            "path,label,partition\na.png,sad,valid\n",
            {},
            "row 0 .line 2.: partition is 'valid', not one of train, val",
        ),
        (
            "path,label,partition\na.png,sad,train\nc.png,,test\n",
            {},
            "row 1 .line 3.: a face of test needs a label",
        ),
        (
            "path,label\na.png,happy\ngone.png,sad\n",
            {},
            r"row 1 .line 3.: there is no file .*gone\.png; 1 of 2",
        ),
        ("path,label\na.png,happy\n,sad\n", {}, "row 1 .line 3.: path is empty"),
        ("path,label\n", {}, r"faces\.csv has no rows"),
        ("", {}, r"faces\.csv does not open as a table"),
        ("path,label\na.png,happy\nc.png,sad,x\n", {}, r"row 1 \(line 3\): 3 fields, where the header has 2"),
        (
            "path;valence;arousal\na.png;0,5;0\n",
            {},
            "valence is '0,5', not a number; write decimals with a point",
        ),
        ("path,valence,arousal\na.png,0,inf\n", {}, "arousal is inf, outside"),
        ("path,label,partition\na.png,sad,NA\n", {}, "partition is 'NA', not one of train"),
    ],
)
def test_a_wrong_table_says_what_is_wrong_and_where(home, text, options, message):
    with pytest.raises((DataError, UnknownEmotion), match=message):
        load(home, text, **options)


def test_a_missing_table_is_named(home):
    with pytest.raises(DataError, match=r"none\.csv does not exist"):
        FaceTable(home / "none.csv").load(8)


def test_a_missing_file_stops_even_when_bad_images_are_skipped(home):
    with pytest.raises(DataError, match="there is no file"):
        load(home, "path,label\na.png,happy\ngone.png,sad\n", on_bad_image="skip")


def test_bad_images_stop_or_take_their_whole_row_along(home, caplog):
    (home / "a.png").write_text("404: not found")
    with pytest.raises(DataError, match=r"1 of 6 images .*a\.png"):
        load(home, FULL)
    whole = FULL.replace("a.png", "f.png").replace("f.png,joy", "a.png,joy")
    with caplog.at_level(logging.WARNING):
        faces = load(home, whole, on_bad_image="skip")
    assert faces.names.tolist() == ["f.png", "sub/b.png", "c.png", "d.png", "e.png"]
    assert faces.label[0] == faces.taxonomy.index("happy")
    assert faces.images[0][0, 0, 0] == 50
    assert "1 of 6 images" in caplog.text
