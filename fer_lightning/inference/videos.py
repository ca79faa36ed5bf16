"""Videos and cameras as streams of frames."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from fer_lightning.data.views import Image
from fer_lightning.errors import InputError
from fer_lightning.inference.detection import quiet_opencv
from fer_lightning.inference.frames import Frame

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
"""Files that count as videos, in either case."""
DEFAULT_FPS = 25.0
"""Frames a second of a video or a camera that does not tell."""

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # damaged videos are reported here, once and by name


def read_video(path: Path, source: str, name: str) -> Iterator[Frame]:
    """Yield the frames of a video, and a last one with an error where it is damaged.

    Args:
        path: of the video.
        source: see ``Frame``.
        name: see ``Frame``.
    """
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path))
    expected, fps, number = capture.get(cv2.CAP_PROP_FRAME_COUNT), _fps(capture), 0
    for image in _images(capture):
        seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000  # of this frame, also where the rate varies
        yield Frame(source, image, number, seconds if seconds > 0 else number / fps, fps, name=name)
        number += 1
    if not number:
        yield Frame(source, None, error=f"{path} is missing or does not open as a video")
    elif number + 2 < 0.99 * expected:  # the count in a file may be an estimate
        error = f"{path} ends after {number} of {expected:.0f} frames: it is cut off or damaged"
        yield Frame(source, None, number, number / fps, error=error)


def open_camera(index: int) -> Iterator[Frame]:
    """Open a camera and return its frames, without an end.

    Raises:
        InputError: if there is no such camera.
    """
    with quiet_opencv():
        capture = cv2.VideoCapture(index)
    if not capture.isOpened():
        raise InputError(f"there is no camera {index}, or it is in use")
    return _camera_frames(capture, index)


def _camera_frames(capture: cv2.VideoCapture, index: int) -> Iterator[Frame]:
    source, fps, start, number = f"camera {index}", _fps(capture), time.monotonic(), 0
    for image in _images(capture):
        yield Frame(source, image, number, time.monotonic() - start, fps, name=f"camera{index}.mp4")
        number += 1
    yield Frame(source, None, number, time.monotonic() - start, error=f"{source} gives no more pictures")


def _images(capture: cv2.VideoCapture) -> Iterator[Image]:
    try:
        while True:
            read, image = capture.read()
            if not read:
                return
            yield np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    finally:
        capture.release()


def _fps(capture: cv2.VideoCapture) -> float:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if 0 < fps < 1000 else DEFAULT_FPS


def frame_count(path: Path) -> int | None:
    """Return the number of frames that a video says it has, None if it says nothing."""
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return count if count > 0 else None
