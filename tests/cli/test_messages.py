"""Errors of the parser come in one line each, with the option and the nearest name."""

import pytest

from fer_lightning.cli import main
from fer_lightning.cli.messages import explain, nearest, parameters
from fer_lightning.methods import FixMatch

METHOD = ["--model", "FixMatch"]
FACES = ["--data.dataset", "SyntheticFaces"]


def refused(words, capsys):
    """Run the program on bad input; return its message, an error line and at most a tip."""
    assert main(words) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert 1 <= len(message.splitlines()) <= 2
    return message


REFUSED = {
    # What an option may be.
    "share over 1": (
        "--model.threshold=1.5",
        "--model.threshold must be a number from 0 to 1, not 1.5",
    ),
    "decay over 1": (
        "--model.ema_decay=2",
        "--model.ema_decay must be a number from 0 to 1, 1 excluded, not 2",
    ),
    "negative weight": (
        "--model.unlabeled_weight=-1",
        "--model.unlabeled_weight must be a number of at least 0, not -1",
    ),
    "negative decay": (
        "--model.weight_decay=-1",
        "--model.weight_decay must be a number of at least 0, not -1",
    ),
    "negative warm-up": (
        "--model.warmup_steps=-1",
        "--model.warmup_steps must be a whole number of at least 0, not -1",
    ),
    "no number": ("--model.lr=abc", "--model.lr must be a number above 0, not abc"),
    "empty batch": ("--data.batch_size=0", "--data.batch_size must be a whole number above 0, not 0"),
    "two kinds": (
        "--data.labels_per_class=0",
        "--data.labels_per_class must be a whole number above 0 or a mapping, not 0",
    ),
    "choice": ("--data.val=foo", "--data.val must be official, carved or none, not foo"),
    "option of a data set": (
        "--data.dataset.train=-3",
        "--data.dataset.train must be a whole number of at least 0, not -3",
    ),
    "option of the trainer": ("--trainer.max_steps=x", "--trainer.max_steps must be a whole number, not x"),
    "missing file": ("--config=none.yaml", "--config: File does not exist"),
    "word without dashes": ("fast", "fast: not understood\ntip: fer-lightning fit --help"),
    # Names that do not exist.
    "method in lower case": ("--model=fixmatch", "no method 'fixmatch' for --model; did you mean FixMatch?"),
    "method in a module": (
        "--model=fer_lightning.methods.Fixmatch",
        "no method 'fer_lightning.methods.Fixmatch' for --model; did you mean FixMatch?",
    ),
    "method unlike any": ("--model=YOLO", "no method 'YOLO' for --model; there are AdaCM"),
    "data set": (
        "--data.dataset=fer2031",
        "no data set 'fer2031' for --data.dataset; did you mean FER2013?",
    ),
    "other class": (
        "--data.weak=WeekView",
        "no class 'WeekView' for --data.weak; did you mean WeakView?",
    ),
    "misspelled option": (
        "--data.batchsize=3",
        "no option --data.batchsize; did you mean --data.batch_size?",
    ),
    "shortened option": (
        "--trainer.max_step=3",
        "no option --trainer.max_step; did you mean --trainer.max_steps?",
    ),
    "misspelled option of a method": (
        "--model.treshold=0.9",
        "no option --model.treshold of FixMatch; did you mean --model.threshold?\n"
        "tip: fer-lightning fit --model.help FixMatch",
    ),
    "misspelled option of a data set": (
        "--data.dataset.trian=3",
        "no option --data.dataset.trian of SyntheticFaces; did you mean --data.dataset.train?",
    ),
    "option without its section": ("--lr=0.1", "no option --lr; did you mean --model.lr?"),
    "Lightning's optimizer": (
        "--optimizer=Adam",
        "no option --optimizer; did you mean --model.optimizer?",
    ),
    "Lightning's scheduler": ("--lr_scheduler=StepLR", "no option --lr_scheduler"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_message_names_the_option(case, capsys):
    word, expected = REFUSED[case]
    assert expected in refused(["fit", *FACES, *METHOD, word], capsys)


def test_message_names_options_of_files(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    for content, expected in (
        ("data: {batchsize: 3}", "no option --data.batchsize; did you mean --data.batch_size?"),
        (
            "model: {class_path: FixMatch, init_args: {threshold: 3}}",
            "--model.threshold must be a number from 0 to 1, not 3",
        ),
        (
            "model: {class_path: FixMatch, threshold: 0.9}",
            "--model: the options beside class_path belong into init_args",
        ),
        (
            "data: {dataset: {class_path: fer_lightning.data.datasets.FER2031}}",
            "no data set 'fer_lightning.data.datasets.FER2031' for --data.dataset; did you mean FER2013?",
        ),
    ):
        file.write_text(content)
        assert expected in refused(["fit", *METHOD, *FACES, "--config", str(file)], capsys)


def test_what_is_missing_is_named(capsys):
    assert "--data.dataset is missing" in refused(["fit", *METHOD], capsys)
    assert "--data.dataset and --model are missing" in refused(["fit"], capsys)
    assert "--data.dataset.root is missing" in refused(["fit", *METHOD, "--data.dataset=FER2013"], capsys)
    assert "--output is missing" in refused(["splits", "make", "--dataset", "SyntheticFaces"], capsys)
    assert "error: file is missing" in refused(["matrix"], capsys)


def test_own_verbs_name_the_nearest(capsys):
    assert "no verb 'fitt'; did you mean fit?" in refused(["fitt"], capsys)
    assert "no 'mak' here; did you mean make?" in refused(["splits", "mak"], capsys)
    message = refused(["splits", "make", "--dataset=fer2031", "--output=split.json"], capsys)
    assert "no data set 'fer2031' for --dataset; did you mean FER2013?" in message
    message = refused(["splits", "make", "--label_total=3", "--dataset=SyntheticFaces"], capsys)
    assert "did you mean --labels_total?" in message


def test_nearest_is_like_the_word_or_nothing():
    assert nearest("model.treshold", ["model.lr", "model.threshold"]) == "model.threshold"
    assert nearest("epochs", ["trainer.max_epochs", "trainer.max_steps"]) == "trainer.max_epochs"
    assert nearest("YOLO", ["FixMatch", "UDA"]) is None
    assert nearest("anything", []) is None


def test_parameters_are_those_of_the_bases_too():
    assert {"threshold", "lr", "emotions"} <= set(parameters(FixMatch))
    assert not {"self", "kwargs", "args"} & set(parameters(FixMatch))


def test_unknown_form_of_message_comes_on_one_line():
    assert explain("one\n   thing", ["fit"]) == "one thing"
