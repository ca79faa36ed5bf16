from pathlib import Path

import pytest
from every import METHODS

from fer_lightning.cli import main
from fer_lightning.cli.methods import HEADER, MARKERS, method_table, methods, show_methods
from fer_lightning.errors import InputError

README = Path(__file__).parents[2] / "experiments/README.md"


def test_a_line_per_method_without_an_empty_cell():
    assert HEADER == ("method", "paper", "pseudo-labels", "learns from unlabeled faces", "extra state")
    header, ruler, *lines = method_table().splitlines()
    assert [cell.strip() for cell in header.strip("|").split("|")] == list(HEADER)
    assert ruler.count("---") == len(HEADER)
    assert len(lines) == len(METHODS)
    for method, line in zip(methods(), lines, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == len(HEADER)
        assert all(cells)
        assert method.__name__ in cells[0]


def test_the_readme_has_the_table_of_these_classes():
    opening, closing = MARKERS
    between = README.read_text(encoding="utf-8").split(opening)[1].split(closing)[0]
    assert between.strip() == method_table(), "run: fer-lightning methods --readme experiments/README.md"


def test_it_is_written_between_the_markers_and_nowhere_else(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- methods -->\nold\n<!-- /methods -->\nafter\n")
    assert main(["methods", "--readme", str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith("before\n<!-- methods -->\n| method")
    assert text.endswith("|\n<!-- /methods -->\nafter\n")
    assert "\nold\n" not in text  # "threshold" may be
    readme.write_text("nothing")
    with pytest.raises(InputError, match="<!-- methods -->"):
        show_methods(readme)


@pytest.mark.parametrize("name", METHODS)
def test_a_docstring_names_the_paper_and_where_the_class_differs_from_it(name):
    method = METHODS[name]
    text = " ".join((method.__doc__ or "").split())
    assert method.about.year or name == "supervised"
    if method.about.url:
        assert method.about.url in text, "the docstring gives the paper's address"
        assert "aper" in text
        words = ("ours", "Differences", "a reconstruction")
        assert any(word in text for word in words), "the docstring names the differences to the paper"
