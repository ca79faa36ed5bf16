"""Pictures and videos with the faces marked in them."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from fer_lightning.data.datasets.image_file import SUFFIXES as PICTURES
from fer_lightning.data.views import Image
from fer_lightning.errors import InputError
from fer_lightning.files import NotWritten, writing
from fer_lightning.inference.face_table import AGAIN, BOX, Row
from fer_lightning.inference.frames import Frame
from fer_lightning.metrics import DIMENSIONS

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
"""Videos that are written, by their ending."""
COLOR, PALE = (0, 158, 115), (160, 160, 160)
"""RGB of a box, and of one with an abstention."""


def draw(image: Image, rows: Sequence[Row]) -> Image:
    """Return a picture with the box of each face, and its emotion or valence and arousal.

    Args:
        image: (H, W, 3) uint8 RGB; left as it is.
        rows: of its faces.
    """
    drawn = image.copy()
    size = max(0.4, min(image.shape[:2]) / 900)
    thick = max(1, round(2 * size))
    for row in (row for row in rows if row["status"] == "face"):
        x, y, width, height = (row[name] for name in BOX)
        color = PALE if row.get("abstain") else COLOR
        cv2.rectangle(drawn, (x, y), (x + width - 1, y + height - 1), color, thick)
        (wide, high), below = cv2.getTextSize(label(row), cv2.FONT_HERSHEY_SIMPLEX, size, thick)
        left = max(0, min(x, image.shape[1] - wide))
        bottom = y if y >= high + below else min(y + height + high + below, image.shape[0])
        cv2.rectangle(drawn, (left, bottom - high - below), (left + wide, bottom), color, -1)
        at = (left, bottom - below // 2)
        cv2.putText(
            drawn, label(row), at, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), thick, cv2.LINE_AA
        )
    return drawn


def label(row: Row) -> str:
    """Return the text of a face: its emotion with the confidence, or its valence and arousal."""
    if "emotion" in row:
        return f"{row['emotion']} {row['confidence']:.0%}" + ("?" if row["abstain"] else "")
    return " ".join(f"{name[0]} {row[name]:+.2f}" for name in DIMENSIONS)


class AnnotatedFiles:
    """Writes annotated frames into a file, or into files of a folder that are named like their sources.

    Args:
        target: a picture or a video (.mp4, .avi), or else a folder, made if need be.

    Raises:
        InputError: if a source would be written over.
        NotWritten: if a file cannot be written.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self._video: cv2.VideoWriter | None = None

    @staticmethod
    def is_file(target: Path) -> bool:
        """Return whether it is one file and not a folder, by its ending."""
        return target.suffix.lower() in (*PICTURES, *CODECS)

    def write(self, frame: Frame, rows: Sequence[Row]) -> None:
        """Write one frame; those of a video must follow each other."""
        if frame.image is None:
            return
        single = self.is_file(self.target)
        file = self.target if single else self.target / frame.name
        suffix = file.suffix.lower()
        if single and (suffix in CODECS) != (frame.fps is not None):
            kind = "picture" if frame.fps is None else "video"
            raise InputError(
                f"{file} does not end like a {kind}, which {frame.source} is", option="annotated"
            )
        if frame.fps is not None and suffix not in CODECS:
            file, suffix = file.with_name(f"{file.name}.mp4"), ".mp4"
        if file.resolve() == Path(frame.source).expanduser().resolve():
            raise InputError(f"{file} would be written over by its annotated copy", option="annotated")
        with writing(file, AGAIN):
            file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.asarray(cv2.cvtColor(draw(frame.image, rows), cv2.COLOR_RGB2BGR), np.uint8)
        if frame.fps is None:
            _, content = cv2.imencode(suffix, pixels)
            with writing(file, AGAIN):
                file.write_bytes(content.tobytes())
            return
        if frame.number == 0:
            self._open(file, frame.fps, frame.image.shape[1::-1])
        assert self._video is not None
        self._video.write(pixels)

    def _open(self, file: Path, fps: float, size: Sequence[int]) -> None:
        self._close()
        with writing(file, AGAIN):
            file.touch()  # OpenCV does not say why it cannot
        code = cv2.VideoWriter.fourcc(*CODECS[file.suffix.lower()])
        self._video = cv2.VideoWriter(str(file), code, fps, size)
        if not self._video.isOpened():
            raise NotWritten(f"OpenCV cannot write the video {file}; give another ending", option="annotated")

    def _close(self) -> None:
        if self._video is not None:
            self._video.release()
        self._video = None

    def __enter__(self) -> "AnnotatedFiles":
        """Return the files themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the last video."""
        self._close()
