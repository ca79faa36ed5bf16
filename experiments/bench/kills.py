"""Kill trainings at random moments, let them go on, and compare them with one that was left alone.

python experiments/bench/kills.py --kills 20

Each run is a process of the program with workers, on procedural faces. It is killed (SIGKILL, to the whole
process group) or stopped (SIGTERM, to the whole group) once or several times, each time after a random share
of the time that the undisturbed run took, and started again by the same command with --resume auto. At its
end the weights, the optimizer, the teacher, the tables of metrics and pseudo-labels and the steps on record
have to be those of the undisturbed run, byte by byte.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

TABLES = ("metrics.csv", "pseudo_labels.csv")


def command(run_dir: Path, method: str, workers: int) -> list[str]:
    """Return the command of a small run."""
    return [
        *(sys.executable, "-m", "fer_lightning", "fit", f"--model={method}", "--model.backbone=wrn_10_1"),
        *(
            "--model.backbone_arguments={width: 0.5}",
            "--data.dataset=SyntheticFaces",
            "--data.dataset.train=140",
        ),
        *(
            "--data.dataset.val=28",
            "--data.dataset.test=28",
            "--data.labels_per_class=4",
            "--data.image_size=24",
        ),
        *("--data.batch_size=14", "--data.unlabeled_ratio=3", f"--data.workers={workers}"),
        *("--data.steps_per_epoch=40", "--trainer.max_steps=160", "--trainer.log_every_n_steps=5"),
        *("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false"),
        *("--trainer.enable_model_summary=false", f"--trainer.default_root_dir={run_dir}"),
        *("--checkpoint_every_n_steps=7", "--resume=auto"),
    ]


def run(words: list[str], log: Path, stop_after: float | None = None, number: int = signal.SIGKILL) -> int:
    """Run a command, and send its process group a signal after some seconds; return its exit status."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    with log.open("a") as output:
        process = subprocess.Popen(
            words, stdout=output, stderr=output, start_new_session=True, env=environment
        )
        try:
            return process.wait(stop_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, number)
            return process.wait()


def differences(run_dir: Path, whole: Path) -> list[str]:
    """Return what differs between two finished runs."""
    found = []
    ours, theirs = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (run_dir, whole)
    )
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "batches_taken"):
        if not same(ours[part], theirs[part]):
            found.append(part)
    found += [name for name in TABLES if (run_dir / name).read_bytes() != (whole / name).read_bytes()]
    records = [json.loads((folder / "run.json").read_text()) for folder in (run_dir, whole)]
    if any(records[0][name] != records[1][name] for name in ("finished", "steps", "split")):
        found.append("run.json")
    return found


def same(ours: Any, theirs: Any) -> bool:
    """Compare nested mappings and lists of tensors and numbers exactly."""
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours, theirs, strict=True))
    return bool(ours == theirs)


def main() -> int:
    """Kill, compare and print a line per run; return 1 if a run differs or leaves a traceback."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--method", default="FixMatch")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    moments, left, failed = random.Random(options.seed), options.kills, 0
    with tempfile.TemporaryDirectory() as folder:
        whole, log = Path(folder) / "whole", Path(folder) / "log.txt"
        began = time.monotonic()
        assert run(command(whole, options.method, options.workers), log) == 0, log.read_text()
        seconds = time.monotonic() - began
        print(f"undisturbed: {seconds:.0f} s")
        number = 0
        while left:
            number += 1
            run_dir, log = Path(folder) / f"run{number}", Path(folder) / f"log{number}.txt"
            words, story = command(run_dir, options.method, options.workers), []
            for _ in range(min(left, moments.choice((1, 2, 3)))):
                kind = moments.choice((signal.SIGKILL, signal.SIGTERM))
                after = moments.uniform(0.05, 1.0) * seconds
                status = run(words, log, after, kind)
                left -= 1
                story.append(f"{kind.name} after {after:.1f} s: {status}")
            status = run(words, log)
            wrong = [f"status {status}"] if status else differences(run_dir, whole)
            wrong += ["traceback"] * ("Traceback" in log.read_text())
            failed += bool(wrong)
            print(f"run {number}: {'; '.join(story)} -> {', '.join(wrong) or 'equal'}", flush=True)
            if wrong:
                print(log.read_text()[-3000:])
    print(f"{options.kills} kills in {number} runs, {failed} of which differ")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
