"""Views of a face: weak ones to believe, strong ones to learn from, and the center one to be judged on.

A view is a pure function of (image, size, key): each call draws from one generator, seeded from its key, and
nothing is remembered between calls. So a view depends on no worker, no epoch, and no order of reading. The
transforms of albumentations keep generators of their own, which every worker copies and every epoch starts
again; so its functional forms are used here, which leave the drawing to us.
"""

import copy
import hashlib
import math
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from random import Random
from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from fer_lightning.errors import InputError

Image = npt.NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""


class View(ABC):
    """What a face looks like to a network. A subclass says what is drawn."""

    def __call__(self, image: Image, size: int, key: tuple[int, ...]) -> Image:
        """Return one view of a face.

        Args:
            image: (H, W, 3) uint8 RGB, of any shape; left as it is.
            size: side of the view, in pixels.
            key: what the view is drawn from: (seed, stream, draw, view number). The same key gives the same
                view, and another key an unrelated one.

        Returns:
            (size, size, 3) uint8 RGB, contiguous, sharing no memory with ``image``.

        Raises:
            TypeError: if ``image`` is not uint8.
            ValueError: if ``image`` is empty or not (H, W, 3), or ``size`` is not positive.
        """
        if image.dtype != np.uint8:
            raise TypeError(f"a view takes uint8 pixels, not {image.dtype}: convert where the file is read")
        if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"a view takes an RGB image (H, W, 3), not {image.shape}")
        if size < 1:
            raise ValueError(f"the size of a view is at least 1 pixel, not {size}")
        return self.draw(_fit(image, size), size, seeded(key))

    def facing(self, mirrored: bool) -> "View":
        """Return this view, but always or never mirrored, for methods that compare both orientations.

        Raises:
            InputError: if it is not up to this view whether it is mirrored.
        """
        raise InputError(
            f"{type(self).__name__} cannot be told to mirror; this method needs a WeakView as --data.weak"
        )

    @abstractmethod
    def draw(self, image: Image, size: int, random: Random) -> Image:
        """Return the view of ``image``, whose shorter side is ``size``, without changing it.

        Whatever is left to chance comes from ``random``, and from nowhere else.
        """


class CenterView(View):
    """The middle of the image, its shorter side resized to the size asked for, whatever the key."""

    def draw(self, image: Image, size: int, random: Random) -> Image:
        """Return the central square of ``image``."""
        height, width = image.shape[:2]
        return _crop(image, (height - size) // 2, (width - size) // 2, size)


class WeakView(View):
    """A random crop of the image with reflected borders, mirrored or not.

    As in USB (Wang et al. 2022, https://arxiv.org/abs/2208.07204), whose crop ratio is 1 - ``padding``.

    Args:
        flip: probability that the view is mirrored, left for right, in [0, 1].
        padding: border that is reflected on every side before the crop, as a share of the size, in [0, 0.5].
    """

    def __init__(self, flip: float = 0.5, padding: float = 0.125) -> None:
        self.flip = _within("flip", flip, 0, 1)
        self.padding = _within("padding", padding, 0, 0.5)

    def facing(self, mirrored: bool) -> "WeakView":
        """Return this view, but always or never mirrored."""
        view = copy.copy(self)
        view.flip = float(mirrored)
        return view

    def draw(self, image: Image, size: int, random: Random) -> Image:
        """Return the weak view of ``image``."""
        border = int(size * self.padding)
        padded = _pixels(cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REFLECT_101))
        height, width = padded.shape[:2]
        view = _crop(padded, random.randint(0, height - size), random.randint(0, width - size), size)
        return _pixels(cv2.flip(view, 1)) if random.random() < self.flip else view


class StrongView(WeakView):
    """A weak view, changed by operations drawn at random, then with one square cut out.

    The variant of RandAugment that the field uses (USB; Ada-CM, Li et al. 2022, https://arxiv.org/abs/2203.12341):
    operations are drawn with replacement, each with a strength drawn uniformly. `face_policy` lists them.

    Args:
        operations: how many operations are drawn, at least 0.
        rotation: largest rotation to either side, in degrees, in [0, 90].
        cutout: largest side of the square cut out, as a share of the size, in [0, 1]; drawn uniformly.
        flip: probability that the view is mirrored, left for right, in [0, 1].
        padding: border that is reflected on every side before the crop, as a share of the size, in [0, 0.5].
    """

    def __init__(
        self,
        operations: int = 3,
        rotation: float = 30.0,
        cutout: float = 0.5,
        flip: float = 0.5,
        padding: float = 0.125,
    ) -> None:
        super().__init__(flip, padding)
        if operations < 0:
            raise ValueError(f"operations must be at least 0, not {operations}")
        self.operations = operations
        self.rotation = _within("rotation", rotation, 0, 90)
        self.cutout = _within("cutout", cutout, 0, 1)

    def draw(self, image: Image, size: int, random: Random) -> Image:
        """Return the strong view of ``image``."""
        view = super().draw(image, size, random)
        for operation in random.choices(face_policy(self.rotation), k=self.operations):
            view = operation.apply(view, random.uniform(operation.low, operation.high))
        # As in the reference, the square is pushed inside at the top and left, and cut off elsewhere.
        side = round(size * random.uniform(0, self.cutout))
        top, left = (max(0, random.randrange(size) - side // 2) for _ in range(2))
        view[top : top + side, left : left + side] = _HOLE
        return view


_HOLE = np.array((125, 123, 114), np.uint8)  # the gray with which USB and Ada-CM fill


class Operation(NamedTuple):
    """One operation of a strong view, and the range from which its strength is drawn uniformly."""

    apply: Callable[[Image, float], Image]
    """From a square image and a strength to the changed image."""
    low: float = 0.0
    high: float = 0.0


@cache
def face_policy(rotation: float) -> tuple[Operation, ...]:
    """Return the operations of a strong view.

    They and their ranges are those of USB and Ada-CM, with three differences: solarizing inverts highlights
    alone, for a negative is no face; shearing leaves the center of the image in place, not a corner; and
    warped pixels are interpolated.

    Args:
        rotation: largest rotation to either side, in degrees.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look at the network
    from albumentations.augmentations.pixel import functional as pixel  # takes a second

    return (
        Operation(lambda image, _: image),
        Operation(lambda image, _: pixel.auto_contrast(image, cutoff=0, ignore=None, method="pil")),
        Operation(lambda image, _: pixel.equalize(image)),
        Operation(lambda image, factor: pixel.adjust_brightness_torchvision(image, factor), 0.05, 0.95),
        Operation(lambda image, factor: pixel.adjust_contrast_torchvision(image, factor), 0.05, 0.95),
        Operation(lambda image, factor: pixel.adjust_saturation_torchvision(image, factor), 0.05, 0.95),
        Operation(_sharpness, 0.05, 0.95),
        Operation(lambda image, bits: pixel.posterize(image, int(bits)), 4, 8),
        Operation(lambda image, threshold: pixel.solarize(image, threshold), 0.5, 1),
        Operation(_rotate, -rotation, rotation),
        Operation(lambda image, shear: _warp(image, (1, shear), (0, 1)), -0.3, 0.3),
        Operation(lambda image, shear: _warp(image, (1, 0), (shear, 1)), -0.3, 0.3),
        Operation(lambda image, share: _warp(image, (1, 0), (0, 1), right=share * len(image)), -0.3, 0.3),
        Operation(lambda image, share: _warp(image, (1, 0), (0, 1), down=share * len(image)), -0.3, 0.3),
    )


def seeded(key: tuple[int, ...]) -> Random:
    """Return the generator of a key of 64-bit integers.

    Keys are small, consecutive numbers whose generators must have nothing in common, so they are hashed.
    """
    digest = hashlib.blake2b(struct.pack(f"<{len(key)}q", *key), digest_size=16).digest()
    return Random(int.from_bytes(digest, "little"))


def _within(name: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, not {value}")
    return value


def _pixels(array: object) -> Image:
    return cast(Image, array)  # the annotations of OpenCV forget the dtype


def _fit(image: Image, size: int) -> Image:
    """Resize the shorter side to ``size``."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    if shorter == size:
        return image
    shape = (round(width * size / shorter), round(height * size / shorter))
    interpolation = cv2.INTER_AREA if shorter > size else cv2.INTER_LINEAR
    return _pixels(cv2.resize(image, shape, interpolation=interpolation))


def _crop(image: Image, top: int, left: int, size: int) -> Image:
    # A contiguous copy, even of a whole image: the cutout is written into it.
    return image[top : top + size, left : left + size].copy()


def _warp(
    image: Image, x: tuple[float, float], y: tuple[float, float], right: float = 0, down: float = 0
) -> Image:
    """Move each point of a square image, measured from its center, to (x . point + right, y . point + down).

    What comes from outside the image is black.
    """
    center = (len(image) - 1) / 2
    matrix = np.array([(*x, center * (1 - sum(x)) + right), (*y, center * (1 - sum(y)) + down)])
    return _pixels(cv2.warpAffine(image, matrix, image.shape[:2]))


def _rotate(image: Image, degrees: float) -> Image:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return _warp(image, (cosine, sine), (-sine, cosine))


def _sharpness(image: Image, factor: float) -> Image:
    """Blend an image with itself smoothed, as Pillow does: 1 is the image, and 0 the smoothed one."""
    return _pixels(cv2.addWeighted(image, factor, cv2.filter2D(image, -1, _SMOOTH), 1 - factor, 0))


_SMOOTH = np.array(((1, 1, 1), (1, 5, 1), (1, 1, 1)), np.float32) / 13
