import logging
import os

import numpy as np
import pytest

from fer_lightning.data.datasets.cache import cache_folder, remember


@pytest.fixture
def folder(tmp_path):
    for name, text in (("a_x.txt", "1"), ("b_x.txt", "2"), ("._a_x.txt", "7"), ("other.txt", "3")):
        (tmp_path / name).write_text(text)
    return tmp_path


class Reader:
    def __init__(self, folder):
        self.folder, self.times = folder, 0

    def __call__(self, files):
        self.times += 1
        return {
            "files": np.array(files),
            "values": np.array([float((self.folder / file).read_text()) for file in files]),
        }


def test_files_are_read_once(folder):
    read = Reader(folder)
    first, second = (remember(folder, ("_x.txt",), read) for _ in range(2))
    assert read.times == 1
    for arrays in (first, second):
        assert arrays["files"].tolist() == ["a_x.txt", "b_x.txt"]
        assert arrays["values"].tolist() == [1, 2]


@pytest.mark.parametrize("change", ["edited", "touched", "added", "removed"])
def test_a_change_is_noticed(folder, change):
    read = Reader(folder)
    remember(folder, ("_x.txt",), read)
    if change == "edited":
        (folder / "a_x.txt").write_text("10")
    elif change == "touched":
        os.utime(folder / "a_x.txt", ns=(0, 5))
    elif change == "added":
        (folder / "c_x.txt").write_text("3")
    else:
        (folder / "a_x.txt").unlink()
    remember(folder, ("_x.txt",), read)
    assert read.times == 2
    assert len(list(cache_folder().iterdir())) == 1  # the old one was replaced


def test_what_is_none_of_the_files_changes_nothing(folder):
    read = Reader(folder)
    remember(folder, ("_x.txt",), read)
    (folder / "other.txt").write_text("4")
    remember(folder, ("_x.txt",), read)
    assert read.times == 1


def test_a_cache_that_was_cut_off_is_made_anew(folder):
    read = Reader(folder)
    remember(folder, ("_x.txt",), read)
    (cache,) = cache_folder().iterdir()
    cache.write_bytes(cache.read_bytes()[:40])
    assert remember(folder, ("_x.txt",), read)["values"].tolist() == [1, 2]
    assert read.times == 2


def test_without_a_place_for_the_cache_files_are_read_each_time(folder, monkeypatch, caplog):
    (folder / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "file"))
    with caplog.at_level(logging.WARNING):
        assert remember(folder, ("_x.txt",), Reader(folder))["values"].tolist() == [1, 2]
    assert "cannot be written" in caplog.text
