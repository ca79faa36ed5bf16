import logging
import tracemalloc

import pytest

from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.table_file import read_table


def read(folder, text, encoding="utf-8", **names):
    (folder / "faces.csv").write_bytes(text.encode(encoding))
    return read_table(folder / "faces.csv", names)


@pytest.mark.parametrize("separator", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_the_usual_separators_are_read(tmp_path, separator):
    rows = [
        ("path", "label", "group"),
        (f'"a{separator}b.png"', "happy", "x;, y" if separator == "\t" else "x"),
    ]
    table = read(tmp_path, "\n".join(separator.join(row) for row in rows))
    assert [table[column][0] for column in rows[0]] == [f"a{separator}b.png", *rows[1][1:]]


def test_a_table_of_paths_alone_is_read(tmp_path):
    assert read(tmp_path, "path\na b.png\n")["path"].tolist() == ["a b.png"]


def test_the_separator_is_the_one_that_gives_a_column_of_paths(tmp_path):
    table = read(tmp_path, "note, of mine;File\nx,y;a.png\n", path="file")
    assert table["path"].tolist() == ["a.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("header", ["path,label", "Path,LABEL", '"path" , label'.replace(" ,", ",")])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_header_is_found_however_it_is_saved(tmp_path, encoding, header, end):
    table = read(tmp_path, end.join([header, "žluťoučký.png,sad", ""]), encoding)
    assert table["path"].tolist() == ["žluťoučký.png"]
    assert table["label"].tolist() == ["sad"]


def test_an_exact_name_goes_before_one_in_another_case(tmp_path):
    assert read(tmp_path, "Path,path\nno.png,yes.png\n")["path"].tolist() == ["yes.png"]
    assert read(tmp_path, "path,EXPRESSION\na.png,sad\n", label="Expression")["label"].tolist() == ["sad"]


@pytest.mark.parametrize("header", ["path,path", "Path,PATH"])
def test_two_columns_of_one_name_are_refused(tmp_path, header):
    with pytest.raises(DataError, match="has 2 columns path"):
        read(tmp_path, f"{header}\na.png,b.png\n")


def test_a_column_nearly_named_as_one_that_is_read_is_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        read(tmp_path, "path,Labels,age\na.png,sad,7\n")
    (record,) = caplog.records
    assert "the column labels is not read; if it is label, say columns=" in record.getMessage()


def test_rows_and_lines_are_counted_apart(tmp_path):
    table = read(tmp_path, '\npath,label,group\n\na.png,sad,"two\nlines"\n   \nb.png,,\n')
    assert table["group"].tolist() == ["two\nlines", ""]
    assert [table.place(row) for row in range(2)] == ["row 0 (line 5)", "row 1 (line 7)"]
    left = table.only(table["path"] == "b.png")
    assert left["path"].tolist() == ["b.png"]
    assert left.where(0) == f"{tmp_path / 'faces.csv'}, row 1 (line 7)"


@pytest.mark.parametrize(
    ("row", "count"), [("b.png,sad,x", 3), ("b.png", 1), ("b.png,sad,", 3), ("b,1.png,sad", 3)]
)
def test_a_row_of_another_length_is_named(tmp_path, row, count):
    with pytest.raises(DataError, match=rf"faces\.csv, row 1 \(line 3\): {count} fields, where .* has 2"):
        read(tmp_path, f"path,label\na.png,happy\n{row}\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\xef\xbb\xbf\n \n", "it is empty"),
        ("path\nm\u00e4nnlich.png\n".encode("latin-1"), "save it as UTF-8"),
        ("path\na.png\n".encode("utf-16"), "save it as UTF-8"),
        (b"PK\x03\x04\xff\xfe" + bytes(range(256)), "does not open as a table"),
        (b'path,group\na.png,"open\nb.png,\n', "line 3: unexpected end of data"),
        (b"path\n" + b"x" * 200_000, "line 2: field larger than field limit"),
        (b"path\n", "has no rows"),
        (b"file,label\na.png,sad\n", "has no column path; it has: file, label"),
    ],
)
def test_what_is_no_table_says_why(tmp_path, content, message):
    (tmp_path / "faces.csv").write_bytes(content)
    with pytest.raises(DataError, match=rf"faces\.csv .*{message}"):
        read_table(tmp_path / "faces.csv", {})


def test_a_folder_is_no_table(tmp_path):
    (tmp_path / "faces.csv").mkdir()
    with pytest.raises(DataError, match="does not open as a table"):
        read_table(tmp_path / "faces.csv", {})


def test_a_damaged_parquet_file_is_named(tmp_path):
    (tmp_path / "faces.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"faces\.parquet does not open as a table"):
        read_table(tmp_path / "faces.parquet", {})


@pytest.mark.parametrize("column", ["path", "group"])
def test_memory_follows_the_sum_of_the_lengths(tmp_path, column):
    rows = [("x.png", "g")] * 5000
    rows[7] = ("x" * 100_000, "g") if column == "path" else ("x.png", "g" * 100_000)
    text = "path,group\n" + "".join(f"{path},{group}\n" for path, group in rows)
    tracemalloc.start()
    table = read(tmp_path, text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(table[column][7]) == 100_000
    assert peak < 20e6  # as wide as the longest for every row: 2e9
