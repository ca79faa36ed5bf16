"""Detection of faces with OpenCV's YuNet."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from fer_lightning.data.views import Image
from fer_lightning.errors import InputError
from fer_lightning.inference.alignment import align, similarity, template

Floats = npt.NDArray[np.float64]

HUB = ("opencv/face_detection_yunet", "face_detection_yunet_2023mar.onnx")
"""Repository and file of the detector on the Hugging Face hub (MIT)."""
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
"""Of that file, as the OpenCV Zoo publishes it."""
LONGEST = 640
"""Longer sides of an image are brought to this many pixels before detection: YuNet is trained on faces of
about 10 to 300 pixels, and larger ones are missed."""
SCORE, OVERLAP = 0.8, 0.3
"""Lowest score of a face, and the overlap (IoU) from which the lower of two scores is dropped."""
LOOKS, SIDE, MARGIN = 2, 320, 40
"""Each face is detected anew so often in an upright cut of this side, with this margin around the template.

The points of a face under some 150 pixels hardly follow a tilted head (one tilted by 25 degrees gives eyes at
2), but those of a large one do; so the second look sees it large and the third one also nearly upright."""
PATIENCE = 8.0
"""Seconds for the hub to answer."""


class Detection(NamedTuple):
    """The N faces of an image, the highest score first."""

    box: npt.NDArray[np.int64]
    """(N, 4) left, top, width and height in pixels, within the image."""
    points: Floats
    """(N, 5, 2) x and y of eyes, nose and corners of the mouth, in the order of ``alignment.TEMPLATE``."""


class FaceDetector:
    """Finds faces that are upright or nearly so: YuNet (Wu et al., Machine Intelligence Research 2023).

    Args:
        model: YuNet's ONNX file of the OpenCV Zoo; fetched from the Hugging Face hub if None.

    Raises:
        InputError: if the file is missing or no face detector, or cannot be fetched.
    """

    def __init__(self, model: str | Path | None = None) -> None:
        path = fetch() if model is None else Path(model).expanduser()
        if not path.is_file():
            raise InputError(f"there is no detector {path}", option="detector")
        try:
            with quiet_opencv():
                self._net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), SCORE, OVERLAP)
                self._net.detect(np.zeros((320, 320, 3), np.uint8))  # another kind of model fails only here
        except cv2.error as error:
            raise InputError(
                f"{path} is no YuNet face detector that OpenCV {cv2.__version__} can open; the OpenCV Zoo "
                "has them (models/face_detection_yunet)",
                option="detector",
            ) from error

    def __call__(self, image: Image) -> Detection:
        """Find the faces of an image.

        Args:
            image: (H, W, 3) uint8 RGB.
        """
        height, width = image.shape[:2]
        scale = min(1.0, LONGEST / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        box, points = self._detect(
            np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        )
        ratio = np.array((width / size[0], height / size[1]))
        corners = box.reshape(-1, 2, 2).cumsum(1) * ratio  # left and top, right and bottom
        corners = np.clip(corners.round(), 0, (width, height)).astype(np.int64)
        within = np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0]], 1)
        some = (within[:, 2:] > 0).all(1)
        refined = [self._refined(image, each) for each in (points[some] + 0.5) * ratio - 0.5]
        return Detection(within[some], np.array(refined, np.float64).reshape(-1, 5, 2))

    def _detect(self, image: Image) -> tuple[Floats, Floats]:
        """Return (N, 4) boxes and (N, 5, 2) points of an image that is not too large."""
        self._net.setInputSize(image.shape[1::-1])
        _, found = self._net.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        faces = np.empty((0, 15)) if found is None else np.asarray(found, np.float64)
        return faces[:, :4], faces[:, 4:14].reshape(-1, 5, 2)

    def _refined(self, image: Image, points: Floats) -> Floats:
        """Return the (5, 2) points of a face more exactly."""
        expected = template(SIDE, MARGIN)
        for _ in range(LOOKS):
            _, found = self._detect(align(image, points, SIDE, MARGIN))
            if not len(found):
                break
            nearest = found[np.abs(found - expected).sum((1, 2)).argmin()]
            back = cv2.invertAffineTransform(similarity(points, expected))
            points = nearest @ back[:, :2].T + back[:, 2]
        return points


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Leave out OpenCV's warnings, which no user of this package can act on."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


def fetch() -> Path:
    """Return the detector's file from the cache of the Hugging Face hub, or fetch it from there.

    Raises:
        InputError: if it cannot be fetched, within some seconds if the hub does not answer.
    """
    try:
        path = Path(_download())
    except Exception as error:
        raise InputError(
            f"the face detector could not be fetched from the Hugging Face hub ({type(error).__name__}: "
            f"{error}). Offline, give a file of it: {HUB[1]} of the OpenCV Zoo",
            option="detector",
        ) from error
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise InputError(
            f"{path} is not the file that the OpenCV Zoo publishes (its sha256 differs): remove it",
            option="detector",
        )
    return path


def _download() -> str:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return hf_hub_download(*HUB, local_files_only=True)
    except LocalEntryNotFoundError:
        # The download retries for minutes where there is no network, and a name that does not resolve or an
        # address that does not answer waits for time limits of its own: so ask first, and only so long.
        answer: list[Exception | None] = []

        def ask() -> None:
            try:
                get_hf_file_metadata(hf_hub_url(*HUB), timeout=PATIENCE)
                answer.append(None)
            except Exception as error:
                answer.append(error)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(PATIENCE)
        if not answer:
            raise TimeoutError(f"no answer in {PATIENCE:g} s") from None
        if answer[0] is not None:
            raise answer[0] from None
        return hf_hub_download(*HUB)
