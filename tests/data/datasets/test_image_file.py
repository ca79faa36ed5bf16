import os
import sys
import types

import numpy as np
import pytest
from image_files import bad_files, heic, save, texture
from PIL import Image

from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.image_file import read_image


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


def test_every_bad_file_is_named(tmp_path):
    for path in bad_files(tmp_path):
        with pytest.raises(DataError, match=path):
            read_image(path)


# Formats


def test_the_first_frame_of_a_gif_is_read(tmp_path):
    first, second = np.zeros((20, 24, 3), np.uint8), np.full((20, 24, 3), 255, np.uint8)
    first[:, :12] = (255, 0, 0)
    path = save(tmp_path / "a.gif", first, save_all=True, append_images=[Image.fromarray(second)])
    assert (read_image(path) == first).all()


@pytest.mark.parametrize("name", ["a.jfif", "a.avif", "named wrongly.png"])
def test_formats_of_the_web_are_read(tmp_path, name):
    image = texture(20, 24)
    kind = "JPEG" if name == "a.jfif" else "AVIF"
    read = read_image(save(tmp_path / name, image, format=kind, quality=100))
    assert np.abs(read.astype(int) - image).mean() < 6


@pytest.mark.parametrize("kind", ["avif", "webp", "jpg", "tiff", "png"])
def test_orientation_is_applied_in_every_format(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_image(save(tmp_path / f"turned.{kind}", texture(20, 30), exif=exif)).shape == (30, 20, 3)


def test_heic_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    with pytest.raises(DataError, match=r"face\.jpg is a HEIC image.*pip install pillow-heif"):
        read_image(heic(tmp_path / "face.jpg"))


def test_heic_is_read_where_its_package_is_installed(tmp_path, monkeypatch):
    def register():
        Image.register_open("FER_TEST", lambda file, name: Image.new("RGB", (30, 20), (1, 2, 3)), is_heic)

    def is_heic(start):
        return start[4:12] == b"ftypheic"

    package = types.SimpleNamespace(register_heif_opener=register)
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    monkeypatch.setattr(Image, "ID", Image.ID.copy())
    monkeypatch.setattr(Image, "OPEN", Image.OPEN.copy())
    image = read_image(heic(tmp_path / "face.heic"))
    assert image.shape == (20, 30, 3)
    assert image[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("suffix", ["gif", "avif"])
@pytest.mark.parametrize("length", [12, 40, 200])
def test_a_damaged_file_is_named_whatever_its_format(tmp_path, suffix, length):
    path = tmp_path / f"cut.{suffix}"
    save(path, texture(64, 64))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=rf"cut\.{suffix} does not decode"):
        read_image(path)


def test_a_video_is_no_image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(64))
    with pytest.raises(DataError, match=r"a\.jpg does not decode as an image"):
        read_image(tmp_path / "a.jpg")


def test_a_file_that_does_not_open_says_why(tmp_path):
    os.symlink("loop.png", tmp_path / "loop.png")
    with pytest.raises(DataError, match=r"loop\.png does not open \(Too many levels"):
        read_image(tmp_path / "loop.png")
    with pytest.raises(DataError, match="does not open"):
        read_image("nul\0.png")
