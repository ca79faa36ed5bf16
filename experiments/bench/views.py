"""Times the built-in views against those of torchvision that do the same work, on one core.

    python experiments/bench/views.py

Every contestant starts from a decoded face in memory and ends at uint8 pixels of the size of the view. Ours
is an array, drawn from a fresh key each time. Those of torchvision are a Pillow image made from the array and
read back (transforms v1), or a tensor all the way, its axes already in order (transforms v2). Their strong
views apply three operations of RandAugment, whose fourteen are also ours, with the same interpolation, and
erase a square.

The contestants take turns, and a ratio is the median over the turns: what slows the machine down slows them
all. Processor time is counted, not the clock's, so that waiting for a busy core does not count.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count, cycle

import cv2
import numpy as np
import torch
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode, v2

from fer_lightning.data.views import StrongView, View, WeakView

FACES = {
    "FER2013": (48, 48),
    "RAF-DB": (100, 112),
    "cropped to size": (112, 112),
}  # side on disk, side of the view
GRAY = (125, 123, 114)
ROUNDS, IMAGES = 21, 100


def faces(side: int) -> list[np.ndarray]:
    """Return smooth noise, (side, side, 3) uint8: to a view it is as good as a face."""
    noise = np.random.default_rng(0).normal(size=(16, side, side, 3))
    smooth = [cv2.GaussianBlur(image, (0, 0), side / 16) for image in noise]
    return [cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8) for image in smooth]


def ours(view: View, side: int, size: int) -> Callable[[], object]:
    """Return a function that draws one built-in view."""
    images, draws = cycle(faces(side)), count()
    return lambda: view(next(images), size, (0, 0, next(draws), 0))


def pillow(strong: bool, side: int, size: int) -> Callable[[], object]:
    """Return a function that draws one view with torchvision's first transforms, on Pillow images."""
    steps = [
        v1.Resize(size),
        v1.RandomCrop(size, size // 8, padding_mode="reflect"),
        v1.RandomHorizontalFlip(),
    ]
    if strong:
        steps += [v1.RandAugment(3, interpolation=InterpolationMode.BILINEAR), v1.PILToTensor()]
        steps += [v1.RandomErasing(1, (0, 0.25), (1, 1), GRAY)]
    images, transform = cycle(faces(side)), v1.Compose([v1.ToPILImage(), *steps])
    return lambda: np.asarray(transform(next(images)))


def tensor(strong: bool, side: int, size: int) -> Callable[[], object]:
    """Return a function that draws one view with torchvision's second transforms, on tensors."""
    steps = [
        v2.Resize(size),
        v2.RandomCrop(size, size // 8, padding_mode="reflect"),
        v2.RandomHorizontalFlip(),
    ]
    if strong:
        steps += [v2.RandAugment(3, interpolation=InterpolationMode.BILINEAR)]
        steps += [v2.RandomErasing(1, (0, 0.25), (1, 1), GRAY)]
    images = cycle([torch.from_numpy(image).permute(2, 0, 1).contiguous() for image in faces(side)])
    transform = v2.Compose(steps)
    return lambda: transform(next(images))


def seconds(contestants: list[Callable[[], object]]) -> np.ndarray:
    """Return the seconds that an image takes, (ROUNDS, contestants), after a round that does not count."""

    def turn(contestant: Callable[[], object]) -> float:
        start = time.process_time()
        for _ in range(IMAGES):
            contestant()
        return (time.process_time() - start) / IMAGES

    return np.array([[turn(contestant) for contestant in contestants] for _ in range(ROUNDS + 1)])[1:]


def rows() -> Iterator[str]:
    """Yield the table, line by line."""
    yield f"{'':24}{'':8}{'images per second':^30}{'ours are faster by':^20}"
    yield f"{'face':16}{'size':>8}  {'view':8}{'ours':>8}{'v1':>10}{'v2':>10}{'v1':>10}{'v2':>10}"
    for name, (side, size) in FACES.items():
        for view in (WeakView(), StrongView()):
            strong = isinstance(view, StrongView)
            took = seconds([ours(view, side, size), pillow(strong, side, size), tensor(strong, side, size)])
            rate = "".join(f"{1 / statistics.median(column):10,.0f}" for column in took.T)
            ratio = "".join(f"{statistics.median(took[:, i] / took[:, 0]):9.2f}x" for i in (1, 2))
            yield f"{name:16}{f'{side}>{size}':>8}  {'strong' if strong else 'weak':6}{rate}{ratio}"


if __name__ == "__main__":
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for row in rows():
        print(row, flush=True)
