import math
import multiprocessing
import os
import pickle
import random
import subprocess
import sys

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
import yaml
from faces import TinyFaces, tiny_data
from jsonargparse import ArgumentParser
from PIL import Image, ImageEnhance
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from fer_lightning.data import views
from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.data.views import (
    CenterView,
    StrongView,
    TransformView,
    View,
    WeakView,
    face_policy,
    seeded,
)
from fer_lightning.errors import InputError


def shuffled_rows(image, **_):
    """A transform of one's own that draws from the global generators."""
    rows = np.random.permutation(len(image))  # noqa: NPY002
    return np.roll(image[rows], random.randrange(9), axis=1)


TRANSFORMS = {
    "albumentations": lambda: A.Compose(
        [
            A.PadIfNeeded(60, 60, border_mode=cv2.BORDER_REFLECT_101),
            A.RandomCrop(48, 48),
            A.HorizontalFlip(),
            A.OneOf([A.GaussNoise(), A.RandomBrightnessContrast(), A.Affine(rotate=(-30, 30))], p=0.9),
            A.SomeOf([A.GaussianBlur(), A.ColorJitter(), A.ElasticTransform()], n=2),
            A.CoarseDropout(p=1.0),
        ]
    ),
    "albumentations alone": lambda: A.RandomResizedCrop((48, 48)),
    "albumentations lambda": lambda: A.Lambda(image=shuffled_rows, p=1.0),
    "torchvision": lambda: v2.Compose(
        [
            v2.RandomCrop(48, padding=6, padding_mode="reflect"),
            v2.RandomHorizontalFlip(),
            v2.RandAugment(),
            v2.RandomApply([v2.GaussianBlur(5)]),
            v2.RandomErasing(p=1.0),
        ]
    ),
    "torchvision alone": lambda: v2.RandomResizedCrop(48, antialias=True),
}
TRANSFORM_VIEWS = [pytest.param(TransformView(make()), id=name) for name, make in TRANSFORMS.items()]
VIEWS = [WeakView(), StrongView(), CenterView()]
RANDOM_VIEWS = [WeakView(), StrongView()]
each_transform_view = pytest.mark.parametrize("view", TRANSFORM_VIEWS)
each_view = pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
each_random_view = pytest.mark.parametrize("view", RANDOM_VIEWS, ids=lambda view: type(view).__name__)


def noise(height=40, width=40):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def keys(count):
    return [(0, 0, draw, 0) for draw in range(count)]


# What a view depends on


@each_random_view
def test_a_view_is_its_key_whatever_was_drawn_before(view):
    image = noise()
    wanted = [(size, key) for size in (24, 32) for key in keys(8)]
    first = [view(image, size, key).tobytes() for size, key in wanted]
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    again = [view(image, size, key).tobytes() for size, key in reversed(wanted)]
    assert again[::-1] == first
    assert pickle.loads(pickle.dumps(view))(image, 32, (0, 0, 7, 0)).tobytes() == first[-1]


@each_random_view
def test_every_part_of_the_key_counts(view):
    nearby = [
        (0, 0, 0, 0),
        (1, 0, 0, 0),
        (0, 1, 0, 0),
        (0, 0, 1, 0),
        (0, 0, 0, 1),
        (0, 0, 0),
        (0, 0, 0, 0, 0),
    ]
    nearby += [(0, 0, 2**40, 0), (-1, 0, 0, 0)]
    drawn = {view(noise(200, 200), 64, key).tobytes() for key in nearby}
    assert len(drawn) == len(nearby)


def test_numpy_and_torch_numbers_make_the_same_key():
    key = (3, 1, 123_456_789_012, 2)
    expected = seeded(key).random()
    assert seeded(tuple(np.array(key))).random() == expected
    assert seeded(tuple(torch.tensor(key))).random() == expected


def test_the_draws_of_a_key_never_change():
    assert seeded((0, 0, 0, 0)).random() == 0.8979866662217317
    assert seeded((1, 2, 3, 4)).random() == 0.42427577508486314


class Draws(Dataset):
    """Items are views of one face, so that nothing but the key tells them apart."""

    def __init__(self, view):
        self.view, self.image = view, noise(80, 80)

    def __getitem__(self, draw):
        return draw, torch.from_numpy(self.view(self.image, 48, (5, 1, draw, 0)))


@each_random_view
def test_workers_and_epochs_neither_change_nor_repeat_a_view(view):
    epochs = [list(range(8)), list(range(8, 16))]

    def read(workers):
        found = {}
        for draws in epochs:  # a new loader each epoch starts workers that are all copies of this process
            context = "fork" if workers else None
            loader = DataLoader(
                Draws(view), 2, sampler=draws, num_workers=workers, multiprocessing_context=context
            )
            for batch, pixels in loader:
                found |= {int(draw): one.numpy().tobytes() for draw, one in zip(batch, pixels, strict=True)}
        return found

    alone = read(0)
    assert len(set(alone.values())) == 16
    assert read(1) == alone
    assert read(2) == alone


def test_a_spawned_process_draws_the_same():
    image, key = noise(), (5, 1, 3, 0)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        drawn = pool.apply(StrongView(operations=6), (image, 32, key))
    assert drawn.tobytes() == StrongView(operations=6)(image, 32, key).tobytes()


def test_albumentations_is_imported_by_the_first_strong_view_and_leaves_the_network_alone():
    script = """
import sys
import numpy as np
from fer_lightning.data.views import StrongView, WeakView
image = np.zeros((8, 8, 3), np.uint8)
WeakView()(image, 8, (0,))
assert "albumentations" not in sys.modules
calls = []
sys.addaudithook(lambda event, _: calls.append(event) if event.startswith("socket.") else None)
StrongView()(image, 8, (0,))
assert "albumentations" in sys.modules
assert not {"socket.connect", "socket.getaddrinfo"} & set(calls), calls
"""
    environment = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


# What comes in and goes out


@each_view
@pytest.mark.parametrize("shape", [(48, 48), (112, 112), (30, 77), (200, 151), (1, 1), (2, 90)])
@pytest.mark.parametrize("size", [1, 48, 112])
def test_any_image_becomes_a_square_of_its_own(view, shape, size):
    image = noise(*shape)
    before = image.copy()
    for key in keys(8):
        drawn = view(image, size, key)
        assert drawn.shape == (size, size, 3)
        assert drawn.dtype == np.uint8
        assert drawn.flags.c_contiguous
        assert not np.shares_memory(drawn, image)
    np.testing.assert_array_equal(image, before)


@each_view
def test_any_memory_layout_gives_the_same_view(view):
    gray = noise()[:, :, 0]
    image = np.repeat(gray[:, :, None], 3, axis=2)
    read_only = image.copy()
    read_only.flags.writeable = False
    broadcast = np.broadcast_to(gray[:, :, None], image.shape)
    strided = np.repeat(image, 2, axis=1)[:, ::2]
    for size in (24, 40):
        for key in keys(8):
            expected = view(image, size, key)
            for other in (read_only, broadcast, strided):
                np.testing.assert_array_equal(view(other, size, key), expected)


def test_a_gray_face_stays_gray():
    gray = np.repeat(noise()[:, :, :1], 3, axis=2)
    for key in keys(100):
        drawn = StrongView(cutout=0)(gray, 40, key)
        np.testing.assert_array_equal(drawn[:, :, 0], drawn[:, :, 1])
        np.testing.assert_array_equal(drawn[:, :, 0], drawn[:, :, 2])


@each_view
def test_what_is_no_rgb_image_is_refused(view):
    with pytest.raises(TypeError, match="uint8 pixels, not float32"):
        view(noise().astype(np.float32) / 255, 32, (0,))
    for wrong in (noise()[:, :, 0], noise()[:, :, :1], noise()[None], noise()[:0]):
        with pytest.raises(ValueError, match=r"RGB image \(H, W, 3\), not"):
            view(wrong, 32, (0,))
    with pytest.raises(ValueError, match="at least 1 pixel, not 0"):
        view(noise(), 0, (0,))


@pytest.mark.parametrize(
    ("view", "option", "value"),
    [
        (WeakView, "flip", 1.5),
        (WeakView, "flip", math.nan),
        (StrongView, "flip", -0.1),
        (WeakView, "padding", 1.1),
        (StrongView, "padding", -0.1),
        (StrongView, "operations", -1),
        (StrongView, "operations", 1.5),
        (StrongView, "rotation", -1.0),
        (StrongView, "cutout", 1.1),
    ],
)
def test_options_out_of_range_are_refused(view, option, value):
    with pytest.raises(InputError, match=rf"^{option} is {value}; it must be"):
        view(**{option: value})


# The center and the weak view


def test_the_center_view_is_the_middle_of_the_image():
    image = noise(20, 30)
    np.testing.assert_array_equal(CenterView()(image, 20, (0,)), image[:, 5:25])
    np.testing.assert_array_equal(CenterView()(image, 20, (1,)), image[:, 5:25])


def test_a_shrunk_image_is_averaged_not_sampled():
    image = noise(40, 60)
    means = image.reshape(20, 2, 30, 2, 3).mean((1, 3))
    np.testing.assert_allclose(CenterView()(image, 20, (0,)), means[:, 5:25], atol=1)


def test_a_flip_mirrors_left_for_right():
    image = noise()
    np.testing.assert_array_equal(WeakView(flip=1, padding=0)(image, 40, (0,)), image[:, ::-1])
    np.testing.assert_array_equal(WeakView(flip=0, padding=0)(image, 40, (0,)), image)
    mirrored = [
        np.array_equal(WeakView(flip=0.2, padding=0)(image, 40, key), image[:, ::-1]) for key in keys(500)
    ]
    assert 0.1 < np.mean(mirrored) < 0.3


@pytest.mark.parametrize("flip", [0.0, 0.5, 1.0])
def test_a_view_can_be_set_to_face_one_way(flip):
    view, image = WeakView(flip=flip), noise()
    straight, turned = view.facing(mirrored=False), view.facing(mirrored=True)
    for key in keys(30):
        drawn = straight(image, 32, key)
        np.testing.assert_array_equal(drawn, WeakView(flip=0)(image, 32, key))
        np.testing.assert_array_equal(turned(image, 32, key), drawn[:, ::-1])
    assert view.flip == flip  # the view itself stays as it is
    assert WeakView(padding=0).facing(mirrored=True).padding == 0


def test_a_strong_view_that_faces_one_way_is_still_strong():
    image, key = noise(), (0, 0, 3, 0)
    view = StrongView(operations=0, padding=0)
    straight, turned = (view.facing(mirrored)(image, 40, key) for mirrored in (False, True))
    cut = (straight != image).any(-1)
    assert cut.any()
    np.testing.assert_array_equal(turned[~cut], image[:, ::-1][~cut])


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_view_that_does_not_mirror_is_refused(mirrored):
    class Shuffled(View):
        def draw(self, image, size, random):
            return image[random.sample(range(size), size)]

    for view in (Shuffled(), CenterView()):
        name = type(view).__name__
        with pytest.raises(InputError, match=rf"{name} cannot be mirrored at will") as raised:
            view.facing(mirrored)
        assert raised.value.option == "data.weak"


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 20), (20, 16)])
def test_a_weak_view_is_any_window_of_the_reflected_image(height, width):
    image = noise(height, width)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (16, 16), (0, 1))
    windows = {
        windows[y, x].transpose(1, 2, 0).tobytes() for y in range(height - 11) for x in range(width - 11)
    }
    drawn = {WeakView(flip=0)(image, 16, key).tobytes() for key in keys(600)}
    assert drawn == windows


# The strong view


def test_without_operations_and_cutout_a_strong_view_is_a_weak_one():
    for key in keys(20):
        strong = StrongView(operations=0, cutout=0)(noise(), 32, key)
        np.testing.assert_array_equal(strong, WeakView()(noise(), 32, key))


def tilts(view, count):
    """Degrees from the vertical, over ``count`` views, of the line from a dim dot down to a bright one.

    The dots survive each operation: too dark to be solarized, and no translation moves them out of the view.
    """
    image = np.full((64, 64, 3), 20, np.uint8)
    image[21:26, 29:34] = 100
    image[37:42, 29:34] = 120
    angles = []
    for key in keys(count):
        gray = view(image, 64, key)[:, :, 0].astype(int)
        background = int(np.median(gray))
        dots = gray > background + 0.3 * (gray.max() - background)
        number, _, _, centers = cv2.connectedComponentsWithStats(dots.astype(np.uint8))
        assert number == 3
        dim, bright = sorted(centers[1:], key=lambda center: gray[round(center[1]), round(center[0])])
        angles.append(math.degrees(math.atan2(bright[0] - dim[0], bright[1] - dim[1])))
    return np.array(angles)


def test_a_strong_view_is_never_upside_down_and_turns_no_further_than_its_option():
    shear = math.degrees(math.atan(0.3))
    unturned = np.abs(tilts(StrongView(operations=1, rotation=0, cutout=0), 400))
    assert 0.8 * shear < unturned.max() < shear + 1
    turned = tilts(StrongView(operations=1, rotation=60, cutout=0), 400)
    assert -61 < turned.min() < -50
    assert 50 < turned.max() < 61
    default = np.abs(tilts(StrongView(operations=1, cutout=0), 400))
    assert 25 < default.max() < 31


def test_strengths_are_spread_over_their_range():
    face = np.full((8, 8, 3), 200, np.uint8)
    drawn = [StrongView(operations=1, rotation=0, cutout=0)(face, 8, key)[4, 4, 0] for key in keys(3000)]
    darker = np.array([value for value in drawn if value < 190 and value != 55])  # brightness, not solarize
    assert 0.03 < len(darker) / 3000 < 0.13  # one operation of fourteen
    np.testing.assert_allclose(np.quantile(darker, [0.25, 0.5, 0.75]), [55, 100, 145], atol=20)


def test_as_many_operations_are_applied_as_set(monkeypatch):
    brighten = views.Operation(lambda image, step: image + np.uint8(step), 1, 1)
    monkeypatch.setattr(views, "face_policy", lambda rotation: (brighten,))
    black = np.zeros((8, 8, 3), np.uint8)
    for count in (0, 1, 3, 7):
        assert (StrongView(operations=count, cutout=0)(black, 8, (0,)) == count).all()


def test_one_square_of_bounded_side_is_cut_out():
    image = noise(60, 60)
    sides = []
    for key in keys(300):
        drawn = StrongView(operations=0, flip=0, padding=0)(image, 60, key)
        changed = (drawn != image).any(-1)
        rows, columns = changed.any(1).sum(), changed.any(0).sum()
        assert (drawn[changed] == (125, 123, 114)).all()
        assert changed.sum() == rows * columns  # one box
        assert max(rows, columns) <= 30
        sides.append(max(rows, columns))
    assert min(sides) <= 3
    assert max(sides) >= 28
    np.testing.assert_array_equal(
        StrongView(operations=0, cutout=0, flip=0, padding=0)(image, 60, (0,)), image
    )


@pytest.mark.parametrize("number", range(14))
def test_an_operation_leaves_its_input_alone(number):
    assert len(face_policy(30.0)) == 14
    operation = face_policy(30.0)[number]
    for strength in (operation.low, (operation.low + operation.high) / 2, operation.high):
        image = noise(33, 33)
        changed = operation.apply(image, strength)
        np.testing.assert_array_equal(image, noise(33, 33))
        assert (changed.shape, changed.dtype) == (image.shape, image.dtype)


def test_warps_move_by_the_right_amount():
    image = noise(9, 9)
    np.testing.assert_array_equal(views._rotate(image, 90), np.rot90(image))
    right = views._warp(image, (1, 0), (0, 1), right=2)
    np.testing.assert_array_equal(right[:, 2:], image[:, :-2])
    assert not right[:, :2].any()
    down = views._warp(image, (1, 0), (0, 1), down=2)
    np.testing.assert_array_equal(down[2:], image[:-2])
    sheared = views._warp(image, (1, 1), (0, 1))
    np.testing.assert_array_equal(sheared[4], image[4])  # the center stays
    np.testing.assert_array_equal(sheared[5, 1:], image[5, :-1])


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0])
def test_sharpness_is_that_of_pillow(factor):
    image = noise()
    expected = np.asarray(ImageEnhance.Sharpness(Image.fromarray(image)).enhance(factor))
    np.testing.assert_allclose(
        views._sharpness(image, factor)[1:-1, 1:-1].astype(int), expected[1:-1, 1:-1], atol=1
    )


def test_a_custom_view_needs_only_draw():
    class Shuffled(View):
        def draw(self, image, size, random):
            return image[random.sample(range(size), size)]

    drawn = Shuffled()(noise(), 40, (1,))
    assert not np.array_equal(drawn, Shuffled()(noise(), 40, (2,)))
    np.testing.assert_array_equal(np.sort(drawn, axis=0), np.sort(noise(), axis=0))


# Transforms of albumentations and torchvision


def faces_of(view, count=12, size=48):
    return [view(noise(size, size), size, key).tobytes() for key in keys(count)]


@each_transform_view
def test_a_transform_is_its_key_whatever_was_drawn_before(view):
    first = faces_of(view)
    assert len(set(first)) == 12
    image = noise(48, 48)
    assert [view(image, 48, key).tobytes() for key in reversed(keys(12))][::-1] == first
    np.testing.assert_array_equal(image, noise(48, 48))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_depends_on_no_generator_and_moves_none(name):
    first = faces_of(TransformView(TRANSFORMS[name]()))
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    view = TransformView(TRANSFORMS[name]())  # albumentations seeds each new transform at random
    assert faces_of(view) == first
    drawn = random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    assert (random.random(), np.random.random(), torch.rand(()).item()) == drawn  # noqa: NPY002


@each_transform_view
def test_the_state_of_a_transform_does_not_matter(view):
    first = faces_of(view)
    for seed in range(3):
        if hasattr(view.transform, "set_random_seed"):
            view.transform.set_random_seed(seed)
        faces_of(view, count=seed)
        assert faces_of(view) == first


@each_transform_view
def test_the_number_of_threads_does_not_matter(view):
    first, threads, cv2_threads = faces_of(view), torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(3)
        cv2.setNumThreads(3)
        assert faces_of(view) == first
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)


@pytest.mark.parametrize("name", ["albumentations", "torchvision"])
@pytest.mark.parametrize("workers", [1, 2])
def test_transforms_give_the_same_batches_in_workers(name, workers):
    def taken(workers):
        view = TransformView(TRANSFORMS[name]())
        data = tiny_data(weak=view, strong=view, image_size=48, steps_per_epoch=2, workers=workers)
        data.setup("fit")
        loader = data.train_dataloader()
        batches = [*loader]
        loader.sampler.set_epoch(1)
        return [batch["unlabeled"].strong for batch in [*batches, *loader]]

    alone = taken(0)
    assert len({view.numpy().tobytes() for batch in alone for view in batch[0]}) == 4 * 28
    for a, b in zip(alone, taken(workers), strict=True):
        assert torch.equal(a, b)


def test_a_transform_gives_rgb_of_the_pixels_it_was_given():
    image = noise(48, 48)
    for transform in (A.NoOp(), v2.Identity()):
        view = TransformView(transform)(image, 48, (0,))
        np.testing.assert_array_equal(view, image)
        assert not np.shares_memory(view, image)
        assert view.flags.c_contiguous
    for transform in (A.HorizontalFlip(p=1.0), v2.RandomHorizontalFlip(p=1.0)):
        np.testing.assert_array_equal(TransformView(transform)(image, 48, (0,)), image[:, ::-1])


@pytest.mark.parametrize(
    ("transform", "given"),
    [
        (A.RandomCrop(32, 32), r"uint8 of shape \(32, 32, 3\)"),
        (A.ToFloat(), r"float32 of shape \(48, 48, 3\)"),
        (A.Compose([A.ToTensorV2()]), r"torch.uint8 of shape \(3, 48, 48\)"),
        (v2.Grayscale(), r"uint8 of shape \(48, 48, 1\)"),
        (v2.ToDtype(torch.float32), r"float32 of shape \(48, 48, 3\)"),
        (v2.ToPILImage(), "Image of shape None"),
    ],
)
def test_a_transform_of_another_shape_or_type_is_refused(transform, given):
    with pytest.raises(InputError, match=rf"TransformView must give uint8 RGB .*\(48, 48, 3\).*{given}"):
        TransformView(transform)(noise(48, 48), 48, (0,))


def test_what_is_no_transform_is_refused():
    with pytest.raises(InputError, match="must be a transform of albumentations or of torchvision"):
        TransformView(lambda image: image)


def test_transforms_are_built_from_yaml(tmp_path):
    text = """
data:
  dataset: {class_path: faces.TinyFaces}
  image_size: 48
  weak:
    class_path: fer_lightning.data.views.TransformView
    init_args:
      transform:
        class_path: albumentations.Compose
        init_args:
          transforms:
          - {class_path: albumentations.HorizontalFlip, init_args: {p: 0.25}}
          - class_path: albumentations.OneOf
            init_args:
              transforms:
              - {class_path: albumentations.GaussNoise, init_args: {std_range: [0.1, 0.2]}}
              - class_path: albumentations.CoarseDropout
                init_args: {num_holes_range: [1, 2], hole_height_range: [0.1, 0.3]}
              p: 1.0
  strong:
    class_path: fer_lightning.data.views.TransformView
    init_args:
      transform:
        class_path: torchvision.transforms.v2.Compose
        init_args:
          transforms:
          - {class_path: torchvision.transforms.v2.RandomCrop, init_args: {size: 48, padding: 6}}
          - {class_path: torchvision.transforms.v2.RandAugment, init_args: {num_ops: 3}}
"""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(SemiSupervisedFaces, "data")
    (tmp_path / "config.yaml").write_text(text)
    parsed = parser.parse_args(["--config", str(tmp_path / "config.yaml")])
    data = parser.instantiate(parsed).data
    assert isinstance(data.dataset, TinyFaces)
    flip, one_of = data.weak.transform.transforms
    assert (flip.p, type(one_of), one_of.p) == (0.25, A.OneOf, 1.0)
    assert one_of.transforms[1].num_holes_range == (1, 2)
    assert data.strong.transform.transforms[1].num_ops == 3
    again = parser.instantiate(parser.parse_object(yaml.safe_load(parser.dump(parsed)))).data
    for first, second in ((data.weak, again.weak), (data.strong, again.strong)):  # a run's config.yaml
        assert faces_of(first) == faces_of(second)
        assert len(set(faces_of(first))) == 12
