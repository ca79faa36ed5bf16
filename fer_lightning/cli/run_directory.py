"""The run directory: where a run of the program writes."""

import os
import time
from pathlib import Path

from fer_lightning.errors import InputError

_RUN_DIR = "FER_LIGHTNING_RUN_DIR"


def choose_run_dir(verb: str, requested: str | None, checkpoint: str | None, method: str) -> Path:
    """Return where a run writes.

    That is the directory asked for; else, given a checkpoint, the run that wrote it; else a new one,
    ``runs/<method>-<time>``.

    Args:
        verb: ``fit``, ``validate``, ``test`` or ``predict``.
        requested: ``--trainer.default_root_dir``.
        checkpoint: ``--ckpt_path``.
        method: class of the method.

    Raises:
        InputError: if a new run would write over an old one.
    """
    if requested is not None:
        run_dir = Path(requested)
    elif checkpoint is not None and Path(checkpoint).parent.name == "checkpoints":
        run_dir = Path(checkpoint).parent.parent
    else:
        # Lightning starts the other ranks with the same command line and a copy of this environment.
        name = f"{method.rpartition('.')[2]}-{time.strftime('%Y%m%d-%H%M%S')}"
        run_dir = Path(os.environ.setdefault(_RUN_DIR, f"runs/{name}"))
    first_rank = "LOCAL_RANK" not in os.environ
    if verb == "fit" and checkpoint is None and first_rank and (run_dir / "run.json").exists():
        last = run_dir / "checkpoints" / "last.ckpt"
        go_on = f"Continue it with --ckpt_path {last}, or" if last.exists() else "It saved nothing;"
        raise InputError(
            f"{run_dir} already holds a run. {go_on} choose another directory",
            option="trainer.default_root_dir",
        )
    return run_dir


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
