"""From pictures to a table of faces: found, aligned, and their emotions predicted."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fer_lightning.data.datasets.decode import square
from fer_lightning.data.views import Image
from fer_lightning.errors import InputError
from fer_lightning.inference.alignment import align
from fer_lightning.inference.calibration import Calibration, calibrated
from fer_lightning.inference.detection import FaceDetector
from fer_lightning.inference.face_table import BOX, Row, columns
from fer_lightning.inference.frames import Frame, Picture, frames_of
from fer_lightning.inference.load import load_method
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.metrics import DIMENSIONS
from fer_lightning.outputs.checkpoint_files import read_checkpoint

if TYPE_CHECKING:
    import pandas as pd


class FaceRecognizer:
    """Finds the faces in pictures and predicts their emotions.

    Example, with a black face crop in the place of a photograph; without ``aligned``, faces are found and
    aligned first:

        >>> import numpy as np
        >>> from fer_lightning.inference.recognizer import FaceRecognizer
        >>> recognize = FaceRecognizer.from_checkpoint("runs/mine/checkpoints/best.ckpt", aligned=True)
        >>> table = recognize(np.zeros((100, 80, 3), np.uint8))
        >>> table[["source", "status", "faces", "width", "height"]].values.tolist()
        [['0', 'face', 1, 80, 100]]
        >>> table.emotion[0] in recognize.method.task.emotions
        True

    Args:
        method: the model.
        image_size: side in pixels of the faces that it was trained on.
        detector: finds the faces; None for pictures that are face crops already, whose center is taken.
        calibration: of its confidences; None to leave them as they are.
        threshold: confidence below which it abstains; that of the calibration if None, and 0 without one.
        device: of the model: ``cpu``, ``cuda``, ...; a GPU if there is one for ``auto``.

    Raises:
        InputError: if there is no such device, or a threshold for a model without emotions.
    """

    def __init__(
        self,
        method: SemiSupervised,
        image_size: int,
        detector: FaceDetector | None = None,
        calibration: Calibration | None = None,
        threshold: float | None = None,
        device: str = "auto",
    ) -> None:
        self.image_size, self.detector, self.calibration = image_size, detector, calibration
        if threshold is not None and not method.task.classes:
            raise InputError("there is no threshold for a model without emotions", option="threshold")
        if threshold is None:
            threshold = 0.0 if calibration is None else calibration.threshold
        self.threshold = threshold
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.device = torch.device(device)
            self.method = method.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
            raise InputError(f"the device {device!r} cannot be used: {error}", option="device") from error
        self.columns = columns(method.task)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        detector: str | Path | None = None,
        aligned: bool = False,
        threshold: float | None = None,
        device: str = "auto",
    ) -> "FaceRecognizer":
        """Open a checkpoint with its image size, and its calibration if it has one.

        Args:
            path: a ``.ckpt`` file written by this package.
            detector: file of the face detector, YuNet of the OpenCV Zoo; fetched from the Hugging Face hub
                if None.
            aligned: the pictures are face crops already.
            threshold: confidence below which to abstain; see the class.
            device: see the class.

        Raises:
            CheckpointError: if the file is not a checkpoint of this package.
            InputError: if the detector cannot be had or is given for aligned faces; see also the class.
        """
        if aligned and detector is not None:
            raise InputError("aligned faces are not detected: leave the detector out", option="detector")
        content = read_checkpoint(path)
        return cls(
            load_method(path),
            content.get("image_size") or 48,  # None where the data did not tell
            None if aligned else FaceDetector(detector),
            Calibration.of(content),
            threshold,
            device,
        )

    def __call__(self, images: "Picture | Iterable[Picture]") -> "pd.DataFrame":
        """Find and predict the faces of pictures.

        Args:
            images: one or several, see ``frames_of``.

        Returns:
            A row a face, and one for a picture without; for the columns see ``columns``. The number of faces
            that were found is ``(table.status == "face").sum()``, that of each picture is in ``faces``.

        Raises:
            DataError: naming a file that does not decode.
            InputError: for a picture of another kind, shape or type.
        """
        import pandas as pd

        rows = [row for _, found in self.stream(frames_of(images)) for row in found]
        kinds = {str: "object", int: "Int64", bool: "boolean", float: "float64"}
        table = pd.DataFrame(rows, columns=list(self.columns))
        return table.astype({name: kinds[kind] for name, kind in self.columns.items()})

    def stream(
        self, frames: Iterable[Frame], batch_size: int = 16, keep_images: bool = False
    ) -> Iterator[tuple[Frame, list[Row]]]:
        """Recognize frame after frame, as they come.

        Args:
            frames: of any number, with or without faces or errors.
            batch_size: faces that are predicted at a time, and frames that are held at most.
            keep_images: return the frames with their images, which are dropped else.

        Yields:
            Each frame, in order, and its rows: one a face, or one that says that there is none.
        """
        held: list[tuple[Frame, list[list[int]]]] = []
        faces: list[Image] = []
        for frame in frames:
            boxes: list[list[int]] = []
            if frame.image is not None:
                boxes, found = self.find(frame.image)
                faces += found
            held.append((frame if keep_images else replace(frame, image=None), boxes))
            if max(len(held), len(faces)) >= batch_size:
                yield from self._rows(held, faces, batch_size)
                held, faces = [], []
        if held:
            yield from self._rows(held, faces, batch_size)

    def find(self, image: Image) -> tuple[list[list[int]], list[Image]]:
        """Return the boxes of the faces of a picture, and the faces as the network gets them.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            N times left, top, width and height, and N times (size, size, 3) uint8 RGB.
        """
        if self.detector is None:
            height, width = image.shape[:2]
            return [[0, 0, width, height]], [square(image, self.image_size)]
        found = self.detector(image)
        return found.box.tolist(), [align(image, points, self.image_size) for points in found.points]

    @torch.inference_mode()
    def predict(self, faces: Sequence[Image]) -> tuple[Tensor, Tensor]:
        """Return the calibrated probabilities, (N, C), and valence and arousal, (N, 2) or (N, 0).

        Args:
            faces: N times (size, size, 3) uint8 RGB.
        """
        batch = torch.from_numpy(np.stack(faces)).to(self.device).permute(0, 3, 1, 2)
        prediction = self.method(batch)
        emotion = prediction.emotion
        if self.calibration is not None:
            bias = torch.tensor(self.calibration.bias)
            emotion = calibrated(emotion, self.calibration.temperature, bias)
        return emotion.cpu(), prediction.valence_arousal.cpu()

    def _rows(
        self, held: list[tuple[Frame, list[list[int]]]], faces: list[Image], batch_size: int
    ) -> Iterator[tuple[Frame, list[Row]]]:
        batches = (faces[start : start + batch_size] for start in range(0, len(faces), batch_size))
        predicted = (row for batch in batches for row in self._predicted(batch))
        for frame, boxes in held:
            row: Row = {"source": frame.source, "frame": frame.number, "time": frame.time}
            if boxes:
                row |= {"status": "face", "faces": len(boxes)}
                yield frame, [row | dict(zip(BOX, box, strict=True)) | next(predicted) for box in boxes]
            else:
                row |= {"status": "unreadable"} if frame.error else {"status": "no face", "faces": 0}
                yield frame, [row]

    def _predicted(self, faces: Sequence[Image]) -> Iterator[Row]:
        task = self.method.task
        emotions, points = (each.tolist() for each in self.predict(faces))
        for probabilities, point in zip(emotions, points, strict=True):
            row: Row = {}
            if task.classes:
                confidence = max(probabilities)
                row["emotion"] = task.emotions[probabilities.index(confidence)]
                row |= {"confidence": confidence, "abstain": confidence < self.threshold}
                row |= zip(task.emotions, probabilities, strict=True)
            if task.valence_arousal:
                row |= zip(DIMENSIONS, point, strict=True)
            yield row
