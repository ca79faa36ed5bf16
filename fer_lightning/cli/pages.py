"""The help of fit, validate, test and predict: a page of the options that people use.

Written down here and not read from the classes, because importing torch takes seconds. A test compares every
option, default and range with the parser.
"""

from itertools import zip_longest
from textwrap import wrap
from typing import NamedTuple

METHODS = (
    *("AdaCM", "CoMatch", "DTASNL", "FixMatch", "FlexMatch", "FreeMatch", "MeanTeacher", "MixMatch"),
    *("PseudoLabel", "SCLUERMARM", "SITFER", "SSER", "SimMatch", "SoftMatch", "Supervised", "UDA"),
)
DATASETS = (
    "FER2013",
    "FERPlus",
    "RAFDB",
    "AffectNet",
    "SFEW",
    "CKPlus",
    "AFEWVA",
    "AffWild2",
    "FaceFolder",
    "FaceTable",
    "SyntheticFaces",
)


class Row(NamedTuple):
    """One option on a page."""

    name: str
    help: str
    default: str = ""
    """As it is given on the command line; empty if there is none."""
    range: str = ""


_CONFIG = (
    Row("config", "YAML file of options; may be repeated, later ones count"),
    Row("print_config", "print the options of the run as YAML, and stop"),
)
_MODEL = (
    Row("model", "class of the method: " + ", ".join(METHODS)),
    Row("model.backbone", "wrn_28_2, wrn_16_2 or a model of timm", "wrn_28_2"),
    Row("model.stem", "small: for a ResNet at under 64 pixels", "standard"),
    Row("model.pretrained", "start from timm's weights of the hub", "false"),
    Row("model.weights", "start from a local file of weights"),
    Row("model.emotions", "basic8, ferplus, ... or a list", "basic7"),
    Row("model.targets", "classes, valence_arousal or both", "classes"),
    Row("model.optimizer", "sgd or adamw", "sgd"),
    Row("model.lr", "highest learning rate", "0.03", "> 0"),
    Row("model.ema_decay", "of the teacher; 0 for none", "0.999", "0 to < 1"),
)
_DATASET = (
    Row("data.dataset", "class of the data set: " + ", ".join(DATASETS)),
    Row("data.dataset.root", "of a published set: its folder"),
    Row("data.dataset.labeled", "of FaceFolder: folder with a folder per emotion"),
    Row("data.dataset.unlabeled", "of FaceFolder: folder of unlabeled faces"),
    Row("data.dataset.table", "of FaceTable: CSV or parquet, a row per face"),
)
_SPLIT = (
    Row("data.labels_per_class", "labels of each emotion to use", "all", "> 0"),
    Row("data.labels_total", "or labels in all, spread over the emotions", "", "> 0"),
    Row("data.seed", "draws labeled faces, order and views", "0", ">= 0"),
    Row("data.val", "official, carved out of the labels, none", "official"),
    Row("data.manifest", "split file of `fer-lightning splits make`"),
)
_BATCHES = (
    Row("data.image_size", "side of the images in pixels", "48", "> 0"),
    Row("data.batch_size", "labeled faces, over all devices", "64", "> 0"),
    Row("data.unlabeled_ratio", "unlabeled faces per labeled one", "7", "> 0"),
    Row("data.steps_per_epoch", "batches between validations", "1000", "> 0"),
    Row("data.workers", "processes that prepare batches", "2", ">= 0"),
)
_LENGTH = (
    Row("trainer.max_steps", "steps, if no epochs or time are given", "20000"),
    Row("trainer.max_epochs", "or epochs"),
    Row("trainer.max_time", "or days:hours:minutes:seconds"),
    Row("resume", "auto: go on from the run's last checkpoint", "never"),
    Row("ckpt_path", "or from this one (checkpoints/last.ckpt)"),
    Row("change_length", "go on for more or fewer steps than planned", "false"),
    Row("seed_everything", "draws initial weights, dropout, mixing", "0"),
)
_MACHINE = (
    Row("trainer.accelerator", "cpu, gpu, ...", "auto"),
    Row("trainer.devices", "number of devices, or a list of them", "auto"),
    Row("trainer.precision", "bf16-mixed, 16-mixed, ...", "32-true"),
    Row("trainer.default_root_dir", "run directory", "runs/METHOD-TIME"),
    Row("trainer.logger", "WandbLogger, ... beside the CSV file"),
    Row("checkpoint_every_minutes", "renew last.ckpt within an epoch too", "10", "> 0"),
)
_CHECKPOINT = (
    Row("config", "config.yaml of the run, with its method and data"),
    Row("ckpt_path", "a checkpoint; by default the best of the run"),
    Row("data.dataset.root", "where the data set is by now; and all of fit's"),
)
_EVALUATION = (
    Row("data.eval_batch_size", "faces of a batch", "512", "> 0"),
    *_MACHINE[:3],
    Row("trainer.default_root_dir", "where to write", "that of the checkpoint"),
)
_PREDICTION = (Row("data.predict_on", "labeled, unlabeled, val or test", "test"),)
UNSET = {"data.labels_per_class", "trainer.max_steps", "trainer.precision", "trainer.default_root_dir"}
"""Options whose default on the page is what happens without a value."""

PAGES: dict[str, tuple[str, dict[str, tuple[Row, ...]]]] = {
    "fit": (
        "Train a method.",
        {
            "Options in files": _CONFIG,
            "Method": _MODEL,
            "Data set": _DATASET,
            "Split": _SPLIT,
            "Batches": _BATCHES,
            "Length": _LENGTH,
            "Machine and output": _MACHINE,
        },
    ),
    "validate": (
        "Evaluate a checkpoint on the validation faces.",
        {"Checkpoint": _CHECKPOINT, "Machine and output": _EVALUATION},
    ),
    "test": (
        "Evaluate a checkpoint on the test faces; a row is added to test.csv.",
        {"Checkpoint": _CHECKPOINT, "Machine and output": _EVALUATION},
    ),
    "predict": (
        "Write the predictions of a checkpoint into predictions-PART.csv.",
        {"Checkpoint": _CHECKPOINT, "Faces": _PREDICTION, "Machine and output": _EVALUATION},
    ),
}
"""A sentence and the groups of options of each verb."""
_USAGE = {
    "fit": "usage: fer-lightning {verb} --model METHOD --data.dataset DATASET [options]",
    "others": (
        "usage: fer-lightning {verb} --config runs/a/config.yaml \\\n"
        "           --ckpt_path runs/a/checkpoints/best.ckpt [options]"
    ),
}
_MORE = """More:
  fer-lightning {verb} --model.help FixMatch       every option of a method
  fer-lightning {verb} --data.dataset.help FER2013 every option of a data set
  fer-lightning {verb} --help_all                  every option there is"""
_COLUMN, _WIDTH = 29, 80


def page(verb: str) -> str:
    """Return the help of a verb.

    Args:
        verb: ``fit``, ``validate``, ``test`` or ``predict``.
    """
    sentence, groups = PAGES[verb]
    usage = _USAGE["fit" if verb == "fit" else "others"].format(verb=verb)
    lines = [usage, "", sentence, "In brackets: default, range."]
    for title, rows in groups.items():
        lines += ["", f"{title}:", *(line for row in rows for line in _lines(row))]
    return "\n".join([*lines, "", _MORE.format(verb=verb)])


def _lines(row: Row) -> list[str]:
    """Return an option in columns, its explanation wrapped."""
    marks = ", ".join(filter(None, (row.default, row.range)))
    texts = wrap(f"{row.help} [{marks}]" if marks else row.help, _WIDTH - _COLUMN)
    columns = zip_longest([f"  --{row.name}"], texts, fillvalue="")
    return [f"{option:<{_COLUMN}}{text}" for option, text in columns]
