import cv2
import numpy as np
import pytest

from fer_lightning.inference.alignment import TEMPLATE, align, similarity, template


def slow_similarity(points, target):
    """The four numbers of a similarity by least squares over all equations at once."""
    rows, right = [], []
    for (x, y), (u, v) in zip(points, target, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        right += [u, v]
    a, b, c, d = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    return np.array([[a, -b, c], [b, a, d]])


def umeyama(points, target):
    """Umeyama 1991, eq. 40 to 42, by the singular value decomposition."""
    p, q = points - points.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(q.T @ p / len(p))
    s = np.diag([1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ s @ vt
    scale = np.trace(np.diag(d) @ s) / (p**2).sum(1).mean()
    return np.column_stack([scale * rotation, target.mean(0) - scale * rotation @ points.mean(0)])


def test_a_quarter_turn_twice_as_large_and_moved_by_hand():
    # (x, y) -> (10 - 2 y, 5 + 2 x)
    matrix = similarity([(0, 0), (1, 0), (0, 1)], [(10, 5), (10, 7), (8, 5)])
    assert np.allclose(matrix, [[0, -2, 10], [2, 0, 5]])


@pytest.mark.parametrize("seed", range(3))
def test_noisy_points_are_fitted_by_least_squares(seed):
    generator = np.random.default_rng(seed)
    points = TEMPLATE * 3 + generator.normal(0, 9, (5, 2)) + (40, 90)
    matrix = similarity(points, TEMPLATE)
    assert np.allclose(matrix, slow_similarity(points, TEMPLATE))
    assert np.allclose(matrix, umeyama(points, TEMPLATE))


def test_a_mirrored_face_is_not_reflected():
    matrix = similarity(TEMPLATE * (-1, 1), TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) > 0
    assert np.allclose(matrix, slow_similarity(TEMPLATE * (-1, 1), TEMPLATE))


def test_points_at_one_place_are_refused():
    with pytest.raises(ValueError, match="all points are the same"):
        similarity(np.ones((5, 2)), TEMPLATE)


def test_the_template_scales_with_the_image():
    assert np.allclose(template(112), TEMPLATE)
    # The center of the image stays the center: 55.5 of 112 pixels, 23.5 of 48.
    assert np.allclose(template(48) - 23.5, (TEMPLATE - 55.5) * 48 / 112)


def dots(size, scale, angle, shift):
    """A black image with a white disk at each point of a template that was scaled, turned and moved."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * scale
    points = TEMPLATE @ turn + shift
    image = np.zeros((size, size, 3), np.uint8)
    for x, y in points:
        cv2.circle(image, (round(x), round(y)), max(2, round(4 * scale)), (255, 255, 255), -1)
    return image, points


@pytest.mark.parametrize(("scale", "size"), [(0.7, 112), (1.0, 48), (6.0, 48)])
def test_aligned_points_lie_on_the_template(scale, size):
    image, points = dots(1200, scale, 0.5, (300, 330))
    face = align(image, points, size)
    assert face.shape == (size, size, 3)
    assert face.dtype == np.uint8
    for x, y in template(size).round().astype(int):
        assert face[y, x].min() > 130
    assert face.mean() < 60


def test_a_large_face_does_not_alias():
    """Stripes of one pixel become an even gray, not broad stripes of black and white."""
    image = np.zeros((1120, 1120, 3), np.uint8)
    image[::2] = 255
    face = align(image, TEMPLATE * 10 + 4.5, 48)
    assert face.std() < 12
    assert abs(float(face.mean()) - 127.5) < 3


def test_beyond_the_border_it_repeats():
    face = align(np.full((40, 40, 3), 200, np.uint8), TEMPLATE - 60, 112)
    assert (face == 200).all()


def test_a_margin_is_left_around_the_template():
    assert np.allclose(template(320, 40) - 40, template(240))
    image, points = dots(600, 2.0, 0.3, (200, 150))
    whole = align(image, points, 160, 24)
    assert np.abs(whole[24:-24, 24:-24].astype(int) - align(image, points, 112)).mean() < 2
