"""The processes of a matrix: several at a time, each with its share of the machine, stopped together."""

import os
import queue
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO

_TAIL = 12
"""Lines of its log that a failed run shows."""
_QUERY = ("nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader")


class RunError(Exception):
    """A run that cannot be finished; the message has the reason and what to do."""


class Stopped(Exception):
    """The run was interrupted by the user, or not started because of that."""


class Processes:
    """The processes that are running now, and how they are stopped.

    Args:
        program: command whose verbs are run.
        jobs: number of slots. With several, each gets its share of the processor's cores, unless
            ``OMP_NUM_THREADS`` is set, and one GPU.
        gpus: GPUs of the slots, in turn, by number or UUID; the visible ones if None, where there
            are several.
    """

    def __init__(self, program: Sequence[str], jobs: int, gpus: Sequence[str] | None = None) -> None:
        self.stopped = False
        self._program = program
        self._alone = jobs == 1
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.RLock()  # a second signal may come while the first is handled
        environment = dict(os.environ)
        if not self._alone:  # else every run would take every core
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
            if gpus is None and len(visible := visible_gpus()) > 1:
                gpus = visible
        self._slots: queue.SimpleQueue[Mapping[str, str]] = queue.SimpleQueue()
        for slot in range(jobs):
            own = {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}
            self._slots.put(environment | own)

    @contextmanager
    def slot(self) -> Iterator[Mapping[str, str]]:
        """Take a slot for a run, waiting for one to be free, and give the environment of its processes."""
        environment = self._slots.get()
        try:
            yield environment
        finally:
            self._slots.put(environment)

    def call(
        self, arguments: Sequence[str], log: IO[str], environment: Mapping[str, str], show: bool = False
    ) -> None:
        """Run the program and wait for it.

        Args:
            arguments: of the program.
            log: gets what it prints.
            environment: of the run's slot.
            show: let its standard output through to ours if it runs alone.

        Raises:
            RunError: if it fails, with the end of its log.
            Stopped: if it was stopped, or not even started because of that.
        """
        with self._lock:
            if self.stopped:
                raise Stopped
            process = subprocess.Popen(
                [*self._program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=None if show and self._alone else log,
                stderr=log,
                env=environment,
                start_new_session=True,  # the terminal's Ctrl-C reaches us alone, and we pass it on once
            )
            self._running.add(process)
        status = process.wait()
        with self._lock:
            self._running.remove(process)
        if self.stopped:
            raise Stopped
        if status:
            log.seek(0)
            tail = "".join(log.readlines()[-_TAIL:])
            raise RunError(f"{arguments[0]} ended with status {status}; the end of {log.name}:\n{tail}")

    @contextmanager
    def stopping_on_signals(self) -> Iterator[None]:
        """Pass signals to stop on to the processes, and stay alive for their rows."""
        signals = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # else it was started with nohup
            signals.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._stop) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Interrupt what is running, as Ctrl-C would; at the second signal, kill it with all its workers."""
        with self._lock:
            again, self.stopped = self.stopped, True
            for process in self._running:
                if again:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.send_signal(signal.SIGINT)
        if not again:  # straight to standard error: the signal may have come in the middle of a print
            os.write(2, b"\nStopping at a checkpoint; once more to kill.\n")


def visible_gpus() -> list[str]:
    """Return the GPUs that a process started here would see, as ``CUDA_VISIBLE_DEVICES`` names them.

    Those of this variable where it is set, else those that ``nvidia-smi`` lists; asking torch would take
    seconds to import it.
    """
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu for gpu in given.split(",") if gpu]
    if not shutil.which(_QUERY[0]):
        return []
    listed = subprocess.run(_QUERY, capture_output=True, text=True)
    return listed.stdout.split() if listed.returncode == 0 else []
