"""Run a matrix of experiments, method by seed, and keep one result row per finished run.

Each run is a ``fit`` in a process of its own, then a ``test`` of the checkpoint chosen on the validation
faces and one of the last checkpoint. What has a row of today's settings and code is not run again, and what
was stopped goes on from its last checkpoint. ``fer_lightning.cli.matrix_file`` has the format of the file.
"""

import fcntl
import json
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from fer_lightning.cli.matrix_file import Cell, read_matrix
from fer_lightning.cli.processes import Processes, RunError, Stopped
from fer_lightning.cli.results import draw, results_table
from fer_lightning.cli.versions import Version
from fer_lightning.files import write_atomically
from fer_lightning.outputs.csv_files import read_csv
from fer_lightning.outputs.results import add_row, key, read_rows
from fer_lightning.ranges import PositiveInt

PROGRAM = (sys.executable, "-m", "fer_lightning")
_RECORDED = ("dataset", "labels", "split", "commit", "steps", "wall_s", "device")
"""Columns of a row that are taken from the run's run.json as they are."""
_CHECKPOINTS = ("best", "last")
"""Those that are tested; also the prefix of their metrics in a row."""


class _Stale(RunError):
    """There is a row or a directory of other settings or of another revision of the method."""


def run_matrix(
    file: Path,
    jobs: PositiveInt = 1,
    gpus: str | None = None,
    rerun_stale: bool = False,
    results: Path | None = None,
    root: Path | None = None,
) -> int:
    """Run what has no row yet in a matrix of experiments, and print the table of all rows.

    Ctrl-C stops the runs at a checkpoint; the same command goes on from there.

    Args:
        file: matrix file (YAML): which configurations, which seeds, where the rows go.
        jobs: number of runs at a time; the progress bar of a single one is shown. Where several GPUs are
            visible, several runs have one each.
        gpus: the GPUs for the runs, such as 0,1, in place of all visible ones.
        rerun_stale: run again what has a row of other settings or of another revision of its method. Run
            directories of these are kept, with another name.
        results: results file (CSV) in place of the one that the matrix file names.
        root: folder of the run directories in place of the one that the matrix file names.

    Returns:
        Exit status: 0 if every run has its row, 1 if one failed or is stale, 130 if stopped.
    """
    matrix = read_matrix(file, results, root)
    console = Console()
    status = run_cells(
        matrix.cells(),
        matrix.results,
        jobs,
        gpus=[gpu.strip() for gpu in gpus.split(",")] if gpus else None,
        rerun_stale=rerun_stale,
        console=console,
    )
    draw(results_table(matrix.results, matrix), f"On the test faces; rows in {matrix.results}", console)
    for cell in matrix.cells():
        if pictures := sorted((cell.directory / "figures").glob("*.png")):
            names = ", ".join(picture.name for picture in pictures)
            _say(console, f"Pictures in {cell.directory / 'figures'}: {names}")
    return status


def run_cells(
    cells: Sequence[Cell],
    results: Path,
    jobs: int = 1,
    program: Sequence[str] = PROGRAM,
    gpus: Sequence[str] | None = None,
    rerun_stale: bool = False,
    console: Console | None = None,
) -> int:
    """Run the cells that have no row yet; one that fails is reported, and the others run all the same.

    Args:
        cells: in the order in which they are to run.
        results: results file that gets the rows.
        jobs: number of runs at a time; the progress bar of a single one is shown.
        program: command whose ``fit`` and ``test`` are run.
        gpus: see ``Processes``.
        rerun_stale: run also those that have a row of another version.
        console: where to report.

    Returns:
        Exit status: 0 if every cell has its row, 1 if a run failed or a row is stale, 130 if stopped.
    """
    console = console or Console()
    known = {key(row): row for row in read_rows(results)}
    processes = Processes(program, jobs, gpus)
    writing = threading.Lock()

    def run(cell: Cell) -> None:
        if processes.stopped:
            raise Stopped
        version = Version.of(cell.config)
        row = known.get((cell.name, str(cell.seed)))
        difference = version.difference(row) if row else ""
        if difference and not rerun_stale:
            raise _Stale(f"{difference} since its row in {results}; run it again with --rerun_stale true")
        if difference or not row:
            with processes.slot() as environment:
                new = _run(cell, version, rerun_stale, processes, environment, console)
            with writing:
                add_row(results, new)

    failed = False
    with processes.stopping_on_signals(), ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(run, cell): cell for cell in cells}
        for future in as_completed(futures):
            try:
                future.result()
            except Stopped:
                continue
            except (RunError, OSError, ValueError) as error:
                failed = True
                word, style = ("is stale", "yellow") if isinstance(error, _Stale) else ("failed", "red")
                _say(console, f"{futures[future]} {word}: {error}", style=style)
    if processes.stopped:
        _say(console, "Stopped. The same command goes on from here.")
        return 130
    return int(failed)


def _run(
    cell: Cell,
    version: Version,
    rerun_stale: bool,
    processes: Processes,
    environment: Mapping[str, str],
    console: Console,
) -> dict[str, object]:
    """Train and test one cell, or do what is left of that, and return its row."""
    with _own(cell, version, rerun_stale) as log:
        if not _recorded(cell).get("finished"):
            last = cell.directory / "checkpoints" / "last.ckpt"
            _say(console, f"{cell} {'goes on' if last.exists() else 'starts'} in {cell.directory}")
            processes.call(["fit", *cell.options, "--resume=auto"], log, environment, show=True)
            if not _recorded(cell).get("finished"):
                raise RunError(f"fit ended, but {cell.directory / 'run.json'} is not finished")
        for checkpoint in _CHECKPOINTS:
            path = cell.directory / "checkpoints" / f"{checkpoint}.ckpt"
            if path.exists():  # without validation faces there is no best one
                config = cell.directory / "config.yaml"
                processes.call(["test", "--config", str(config), f"--ckpt_path={path}"], log, environment)
    return _row(cell, version)


@contextmanager
def _own(cell: Cell, version: Version, rerun_stale: bool) -> Iterator[IO[str]]:
    """Open the log of a cell's directory, once no other process is at work there and it is of this version.

    The log is locked, and its processes inherit the lock with it: so it is held too by a process that has
    outlived the driver that started it. The directory's ``matrix.json`` has the version that it was begun
    with: from its first checkpoint on, a run does not go on with other settings or code. A directory of
    another version is renamed if ``rerun_stale``.
    """
    while True:
        cell.directory.mkdir(parents=True, exist_ok=True)
        with (cell.directory / "log.txt").open("a+", encoding="utf-8") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"another process is at work in {cell.directory}; wait for it or end it"
                ) from None
            record, begun = cell.directory / "matrix.json", {}
            if record.exists():
                begun = json.loads(record.read_text(encoding="utf-8"))
            empty = {file.name for file in cell.directory.iterdir() if file.name[0] != "."} == {"log.txt"}
            last = cell.directory / "checkpoints" / "last.ckpt"
            if empty or (begun and not last.exists() and not _recorded(cell).get("finished")):
                begun = {"config": cell.config, **version._asdict()}
                with write_atomically(record) as stream:
                    json.dump(begun, stream, indent=2)
            if not begun:
                raise RunError(f"{cell.directory} holds something else than a matrix's run; rename it")
            difference = version.difference(begun)
            if not difference:
                yield log
                return
            if not rerun_stale:
                raise _Stale(
                    f"{difference} since {cell.directory} was begun; delete it, or add --rerun_stale true"
                )
            names = (cell.directory.with_name(f"{cell.directory.name}-stale{n}") for n in count(1))
            cell.directory.rename(next(name for name in names if not name.exists()))


def _recorded(cell: Cell) -> dict[str, Any]:
    file = cell.directory / "run.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return content


def _row(cell: Cell, version: Version) -> dict[str, object]:
    run = _recorded(cell)
    if missing := {*_RECORDED, "seed_everything", "data_seed", "method", "revision"} - set(run):
        raise RunError(f"{cell.directory / 'run.json'} lacks {', '.join(sorted(missing))}")
    for seed in ("seed_everything", "data_seed"):
        if run[seed] != cell.seed:
            raise RunError(f"{cell.directory} was trained with {seed} {run[seed]}; does a config fix it?")
    row: dict[str, object] = {"name": cell.name, "seed": cell.seed}
    row |= {"method": run["method"].rpartition(".")[2], "revision": run["revision"]}
    row |= {key: run[key] for key in _RECORDED}
    row |= {"split": run["split"][:12], "config_hash": version.config_hash, "config": cell.config}
    tested = {
        Path(line["checkpoint"]).stem: line
        for line in read_csv(cell.directory / "test.csv")
        if run["split"].startswith(line["split"])  # not those on other data
    }
    row["best_epoch"] = tested.get("best", {}).get("epoch", "")
    for checkpoint in _CHECKPOINTS:  # of the tests of one, the newest counts
        for metric, value in tested.get(checkpoint, {}).items():
            if metric not in ("checkpoint", "dataset", "split", "epoch", "step") and value:
                row[f"{checkpoint}/{metric}"] = float(value)
    return row | _while_training(cell.directory)


def _while_training(directory: Path) -> dict[str, object]:
    """Return the score that chose the epoch, and coverage and purity of the last one's pseudo-labels."""
    scores = [line["val/score"] for line in read_csv(directory / "metrics.csv") if line.get("val/score")]
    found: dict[str, object] = {"val/score": max(map(float, scores))} if scores else {}
    audit = [line for line in read_csv(directory / "pseudo_labels.csv") if line["emotion"] == "all"]
    for column in ("coverage", "purity"):
        if audit and audit[-1][column]:
            found[f"audit/{column}"] = float(audit[-1][column])
    return found


def _say(console: Console, text: str, style: str | None = None) -> None:
    """Print text as it is: no markup, and no line breaks inside paths."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
