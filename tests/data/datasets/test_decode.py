import logging
import os
import pickle
import tempfile

import numpy as np
import pytest
from image_files import bad_files, save, texture

from fer_lightning.data.datasets import decode
from fer_lightning.data.datasets.base import ArrayImages, DataError
from fer_lightning.data.datasets.decode import FileImages, decode_all, square


@pytest.fixture
def bad(tmp_path):
    return bad_files(tmp_path)


# One size


@pytest.mark.parametrize(("height", "width"), [(48, 48), (64, 48), (48, 97), (20, 30), (301, 200)])
def test_any_shape_becomes_square(height, width):
    assert square(texture(height, width), 48).shape == (48, 48, 3)


def test_the_center_is_kept_and_nothing_is_stretched():
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 255
    assert (square(image, 10) == 255).all()


def test_an_image_of_the_right_size_is_not_touched():
    image = texture(48, 48)
    assert (square(image, 48) == image).all()


def test_shrinking_averages():
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    shrunk = square(np.repeat(checks[:, :, None], 3, 2).astype(np.uint8), 16)
    assert np.abs(shrunk.astype(int) - 127.5).max() <= 1


# Many


def test_a_set_is_the_same_in_memory_and_lazily(tmp_path, monkeypatch):
    paths = [save(tmp_path / f"{i}.jpg", texture(40 + i, 60, i)) for i in range(3)]
    held, _ = decode_all(paths, 32, "stop")
    monkeypatch.setattr(decode, "IN_MEMORY_BYTES", 3 * 32 * 32 * 3 - 1)
    lazy, _ = decode_all(paths, 32, "stop")
    assert isinstance(held, ArrayImages)
    assert isinstance(lazy, FileImages)
    assert len(held) == len(lazy) == 3
    for position in range(3):
        assert (held[position] == lazy[position]).all()
    assert (held[0] != held[1]).any()


def test_a_set_without_color_is_held_as_gray(tmp_path):
    gray = texture(16, 16)[..., 0]
    paths = [save(tmp_path / "0.png", gray), save(tmp_path / "1.png", np.repeat(gray[:, :, None], 3, 2))]
    images, _ = decode_all(paths, 16, "stop")
    assert images.pixels.shape == (2, 16, 16)
    assert (images[1] == gray[:, :, None]).all()


def test_one_color_image_keeps_the_colors_of_the_set(tmp_path):
    paths = [save(tmp_path / "0.png", texture(16, 16)[..., 0]), save(tmp_path / "1.png", texture(16, 16))]
    images, _ = decode_all(paths, 16, "stop")
    assert (images[1] == texture(16, 16)).all()


@pytest.mark.parametrize("limit", [decode.IN_MEMORY_BYTES, 0], ids=["in memory", "lazy"])
def test_bad_images_stop_the_set_before_training(tmp_path, monkeypatch, bad, limit):
    monkeypatch.setattr(decode, "IN_MEMORY_BYTES", limit)
    good = save(tmp_path / "good.png", texture(16, 16))
    with pytest.raises(DataError, match="4 of 5 images") as error:
        decode_all([bad[0], good, *bad[1:]], 16, "stop")
    assert all(path in str(error.value) for path in bad)
    assert "skip" in str(error.value)


@pytest.mark.parametrize("limit", [decode.IN_MEMORY_BYTES, 0], ids=["in memory", "lazy"])
def test_bad_images_are_skipped_counted_and_named(tmp_path, monkeypatch, caplog, bad, limit):
    monkeypatch.setattr(decode, "IN_MEMORY_BYTES", limit)
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    paths = [bad[0], save(tmp_path / "first.png", red), *bad[1:], save(tmp_path / "last.png", red // 2)]
    with caplog.at_level(logging.WARNING):
        images, kept = decode_all(paths, 16, "skip")
    assert kept.tolist() == [False, True, False, False, False, True]
    assert len(images) == 2
    assert (images[0] == red).all()
    assert (images[1] == red // 2).all()
    assert "4 of 6 images" in caplog.text
    assert bad[0] in caplog.text


def test_a_lazy_image_lost_after_the_check_is_named(tmp_path):
    images = FileImages([str(tmp_path / "gone.png")], 8)
    with pytest.raises(DataError, match=r"gone\.png"):
        images[0]


@pytest.mark.parametrize("on_bad_image", ["stop", "skip"])
def test_a_file_lists_all_bad_images_where_the_message_names_some(
    tmp_path, monkeypatch, caplog, on_bad_image
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    good = save(tmp_path / "good.png", texture(16, 16))
    gone = [str(tmp_path / f"caf\udce9 {number}.png") for number in range(50)]
    try:
        decode_all([good, *gone], 16, on_bad_image)
        said = caplog.text
    except DataError as error:
        said = str(error)
    assert "50 of 51 images" in said
    assert r"caf\udce9 0.png is missing" in said  # as a log can hold it
    (file,) = tmp_path.glob("bad_images_*.txt")
    assert str(file) in said
    lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    assert lines == [f"{path} is missing" for path in gone]


def test_every_process_writes_a_list_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for _ in range(2):
        with pytest.raises(DataError, match="bad_images_"):
            decode_all([str(tmp_path / f"{number}.png") for number in range(6)], 16, "stop")
    assert len(list(tmp_path.glob("bad_images_*.txt"))) == 2


def test_a_list_that_cannot_be_written_does_not_hide_the_message(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(DataError, match=r"6 of 6 images .*could not be written"):
        decode_all([str(tmp_path / f"{number}.png") for number in range(6)], 16, "stop")


@pytest.mark.parametrize("limit", [decode.IN_MEMORY_BYTES, 0], ids=["in memory", "lazy"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif"])
@pytest.mark.parametrize(("height", "width"), [(15, 40), (40, 15), (3, 3)])
def test_faces_under_sixteen_pixels_are_bad(tmp_path, monkeypatch, limit, suffix, height, width):
    monkeypatch.setattr(decode, "IN_MEMORY_BYTES", limit)
    sixteen = [save(tmp_path / f"{side}.{suffix}", texture(side, 16)) for side in (16, 17)]
    tiny = save(tmp_path / f"tiny.{suffix}", texture(height, width))
    with pytest.raises(DataError, match=rf"1 of 3 .*tiny\.{suffix} is {width} x {height} px, .*16 px"):
        decode_all([*sixteen, tiny], 16, "stop")
    assert decode_all([*sixteen, tiny], 16, "skip")[1].tolist() == [True, True, False]


def test_one_long_path_does_not_widen_the_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "last.png", texture(16, 16))
    paths = ["x" * 100_000, *(f"{number}.png" for number in range(1000)), "caf\udce9.png", "last.png"]
    images = FileImages(paths, 16)
    assert len(pickle.dumps(images)) < sum(map(len, paths)) + 16 * len(paths)
    assert len(images) == len(paths)
    assert (images[len(paths) - 1] == texture(16, 16)).all()
    assert (images[-1] == texture(16, 16)).all()
    with pytest.raises(DataError, match=r"999\.png is missing"):
        images[1000]
    with pytest.raises(IndexError):
        images[len(paths)]
    os.link("last.png", "caf\udce9.png")
    assert (images[1001] == texture(16, 16)).all()
