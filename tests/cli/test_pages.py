"""The pages of --help are written down; here they are compared with the parser."""

import os
import subprocess
import sys
from typing import get_args, get_type_hints

import pytest
import yaml
from every import EXPERIMENTS

import fer_lightning.data.datasets
import fer_lightning.methods
from fer_lightning import ranges
from fer_lightning.cli import HELP, LIGHTNING, OWN, main
from fer_lightning.cli.pages import DATASETS, METHODS, PAGES, UNSET, page
from fer_lightning.cli.program import DEFAULT_MAX_STEPS, RUN_OPTIONS
from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.methods.base import SemiSupervised

RANGES = {
    ranges.PositiveInt: "> 0",
    ranges.NonNegativeInt: ">= 0",
    ranges.PositiveFloat: "> 0",
    ranges.Momentum: "0 to < 1",
}


def rows(verb):
    return [row for group in PAGES[verb][1].values() for row in group]


def options(verb, capsys):
    """Every option of a verb and its default, over all data sets."""
    found = {"config": None, "print_config": None}
    required = {"FER2013": "root", "FERPlus": "root", "FaceFolder": "labeled", "FaceTable": "table"}
    for name in DATASETS:
        given = [f"--data.dataset.{required[name]}=here"] if name in required else []
        with pytest.raises(SystemExit):
            main([verb, "--model=FixMatch", f"--data.dataset={name}", *given, "--print_config"])
        config = yaml.safe_load(capsys.readouterr().out)
        found |= {key: value for key, value in config.items() if not isinstance(value, dict)}
        found |= {"model": None, "data.dataset": None}
        found |= {f"model.{key}": value for key, value in config["model"]["init_args"].items()}
        found |= {f"data.{key}": value for key, value in config["data"].items() if key != "dataset"}
        found |= {f"trainer.{key}": value for key, value in config["trainer"].items()}
        found |= {f"data.dataset.{key}": None for key in config["data"]["dataset"]["init_args"]}
    return found


@pytest.mark.parametrize("verb", PAGES)
def test_every_option_and_default_is_the_parser_s(verb, capsys):
    known = options(verb, capsys)
    for row in rows(verb):
        assert row.name in known
        if row.name in UNSET:
            assert known[row.name] in (None, -1)
        elif row.default and row.name != "trainer.default_root_dir":
            assert yaml.safe_load(row.default) == known[row.name], row.name
        elif not row.default:
            assert known[row.name] is None, row.name


def test_every_range_is_that_of_the_type():
    hints = {
        f"{section}.{name}": hint
        for section, cls in (("data", SemiSupervisedFaces), ("model", SemiSupervised))
        for name, hint in get_type_hints(cls.__init__).items()
    }
    hints |= {name: kind for name, (kind, _) in RUN_OPTIONS.items()}
    for row in (row for verb in PAGES for row in rows(verb)):
        hint = hints.get(row.name)
        stated = [RANGES[kind] for kind in (hint, *get_args(hint)) if kind in RANGES]
        assert stated[:1] == ([row.range] if row.range else []), row.name


def test_the_classes_are_all_there_are():
    assert set(METHODS) == set(fer_lightning.methods.__all__) - {"SemiSupervised"}
    bases = {"FaceDataset", "Faces", "DataError"}
    assert set(DATASETS) == set(fer_lightning.data.datasets.__all__) - bases | {"SyntheticFaces"}
    (length,) = [row for row in rows("fit") if row.name == "trainer.max_steps"]
    assert int(length.default) == DEFAULT_MAX_STEPS


@pytest.mark.parametrize("verb", PAGES)
def test_a_page_fits_a_terminal_and_shows_the_way_to_the_rest(verb):
    lines = page(verb).splitlines()
    assert len(lines) < 70
    assert max(map(len, lines)) <= 80
    assert f"fer-lightning {verb} --help_all" in page(verb)


def test_help_imports_nothing_heavy_and_names_every_verb():
    code = (
        "import sys; from fer_lightning.cli import main\n"
        "assert [main([*words, '--help']) for words in ([], ['fit'], ['test'])] == [0, 0, 0]\n"
        "assert not {'torch', 'lightning', 'jsonargparse'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(EXPERIMENTS.parent)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert page("fit") in done.stdout
    for verb in (*LIGHTNING, *OWN):
        assert f"\n  {verb} " in HELP


def test_the_rest_is_one_option_away(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help_all"])
    everything = capsys.readouterr().out
    assert "--trainer.gradient_clip_val" in everything
    assert "--optimizer " not in everything
    with pytest.raises(SystemExit):
        main(["fit", "--model.help", "FixMatch"])
    shown = capsys.readouterr().out
    for text in ("--model.threshold", "confidence from which", "--model.lr", "highest learning rate"):
        assert text in shown
