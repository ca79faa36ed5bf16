import cv2
import numpy as np
import pytest

from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.listed_images import (
    copies,
    locate,
    picture_sizes,
    require_images,
    walk_images,
)


@pytest.fixture
def folder(tmp_path):
    for name in (
        "a.jpg",
        "sub/b.JPG",
        "sub/c.png",
        ".DS_Store",
        "sub/._c.png",
        "Thumbs.db",
        "__MACOSX/d.jpg",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_images_are_listed_without_what_systems_leave_around(folder):
    assert walk_images(folder) == ["a.jpg", "sub/b.JPG", "sub/c.png"]


def test_other_spellings_are_found_and_counted(folder):
    found = locate(folder, ["a.jpg", "sub/b.jpg", "sub/c.jpg", "sub/d.jpg"])
    assert found.paths == [
        f"{folder}/{name}" if name else "" for name in ("a.jpg", "sub/b.JPG", "sub/c.png", "")
    ]
    assert found.missing.tolist() == [False, False, False, True]
    case, suffix = found.notes
    assert "1 images found in another case, such as sub/b.JPG for sub/b.jpg" in case
    assert "1 images found with another suffix, such as sub/c.png for sub/c.jpg" in suffix


def test_what_is_there_as_listed_needs_no_note(folder):
    assert locate(folder, ["a.jpg", "sub/c.png"]).notes == []


def test_missing_images_stop_or_are_left_out(folder):
    listed = ["a.jpg", "sub/b.JPG", "gone.jpg"]
    with pytest.raises(
        DataError,
        match=r'listed 3 images, present 2; the first missing one is gone\.jpg.*"skip" leaves 1 out',
    ):
        require_images(locate(folder, listed), listed, folder, "stop")
    found = locate(folder, listed)
    assert require_images(found, listed, folder, "skip").tolist() == [True, True, False]
    assert "1 are left out" in found.notes[-1]


def test_a_wrong_folder_is_not_skipped_over(folder):
    listed = ["x.jpg", "y.jpg", "a.jpg"]
    with pytest.raises(DataError, match="Most are missing"):
        require_images(locate(folder, listed), listed, folder, "skip")


def test_sizes_are_those_of_images_that_decode(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(7)]
    for path in paths[:6]:
        cv2.imwrite(path, np.zeros((4, 6 if path == paths[2] else 5, 3), np.uint8))
    (tmp_path / "6.png").write_text("no image")
    assert picture_sizes(paths) == {(5, 4): 5, (6, 4): 1}
    assert picture_sizes(paths, most=2) == {(5, 4): 2}  # 0 and 4
    assert picture_sizes([]) == {}


def test_copies_are_byte_identical(tmp_path):
    for name, text in (("a", "one"), ("b", "two"), ("c", "one"), ("d", "three")):
        (tmp_path / name).write_text(text)
    assert copies([tmp_path / "a", tmp_path / "d"], of=[tmp_path / "b", tmp_path / "c"]) == 1
