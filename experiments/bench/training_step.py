r"""Time our training step against a bare PyTorch loop that does the same work, in one run.

    OMP_NUM_THREADS=2 python experiments/bench/training_step.py
    python experiments/bench/training_step.py --backbone wrn_28_2 --backbone_arguments {} --batch_size 64 \
        --unlabeled_ratio 7 --device cuda --workers 8

Ours is a run as ``fit`` starts it: Lightning's trainer, its progress bar as a terminal shows it, the log in
a CSV file, the audit and all other callbacks. The bare loop has the same network, loader, optimizer,
schedule at every step and average of the teacher, and nothing else: it logs nothing and checks nothing. That
both did the same work shows in their weights: on a CPU they are equal, bit for bit.

The contestants take turns, each with a fresh network and loader, and a ratio is the median over the turns:
what slows the machine down slows both. On a CPU, the ratio of processor times stands beside that of the
clock's, for a machine with other work to do; give it one thread there, OMP_NUM_THREADS=1, since threads that
wait for each other count as busy. Validation, which is once an epoch, and checkpoints are not timed.
"""

import contextlib
import gc
import io
import itertools
import logging
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3

from fer_lightning.callbacks import run_callbacks
from fer_lightning.data.batches import Loader
from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.data.datasets.base import ArrayImages, FaceDataset, Faces, one_hot
from fer_lightning.emotions import BASIC_7
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.fixmatch import FixMatch
from fer_lightning.methods.schedules import learning_rate_factor
from fer_lightning.methods.supervised import Supervised
from fer_lightning.outputs.run_logger import RunLogger

METHODS: dict[str, type[SemiSupervised]] = {"supervised": Supervised, "fixmatch": FixMatch}
THRESHOLD = 0.2  # of seven emotions: about half of an untrained network's predictions reach it


class NoiseFaces(FaceDataset):
    """Gray noise in memory: no step asks whether it is a face."""

    def load(self, image_size: int) -> Faces:
        """Draw 3,500 images."""
        label = np.arange(3500) % 7
        pixels = np.random.default_rng(0).integers(0, 256, (3500, image_size, image_size), dtype=np.uint8)
        return Faces(
            dataset="noise",
            taxonomy=BASIC_7,
            names=np.array([f"{i:04d}" for i in range(3500)]),
            partition=np.full(3500, "train"),
            emotion=one_hot(label, 7),
            images=ArrayImages(pixels),
        )


class Stopwatch(L.Callback):
    """Times the steps from the one after ``warmup`` on."""

    def __init__(self, warmup: int, device: str) -> None:
        self.warmup, self.device = warmup, device
        self.start = self.end = np.zeros(2)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Read the clock."""
        if trainer.global_step == self.warmup:
            self.start = now(self.device)
        elif trainer.global_step == trainer.max_steps:
            self.end = now(self.device)


def now(device: str) -> np.ndarray:
    """Return the clock's time and this process's processor time, once the device has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def ours(
    method: SemiSupervised, data: SemiSupervisedFaces, warmup: int, steps: int, device: str
) -> np.ndarray:
    """Train as ``fit`` does; return seconds per step, the clock's and the processor's."""
    watch = Stopwatch(warmup, device)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = L.Trainer(
            accelerator="gpu" if device == "cuda" else device,
            devices=1,
            max_steps=warmup + steps,
            limit_val_batches=0,
            default_root_dir=folder,
            logger=[RunLogger(Path(folder))],
            callbacks=[*run_callbacks(Path(folder)), watch],
        )
        trainer.fit(method, data)
    method.to(device)
    return (watch.end - watch.start) / steps


def bare(
    method: SemiSupervised, data: SemiSupervisedFaces, warmup: int, steps: int, device: str
) -> np.ndarray:
    """Train the same networks without trainer, method or log; return seconds per step, both again."""
    h, total = method.hparams, warmup + steps
    student, teacher = method.student.to(device).train(), method.teacher
    assert isinstance(teacher, ModelEmaV3)
    teacher.to(device)
    optimizer = torch.optim.SGD(
        param_groups_weight_decay(student, h.weight_decay), h.lr, momentum=0.9, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(h.schedule, total))
    for step, batch in enumerate(itertools.islice(bare_loader(method, data), total), 1):
        x = batch["labeled"].weak[0].to(device, non_blocking=True)
        y = batch["labeled"].target.label.to(device, non_blocking=True)
        if "unlabeled" in batch:
            weak = batch["unlabeled"].weak[0].to(device, non_blocking=True)
            strong = batch["unlabeled"].strong[0].to(device, non_blocking=True)
            with torch.no_grad():
                confidence, predicted = student(weak).logits.softmax(-1).max(-1)
            logits, strong_logits = student(torch.cat([x, strong])).logits.split([len(x), len(strong)])
            unlabeled = F.cross_entropy(strong_logits, predicted, reduction="none")
            loss = F.cross_entropy(logits, y) + ((confidence >= THRESHOLD) * unlabeled).mean()
        else:
            loss = F.cross_entropy(student(x).logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        teacher.update(student, step=step + 1)
        if step == warmup:
            start = now(device)
    return (now(device) - start) / steps


def bare_loader(method: SemiSupervised, data: SemiSupervisedFaces) -> Loader:
    """Return the loader that the trainer would get."""
    data.views = method.views
    return data.train_dataloader()


def difference(a: torch.nn.Module, b: torch.nn.Module) -> float:
    """Return the largest difference of the states of two modules."""
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return max(float((x.float() - y.float()).abs().max()) for x, y in pairs)


def main(
    methods: list[Literal["supervised", "fixmatch"]] = ["supervised", "fixmatch"],  # noqa: B006
    backbone: str = "wrn_10_1",
    backbone_arguments: dict[str, Any] = {"width": 1.5},  # noqa: B006
    image_size: int = 48,
    batch_size: int = 32,
    unlabeled_ratio: int = 3,
    workers: int = 2,
    device: Literal["cpu", "cuda"] = "cpu",
    steps: int = 100,
    warmup: int = 20,
    rounds: int = 7,
) -> None:
    """Time the training step and print steps per second and the ratio.

    Args:
        methods: which to time.
        backbone: any that ``--model.backbone`` takes.
        backbone_arguments: of the backbone.
        image_size: side of the images.
        batch_size: labeled faces of a batch.
        unlabeled_ratio: unlabeled faces per labeled one.
        workers: processes that prepare the batches.
        device: where to train.
        steps: that are timed in each turn; the log is written every 50.
        warmup: steps before them.
        rounds: turns of each contestant.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    os.environ |= {
        "FORCE_COLOR": "1",
        "TERM": "xterm-256color",
    }  # the bar is drawn without a terminal
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    print(
        f"{backbone} {backbone_arguments}, {image_size} px, {batch_size} labeled, ratio {unlabeled_ratio}, "
        f"{device} ({where})"
    )
    print(f"{'':12}{'ours':>8}{'bare':>8} steps/s   times the bare loop's time (least and most of the turns)")
    for name in methods:
        options = {"threshold": THRESHOLD} if name == "fixmatch" else {}
        times: dict[str, list[np.ndarray]] = {"ours": [], "bare": []}
        for turn in range(rounds):
            trained = {}
            for contestant in (ours, bare) if turn % 2 else (bare, ours):
                torch.manual_seed(turn)
                method = METHODS[name](backbone=backbone, backbone_arguments=backbone_arguments, **options)
                data = SemiSupervisedFaces(
                    NoiseFaces(),
                    labels_per_class=100,
                    val="none",
                    batch_size=batch_size,
                    unlabeled_ratio=unlabeled_ratio,
                    steps_per_epoch=warmup + steps + 1,  # so that the run ends within the epoch
                    image_size=image_size,
                    workers=workers,
                    views=method.views,
                )
                data.setup("fit")
                times[contestant.__name__].append(contestant(method, data, warmup, steps, device))
                trained[contestant.__name__] = method
                gc.collect()
            apart = difference(trained["ours"], trained["bare"])
            if apart and device == "cpu":
                raise RuntimeError(f"the two have not done the same: their weights differ by {apart:.1e}")
        speed = {who: 1 / np.median(each, axis=0)[0] for who, each in times.items()}
        ratios = (np.array(times["ours"]) / np.array(times["bare"])).T
        shown = [f"{np.median(r):.3f} ({r.min():.3f} to {r.max():.3f})" for r in ratios]
        line = f"{name:12}{speed['ours']:>8.2f}{speed['bare']:>8.2f}{'':11}{shown[0]} by the clock"
        print(line + (f", {shown[1]} by the processor" if device == "cpu" else ""), flush=True)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
