"""Callbacks that the program can be told to use."""

import os
import signal
import time

import lightning as L
import torch


class Press(L.Callback):
    """Sends the process a signal while a batch is at work, Ctrl-C if no other is named."""

    def __init__(self, batch: int, signal: str = "SIGINT") -> None:
        self.batch, self.signal = batch, signal

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        if pl_module.batches_taken == self.batch:
            os.kill(os.getpid(), signal.Signals[self.signal])


class Spoil(L.Callback):
    """Makes the weights infinite before a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            with torch.no_grad():
                next(pl_module.student.parameters()).fill_(torch.nan)


class Slow(L.Callback):
    """Takes its time."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        time.sleep(0.5)
