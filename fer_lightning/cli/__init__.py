"""The command line program ``fer-lightning``: Lightning's verbs over methods and data, and a few more."""

import sys
from collections.abc import Sequence
from typing import Any

from fer_lightning.errors import InputError

HELP = """usage: fer-lightning VERB [options]        (fer-lightning VERB --help explains each)

Semi-supervised facial expression recognition.

  fit         train a method
  validate    measure a checkpoint on the val faces
  test        measure a checkpoint on the test faces
  predict     write what a checkpoint says of faces into predictions.csv
  splits      make, verify or show which faces are labeled, unlabeled, val and test
  matrix      run every experiment of a file that has no result yet
  results     show a table of results, or write it into a README
  methods     show the table of methods, or write it into a README

Options of a method:    fer-lightning fit --model.help FixMatch
Options of a data set:  fer-lightning fit --data.dataset.help FER2013
A run, whole:           fer-lightning fit --config experiments/trainer.yaml \\
                            --config experiments/data/fer2013.yaml \\
                            --config experiments/methods/fixmatch.yaml --data.labels_per_class 100
What it would do:       the same with --print_config"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the program; bad input ends in one clear message and exit status 2.

    Args:
        args: the command line without the program's name; that of the process if None.

    Returns:
        Exit status.
    """
    words = list(sys.argv[1:] if args is None else args)
    verb = words[0] if words else ""
    if verb in ("", "-h", "--help"):
        print(HELP)
        return 0 if verb else 2
    try:
        if verb in ("splits", "matrix", "results", "methods"):
            return _own_verb(verb, words)
        from fer_lightning.cli.program import run_lightning

        run_lightning(args)
    except Exception as error:
        ours = _input_error(error)
        if ours is None:
            raise
        print(f"error: {ours}", file=sys.stderr)
        return 2
    return 0


def _input_error(error: BaseException | None) -> InputError | None:
    """Return the error of ours behind what the parser made of it, if there is one."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def _own_verb(verb: str, args: list[str]) -> int:
    from jsonargparse import auto_cli

    if verb == "splits":
        from fer_lightning.cli.splits import COMMANDS

        commands: Any = {"splits": COMMANDS}
        return int(auto_cli(commands, args=args, prog="fer-lightning", as_positional=False) or 0)
    from fer_lightning.cli.matrix import run_matrix
    from fer_lightning.cli.methods import show_methods
    from fer_lightning.cli.results import show_results

    run: Any = {"matrix": run_matrix, "results": show_results, "methods": show_methods}[verb]
    return int(auto_cli(run, args=args[1:], prog=f"fer-lightning {verb}") or 0)
