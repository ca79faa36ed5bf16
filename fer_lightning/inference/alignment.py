"""Alignment of a face: its five points are brought to one template by a similarity transform."""

import cv2
import numpy as np
import numpy.typing as npt

from fer_lightning.data.views import Image

Floats = npt.NDArray[np.float64]

TEMPLATE_SIDE = 112
"""Side in pixels of the image that ``TEMPLATE`` is given for."""
TEMPLATE: Floats = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""(5, 2) x and y in pixels of an image of 112 by 112: the eye on the left of the image, the eye on the right,
the tip of the nose, the corner of the mouth on the left and the one on the right.

They are those of ArcFace (Deng et al., CVPR 2019, https://arxiv.org/abs/1801.07698), as its code has them
(insightface, ``arcface_dst``); most aligned face data sets of today use them. Another size scales them.
"""


def template(size: int, margin: int = 0) -> Floats:
    """Return the template for a square image, (5, 2) x and y in pixels.

    Scaled about the corner of the first pixel, not its center, as a resize of the image would do it.

    Args:
        size: side of the image in pixels.
        margin: pixels on every side of it that the template leaves free.
    """
    return (TEMPLATE + 0.5) * ((size - 2 * margin) / TEMPLATE_SIDE) - 0.5 + margin


def similarity(points: npt.ArrayLike, target: npt.ArrayLike) -> Floats:
    """Find the rotation, scale and shift that bring points closest to their targets, by least squares.

    Without reflection. With a point (x, y) as the complex number x + iy, a similarity is ``a p + b``, and the
    least squares are solved by ``a = sum conj(p - mean p) (q - mean q) / sum |p - mean p|^2`` and
    ``b = mean q - a mean p``: in the plane the same as Umeyama, TPAMI 1991, eq. 40 to 42, where it forbids
    reflections.

    Args:
        points: (N, 2) x and y, not all the same.
        target: (N, 2) x and y.

    Returns:
        (2, 3) matrix ``[A | b]``, which maps a point p to ``A p + b``.

    Raises:
        ValueError: if all points are the same.
    """
    p, q = (np.asarray(each, np.float64) @ (1, 1j) for each in (points, target))
    spread = np.square(np.abs(p - p.mean())).sum()
    if spread == 0:
        raise ValueError("no similarity transform can be found: all points are the same")
    a = (np.conj(p - p.mean()) * (q - q.mean())).sum() / spread
    b = q.mean() - a * p.mean()
    return np.array([(a.real, -a.imag, b.real), (a.imag, a.real, b.imag)])


def align(image: Image, points: npt.ArrayLike, size: int, margin: int = 0) -> Image:
    """Cut a face out of an image, upright and scaled so that its points lie on the template.

    What lies outside the image repeats its border. A face larger than ``size`` is averaged over the pixels
    that become one, so that nothing aliases.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (5, 2) x and y in the order of ``TEMPLATE``, in pixels of ``image``.
        size: side of the result in pixels.
        margin: pixels of the result around the template, see ``template``.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        ValueError: if all points are the same.
    """
    scale = np.hypot(*similarity(points, template(size, margin))[:, 0])
    finer = max(1, int(1 / scale))  # pixels of the image that become one, along a side
    matrix = similarity(points, template(size * finer, margin * finer))
    side = (size * finer, size * finer)
    face = cv2.warpAffine(image, matrix, side, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
