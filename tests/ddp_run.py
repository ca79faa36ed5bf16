"""Trains methods on two CPU processes and saves what each rank ended with; run by test_ddp.py."""

import sys
from pathlib import Path

import lightning as L
import torch
from every import METHODS, build, data
from faces import quiet_trainer

RESUMED = ("fixmatch", "freematch", "simmatch")


class Rank(L.Callback):
    """Notes the faces a rank is shown, and its checkpoint in the middle of an epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.labeled, self.unlabeled = folder, [], []
        self.running: dict[str, torch.Tensor] = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.labeled.append(batch["labeled"].index.tolist())
        if "unlabeled" in batch:
            self.unlabeled.append(batch["unlabeled"].index.tolist())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 7:  # not only at the end, where DDP copies the buffers of rank zero
            named = pl_module.student.named_buffers()
            self.running = {name: buffer.clone() for name, buffer in named if "running" in name}
            trainer.save_checkpoint(self.folder / "mid.ckpt")


def train(name: str, folder: Path, resume: bool) -> None:
    L.seed_everything(4, workers=True, verbose=False)
    model = build(name, dropout=0.2)
    rank = Rank(folder)
    trainer = quiet_trainer(
        folder, devices=2, strategy="ddp_find_unused_parameters_true", max_epochs=3, callbacks=[rank]
    )
    trainer.fit(model, data(name), ckpt_path=folder / "mid.ckpt" if resume else None)
    ended = {"state": model.state_dict(), "labeled": rank.labeled, "unlabeled": rank.unlabeled}
    ended["running"] = rank.running
    ended["metrics"] = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val")}
    torch.save(ended, folder / f"rank{trainer.global_rank}{'-resumed' * resume}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in METHODS:
        folder = Path(sys.argv[1]) / name
        folder.mkdir(exist_ok=True)
        train(name, folder, resume=False)
        if name in RESUMED:
            train(name, folder, resume=True)
