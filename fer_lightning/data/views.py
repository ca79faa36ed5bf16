"""Views of a face: weak ones for pseudo-labels, strong ones to learn from, the center one to evaluate on.

A view is a pure function of (image, size, key): each call draws from one generator, seeded from its key, and
nothing is remembered between calls. So a view depends on no worker, no epoch, and no order of reading. The
transforms of albumentations keep generators of their own, which every worker copies and every epoch starts
again; so the built-in views use its functional forms, which leave the drawing to us, and ``TransformView``
gives a whole transform new generators for every view.
"""

import copy
import hashlib
import math
import os
import random as python_random
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from random import Random
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch

from fer_lightning.errors import InputError
from fer_lightning.ranges import NonNegativeFloat, NonNegativeInt, Share, check_ranges

Image = npt.NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""


class View(ABC):
    """A random, seeded change of a face. A subclass implements ``draw``."""

    def __call__(self, image: Image, size: int, key: tuple[int, ...]) -> Image:
        """Return one view of a face.

        Args:
            image: (H, W, 3) uint8 RGB, of any shape; left as it is.
            size: side of the view, in pixels.
            key: seed of the view: (seed, stream, draw, number of the view). The same key gives the same view,
                and another key an unrelated one.

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
        return self.draw(fit(image, size), size, seeded(key))

    def facing(self, mirrored: bool) -> "View":
        """Return this view, but always or never mirrored, for methods that compare both orientations.

        Raises:
            InputError: if this view does not control whether it is mirrored.
        """
        raise InputError(
            f"{type(self).__name__} cannot be mirrored at will; this method needs a WeakView as weak",
            option="data.weak",
        )

    @abstractmethod
    def draw(self, image: Image, size: int, random: Random) -> Image:
        """Return the view of ``image``, whose shorter side is ``size``, without changing it.

        All randomness comes from ``random``, and from nowhere else.
        """


class CenterView(View):
    """The central square of the image, its shorter side resized to the size of the view; not random."""

    def draw(self, image: Image, size: int, random: Random) -> Image:
        """Return the central square of ``image``."""
        return center(image, size)


class WeakView(View):
    """A random crop of the image with reflected borders, mirrored or not.

    As in USB (Wang et al. 2022, https://arxiv.org/abs/2208.07204), whose crop ratio is 1 - ``padding``.

    Args:
        flip: probability that the view is mirrored, left for right.
        padding: border that is reflected on every side before the crop, as a share of the size.

    Raises:
        InputError: for an option out of its range.
    """

    def __init__(self, flip: Share = 0.5, padding: Share = 0.125) -> None:
        check_ranges(type(self), {"flip": flip, "padding": padding})
        self.flip, self.padding = flip, padding

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
        operations: how many operations are drawn.
        rotation: largest rotation to either side, in degrees.
        cutout: largest side of the square cut out, as a share of the size; drawn uniformly.
        flip: probability that the view is mirrored, left for right.
        padding: border that is reflected on every side before the crop, as a share of the size.

    Raises:
        InputError: for an option out of its range.
    """

    def __init__(
        self,
        operations: NonNegativeInt = 3,
        rotation: NonNegativeFloat = 30.0,
        cutout: Share = 0.5,
        flip: Share = 0.5,
        padding: Share = 0.125,
    ) -> None:
        super().__init__(flip, padding)
        values = {"operations": operations, "rotation": rotation, "cutout": cutout}
        check_ranges(type(self), values)
        self.operations, self.rotation, self.cutout = operations, rotation, cutout

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


class TransformView(View):
    """A view by any transform of albumentations or torchvision's v2, a ``Compose`` of them or a single one.

    The transform gets the image with its shorter side resized to the size of the view, and returns a square
    of that size: a random crop, or nothing that changes the shape of square images. In YAML::

        weak:
          class_path: fer_lightning.data.views.TransformView
          init_args:
            transform:
              class_path: albumentations.Compose
              init_args:
                transforms:
                - class_path: albumentations.HorizontalFlip
                - class_path: albumentations.CoarseDropout

    Every view gives the transform new generators, and seeds those of torch, NumPy and Python for the time of
    the call; so a view is its key, as all others are. The seeding takes a tenth of a millisecond.

    Args:
        transform: an albumentations transform, called with ``image=`` an (H, W, 3) uint8 array, or a
            torchvision v2 transform, called with a (3, H, W) uint8 tensor.

    Raises:
        InputError: if it is neither.
    """

    def __init__(self, transform: Any) -> None:
        # By what they do rather than by their classes, which take a second to import.
        self._of_albumentations = hasattr(transform, "set_random_state")
        if not (self._of_albumentations or isinstance(transform, torch.nn.Module)):
            raise InputError(
                f"transform is {transform!r}; it must be a transform of albumentations or of torchvision's v2"
            )
        self.transform = transform

    def draw(self, image: Image, size: int, random: Random) -> Image:
        """Return the transform of ``image``.

        Raises:
            InputError: if the transform returns no (size, size, 3) uint8 image.
        """
        seed = random.getrandbits(64)
        with _seeded_globals(seed):
            if self._of_albumentations:
                self.transform.set_random_state(np.random.default_rng(seed), random)
                view = self.transform(image=image.copy())["image"]
            else:
                view = self.transform(torch.from_numpy(image.copy()).permute(2, 0, 1))
                if isinstance(view, torch.Tensor):
                    view = view.movedim(0, -1).numpy()
        if not isinstance(view, np.ndarray) or view.dtype != np.uint8 or view.shape != (size, size, 3):
            dtype, shape = getattr(view, "dtype", type(view).__name__), getattr(view, "shape", None)
            raise InputError(
                f"a TransformView must give uint8 RGB of shape {(size, size, 3)}, and this one gives {dtype} "
                f"of shape {shape and tuple(shape)}: crop to {size} pixels, neither normalize nor convert, "
                f"in {self.transform!r}"
            )
        return np.ascontiguousarray(view)


@contextmanager
def _seeded_globals(seed: int) -> Iterator[None]:
    """Seed the generators that a transform may draw from behind our back, and put them back afterwards."""
    states = python_random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        python_random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the devices too
        yield
    finally:
        python_random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


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
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no call over the network
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


def _pixels(array: object) -> Image:
    return cast(Image, array)  # the annotations of OpenCV forget the dtype


def fit(image: Image, size: int) -> Image:
    """Resize the shorter side of an (H, W, 3) image to ``size`` pixels; return one that fits as it is."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    if shorter == size:
        return image
    shape = (round(width * size / shorter), round(height * size / shorter))
    # Area averaging alone does not alias when it shrinks, and it is blocky when it enlarges.
    interpolation = cv2.INTER_AREA if shorter > size else cv2.INTER_LINEAR
    return _pixels(cv2.resize(image, shape, interpolation=interpolation))


def center(image: Image, size: int) -> Image:
    """Return a copy of the central square of an image whose shorter side is ``size`` at least."""
    height, width = image.shape[:2]
    return _crop(image, (height - size) // 2, (width - size) // 2, size)


def _crop(image: Image, top: int, left: int, size: int) -> Image:
    # A contiguous copy, even of a whole image: the cutout is written into it.
    return image[top : top + size, left : left + size].copy()


def _warp(
    image: Image, x: tuple[float, float], y: tuple[float, float], right: float = 0, down: float = 0
) -> Image:
    """Move each point of a square image, measured from its center, to (x . point + right, y . point + down).

    Pixels from outside the image are black.
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
