import os

import cv2
import numpy as np
import pytest
from photographs import write_picture, write_video
from PIL import Image

from fer_lightning.errors import InputError
from fer_lightning.inference import videos
from fer_lightning.inference.frames import frames_of
from fer_lightning.inference.sources import open_source

GRAY = [np.full((48, 64, 3), 8 * level, np.uint8) for level in range(30)]


def seen(source):
    return [(frame.source, frame.number, frame.image is not None) for frame in source.frames]


def test_a_picture_is_one_frame(tmp_path):
    file = write_picture(tmp_path / "a.PNG", GRAY[5])
    source = open_source(str(file))
    assert (source.total, source.several) == (1, False)
    (frame,) = source.frames
    assert (frame.image == GRAY[5]).all()
    assert (frame.source, frame.time, frame.fps, frame.name) == (str(file), 0, None, "a.PNG")


def test_a_folder_is_read_at_any_depth_in_order(tmp_path):
    for name in ("b/2.png", "b/10.jpg", "a.png", ".hidden/c.png", ".d.png"):
        write_picture(tmp_path / name, GRAY[1])
    (tmp_path / "notes.txt").write_text("")
    write_video(tmp_path / "c.avi", GRAY[:2])
    source = open_source(str(tmp_path))
    assert (source.total, source.several) == (4, True)
    assert [frame.name for frame in source.frames] == ["a.png", "c.avi", "c.avi", "b/10.jpg", "b/2.png"]


def test_a_corrupt_picture_is_named_and_the_next_one_follows(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    write_picture(tmp_path / "b.png", GRAY[1])
    first, second = open_source(str(tmp_path)).frames
    assert str(tmp_path / "a.png") in first.error
    assert first.image is None
    assert not second.error


def test_a_table_has_paths_relative_to_it(tmp_path):
    write_picture(tmp_path / "in/a.png", GRAY[1])
    write_picture(tmp_path / "b.png", GRAY[2])
    (tmp_path / "in/notes.txt").write_text("")
    table = tmp_path / "in/table.csv"
    lines = ["name,path", "x, a.png", "y,../b.png", f"z,{tmp_path}/b.png", "u,gone.png", "v,notes.txt", "w,"]
    table.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    source = open_source(str(table))
    assert (source.total, source.several) == (6, True)
    frames = list(source.frames)
    assert [frame.source for frame in frames[:3]] == ["a.png", "../b.png", f"{tmp_path}/b.png"]
    assert [frame.name for frame in frames[:2]] == ["a.png", "b.png"]
    assert not frames[2].name.startswith("/")
    assert [bool(frame.error) for frame in frames] == [False] * 3 + [True] * 3
    assert "gone.png" in frames[3].error
    assert "notes.txt is neither a picture nor a video" in frames[4].error


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_video_has_numbers_and_times(tmp_path, suffix):
    file = write_video(tmp_path / f"v{suffix}", GRAY, fps=12.5)
    source = open_source(str(file))
    assert (source.total, source.several) == (30, False)
    frames = list(source.frames)
    assert [frame.number for frame in frames] == list(range(30))
    assert [frame.time for frame in frames] == pytest.approx(
        [number / 12.5 for number in range(30)], abs=0.001
    )
    assert {frame.fps for frame in frames} == {12.5}
    for frame, drawn in zip(frames, GRAY, strict=True):
        assert abs(float(frame.image.mean()) - float(drawn.mean())) < 6


def test_a_video_that_is_cut_off_gives_what_it_has_and_says_so(tmp_path):
    file = write_video(tmp_path / "v.avi", GRAY)
    os.truncate(file, int(file.stat().st_size * 0.6))
    *frames, last = open_source(str(file)).frames
    assert 5 < len(frames) < 25
    assert all(frame.image is not None for frame in frames)
    assert f"v.avi ends after {len(frames)} of 30 frames" in last.error
    assert last.number == len(frames)


def test_a_video_without_frames_is_named(tmp_path, capfd):
    file = write_video(tmp_path / "v.mp4", GRAY)
    os.truncate(file, file.stat().st_size // 2)  # its index was at the end
    source = open_source(str(file))
    assert source.total is None
    (frame,) = source.frames
    assert "v.mp4 is missing or does not open as a video" in frame.error
    assert capfd.readouterr().err == ""  # one message, and none of FFmpeg's


class FakeCamera:
    """A camera that gives three pictures and then none."""

    def __init__(self, index):
        self.left = 3 if index == 0 else 0

    def isOpened(self):
        return self.left > 0

    def get(self, key):
        return 0.0

    def read(self):
        self.left -= 1
        return self.left >= 0, GRAY[4]

    def release(self):
        pass


def test_a_camera_is_read_until_it_ends(monkeypatch):
    monkeypatch.setattr(videos.cv2, "VideoCapture", FakeCamera)
    source = open_source("0")
    assert (source.total, source.several) == (None, False)
    *frames, last = source.frames
    assert [frame.number for frame in frames] == [0, 1, 2]
    assert {frame.source for frame in frames} == {"camera 0"}
    assert {frame.fps for frame in frames} == {videos.DEFAULT_FPS}
    assert frames[0].time <= frames[2].time
    assert "camera 0 gives no more pictures" in last.error
    with pytest.raises(InputError, match="there is no camera 1"):
        open_source("1")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.png", None, "does not exist"),
        ("notes.txt", "", "unknown kind: a picture ends in"),
        ("empty.csv", "path\n", "has no rows"),
        ("other.csv", "file,label\na,b\n", "has no column path; it has: file, label"),
        ("nothing.csv", "", "has no column path; it has: nothing"),
        ("latin.csv", "path\nmüde.png\n", "does not open as a CSV file in UTF-8"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=message) as caught:
        open_source(str(tmp_path / name))
    assert name in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="holds no pictures"):
        open_source(str(tmp_path))


def test_exif_orientation_of_a_file_and_of_a_pillow_image_applies(tmp_path):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise
    file = tmp_path / "turned.png"
    Image.fromarray(pixels).save(file, exif=exif)
    (frame,) = open_source(str(file)).frames
    (pillow,) = frames_of(Image.open(file))
    for image in (frame.image, pillow.image):
        assert image.shape == (60, 40, 3)
        assert image[:30].min() == 255
        assert image[30:].max() == 0
    assert cv2.imread(str(file), cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_COLOR).shape == (40, 60, 3)
