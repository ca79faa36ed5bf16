"""Which process of a training on several devices has ended, where the others only see a broken connection."""

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from fer_lightning.callbacks.interrupt import Interrupted
from fer_lightning.errors import InputError

_PATIENCE_S = 2.0
"""A process that has failed takes a moment to end."""


class PeerEnded(InputError):
    """Another process of the training has ended."""


class _Peer(NamedTuple):
    host: str
    pid: int


class Peers(Callback):
    """Explains a failed exchange between the processes of a training by the process that has ended.

    The error that such an exchange raises names an address. It stays what it is, with a ``PeerEnded`` as its
    cause, whose message the program shows.
    """

    def __init__(self) -> None:
        self._peers: list[_Peer] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Learn who takes part."""
        if trainer.world_size > 1 and torch.distributed.is_initialized():
            everyone: list[_Peer | None] = [None] * trainer.world_size
            torch.distributed.all_gather_object(everyone, _Peer(socket.gethostname(), os.getpid()))
            self._peers = [peer for peer in everyone if peer is not None]

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Name the process that has ended as the cause."""
        if not self._peers or isinstance(exception, Interrupted) or not _of_an_exchange(exception):
            return
        ended = self._ended(trainer.global_rank)
        who = ", ".join(f"rank {rank} (process {peer.pid} on {peer.host})" for rank, peer in ended)
        exception.__cause__ = PeerEnded(
            f"rank {trainer.global_rank} stops: {who or 'a rank on another machine'} has ended. Its own "
            "message, above or in its log, says why; a process that was killed leaves none. The same command "
            "goes on from the last checkpoint with --resume auto"
        )

    def _ended(self, own: int) -> list[tuple[int, _Peer]]:
        """Return the processes of this machine that have ended; those of others cannot be seen."""
        end = time.monotonic() + _PATIENCE_S
        here = socket.gethostname()
        while True:
            ended = [
                (rank, peer)
                for rank, peer in enumerate(self._peers)
                if rank != own and peer.host == here and not _alive(peer.pid)
            ]
            if ended or time.monotonic() > end:
                return ended
            time.sleep(0.05)


def _of_an_exchange(exception: BaseException) -> bool:
    if isinstance(exception, torch.distributed.DistError):
        return True
    words = ("gloo", "nccl", "connection closed by peer", "connection reset by peer")
    return isinstance(exception, RuntimeError) and any(word in str(exception).lower() for word in words)


def _alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and is not yet reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
    return True
