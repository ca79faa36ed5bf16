"""Time how every method's training step grows with the batch and the memory of labeled faces, in one run.

    OMP_NUM_THREADS=1 python experiments/bench/growth.py

A tiny network gets images of 16 pixels, so that what is left is the method's own work on its predictions:
similarities, graphs, triplets, memories. The batch is doubled, then the number of labeled faces, which is the
length of the memories of them, is made four times as large. Linear in batch times memory is up to 2 and up to
4; CoMatch's queue, which is some batches long, doubles with the batch. Ratios are medians over the turns of
``methods.py``, whose numbers these are.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from fer_lightning.cli.methods import methods

STEP = Path(__file__).with_name("methods.py")


def main(
    only: list[str] | None = None,
    batch_size: int = 64,
    unlabeled_ratio: int = 3,
    labels_per_class: int = 100,
    steps: int = 20,
    warmup: int = 5,
    rounds: int = 3,
    output: Path | None = None,
) -> None:
    """Time a training step of every method at three sizes and print how it grows.

    Args:
        only: these methods (class names); all if not given.
        batch_size: labeled faces of a batch, at first.
        unlabeled_ratio: unlabeled faces per labeled one.
        labels_per_class: labeled faces of each emotion, at first; at most 125.
        steps: that are timed in each turn.
        warmup: steps before them.
        rounds: turns of each method and size.
        output: CSV file for the numbers.
    """
    common = {
        "backbone": "wrn_10_1",
        "backbone_arguments": {"width": 0.25, "stem_stride": 2},
        "image_size": 16,
        "unlabeled_ratio": unlabeled_ratio,
        "workers": 1,
        "device": "cpu",
        "steps": steps,
        "warmup": warmup,
    }
    sizes = [
        (batch_size, labels_per_class),
        (2 * batch_size, labels_per_class),
        (batch_size, 4 * labels_per_class),
    ]
    names = [method.__name__ for method in methods() if only is None or method.__name__ in only]
    measured = {name: np.zeros((rounds, len(sizes))) for name in names}
    for turn in range(rounds):
        for name in names:
            for place, (batch, labels) in enumerate(sizes):
                options = common | {"batch_size": batch, "labels_per_class": labels}
                command = [sys.executable, str(STEP), "--one", name, json.dumps(options)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                measured[name][turn, place] = json.loads(done.stdout.splitlines()[-1])[0]
    unlabeled = unlabeled_ratio * batch_size
    print(f"{batch_size} labeled faces of {7 * labels_per_class} and {unlabeled} unlabeled ones a step")
    print(f"{'':14}{'ms a step':>10}   times as long with: 2 x batch, 4 x labeled faces")
    lines = ["method,ms_per_step,batch_x2,labeled_x4"]
    for name in names:
        first, batch, labeled = measured[name].T
        numbers = [1000 * np.median(first), np.median(batch / first), np.median(labeled / first)]
        print(f"{name:14}{numbers[0]:>10.1f}   {numbers[1]:.2f}, {numbers[2]:.2f}")
        lines.append(",".join([name, *(f"{number:.3f}" for number in numbers)]))
    if output:
        output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
