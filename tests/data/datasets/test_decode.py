import logging

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_lightning.data.datasets import decode
from fer_lightning.data.datasets.base import ArrayImages, DataError
from fer_lightning.data.datasets.decode import FileImages, decode_all, read_image, square


def texture(height, width, seed=0):
    """A smooth color image: smooth, so that JPEG changes it little."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


def save(path, image, **options):
    Image.fromarray(image).save(path, **options)
    return str(path)


@pytest.fixture
def bad(tmp_path):
    """Every way for a file to be no image: cut off, empty, something else, not there."""
    whole = save(tmp_path / "whole.jpg", texture(64, 64))
    cut, empty, text = tmp_path / "cut.jpg", tmp_path / "empty.png", tmp_path / "text.jpg"
    with open(whole, "rb") as file:
        cut.write_bytes(file.read()[:600])
    empty.write_bytes(b"")
    text.write_text("404: not found")
    return [str(path) for path in (cut, empty, text, tmp_path / "absent.jpg")]


# One file


def test_red_stays_red(tmp_path):
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert (read_image(save(tmp_path / "red.png", red)) == red).all()


def test_gray_is_repeated_over_the_channels(tmp_path):
    gray = texture(8, 8)[..., 0]
    assert (read_image(save(tmp_path / "gray.png", gray)) == gray[:, :, None]).all()


def test_transparency_is_dropped(tmp_path):
    image = texture(8, 8)
    veiled = np.dstack([image, np.full((8, 8), 40, np.uint8)])
    assert (read_image(save(tmp_path / "alpha.png", veiled)) == image).all()


def test_sixteen_bits_become_eight(tmp_path):
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    read = read_image(save(tmp_path / "deep.png", deep))
    assert (read == (deep // 256).astype(np.uint8)[:, :, None]).all()


def test_a_face_photographed_sideways_is_put_upright(tmp_path):
    upright = texture(12, 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees clockwise"
    turned = save(tmp_path / "turned.png", np.ascontiguousarray(np.rot90(upright)), exif=exif)
    assert (read_image(turned) == upright).all()


def test_a_name_beyond_ascii_is_read(tmp_path):
    assert read_image(save(tmp_path / "žluťoučký 顔.png", texture(8, 8))).shape == (8, 8, 3)


def test_every_bad_file_is_named(bad):
    for path in bad:
        with pytest.raises(DataError, match=path):
            read_image(path)


# Its size


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
    gray = texture(8, 8)[..., 0]
    paths = [save(tmp_path / "0.png", gray), save(tmp_path / "1.png", np.repeat(gray[:, :, None], 3, 2))]
    images, _ = decode_all(paths, 8, "stop")
    assert images.pixels.shape == (2, 8, 8)
    assert (images[1] == gray[:, :, None]).all()


def test_one_color_image_keeps_the_colors_of_the_set(tmp_path):
    paths = [save(tmp_path / "0.png", texture(8, 8)[..., 0]), save(tmp_path / "1.png", texture(8, 8))]
    images, _ = decode_all(paths, 8, "stop")
    assert (images[1] == texture(8, 8)).all()


@pytest.mark.parametrize("limit", [decode.IN_MEMORY_BYTES, 0], ids=["in memory", "lazy"])
def test_bad_images_stop_the_set_before_training(tmp_path, monkeypatch, bad, limit):
    monkeypatch.setattr(decode, "IN_MEMORY_BYTES", limit)
    good = save(tmp_path / "good.png", texture(8, 8))
    with pytest.raises(DataError, match="4 of 5 images") as error:
        decode_all([bad[0], good, *bad[1:]], 8, "stop")
    assert all(path in str(error.value) for path in bad)
    assert "skip" in str(error.value)


@pytest.mark.parametrize("limit", [decode.IN_MEMORY_BYTES, 0], ids=["in memory", "lazy"])
def test_bad_images_are_skipped_counted_and_named(tmp_path, monkeypatch, caplog, bad, limit):
    monkeypatch.setattr(decode, "IN_MEMORY_BYTES", limit)
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    paths = [bad[0], save(tmp_path / "first.png", red), *bad[1:], save(tmp_path / "last.png", red // 2)]
    with caplog.at_level(logging.WARNING):
        images, kept = decode_all(paths, 8, "skip")
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
