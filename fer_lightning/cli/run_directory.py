"""The run directory: where a run of the program writes, and from which checkpoint it goes on."""

import fcntl
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import yaml

from fer_lightning.errors import InputError
from fer_lightning.outputs.checkpoint_files import BEST, LAST

WORDS = {"best": BEST, "last": LAST}
"""What ``--ckpt_path`` may say in the place of a file of the run."""
Resume = Literal["auto", "never"]
"""Whether a ``fit`` goes on from the last checkpoint in its run directory, if there is one."""
_RUN_DIR = "FER_LIGHTNING_RUN_DIR"
_RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
"""Set, and over 0, where SLURM or torchrun has started the same command again."""


class Place(NamedTuple):
    """Where a run writes, and what it starts from."""

    run_dir: Path
    checkpoint: Path | None


def choose_place(
    verb: str,
    method: str,
    requested: str | None = None,
    checkpoint: str | None = None,
    resume: Resume = "never",
    configs: Sequence[Path] = (),
) -> Place:
    """Return where a run writes, and the checkpoint that it starts from.

    It writes into the directory asked for; else, given a checkpoint, into the run that wrote it; else into a
    new one, ``runs/<method>-<time>``, or ``runs/<method>-<job>`` in a job of SLURM, which a requeued job
    finds again. A run whose ``config.yaml`` is given lies where that file lies, wherever it was moved to.

    Args:
        verb: ``fit``, ``validate``, ``test`` or ``predict``.
        method: class of the method.
        requested: ``--trainer.default_root_dir``.
        checkpoint: ``--ckpt_path``: a local file, or ``best`` or ``last``.
        resume: ``--resume``; a job that was started again by SLURM or torchrun always goes on.
        configs: configuration files that were given.

    Raises:
        InputError: if there is no such checkpoint, if a verb that needs one has none, or if a new run would
            write over an old one.
    """
    home = _given_run(configs)
    if home is not None and requested in (None, _recorded_root(home)):
        requested = str(home)
    given = _local_file(checkpoint, requested)
    if verb != "fit":
        given = given or _kept_by(requested)
        if given is None:
            raise InputError(
                f"nothing to {verb}: give a checkpoint, or the config.yaml of a run that has one",
                option="ckpt_path",
            )
    run_dir = _run_dir(requested, given, method)
    if verb == "fit":
        last = run_dir / "checkpoints" / LAST
        again = any(int(os.environ.get(name) or 0) > 0 for name in _RESTARTS)
        if given is None and (resume == "auto" or again) and last.exists():
            given = last
        if first_process():
            _check_free(run_dir, given)
    return Place(run_dir, given)


def first_process() -> bool:
    """Return whether this is the process of rank zero, by what started it; a single process is."""
    if "RANK" in os.environ:  # torchrun
        return os.environ["RANK"] == "0"
    if "LOCAL_RANK" in os.environ:  # a process that Lightning has started
        return os.environ["LOCAL_RANK"] == os.environ.get("NODE_RANK", "0") == "0"
    return os.environ.get("SLURM_PROCID", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"


def check_writable(run_dir: Path) -> None:
    """Make the run directory and write to it, before any work is done.

    Raises:
        InputError: if that is not possible.
    """
    probe = run_dir / ".writable"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to the run directory {run_dir} ({error.strerror}); choose another",
            option="trainer.default_root_dir",
        ) from error


def lock(run_dir: Path) -> IO[str]:
    """Claim a run directory for this process, for as long as the file returned is open.

    The operating system releases it when the process ends, in whatever way: a lock of this kind is not
    passed on to the workers, which may outlive a training that was killed by some seconds.

    Raises:
        InputError: if another process trains there.
    """
    file = (run_dir / ".lock").open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise InputError(
            f"{holder} is training in {run_dir}: wait for it or end it, or choose another directory",
            option="trainer.default_root_dir",
        ) from None
    except OSError:  # a file system that has no locks
        return file
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def forget_run_dir() -> None:
    """Let the next run of this process have a directory of its own."""
    os.environ.pop(_RUN_DIR, None)


def remove_unused(run_dir: Path) -> None:
    """Remove a run directory in which nothing was written, such as that of a run that was refused."""
    with suppress(OSError):
        if {file.name for file in run_dir.iterdir()} <= {".lock"}:
            (run_dir / ".lock").unlink(missing_ok=True)
            run_dir.rmdir()


def _run_dir(requested: str | None, checkpoint: Path | None, method: str) -> Path:
    if requested is not None:
        return Path(requested)
    if checkpoint is not None and checkpoint.parent.name == "checkpoints":
        return checkpoint.parent.parent
    job = "_".join(os.environ[name] for name in _job_variables())
    name = f"{method.rpartition('.')[2]}-{job or time.strftime('%Y%m%d-%H%M%S')}"
    # Lightning starts the other ranks with the same command line and a copy of this environment.
    return Path(os.environ.setdefault(_RUN_DIR, f"runs/{name}"))


def _job_variables() -> tuple[str, ...]:
    array = ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")  # those of the tasks differ, also when requeued
    if all(name in os.environ for name in array):
        return array
    return ("SLURM_JOB_ID",) if "SLURM_JOB_ID" in os.environ else ()


def _given_run(configs: Sequence[Path]) -> Path | None:
    """Return the run directory whose ``config.yaml`` is among the configuration files, None if none is."""
    runs = [
        file.parent for file in configs if file.name == "config.yaml" and (file.parent / "run.json").exists()
    ]
    return runs[-1] if runs else None


def _recorded_root(run_dir: Path) -> str | None:
    content: Any = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    root = content["trainer"]["default_root_dir"]
    return None if root is None else str(root)


def _local_file(checkpoint: str | None, requested: str | None) -> Path | None:
    """Return the file that ``--ckpt_path`` means; anything but a local one is refused."""
    if not checkpoint:
        return None
    if checkpoint in WORDS:
        if requested is None:
            raise InputError(f"{checkpoint} of which run? Give the path of the file", option="ckpt_path")
        checkpoint = str(Path(requested) / "checkpoints" / WORDS[checkpoint])
    path = Path(checkpoint).expanduser()
    if "://" in checkpoint or not path.exists():
        raise InputError(
            f"{checkpoint} does not exist here; a checkpoint is a local file, or best or last of the run",
            option="ckpt_path",
        )
    return path


def _kept_by(requested: str | None) -> Path | None:
    """Return the checkpoint to evaluate of a run: the best, else the last; None if it has none."""
    if requested is None:
        return None
    files = (Path(requested) / "checkpoints" / name for name in (BEST, LAST))
    return next((file for file in files if file.exists()), None)


def _check_free(run_dir: Path, checkpoint: Path | None) -> None:
    """Refuse to train where that would write over checkpoints: those of another run, or later ones."""
    kept = run_dir / "checkpoints"
    last = kept / LAST
    if not any((kept / name).exists() for name in (BEST, LAST)):
        return  # a run that was stopped before its first checkpoint has nothing to lose
    if checkpoint is None:
        what = f"{run_dir} already holds a run. Continue it with --resume auto, or choose another directory"
    elif checkpoint.resolve() == last.resolve() or (checkpoint.parent == kept and not last.exists()):
        return
    else:
        what = (
            f"{run_dir} already holds a run, which going on from {checkpoint} would write over. Go on from "
            f"{last}, or choose another directory"
        )
    raise InputError(what, option="trainer.default_root_dir")
