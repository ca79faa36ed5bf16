r"""Time recognition against the bare network on the same batches, and detection and alignment, in one run.

    OMP_NUM_THREADS=1 python experiments/bench/recognize.py face_detection_yunet.onnx photograph.jpg
    python experiments/bench/recognize.py face_detection_yunet.onnx photograph.jpg --backbone wrn_28_2 \
        --batch_size 256 --device cuda

Ours is what ``fer-lightning recognize --aligned true`` does after a file is decoded: crops of the size of
the training are batched and predicted, and a row a face is written into a CSV file. The bare network gets
the same batches, made beforehand, and its logits are taken to the CPU. Detection and alignment are of the
photograph, at the size it has. All take turns, and a ratio is the median over the turns: what slows the
machine down slows them all. On a CPU processor time counts, so that waiting for a busy core does not.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jsonargparse import auto_cli

from fer_lightning.data.datasets.decode import read_image
from fer_lightning.inference.alignment import align
from fer_lightning.inference.detection import FaceDetector
from fer_lightning.inference.face_table import open_table
from fer_lightning.inference.frames import Frame
from fer_lightning.inference.recognizer import FaceRecognizer
from fer_lightning.methods import Supervised


def main(
    detector: Path,
    photograph: Path,
    backbone: str = "resnet18",
    image_size: int = 112,
    batch_size: int = 32,
    batches: int = 4,
    device: Literal["cpu", "cuda"] = "cpu",
    rounds: int = 9,
) -> None:
    """Print faces or pictures a second, and the ratio of ours to the bare network.

    Args:
        detector: YuNet's ONNX file.
        photograph: with at least one face.
        backbone: any that ``--model.backbone`` takes; its weights are random.
        image_size: side of the crops.
        batch_size: of both.
        batches: in each turn.
        device: of the network.
        rounds: turns.
    """
    recognizer = FaceRecognizer(Supervised(backbone=backbone, ema_decay=0.0), image_size, device=device)
    network = recognizer.method.inference_network
    shape = (batches, batch_size, image_size, image_size, 3)
    crops = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    frames = [Frame(str(number), crop) for number, crop in enumerate(crops.reshape(-1, *shape[2:]))]
    tensors = [torch.from_numpy(each).to(device).permute(0, 3, 1, 2) for each in crops]
    find, image = FaceDetector(detector), read_image(photograph)
    points = find(image).points
    if not len(points):
        raise SystemExit(f"there is no face in {photograph}")

    @torch.inference_mode()
    def bare() -> None:
        for batch in tensors:
            network(batch).logits.cpu()

    def ours() -> None:
        with open_table(Path(folder, "faces.csv"), recognizer.columns) as add:
            for _, rows in recognizer.stream(frames, batch_size):
                add(rows)

    def detection() -> None:
        find(image)

    def alignment() -> None:
        for each in points:
            align(image, each, image_size)

    clock = time.process_time if device == "cpu" else time.perf_counter
    contestants: Sequence[Callable[[], None]] = (bare, ours, detection, alignment)
    with tempfile.TemporaryDirectory() as folder:
        took = np.array([[_seconds(each, clock) for each in contestants] for _ in range(rounds + 1)])[1:]
    counts = (len(frames), len(frames), 1, len(points))
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{backbone} at {image_size} px, batches of {batch_size}, {where}; {rounds} turns")
    for contestant, count, seconds in zip(contestants, counts, np.median(took, 0), strict=True):
        what = "pictures" if contestant is detection else "faces"
        print(f"{contestant.__name__:10} {count / seconds:10,.1f} {what} a second")
    ratio, face = took[:, 1] / took[:, 0], took[:, 0] / len(frames)
    print(f"ours takes {np.median(ratio):.3f} ({ratio.min():.3f} to {ratio.max():.3f}) times as long as bare")
    size = f"{image.shape[1]} x {image.shape[0]} with {len(points)} faces"
    print(f"detection in {size} takes as long as bare with {np.median(took[:, 2] / face):.1f} faces")


def _seconds(work: Callable[[], None], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


if __name__ == "__main__":
    auto_cli(main)
