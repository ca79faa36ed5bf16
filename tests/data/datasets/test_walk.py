import logging
import os

import pytest

from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.image_file import SUFFIXES
from fer_lightning.data.datasets.walk import first_rows, image_files


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def link(folder, name, target):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(target)


# Which files


def test_images_of_every_ending_in_either_case_are_found_at_any_depth(tmp_path):
    names = sorted(f"{'deep/' * depth}x{suffix}" for depth, suffix in enumerate(SUFFIXES))
    touch(tmp_path, *names, "deep/Y.JPG")
    assert image_files(tmp_path).tolist() == sorted([*names, "deep/Y.JPG"])
    assert {".gif", ".avif", ".jfif", ".heic", ".heif"} <= set(SUFFIXES)


def test_files_passed_over_are_counted_by_ending_in_one_warning(tmp_path, caplog):
    touch(tmp_path, "a.png", "1.txt", "deep/2.TXT", "labels.db", "README", "clip.mp4")
    with caplog.at_level(logging.WARNING):
        assert image_files(tmp_path).tolist() == ["a.png"]
    (record,) = caplog.records
    message = record.getMessage()
    assert "5 files are no images" in message
    for kind in ("2 .txt", "1 .db", "1 without an ending", "1 .mp4"):
        assert kind in message


def test_what_systems_leave_behind_is_passed_over_without_a_word(tmp_path, caplog):
    touch(tmp_path, "a.png", ".DS_Store", "._a.png", ".hidden/b.png", "__MACOSX/c.png")
    touch(tmp_path, "Thumbs.db", "sub/desktop.ini")
    with caplog.at_level(logging.WARNING):
        assert image_files(tmp_path).tolist() == ["a.png"]
    assert not caplog.records


def test_a_folder_without_images_is_named(tmp_path):
    touch(tmp_path, "a.txt")
    with pytest.raises(DataError, match="holds no images"):
        image_files(tmp_path)


# Links


def test_links_to_folders_and_files_are_followed(tmp_path):
    touch(tmp_path, "elsewhere/deep/a.png", "elsewhere/b.png", "shelf/c.png")
    link(tmp_path, "shelf/folder", "../elsewhere/deep")
    link(tmp_path, "shelf/file.png", tmp_path / "elsewhere/b.png")
    assert image_files(tmp_path / "shelf").tolist() == ["c.png", "file.png", "folder/a.png"]
    link(tmp_path, "door", "shelf")
    assert image_files(tmp_path / "door").tolist() == ["c.png", "file.png", "folder/a.png"]


def test_links_in_a_circle_end(tmp_path):
    touch(tmp_path, "shelf/a/x.png", "shelf/b/y.png")
    link(tmp_path, "shelf/a/up", "..")
    link(tmp_path, "shelf/a/self", ".")
    link(tmp_path, "shelf/a/other", "../b")
    link(tmp_path, "shelf/b/other", "../a")
    files = image_files(tmp_path / "shelf").tolist()
    assert files[:2] == ["a/x.png", "b/y.png"]
    rows = first_rows([f"{tmp_path}/shelf/{file}" for file in files])
    assert set(rows.tolist()) == {0, 1}


def test_many_links_between_folders_are_not_followed_in_every_order(tmp_path):
    for here in range(12):
        touch(tmp_path, f"pool/{here}/x.png")
        for there in range(12):
            link(tmp_path, f"pool/{here}/to {there}", f"../{there}")
    link(tmp_path, "shelf/all", "../pool")
    assert len(image_files(tmp_path / "shelf")) < 200


def test_a_file_behind_a_link_comes_after_all_others(tmp_path):
    touch(tmp_path, "z/a.png")
    link(tmp_path, "a", "z")
    assert image_files(tmp_path).tolist() == ["z/a.png", "a/a.png"]


def test_links_to_nowhere_are_an_error(tmp_path):
    touch(tmp_path, "sad/a.png")
    link(tmp_path, "happy", "unmounted/happy")
    link(tmp_path, "loop", "loop")
    with pytest.raises(DataError, match=r"2 folders or links cannot be read: .*happy \(a link to unmounted"):
        image_files(tmp_path)


def test_a_link_to_a_missing_image_is_listed_to_be_reported_with_the_bad_ones(tmp_path):
    link(tmp_path, "a.png", "gone.png")
    assert image_files(tmp_path).tolist() == ["a.png"]


def test_unreadable_folders_are_an_error(tmp_path, monkeypatch):
    touch(tmp_path, "happy/a.png", "sad/b.png", "fear/deep/c.png")
    scandir = os.scandir

    def locked(path):  # permissions do not bind the user who may run the tests
        if os.fspath(path).rstrip("/").endswith(("sad", "deep")):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(DataError, match="2 folders or links cannot be read") as error:
        image_files(tmp_path)
    assert "sad/ (Permission denied)" in str(error.value)
    assert "fear/deep/ (Permission denied)" in str(error.value)


# The same file


def test_every_spelling_of_a_path_is_the_same_file(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "b.png", "sub/c.png")
    link(tmp_path, "alias.png", "a.png")
    link(tmp_path, "way", "sub")
    monkeypatch.chdir(tmp_path)
    paths = ["a.png", "b.png", "./a.png", "sub/../a.png", f"{tmp_path}/a.png", "alias.png", "sub/c.png"]
    assert first_rows([*paths, "way/c.png"]).tolist() == [0, 1, 0, 0, 0, 0, 6, 6]


def test_files_that_share_their_bytes_on_the_disk_are_two(tmp_path):
    touch(tmp_path, "a.png")
    os.link(tmp_path / "a.png", tmp_path / "b.png")
    assert first_rows([str(tmp_path / name) for name in ("a.png", "b.png", "b.png")]).tolist() == [0, 1, 1]


def test_what_is_no_file_has_no_row(tmp_path):
    touch(tmp_path, "a.png")
    missing = [str(tmp_path), str(tmp_path / "gone.png"), "x" * 5000, "nul\0.png", "a.png/below.png"]
    assert first_rows(missing).tolist() == [-1] * 5
