"""Time a training step of every method against FixMatch's, on the same batches and network, in one run.

    OMP_NUM_THREADS=1 python experiments/bench/methods.py
    python experiments/bench/methods.py --backbone wrn_28_2 --backbone_arguments {} --device cuda

Each method has its defaults, but all get the same network and the same number
of faces a batch, and begin to make pseudo-labels at once. A turn is a short run of
each, in a process of its own so that its peak of memory is its own; the turns go round, and a ratio is the
median over the turns: what slows the machine down slows all. The time is that of whole steps, with views and
transfer; on a CPU it is the processor time of the training process, the views being prepared by workers. Peak
memory is what the process holds at its highest beyond what it held before training (on CUDA, what was
allocated).
"""

import json
import logging
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from jsonargparse import auto_cli
from training_step import NoiseFaces, Stopwatch

import fer_lightning.methods
from fer_lightning.cli.methods import methods
from fer_lightning.data.datamodule import SemiSupervisedFaces


def step(name: str, options: dict[str, Any]) -> None:
    """Train one method for a while; print seconds a step and bytes at the peak as JSON."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    method_class = getattr(fer_lightning.methods, name)
    torch.manual_seed(0)
    network = {key: options[key] for key in ("backbone", "backbone_arguments")}
    method = method_class(**network, labeled_only_steps=0)
    warmup, steps, device = options["warmup"], options["steps"], options["device"]
    data = SemiSupervisedFaces(
        NoiseFaces(),
        labels_per_class=options["labels_per_class"],
        val="none",
        batch_size=options["batch_size"],
        unlabeled_ratio=options["unlabeled_ratio"],
        steps_per_epoch=warmup + steps + 1,
        image_size=options["image_size"],
        workers=options["workers"],
    )
    watch = Stopwatch(warmup, device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="gpu" if device == "cuda" else device,
            devices=1,
            max_steps=warmup + steps,
            limit_val_batches=0,
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[watch],
        )
        trainer.fit(method, data)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    clock, processor = (watch.end - watch.start) / steps
    print(json.dumps([clock if device == "cuda" else processor, peak]))


def main(
    only: list[str] | None = None,
    backbone: str = "wrn_10_1",
    backbone_arguments: dict[str, Any] = {"width": 1.5},  # noqa: B006
    image_size: int = 48,
    batch_size: int = 32,
    unlabeled_ratio: int = 3,
    labels_per_class: int = 100,
    workers: int = 1,
    device: Literal["cpu", "cuda"] = "cpu",
    steps: int = 40,
    warmup: int = 10,
    rounds: int = 3,
    output: Path | None = None,
) -> None:
    """Time a training step of every method and print its ratio to FixMatch's.

    Args:
        only: these methods (class names) beside FixMatch; all if not given.
        backbone: any that ``--model.backbone`` takes.
        backbone_arguments: of the backbone.
        image_size: side of the images.
        batch_size: labeled faces of a batch.
        unlabeled_ratio: unlabeled faces per labeled one.
        labels_per_class: labeled faces of each emotion, which memories of labeled faces hold.
        workers: processes that prepare the batches.
        device: where to train.
        steps: that are timed in each turn.
        warmup: steps before them.
        rounds: turns of each method.
        output: CSV file for the ratios.
    """
    options = {key: value for key, value in locals().items() if key not in ("only", "rounds", "output")}
    names = [m.__name__ for m in methods() if only is None or m.__name__ in (*only, "FixMatch")]
    measured: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            command = [sys.executable, __file__, "--one", name, json.dumps(options)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            measured[name].append(json.loads(done.stdout.splitlines()[-1]))
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    print(
        f"{backbone} {backbone_arguments}, {image_size} px, {batch_size} labeled, ratio {unlabeled_ratio}, "
        f"{device} ({where})"
    )
    print(f"{'':14}{'ms a step':>10}{'MiB':>8}   times FixMatch's: step time (least, most), peak memory")
    fixmatch = np.array(measured["FixMatch"])
    lines = ["method,ms_per_step,peak_mib,time_ratio,time_ratio_min,time_ratio_max,memory_ratio"]
    for name in names:
        mine = np.array(measured[name])
        time, memory = np.median(mine, axis=0)
        ratio = mine / fixmatch
        least, middle, most = ratio[:, 0].min(), float(np.median(ratio[:, 0])), ratio[:, 0].max()
        heap = float(np.median(ratio[:, 1]))
        shown = f"{middle:.2f} ({least:.2f}, {most:.2f}), {heap:.2f}"
        print(f"{name:14}{1000 * time:>10.1f}{memory / 2**20:>8.0f}   {shown}")
        numbers = [1000 * time, memory / 2**20, middle, least, most, heap]
        lines.append(",".join([name, *(f"{number:.3f}" for number in numbers)]))
    if output:
        output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        step(sys.argv[2], json.loads(sys.argv[3]))
    else:
        auto_cli(main, as_positional=False)
