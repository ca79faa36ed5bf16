"""A photograph with a face, the detector that finds it, and a checkpoint with random weights, for tests."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from faces import TINY, quiet_trainer

from fer_lightning.methods import FixMatch

ASTRONAUT_FACE = (178, 63, 90, 113)
"""Left, top, width and height of the face in ``astronaut()``, by eye."""


def detector_file() -> Path:
    """The file of the face detector; skips the test where there is none."""
    folder = os.environ.get("FER_DATA_ROOT")
    file = Path(folder or "", "models/face_detection_yunet_2026may.onnx")
    if not folder or not file.is_file():
        pytest.skip(f"needs the YuNet detector: {file} in FER_DATA_ROOT")
    return file


def astronaut() -> np.ndarray:
    """A public-domain photograph with one face, (512, 512, 3) uint8 RGB."""
    return pytest.importorskip("skimage.data").astronaut()


def write_picture(file: Path, image: np.ndarray) -> Path:
    """Write (H, W, 3) uint8 RGB."""
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return file


def write_video(file: Path, frames: list[np.ndarray], fps: float = 12.5) -> Path:
    """Write frames of one size, (H, W, 3) uint8 RGB."""
    code = cv2.VideoWriter.fourcc(*("MJPG" if file.suffix == ".avi" else "mp4v"))
    height, width = frames[0].shape[:2]
    video = cv2.VideoWriter(str(file), code, fps, (width, height))
    assert video.isOpened()
    for frame in frames:
        video.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    video.release()
    return file


def random_checkpoint(folder: Path, image_size: int = 32, method: type = FixMatch, **options) -> Path:
    """Write a checkpoint of a tiny network with random weights."""
    torch.manual_seed(0)
    trainer, file = quiet_trainer(folder), folder / "random.ckpt"
    trainer.strategy.connect(method(**TINY, **options))
    trainer.save_checkpoint(file)
    return with_keys(file, image_size=image_size)


def with_keys(file: Path, **keys) -> Path:
    """Set top-level keys of a checkpoint."""
    torch.save(torch.load(file, weights_only=True) | keys, file)
    return file
