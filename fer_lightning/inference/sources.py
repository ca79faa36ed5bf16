"""Pictures, folders, tables of paths, videos and cameras as one stream of frames, in constant memory."""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.image_file import SUFFIXES as PICTURES
from fer_lightning.data.datasets.image_file import read_image
from fer_lightning.errors import InputError
from fer_lightning.inference.frames import Frame
from fer_lightning.inference.videos import SUFFIXES as VIDEOS
from fer_lightning.inference.videos import frame_count, open_camera, read_video


@dataclass(frozen=True)
class Source:
    """What ``open_source`` returns."""

    frames: Iterator[Frame]
    """One after another; those that cannot be read are among them, with an error."""
    total: int | None
    """Number of frames of a video, of files otherwise; None where it is not known."""
    several: bool
    """Whether it is a folder or a table."""


def open_source(text: str) -> Source:
    """Open a picture, a folder, a table of paths, a video or a camera.

    A folder is searched at any depth, in the order of the names; hidden files and those that are neither
    pictures nor videos are passed over. A table has a column ``path``, relative to its folder.

    Args:
        text: path, or the index of a camera, such as ``0``.

    Raises:
        InputError: if there is no such file or camera, it is of an unknown kind, or it is empty.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        total = sum(1 for _ in _walk(path))
        if not total:
            raise InputError(f"{text} holds no pictures ({' '.join(PICTURES)}) and no videos")
        files = ((file, str(file), file.relative_to(path).as_posix()) for file in _walk(path))
        return Source((frame for file in files for frame in _read(*file)), total, several=True)
    if not path.is_file():
        if text.isdecimal():
            return Source(open_camera(int(text)), None, several=False)
        raise InputError(
            f"{text} does not exist; give a picture, a folder, a CSV of paths, a video or a camera's index"
        )
    suffix = path.suffix.lower()
    if suffix == ".csv":
        total = sum(1 for _ in _table(path))
        if not total:
            raise InputError(f"{text} has no rows")
        return Source((frame for row in _table(path) for frame in _read(*row)), total, several=True)
    if suffix in (*PICTURES, *VIDEOS):
        frames = 1 if suffix in PICTURES else frame_count(path)
        return Source(_read(path, text, path.name), frames, several=False)
    raise InputError(
        f"{text} is of an unknown kind: a picture ends in {' '.join(PICTURES)}, a video in "
        f"{' '.join(VIDEOS)}, a table of paths in .csv"
    )


def _walk(folder: Path) -> Iterator[Path]:
    for directory, below, files in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith((*PICTURES, *VIDEOS)) and not name.startswith("."):
                yield Path(directory, name)


def _table(table: Path) -> Iterator[tuple[Path, str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines, skipinitialspace=True)
            if "path" not in (rows.fieldnames or ()):
                raise InputError(
                    f"{table} has no column path; it has: {', '.join(rows.fieldnames or ()) or 'nothing'}"
                )
            for row in rows:
                text = (row["path"] or "").strip()
                parts = [part for part in Path(text).parts if part not in ("..", Path(text).anchor)]
                yield table.parent / Path(text).expanduser(), text, "/".join(parts)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{table} does not open as a CSV file in UTF-8 ({error})") from error


def _read(path: Path, source: str, name: str) -> Iterator[Frame]:
    suffix = path.suffix.lower()
    if suffix in VIDEOS:
        yield from read_video(path, source, name)
    elif suffix in PICTURES:
        try:
            yield Frame(source, read_image(path), name=name)
        except DataError as error:
            yield Frame(source, None, error=str(error))
    else:
        yield Frame(source, None, error=f"{path} is neither a picture nor a video")
