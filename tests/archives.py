"""Small archives in the official layouts of the data sets, for the tests."""

from pathlib import Path

import cv2
import numpy as np

RAF_LABELS = {
    **{f"train_{i:05d}.jpg": 1 + i % 7 for i in range(1, 15)},
    **{f"test_{i:04d}.jpg": 1 + i % 7 for i in range(1, 8)},
}
"""The list of the small RAF-DB."""


def picture(path: Path, width: int, height: int, value: int = 0) -> None:
    """Write a picture of one gray value, so that it comes back through JPEG as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), value, np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())


def text(path: Path, content: str) -> Path:
    """Write a text file, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
    return path


def raf_db(root: Path, labels: dict[str, int] = RAF_LABELS) -> Path:
    """Make RAF-DB's ``basic`` folder: aligned faces, originals with boxes, attributes, distributions.

    Face ``i`` of the list is of gray value 10 ``i``, also in its box; around it the original is white.
    """
    lines, votes = [], []
    for i, (name, label) in enumerate(labels.items()):
        stem = name.removesuffix(".jpg")
        lines.append(f"{name} {label}\n")
        share = np.full(7, 0.05)
        share[min(label, 7) - 1] = 0.7
        votes.append(f"{name} {' '.join(f'{each:.3f}' for each in share)}\n")
        picture(root / f"Image/aligned/{stem}_aligned.jpg", 100, 100, 10 * i)
        original = np.full((80, 120, 3), 255, np.uint8)
        original[16:48, 64:96] = 10 * i
        path = root / f"Image/original/{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", original)[1].tobytes())  # the content counts, not the suffix
        text(root / f"Annotation/boundingbox/{stem}_boundingbox.txt", "64.0 16.0 96.0 48.0\n")
        points = "70.5\t30.1\n80 30\n75 35\n71 41\n79 41\n"
        text(root / f"Annotation/manual/{stem}_manu_attri.txt", f"{points}{i % 3}\n{i % 3}\n{i % 5}\n")
    text(root / "EmoLabel/list_patition_label.txt", "".join(lines))
    text(root / "EmoLabel/distribution_basic.txt", "".join(votes))
    return root


def raf_db_folders(root: Path, labels: dict[str, int] = RAF_LABELS, first: int = 1) -> Path:
    """Make the common copy of RAF-DB in folders ``DATASET/train/1`` ... ``DATASET/test/7``."""
    for i, (name, label) in enumerate(labels.items()):
        part, stem = name.partition("_")[0], name.removesuffix(".jpg")
        picture(root / f"DATASET/{part}/{label - 1 + first}/{stem}_aligned.jpg", 100, 100, 10 * i)
    text(root / "train_labels.csv", "image,label\n")
    return root
