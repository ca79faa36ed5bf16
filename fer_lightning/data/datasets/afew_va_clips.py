"""The clips of AFEW-VA: a folder of frames, and a JSON file of landmarks, valence and arousal."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_lightning.data.datasets.archive import packed_in, read_text, subfolders
from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.decode import OnBadImage
from fer_lightning.data.datasets.listed_images import walk_images
from fer_lightning.emotions import VALENCE_AROUSAL_RANGE

_SHAPE = '{"video_id", "actor", "frames": {"00000": {"landmarks", "valence", "arousal"}}}'


@dataclass
class Clip:
    """One clip. Row ``i`` of every array is one frame."""

    name: str
    """Its number, as ``001``."""
    actor: str
    """In lower case, for copies write the names in several."""
    frames: list[Path]
    valence_arousal: npt.NDArray[np.float32]
    """(N, 2) in [-1, 1]."""
    landmarks: npt.NDArray[np.float32]
    """(N, 68, 2) x and y in pixels."""
    notes: list[str]


def clip_folders(root: Path) -> tuple[list[Path], list[str]]:
    """List the folders of clips, in ``01`` ... ``12`` or without them, by number; and notes.

    Raises:
        DataError: if one of the twelve archives is still packed, or a clip is there twice.
    """
    outer = [folder for folder in subfolders(root) if len(folder.name) == 2 and folder.name.isdecimal()]
    inner = [below for folder in (root, *outer) for below in subfolders(folder)]
    for number in range(1, 13):
        packed = packed_in(root, f"{number:02d}.")
        if packed and not (root / f"{number:02d}").is_dir():
            raise DataError(f"{packed[0]} is still packed; unpack it to {root / f'{number:02d}'}")
    clips: dict[str, Path] = {}
    for folder in inner:
        if len(folder.name) == 3 and folder.name.isdecimal():
            if folder.name in clips:
                raise DataError(f"{clips[folder.name]} and {folder} are both clip {folder.name}; remove one")
            clips[folder.name] = folder
    cropped = sum(folder.name.endswith("_cropped") for folder in inner)
    notes = [f"{cropped} folders end in _cropped: ignored"] if cropped else []
    return [clips[name] for name in sorted(clips)], notes


def read_clip(folder: Path, scale: float, on_bad_image: OnBadImage) -> Clip:
    """Read the annotations of a clip; they belong to its frames by name, never by position.

    Args:
        folder: of the clip.
        scale: what valence and arousal are divided by.
        on_bad_image: what to do about frames that are missing.

    Raises:
        DataError: naming the file and frame that are wrong.
    """
    path = folder / f"{folder.name}.json"
    content = _open(path)
    if str(_get(content, "video_id", path)) != folder.name:
        raise DataError(f"{path}: video_id is {content['video_id']}; expected {folder.name}")
    actor = str(_get(content, "actor", path)).strip().lower()
    if not actor:
        raise DataError(f"{path}: actor is empty; the folds keep actors apart, so that each clip needs one")
    annotated = _get(content, "frames", path)
    held = {Path(name).stem: folder / name for name in walk_images(folder)}
    lost, extra = sorted(annotated.keys() - held.keys()), len(held.keys() - annotated.keys())
    notes = [f"{folder.name}: {extra} frames have no annotation and are left out"] if extra else []
    if lost:
        message = (
            f"{folder}: {len(annotated)} frames annotated, {len(held)} images; {lost[0]}.png is missing, and "
            f"{len(lost) - 1} more"
        )
        if on_bad_image == "stop" or len(lost) == len(annotated):
            raise DataError(f'{message}. on_bad_image="skip" leaves them out')
        notes.append(f"{message}: left out")
    kept = [frame for frame in sorted(annotated) if frame in held]
    read = [_frame(annotated[frame], f"{path}, frame {frame}", scale) for frame in kept]
    return Clip(
        folder.name,
        actor,
        [held[frame] for frame in kept],
        np.array([values for values, _ in read], np.float32).reshape(-1, 2),
        np.array([points for _, points in read], np.float32).reshape(-1, 68, 2),
        notes,
    )


def _open(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is no JSON ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is of another shape; expected {_SHAPE}")
    return content


def _get(content: Any, key: str, where: object) -> Any:
    if not isinstance(content, dict) or key not in content:
        raise DataError(f"{where} has no {key!r}; the official shape is {_SHAPE}")
    return content[key]


def _frame(content: Any, where: str, scale: float) -> tuple[list[float], npt.NDArray[np.float32]]:
    """Return valence and arousal, divided by ``scale``, and (68, 2) landmarks."""
    low, high = VALENCE_AROUSAL_RANGE
    values = []
    for key in ("valence", "arousal"):
        value = _get(content, key, where)
        if not isinstance(value, int | float) or not low * scale <= value <= high * scale:
            raise DataError(f"{where}: {key} is {value}; expected {low * scale:g}..{high * scale:g}")
        values.append(value / scale)
    landmarks = _get(content, "landmarks", where)
    try:
        points: npt.NDArray[np.float32] = np.array(landmarks, np.float32)
    except (ValueError, TypeError):  # of other lengths, or no numbers
        points = np.empty(0, np.float32)
    if points.shape != (68, 2):
        raise DataError(f"{where}: landmarks are {points.shape}; expected 68 x and y")
    return values, points
