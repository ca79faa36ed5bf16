"""Trains on two CPU processes with everything that a run leaves behind; run by test_ddp_run.py.

python ddp_full_run.py <folder>: a whole run, and one that rank 1 alone is asked to stop and that goes on.
"""

import os
import signal
import sys
from pathlib import Path

import lightning as L
import torch
from faces import tiny_data
from full_run import fix_match, full_fit, full_trainer

from fer_lightning.callbacks import Interrupted


class StopRankOne(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == 1 and trainer.global_step == 6:
            os.kill(os.getpid(), signal.SIGTERM)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    options = {"devices": 2, "strategy": "ddp"}
    whole, parts = folder / "whole", folder / "parts"
    full_fit(whole, figures=True, **options)
    try:
        full_fit(parts, callbacks=[StopRankOne()], **options)
    except Interrupted as stopped:
        (folder / f"rank{os.environ.get('LOCAL_RANK', '0')}").write_text(str(stopped.code))
    last = parts / "checkpoints" / "last.ckpt"
    full_fit(parts, last, **options)
    data = tiny_data(eval_batch_size=10)  # 28 faces: the last batch of rank 1 is half filled
    full_trainer(parts, figures=True, **options).test(fix_match(), data, last, verbose=False)
    full_trainer(parts, **options).predict(fix_match(), data, ckpt_path=last, return_predictions=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
