import os

import pytest

from fer_lightning.errors import InputError
from fer_lightning.outputs.results import add_row, read_rows, summarise, table, write_readme


def row(name, seed, accuracy, labels="10 per class", **more):
    return {"name": name, "seed": seed, "labels": labels, "selected/accuracy": accuracy, **more}


def test_a_row_replaces_the_one_with_its_name_and_seed(tmp_path):
    file = tmp_path / "deep" / "results.csv"
    add_row(file, row("floor", 0, 0.1))
    add_row(file, row("floor", 1, 0.2))
    add_row(file, row("floor", 0, 0.3))
    assert [(r["name"], r["seed"], r["selected/accuracy"]) for r in read_rows(file)] == [
        ("floor", "0", "0.3"),
        ("floor", "1", "0.2"),
    ]


def test_rows_keep_methods_together_and_seeds_in_numeric_order(tmp_path):
    file = tmp_path / "results.csv"
    for name, seed in (("floor", 10), ("ceiling", 0), ("floor", 2)):
        add_row(file, row(name, seed, 0.5))
    assert [(r["name"], r["seed"]) for r in read_rows(file)] == [
        ("floor", "2"),
        ("floor", "10"),
        ("ceiling", "0"),
    ]


def test_rows_of_different_columns_share_a_file(tmp_path):
    file = tmp_path / "results.csv"
    add_row(file, row("floor", 0, 0.5))
    add_row(file, row("fixmatch", 0, 0.25, **{"selected/ece": 0.1}))
    floor, fixmatch = read_rows(file)
    assert (floor["selected/ece"], fixmatch["selected/ece"]) == ("", "0.1")


def test_float32_noise_is_not_written(tmp_path):
    add_row(tmp_path / "results.csv", row("floor", 0, 0.41890001296997070))
    assert read_rows(tmp_path / "results.csv")[0]["selected/accuracy"] == "0.4189"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "results.csv"
    add_row(file, row("floor", 0, 0.5))
    before = file.read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        add_row(file, row("floor", 1, 0.5))
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_foreign_csv_is_refused_by_name(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,step\n0,1\n")
    with pytest.raises(InputError, match=r"metrics\.csv is no results file: it lacks the columns name, seed"):
        read_rows(file)


def test_summary_is_mean_and_sample_deviation_in_percent():
    rows = [
        {
            "name": "floor",
            "seed": str(seed),
            "labels": "70",
            "selected/accuracy": accuracy,
            "last/accuracy": "0.5",
        }
        for seed, accuracy in enumerate(("0.40", "0.42", "0.44"))
    ]
    summary = summarise(rows)
    assert summary.header == ["method", "labels", "seeds", "accuracy %", "last epoch: accuracy %"]
    assert summary.lines == [["floor", "70", "3", "42.00 ± 2.00", "50.00 ± 0.00"]]  # (4 + 0 + 4) / 2 = 2²


def test_one_seed_has_no_deviation_and_planned_runs_without_a_row_say_so():
    rows = [
        {"name": "floor", "seed": "0", "labels": "70", "selected/accuracy": "0.4", "selected/ece": "0.05"}
    ]
    assert summarise(rows, ["fixmatch", "floor"]).lines == [
        ["fixmatch", "", "0", "not run", "not run", "not run"],
        ["floor", "70", "1", "40.00", "5.00", "not run"],
    ]


def test_valence_and_arousal_are_not_percentages():
    rows = [{"name": "floor", "seed": "0", "selected/ccc_valence": "0.4", "selected/ccc_arousal": "0.3"}]
    summary = summarise(rows)
    assert summary.header[3:] == ["CCC valence", "CCC arousal"]
    assert summary.lines[0][3:] == ["0.40", "0.30"]


def test_markdown_has_as_many_cells_in_every_line(tmp_path):
    add_row(tmp_path / "results.csv", row("floor", 0, 0.5))
    lines = table(tmp_path / "results.csv", ["ceiling"]).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1


def test_readme_gets_the_table_between_its_markers_each_time(tmp_path):
    file, readme = tmp_path / "fer2013.csv", tmp_path / "README.md"
    readme.write_text(
        "Before\n<!-- results:fer2013 -->old<!-- /results -->\nAfter <!-- results:x -->x<!-- /results -->\n"
    )
    for accuracy in (0.25, 0.5):
        add_row(file, row("floor", 0, accuracy))
        write_readme(readme, file)
    assert readme.read_text() == (
        f"Before\n<!-- results:fer2013 -->\n{table(file)}\n<!-- /results -->\n"
        "After <!-- results:x -->x<!-- /results -->\n"
    )
    assert "50.00" in readme.read_text()


def test_readme_without_markers_is_an_error(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("Nothing here")
    with pytest.raises(InputError, match="<!-- results:fer2013 -->"):
        write_readme(readme, tmp_path / "fer2013.csv")


def test_what_was_believed_stands_beside_what_came_of_it(tmp_path):
    file = tmp_path / "results.csv"
    add_row(file, row("floor", 0, 0.5, **{"val/score": 0.5}))
    for seed, purity in enumerate((0.8, 0.9)):
        training = {"val/score": 0.6, "audit/coverage": 0.5, "audit/purity": purity}
        add_row(file, row("fixmatch", seed, 0.5, **training))
    summary = summarise(read_rows(file), ["later"])
    assert summary.header[-3:] == ["validation score %", "coverage %", "purity %"]
    believed = {line[0]: line[-3:] for line in summary.lines}
    assert believed == {
        "later": ["–", "–", "–"],
        "floor": ["50.00", "–", "–"],  # which believes nothing
        "fixmatch": ["60.00 ± 0.00", "50.00 ± 0.00", "85.00 ± 7.07"],
    }


def test_gains_are_paired_by_seed_and_over_what_a_run_varies():
    rows = [
        {"name": name, "seed": str(seed), "selected/accuracy": str(accuracy)}
        for name, accuracies in {
            "floor": {0: 0.4, 1: 0.6},
            "sser": {0: 0.5, 1: 0.7, 2: 0.1},  # the floor has no third seed
            "sser-no_amt": {0: 0.48, 1: 0.64},
            "sser-no_amt-twice": {1: 0.66},
            "sserious": {0: 0.3},
        }.items()
        for seed, accuracy in accuracies.items()
    ]
    summary = summarise(rows, ["later"])
    assert summary.header[3:5] == ["accuracy %", "gain in points over"]
    assert {line[0]: line[4] for line in summary.lines} == {
        "later": "–",
        "floor": "–",
        "sser": "+10.00 ± 0.00 floor",
        "sser-no_amt": "-4.00 ± 2.83 sser",
        "sser-no_amt-twice": "+2.00 sser-no_amt",
        "sserious": "-10.00 floor",
    }
