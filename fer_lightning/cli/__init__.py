"""The command line program ``fer-lightning``: Lightning's verbs over methods and data, and a few more."""

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import fer_lightning
from fer_lightning.cli.refusals import LIGHTNING, REPORT, message_of
from fer_lightning.errors import InputError

HELP = """usage: fer-lightning VERB [options]        (fer-lightning VERB --help explains each)

Semi-supervised facial expression recognition.

  fit         train a method
  validate    evaluate a checkpoint on the val faces
  test        evaluate a checkpoint on the test faces
  predict     write the predictions of a checkpoint into a table
  recognize   find the faces in pictures, a video or a camera, and write their emotions into a table
  calibrate   make the confidences of a checkpoint fit, and choose when it abstains
  configs     write the configuration files of this package into a folder
  data        list the data sets and their terms; check an archive against its published counts
  splits      make, verify or show which faces are labeled, unlabeled, val and test
  matrix      run every experiment of a file that has no result yet
  results     show a table of results, or write it into a README
  methods     show the table of methods, or write it into a README

Options of a method:    fer-lightning fit --model.help FixMatch
Options of a data set:  fer-lightning fit --data.dataset.help FaceFolder
A run, whole:           fer-lightning configs experiments
                        fer-lightning fit --config experiments/trainer.yaml \\
                            --config experiments/data/fer2013.yaml \\
                            --config experiments/methods/fixmatch.yaml --data.labels_per_class 100
Its resolved options:   the same with --print_config"""
OWN = ("recognize", "calibrate", "configs", "data", "splits", "matrix", "results", "methods")


def main(args: Sequence[str] | None = None) -> int:
    """Run the program; bad input ends in one clear message and exit status 2.

    Args:
        args: the command line without the program's name; that of the process if None.

    Returns:
        Exit status.
    """
    words = list(sys.argv[1:] if args is None else args)
    verb, options = (words[0], words[1:]) if words else ("", [])
    if verb in ("", "-h", "--help"):
        print(HELP)
        return 0 if verb else 2
    if verb == "--version":
        print(f"fer-lightning {fer_lightning.__version__}")
        return 0
    try:
        status = (_lightning_verb if verb in LIGHTNING else _own_verb)(verb, options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # what reads the output has ended, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere
        return 0
    except Exception as error:
        message = message_of(error, words)
        if message is None:
            error.add_note(REPORT)
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2


def _lightning_verb(verb: str, options: Sequence[str]) -> int:
    if {"-h", "--help"} & set(options):  # built without importing torch, which takes seconds
        from fer_lightning.cli.pages import page

        print(page(verb))
        return 0
    from fer_lightning.cli.program import run

    run([verb, *("--help" if word == "--help_all" else word for word in options)])
    return 0


def _own_verb(verb: str, options: Sequence[str]) -> int:
    from jsonargparse import auto_cli

    component: Any
    if verb == "recognize":
        from fer_lightning.cli.recognize import recognize

        component = recognize
    elif verb == "calibrate":
        from fer_lightning.cli.calibrate import calibrate

        component = calibrate
    elif verb == "configs":
        from fer_lightning.cli.configs import write_configs

        component = write_configs
    elif verb == "data":
        from fer_lightning.cli.data import COMMANDS as DATA_COMMANDS

        component = DATA_COMMANDS
    elif verb == "splits":
        from fer_lightning.cli.splits import COMMANDS

        component = COMMANDS
    elif verb == "matrix":
        from fer_lightning.cli.matrix import run_matrix

        component = run_matrix
    elif verb == "results":
        from fer_lightning.cli.results import show_results

        component = show_results
    elif verb == "methods":
        from fer_lightning.cli.methods import show_methods

        component = show_methods
    else:
        near = get_close_matches(verb, (*LIGHTNING, *OWN), 1)
        tip = f"did you mean {near[0]}?" if near else "fer-lightning --help lists them"
        raise InputError(f"no verb {verb!r}; {tip}")
    status = auto_cli(
        component,
        args=list(options),
        as_positional=verb != "splits",
        prog=f"fer-lightning {verb}",
        exit_on_error=False,
        allow_abbrev=False,
    )
    return int(status or 0)
