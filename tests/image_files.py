"""Image files for tests: whole ones of any format, and bad ones of every kind."""

import cv2
import numpy as np
from PIL import Image


def texture(height, width, seed=0):
    """A smooth color image: smooth, so that JPEG changes it little."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return str(path)


def bad_files(folder):
    """Every way for a file to be no image: cut off, empty, something else, not there."""
    whole = save(folder / "whole.jpg", texture(64, 64))
    cut, empty, text = folder / "cut.jpg", folder / "empty.png", folder / "text.jpg"
    with open(whole, "rb") as file:
        cut.write_bytes(file.read()[:600])
    empty.write_bytes(b"")
    text.write_text("404: not found")
    return [str(path) for path in (cut, empty, text, folder / "absent.jpg")]


def heic(path):
    """The beginning of a HEIC file, by which its format is told."""
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    return str(path)
