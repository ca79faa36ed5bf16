"""The command ``fer-lightning recognize``: from pictures, videos or a camera to a table of faces."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fer_lightning.errors import InputError
from fer_lightning.inference.annotation import AnnotatedFiles
from fer_lightning.inference.face_table import Row, open_table
from fer_lightning.inference.recognizer import FaceRecognizer
from fer_lightning.inference.sources import Source, open_source
from fer_lightning.ranges import PositiveInt, Share

if TYPE_CHECKING:
    from collections.abc import Sequence


def recognize(
    input: str,
    ckpt: Path | None = None,
    out: Path = Path("recognized.csv"),
    detector: Path | None = None,
    aligned: bool = False,
    threshold: Share | None = None,
    annotated: Path | None = None,
    device: str = "auto",
    batch_size: PositiveInt = 16,
) -> int:
    """Find the faces in pictures, a video or a camera, and write their emotions into a table, a row a face.

    Memory stays constant. Ctrl-C stops, and keeps what has been written; that is how a camera ends.

    Args:
        input: a picture, a folder of any depth, a CSV file with a column path, a video, or the index of a
            camera.
        ckpt: checkpoint of the model: checkpoints/best.ckpt or last.ckpt of a run. Needed.
        out: table to write, .csv or .parquet; written over.
        detector: file of the face detector (YuNet of the OpenCV Zoo, ONNX); without, it is fetched from the
            Hugging Face hub once.
        aligned: the pictures are face crops already: nothing is detected.
        threshold: confidence below which a face is marked as abstain; by default that of the checkpoint's
            calibration (fer-lightning calibrate), or 0.
        annotated: also write the picture or the video with boxes and names: a file (a picture; a video in
            .mp4 or .avi), or a folder for a copy of each.
        device: cpu, cuda, ...; auto is a GPU if there is one.
        batch_size: faces that are predicted at a time.

    Returns:
        Exit status: 0, or 1 if something could not be read, 130 if stopped.
    """
    if ckpt is None:
        raise InputError(
            "recognize needs a checkpoint, such as runs/mine/checkpoints/best.ckpt", option="ckpt"
        )
    source = open_source(input)
    if annotated is not None:
        _check_annotated(annotated, Path(input).expanduser(), source)
    recognizer = FaceRecognizer.from_checkpoint(ckpt, detector, aligned, threshold, device)
    progress = Progress(
        TextColumn("recognizing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    tally, status = _Tally(), 0
    with open_table(out, recognizer.columns) as add, AnnotatedFiles(annotated or Path()) as files, progress:
        task = progress.add_task("", total=source.total, said="")
        try:
            for frame, rows in recognizer.stream(source.frames, batch_size, annotated is not None):
                add(rows)
                if annotated is not None:
                    files.write(frame, rows)
                if frame.error:
                    progress.console.print(f"error: {frame.error}", style="red", markup=False, soft_wrap=True)
                tally.count(rows)
                done = tally.sources if source.several else tally.frames
                progress.update(
                    task, completed=done, said=f"{tally.faces:,} faces, {tally.rate:.1f} frames/s"
                )
        except KeyboardInterrupt:
            status = 130
    print(f"{out}: {tally}")
    return status or int(tally.unreadable > 0)


class _Tally:
    """Counts what has been recognized."""

    def __init__(self) -> None:
        self.sources = self.frames = self.faces = self.without = self.unreadable = self.abstained = 0
        self._start = time.monotonic()

    def count(self, rows: "Sequence[Row]") -> None:
        """Count the rows of a frame."""
        status = rows[0]["status"]
        self.sources += rows[0]["frame"] == 0
        self.frames += status != "unreadable"
        self.unreadable += status == "unreadable"
        self.without += status == "no face"
        self.faces += len(rows) if status == "face" else 0
        self.abstained += sum(bool(row.get("abstain")) for row in rows)

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / max(time.monotonic() - self._start, 1e-9)

    def __str__(self) -> str:
        parts = [f"{self.faces:,} faces, {self.frames:,} frames ({self.rate:.1f} a second)"]
        parts += [f"no face in {self.without:,}"] * bool(self.without)
        parts += [f"abstained on {self.abstained:,}"] * bool(self.abstained)
        parts += [f"{self.unreadable:,} unreadable"] * bool(self.unreadable)
        return ", ".join(parts)


def _check_annotated(annotated: Path, path: Path, source: Source) -> None:
    """Refuse a place for annotated files that would be read again or does not hold them all."""
    if source.several and AnnotatedFiles.is_file(annotated):
        raise InputError(f"{annotated} is one file: give a folder for several", option="annotated")
    if path.is_dir() and annotated.resolve().is_relative_to(path.resolve()):
        raise InputError(f"{annotated} lies in the folder that is read: give another one", option="annotated")
