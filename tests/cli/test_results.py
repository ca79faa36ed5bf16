import io
import re
from pathlib import Path

import pytest
import yaml
from light_method import LightMethod
from rich.console import Console

from fer_lightning.cli import main
from fer_lightning.cli.results import draw, show_results
from fer_lightning.cli.versions import Version
from fer_lightning.errors import InputError
from fer_lightning.outputs.results import add_row, summarize


@pytest.fixture
def matrix(tmp_path):
    config = tmp_path / "method.yaml"
    config.write_text("model: {class_path: light_method.LightMethod}")
    file = tmp_path / "matrix.yaml"
    runs = [{"name": "supervised"}, {"name": "fixmatch", "args": {"model.lr": 1}}]
    content = {"results": "r.csv", "root": "runs", "configs": [str(config)], "runs": runs}
    file.write_text(yaml.safe_dump(content | {"baseline": "supervised"}))
    return file


@pytest.fixture
def results(tmp_path, matrix):
    """A results file with a row of the first run of the matrix."""
    config = str(tmp_path / "method.yaml")
    version = Version.of(config)
    row = {"name": "supervised", "seed": 0, "labels": 70, "config": config, "best/accuracy": 0.5}
    add_row(tmp_path / "results.csv", row | version._asdict())
    return tmp_path / "results.csv"


def test_a_matrix_adds_what_was_not_run(results, matrix, capsys):
    assert show_results(results) == 0
    assert "fixmatch" not in capsys.readouterr().out
    assert show_results(results, matrix=matrix) == 0
    assert capsys.readouterr().out.endswith("|\n\nNot run: fixmatch.\n")


def test_the_table_goes_between_the_markers_of_its_file(results, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results:results --><!-- /results -->")
    assert show_results(results, readme) == 0
    assert "| supervised | 70 | 1 | 50.00 | not run |" in readme.read_text()


def test_a_stale_row_is_shown_as_stale(results, matrix, capsys, monkeypatch):
    monkeypatch.setattr(LightMethod, "revision", 2)
    for planned in (None, matrix):
        show_results(results, matrix=planned)
        assert "| supervised |  | 0 + 1 stale | stale | stale |" in capsys.readouterr().out


def test_a_file_that_is_not_there_is_named(tmp_path, matrix, capsys):
    with pytest.raises(InputError, match=r"nope\.csv does not exist"):
        show_results(tmp_path / "nope.csv")
    assert main(["results", str(tmp_path / "nope.csv")]) == 2
    assert "nope.csv does not exist" in capsys.readouterr().err
    show_results(tmp_path / "nope.csv", matrix=matrix)  # nothing of it was run yet
    assert capsys.readouterr().out == "Not run: supervised, fixmatch.\n"


def test_a_foreign_csv_is_refused_by_name(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step\n0,1\n")
    with pytest.raises(InputError, match=r"metrics\.csv is no results file"):
        show_results(tmp_path / "metrics.csv")


@pytest.mark.parametrize("baselines", ["supervised", "several"])
def test_in_80_columns_every_run_has_one_line_with_its_whole_name_and_gain(baselines):
    names = ["supervised", "scl_uerm_arm", "scl_uerm_arm-no_unlabeled"]
    compared = {"supervised": None, "scl_uerm_arm": "supervised", "scl_uerm_arm-no_unlabeled": "scl_uerm_arm"}
    if baselines == "supervised":
        compared = dict.fromkeys(names, "supervised")
    row = {"labels": "70", "audit/coverage": "1", "audit/purity": "0.5", "last/accuracy": "0.5"}
    row |= {f"best/{metric}": "0.5" for metric in ("uar", "ece")}
    rows = [
        row | {"name": name, "seed": str(seed), "best/accuracy": str(0.4 + 0.1 * rank + 0.05 * seed * rank)}
        for rank, name in enumerate(names)
        for seed in (0, 1)
    ]
    summary = summarize(rows, compared)
    console = Console(file=io.StringIO(), width=80)
    draw(summary, "title", console)
    title, *lines = console.file.getvalue().splitlines()
    assert title == "title; 70 labels"
    assert max(map(len, lines)) <= 80
    for name, *cells in summary.lines:
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert [cell.strip() for cell in line.split("  ") if cell.strip()] == [name, *cells[1:5]]
    assert "Not shown here: " in " ".join(lines)


def test_a_terminal_names_what_was_not_run():
    console = Console(file=io.StringIO(), width=80)
    draw(summarize([], {"uda": None, "mixmatch": None}), "title", console)
    assert console.file.getvalue() == "title\nNot run: uda, mixmatch.\n"


def test_different_numbers_of_labels_keep_their_column():
    rows = [{"name": name, "seed": "0", "labels": labels} for name, labels in (("a", "70"), ("b", "700"))]
    console = Console(file=io.StringIO(), width=80)
    draw(summarize(rows), "title", console)
    assert console.file.getvalue().startswith("title\n")
    assert "labels" in console.file.getvalue()
    assert "700" in console.file.getvalue()


def test_a_wide_terminal_shows_every_column():
    rows = [{"name": "uda", "seed": "0", "labels": "70", "best/accuracy": "0.5", "audit/purity": "0.25"}]
    console = Console(file=io.StringIO(), width=200)
    draw(summarize(rows), "title", console)
    assert "25.00" in console.file.getvalue()
    assert "Not shown" not in console.file.getvalue()


ROOT = Path(__file__).parents[2]
TABLES = [
    (page, name)
    for page in ("README.md", "experiments/results/README.md")
    if (ROOT / page).is_file()
    for name in re.findall(r"<!-- results:(\w+) -->", (ROOT / page).read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("page", "name"), TABLES)
def test_every_table_shown_is_of_rows_that_are_not_stale(page, name, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    results, matrix = Path(f"experiments/results/{name}.csv"), Path(f"experiments/{name}.yaml")
    show_results(results, matrix=matrix)
    table = capsys.readouterr().out.strip()
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = text.split(f"<!-- results:{name} -->")[1].split("<!-- /results -->")[0].strip()
    assert shown == table, f"run: fer-lightning results {results} --matrix {matrix} --readme {page}"
    assert "stale" not in shown
