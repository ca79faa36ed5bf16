import pytest

from fer_lightning.data.datasets.archive import find_root, read_fields, read_text, unpacked
from fer_lightning.data.datasets.base import DataError

MARKS = ("lists/names.txt", "train/[0-9]")


def mark(folder):
    (folder / "lists").mkdir(parents=True)
    (folder / "lists/names.txt").write_text("a")
    return folder


@pytest.mark.parametrize(
    "content",
    [b"a 1\nb 2\n", b"\xef\xbb\xbfa\t1\r\n\r\n  b   2", b"a 1 \n\n\nb 2\n\n"],
    ids=["unix", "windows", "blank lines"],
)
def test_fields_are_read_whatever_wrote_the_list(tmp_path, content):
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    assert [fields for _, fields in read_fields(path)] == [["a", "1"], ["b", "2"]]


def test_lines_are_counted_from_one_with_the_blank_ones(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("a 1\n\nb 2\n")
    assert [place for place, _ in read_fields(path)] == [f"{path}, line 1", f"{path}, line 3"]


def test_what_is_not_utf8_is_latin1(tmp_path):
    (tmp_path / "names.txt").write_bytes("M\xfcller".encode("latin-1"))
    assert read_text(tmp_path / "names.txt") == "M\xfcller"
    with pytest.raises(DataError, match=r"none\.txt cannot be read"):
        read_text(tmp_path / "none.txt")


@pytest.mark.parametrize("wrapper", ["", "basic", "basic/basic", "archive (3)/a/b"])
def test_the_root_is_found_in_wrappers(tmp_path, wrapper):
    root = mark(tmp_path / wrapper)
    (tmp_path / "__MACOSX/lists").mkdir(parents=True)
    (tmp_path / "__MACOSX/lists/names.txt").write_text("")
    assert find_root(tmp_path, MARKS, "lists") == root


def test_a_mark_may_be_a_pattern(tmp_path):
    (tmp_path / "x/train/3").mkdir(parents=True)
    assert find_root(tmp_path, MARKS, "lists") == tmp_path / "x"


def test_two_roots_are_both_named(tmp_path):
    mark(tmp_path / "basic")
    mark(tmp_path / "compound")
    with pytest.raises(DataError, match=r"basic and .*compound both hold lists; give one of them"):
        find_root(tmp_path, MARKS, "lists")


def test_a_root_that_is_none_says_what_is_there(tmp_path):
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(DataError, match=r"holds holiday\.jpg; expected lists"):
        find_root(tmp_path, MARKS, "lists")
    with pytest.raises(DataError, match="is a file; unpack it"):
        find_root(tmp_path / "holiday.jpg", MARKS, "lists")
    with pytest.raises(DataError, match="nowhere does not exist; expected a folder with lists"):
        find_root(tmp_path / "nowhere", MARKS, "lists")


def test_a_packed_root_is_named(tmp_path):
    (tmp_path / "download").mkdir()
    (tmp_path / "download/data.part1.RAR").write_text("")
    with pytest.raises(DataError, match=r"data\.part1\.RAR is still packed; unpack it"):
        find_root(tmp_path, MARKS, "lists")


def test_a_folder_that_is_packed_missing_or_empty_is_named(tmp_path):
    folder = tmp_path / "aligned"
    with pytest.raises(DataError, match="aligned does not exist; expected the faces there"):
        unpacked(folder, "the faces")
    folder.mkdir()
    with pytest.raises(DataError, match="aligned is empty; expected the faces there"):
        unpacked(folder, "the faces")
    (tmp_path / "aligned.zip").write_text("")
    with pytest.raises(DataError, match=r"aligned\.zip is still packed; unpack it to .*aligned"):
        unpacked(folder, "the faces")
    (folder / "1.jpg").write_text("")
    assert unpacked(folder, "the faces") == folder
