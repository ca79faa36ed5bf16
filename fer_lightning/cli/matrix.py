"""Run a matrix of experiments, method by seed, and keep one result row per finished run.

A matrix file is YAML::

    results: experiments/results/fer2013.csv  # one row per name and seed
    root: runs/fer2013  # of the run directories NAME-seedSEED
    seeds: [0, 1, 2]
    configs: [experiments/trainer.yaml, experiments/data/fer2013.yaml]
    args: {data.labels_per_class: 100}
    runs:
      - {name: floor, configs: [experiments/methods/supervised.yaml]}
      - {name: fixmatch, configs: [experiments/methods/fixmatch.yaml]}
      - name: ceiling
        configs: [experiments/methods/supervised.yaml]
        args: {data.labels_per_class: null}
        seeds: [0]

The configs and args at its top are for every run; a run's own come after them and win. Its own seeds replace
the common ones. Paths are relative to the working directory, as on the command line.

Each run is a ``fit`` in a process of its own, then a ``test`` of the checkpoint chosen on the validation
faces and one of the last checkpoint. What has a row is not run again, and what was stopped goes on from its
last checkpoint.
"""

import argparse
import csv
import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, Literal

import yaml
from jsonargparse import ArgumentParser
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fer_lightning.errors import InputError
from fer_lightning.outputs.results import Summary, add_row, read_rows, summarise, table, write_readme

PROGRAM = (sys.executable, "-m", "fer_lightning")
_RECORDED = ("dataset", "labels", "split", "commit", "steps", "wall_s", "device")
"""What a finished run tells in its run.json, beside ``finished`` and ``seed``."""
_TESTED = {"selected": "best", "last": "last"}
"""Prefix of the metrics in a row -> the checkpoint they are of."""
_TAIL = 12
"""Lines of its log that a failed run shows."""


class RunError(Exception):
    """A run that cannot be finished; the message says why and what to do."""


class _Stopped(Exception):
    """The user has asked to stop."""


@dataclass
class Experiment:
    """One entry of ``runs``: a method with its settings."""

    name: str
    configs: list[str] = field(default_factory=list)
    args: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] | None = None
    """None takes those of the matrix."""


@dataclass(frozen=True)
class Cell:
    """One experiment with one seed."""

    name: str
    seed: int
    directory: Path
    configs: tuple[str, ...]
    args: dict[str, Any]

    @property
    def config(self) -> str:
        """The configuration as a row and the run directory keep it: files, then KEY=VALUE."""
        return shlex.join([*self.configs, *(_assign(key, value) for key, value in self.args.items())])

    @property
    def options(self) -> list[str]:
        """Everything that ``fit`` is told on its command line."""
        return [
            *(word for config in self.configs for word in ("--config", config)),
            *(f"--{_assign(key, value)}" for key, value in self.args.items()),
            f"--seed_everything={self.seed}",
            f"--data.seed={self.seed}",
            f"--trainer.default_root_dir={self.directory}",
        ]

    def __str__(self) -> str:
        """Return what a person calls it."""
        return f"{self.name} (seed {self.seed})"


@dataclass
class Matrix:
    """A matrix file; see the docstring of the module."""

    results: Path
    root: Path
    runs: list[Experiment]
    configs: list[str] = field(default_factory=list)
    args: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self) -> None:
        """Insist on distinct names that can name a directory, and on configurations that are there."""
        for name in self.names:
            if not re.fullmatch(r"[\w.-]+", name):
                raise InputError(
                    f"run name {name!r} names a directory: use letters, digits, '.', '_' and '-'"
                )
            if self.names.count(name) > 1:
                raise InputError(f"run name {name!r} is given twice: a row is known by its name and seed")
        for config in (config for cell in self.cells() for config in cell.configs):
            if not Path(config).is_file():
                raise InputError(f"{config} does not exist; paths are relative to the working directory")

    @property
    def names(self) -> list[str]:
        """Names of the runs, in order."""
        return [run.name for run in self.runs]

    def cells(self) -> list[Cell]:
        """Return every run with every seed; seed by seed, so that a stopped matrix compares all methods."""
        cells = [
            Cell(
                name=run.name,
                seed=seed,
                directory=self.root / f"{run.name}-seed{seed}",
                configs=(*self.configs, *run.configs),
                args=self.args | run.args,
            )
            for run in self.runs
            for seed in (self.seeds if run.seeds is None else run.seeds)
        ]
        return sorted(cells, key=lambda cell: cell.seed)


def read_matrix(file: Path, results: Path | None = None, root: Path | None = None) -> Matrix:
    """Read a matrix file.

    Args:
        file: YAML, as in the docstring of the module.
        results: results file in place of the one it names.
        root: folder of the run directories in place of the one it names.

    Raises:
        InputError: naming the file and what is wrong in it.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Matrix, "matrix")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise InputError("expected the keys results, root and runs at its top")
        content |= {key: str(path) for key, path in {"results": results, "root": root}.items() if path}
        matrix: Matrix = parser.instantiate(parser.parse_object({"matrix": content})).matrix
    except (OSError, yaml.YAMLError, argparse.ArgumentError, ValueError) as error:
        raise InputError(f"matrix file {file}: {error}") from error
    return matrix


def run_matrix(file: Path, jobs: int = 1, results: Path | None = None, root: Path | None = None) -> int:
    """Run what has no row yet in a matrix of experiments, and print the table of all rows.

    Ctrl-C stops the runs at a checkpoint; the same command goes on from there.

    Args:
        file: matrix file (YAML): which configurations, which seeds, where the rows go.
        jobs: number of runs at a time; the progress bar of a single one is shown.
        results: results file (CSV) in place of the one that the matrix file names.
        root: folder of the run directories in place of the one that the matrix file names.

    Returns:
        Exit status: 0 if every run has its row, 1 if one failed, 130 if stopped.
    """
    matrix = read_matrix(file, results, root)
    console = Console()
    status = run_cells(matrix.cells(), matrix.results, jobs, console=console)
    summary = summarise(read_rows(matrix.results), matrix.names)
    console.print(_rich(summary, f"On the test faces; rows in {matrix.results}"))
    for cell in matrix.cells():
        if pictures := sorted((cell.directory / "figures").glob("*.png")):
            names = ", ".join(picture.name for picture in pictures)
            _say(console, f"Pictures in {cell.directory / 'figures'}: {names}")
    return status


def show_results(file: Path, readme: Path | None = None, matrix: Path | None = None) -> int:
    """Print the table of a results file as Markdown, or put it into a README.

    Args:
        file: results file (CSV).
        readme: README with the markers ``<!-- results:NAME -->`` and ``<!-- /results -->``, NAME being the
            results file's without its suffix; what stands between them is replaced.
        matrix: matrix file whose runs to list even where they have no row yet.

    Returns:
        Exit status, 0.
    """
    planned = read_matrix(matrix).names if matrix else []
    if readme:
        write_readme(readme, file, planned)
    else:
        print(table(file, planned))
    return 0


def run_cells(
    cells: Sequence[Cell],
    results: Path,
    jobs: int = 1,
    program: Sequence[str] = PROGRAM,
    console: Console | None = None,
) -> int:
    """Run the cells that have no row yet; one that fails is reported, and the others run all the same.

    Args:
        cells: what to run, in this order.
        results: results file that gets the rows.
        jobs: number of runs at a time; the progress bar of a single one is shown.
        program: command whose ``fit`` and ``test`` are run.
        console: where to report.

    Returns:
        Exit status: 0 if every cell has its row, 1 if a run failed, 130 if stopped.
    """
    console = console or Console()
    known = {(row["name"], row["seed"]): row.get("config", "") for row in read_rows(results)}
    processes = _Processes(program, jobs)
    writing = threading.Lock()

    def run(cell: Cell) -> None:
        if processes.stopped:
            raise _Stopped
        config = known.get((cell.name, str(cell.seed)), cell.config)
        if config != cell.config:
            raise RunError(f"its row in {results} is of {config}\nDelete that row to run {cell.config}")
        if (cell.name, str(cell.seed)) not in known:
            row = _run(cell, processes, console)
            with writing:
                add_row(results, row)

    failed = False
    with processes.stopping_on_signals(), ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(run, cell): cell for cell in cells}
        for future in as_completed(futures):
            try:
                future.result()
            except _Stopped:
                continue
            except (RunError, OSError, ValueError) as error:
                failed = True
                _say(console, f"{futures[future]} failed: {error}", style="red")
    if processes.stopped:
        _say(console, "Stopped. The same command goes on from here.")
        return 130
    return int(failed)


def _run(cell: Cell, processes: "_Processes", console: Console) -> dict[str, object]:
    """Train and test one cell, or do what is left of that, and return its row."""
    with _own(cell) as log:
        if not _recorded(cell).get("finished"):
            last = cell.directory / "checkpoints" / "last.ckpt"
            _say(console, f"{cell} {'goes on' if last.exists() else 'starts'} in {cell.directory}")
            if last.exists():
                resume = [f"--ckpt_path={last}"]
            else:  # a run stopped before its first checkpoint leaves nothing to go on from
                resume = []
                (cell.directory / "run.json").unlink(missing_ok=True)
            processes.call(["fit", *cell.options, *resume], log, show=True)
            if not _recorded(cell).get("finished"):
                raise RunError(f"fit ended, but {cell.directory / 'run.json'} does not say that it finished")
        for checkpoint in _TESTED.values():
            path = cell.directory / "checkpoints" / f"{checkpoint}.ckpt"
            if path.exists():  # without validation faces there is no best one
                config = cell.directory / "config.yaml"
                processes.call(["test", "--config", str(config), f"--ckpt_path={path}"], log)
    return _row(cell)


@contextmanager
def _own(cell: Cell) -> Iterator[IO[str]]:
    """Open the log of a cell's directory, having made sure that nobody else is at work there, or was.

    The log is locked, and its processes inherit the lock with it: so it also tells of a process that has
    outlived the driver that started it.
    """
    cell.directory.mkdir(parents=True, exist_ok=True)
    with (cell.directory / "log.txt").open("a+", encoding="utf-8") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another process is at work in {cell.directory}; wait for it or end it") from None
        record = cell.directory / "arguments.txt"
        if {entry.name for entry in cell.directory.iterdir()} == {"log.txt"}:
            record.write_text(cell.config, encoding="utf-8")
        config = record.read_text(encoding="utf-8") if record.exists() else "something else than a matrix"
        if config != cell.config:
            raise RunError(f"{cell.directory} is of {config}\nDelete or rename it to run {cell.config}")
        yield log


def _recorded(cell: Cell) -> dict[str, Any]:
    file = cell.directory / "run.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return content


def _row(cell: Cell) -> dict[str, object]:
    run = _recorded(cell)
    if missing := {*_RECORDED, "seed"} - set(run):
        raise RunError(f"{cell.directory / 'run.json'} does not tell {', '.join(sorted(missing))}")
    if run["seed"] != cell.seed:
        raise RunError(f"{cell.directory} was trained with seed {run['seed']}; does a config fix the seed?")
    with (cell.directory / "test.csv").open(newline="", encoding="utf-8") as lines:
        tested = {Path(line["checkpoint"]).stem: line for line in csv.DictReader(lines)}  # the newest counts
    row: dict[str, object] = {"name": cell.name, "seed": cell.seed}
    row |= {key: run[key] for key in _RECORDED}
    row |= {"split": run["split"][:12], "config": cell.config}
    row["selected_epoch"] = tested.get("best", {}).get("epoch", "")
    for prefix, checkpoint in _TESTED.items():
        for metric, value in tested.get(checkpoint, {}).items():
            if metric not in ("checkpoint", "epoch", "step") and value:
                row[f"{prefix}/{metric}"] = float(value)
    return row | _while_training(cell.directory)


def _while_training(directory: Path) -> dict[str, object]:
    """Return the score that chose the epoch, and how much was believed in the last one, and rightly so."""
    scores = [line["val/score"] for line in _lines(directory / "metrics.csv") if line.get("val/score")]
    found: dict[str, object] = {"val/score": max(map(float, scores))} if scores else {}
    believed = [line for line in _lines(directory / "pseudo_labels.csv") if line["emotion"] == "all"]
    for column in ("coverage", "purity"):
        if believed and believed[-1][column]:
            found[f"audit/{column}"] = float(believed[-1][column])
    return found


def _lines(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


class _Processes:
    """The processes that are running now, and how they are stopped."""

    def __init__(self, program: Sequence[str], jobs: int) -> None:
        self.stopped = False
        self._program = program
        self._alone = jobs == 1
        self._environment = dict(os.environ)
        if not self._alone:  # else every run would take every core
            self._environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.RLock()  # a second signal may come while the first is handled

    def call(self, arguments: Sequence[str], log: IO[str], show: bool = False) -> None:
        """Run the program and wait for it.

        Args:
            arguments: of the program.
            log: gets what it prints.
            show: let its standard output through to ours if it runs alone.

        Raises:
            RunError: if it fails, with the end of its log.
            _Stopped: if it was stopped, or not even started because of that.
        """
        with self._lock:
            if self.stopped:
                raise _Stopped
            process = subprocess.Popen(
                [*self._program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=None if show and self._alone else log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # the terminal's Ctrl-C reaches us alone, and we pass it on once
            )
            self._running.add(process)
        status = process.wait()
        with self._lock:
            self._running.remove(process)
        if self.stopped:
            raise _Stopped
        if status:
            log.seek(0)
            tail = "".join(log.readlines()[-_TAIL:])
            raise RunError(f"{arguments[0]} ended with status {status}; the end of {log.name}:\n{tail}")

    @contextmanager
    def stopping_on_signals(self) -> Iterator[None]:
        """Stop the processes, not ourselves, when we are asked to stop."""
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._stop) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Interrupt what is running, as Ctrl-C would; asked again, kill it with all its workers."""
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


def _assign(key: str, value: object) -> str:
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def _say(console: Console, text: str, style: str | None = None) -> None:
    """Print text as it is: no markup, and no line breaks inside paths."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _rich(summary: Summary, title: str) -> Table:
    # Nine columns in a terminal of 80 characters: no frame, and nothing is cut off.
    drawn = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for position, heading in enumerate(summary.header):
        justify: Literal["left", "right"] = "left" if position < 2 else "right"
        drawn.add_column(heading, justify=justify, overflow="fold", no_wrap=position == 0)
    for cells in summary.lines:
        drawn.add_row(*cells)
    return drawn
