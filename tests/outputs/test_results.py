import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from fer_lightning.errors import InputError
from fer_lightning.files import NotWritten
from fer_lightning.outputs.results import add_row, markdown, put_between, read_rows, summarize


def row(name, seed, accuracy, labels="10 per class", **more):
    return {"name": name, "seed": seed, "labels": labels, "best/accuracy": accuracy, **more}


def test_a_row_replaces_the_one_with_its_name_and_seed(tmp_path):
    file = tmp_path / "deep" / "results.csv"
    add_row(file, row("supervised", 0, 0.1))
    add_row(file, row("supervised", 1, 0.2))
    add_row(file, row("supervised", 0, 0.3))
    assert [(r["name"], r["seed"], r["best/accuracy"]) for r in read_rows(file)] == [
        ("supervised", "0", "0.3"),
        ("supervised", "1", "0.2"),
    ]


def test_rows_keep_methods_together_and_seeds_in_numeric_order(tmp_path):
    file = tmp_path / "results.csv"
    for name, seed in (("supervised", 10), ("fully_supervised", 0), ("supervised", 2)):
        add_row(file, row(name, seed, 0.5))
    assert [(r["name"], r["seed"]) for r in read_rows(file)] == [
        ("supervised", "2"),
        ("supervised", "10"),
        ("fully_supervised", "0"),
    ]


def test_rows_of_different_columns_share_a_file(tmp_path):
    file = tmp_path / "results.csv"
    add_row(file, row("supervised", 0, 0.5))
    add_row(file, row("fixmatch", 0, 0.25, **{"best/ece": 0.1}))
    supervised, fixmatch = read_rows(file)
    assert (supervised["best/ece"], fixmatch["best/ece"]) == ("", "0.1")


def test_float32_noise_is_not_written(tmp_path):
    add_row(tmp_path / "results.csv", row("supervised", 0, 0.41890001296997070))
    assert read_rows(tmp_path / "results.csv")[0]["best/accuracy"] == "0.4189"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "results.csv"
    add_row(file, row("supervised", 0, 0.5))
    before = file.read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(NotWritten, match=r"results\.csv: No space"):
        add_row(file, row("supervised", 1, 0.5))
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
            "name": "supervised",
            "seed": str(seed),
            "labels": "70",
            "best/accuracy": accuracy,
            "last/accuracy": "0.5",
        }
        for seed, accuracy in enumerate(("0.40", "0.42", "0.44"))
    ]
    summary = summarize(rows)
    assert summary.header == ["method", "labels", "seeds", "accuracy %", "last epoch: accuracy %"]
    assert summary.lines == [
        ["supervised", "70", "3", "42.00 ± 2.00", "50.00 ± 0.00"]
    ]  # (4 + 0 + 4) / 2 = 2²


def test_one_seed_has_no_deviation_and_a_metric_that_was_not_tested_is_not_run():
    rows = [{"name": "supervised", "seed": "0", "labels": "70", "best/accuracy": "0.4", "best/ece": "0.05"}]
    assert summarize(rows).lines == [["supervised", "70", "1", "40.00", "5.00", "not run"]]


def test_planned_runs_give_the_order_and_those_without_a_row_are_named():
    rows = [{"name": name, "seed": "0", "best/accuracy": "0.4"} for name in ("other", "uda", "supervised")]
    summary = summarize(rows, dict.fromkeys(["fixmatch", "supervised", "mixmatch", "uda"]))
    assert [line[0] for line in summary.lines] == ["supervised", "uda", "other"]
    assert summary.not_run == ["fixmatch", "mixmatch"]


def test_valence_and_arousal_are_not_percentages():
    rows = [{"name": "supervised", "seed": "0", "best/ccc_valence": "0.4", "best/ccc_arousal": "0.3"}]
    summary = summarize(rows)
    assert summary.header[3:] == ["CCC valence", "CCC arousal"]
    assert summary.lines[0][3:] == ["0.40", "0.30"]


def test_markdown_has_as_many_cells_in_every_line():
    lines = markdown(
        ["method", "accuracy %"], [["fixmatch", "50.00"], ["uda", "not run"]], left=1
    ).splitlines()
    assert lines == [
        "| method | accuracy % |",
        "| --- | ---: |",
        "| fixmatch | 50.00 |",
        "| uda | not run |",
    ]


def test_text_is_put_between_its_markers_each_time(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(
        "Before\n<!-- results:fer2013 -->old<!-- /results -->\nAfter <!-- results:x -->x<!-- /results -->\n"
    )
    for table in ("| first |", "| second |"):
        put_between(readme, "<!-- results:fer2013 -->", "<!-- /results -->", table)
    assert readme.read_text() == (
        "Before\n<!-- results:fer2013 -->\n| second |\n<!-- /results -->\n"
        "After <!-- results:x -->x<!-- /results -->\n"
    )


def test_readme_without_markers_or_that_is_not_there_is_an_error(tmp_path):
    readme = tmp_path / "README.md"
    with pytest.raises(InputError, match=r"README\.md does not exist"):
        put_between(readme, "<!-- a -->", "<!-- b -->", "")
    readme.write_text("Nothing here")
    with pytest.raises(InputError, match="write <!-- a --> and <!-- b -->"):
        put_between(readme, "<!-- a -->", "<!-- b -->", "")


def test_coverage_and_purity_stand_beside_the_accuracy(tmp_path):
    file = tmp_path / "results.csv"
    add_row(file, row("supervised", 0, 0.5, **{"val/score": 0.5}))
    for seed, purity in enumerate((0.8, 0.9)):
        audit = {"val/score": 0.6, "audit/coverage": 0.5, "audit/purity": purity}
        add_row(file, row("fixmatch", seed, 0.5, **audit))
    summary = summarize(read_rows(file), {"later": None})
    assert summary.header[-3:] == ["validation score %", "coverage %", "purity %"]
    training = {line[0]: line[-3:] for line in summary.lines}
    assert training == {
        "supervised": ["50.00", "–", "–"],  # which has no pseudo-labels
        "fixmatch": ["60.00 ± 0.00", "50.00 ± 0.00", "85.00 ± 7.07"],
    }


def accuracies(of):
    return [
        {"name": name, "seed": str(seed), "best/accuracy": str(accuracy)}
        for name, seeds in of.items()
        for seed, accuracy in seeds.items()
    ]


def test_gains_are_paired_by_seed_and_over_the_named_baseline():
    rows = accuracies({"supervised": {0: 0.4, 1: 0.6}, "sser": {0: 0.5, 1: 0.7, 2: 0.1}, "other": {0: 0.5}})
    summary = summarize(rows, {"supervised": "supervised", "sser": "supervised", "later": "supervised"})
    assert summary.header[3:5] == ["accuracy %", "gain over supervised"]
    assert {line[0]: line[4] for line in summary.lines} == {
        "supervised": "–",
        "sser": "+10.00 ± 0.00",  # the labeled-only run has no third seed
        "other": "–",  # no baseline is known of it
    }


def test_where_baselines_differ_each_line_names_its_own():
    rows = accuracies({"sser": {0: 0.5}, "sser-no_triplet": {0: 0.48}, "uda": {0: 0.5}, "uda-raw": {0: 0.51}})
    baselines = {"sser": None, "sser-no_triplet": "sser", "uda": None, "uda-raw": "uda", "later": "uda"}
    summary = summarize(rows, baselines)
    assert summary.header[3:6] == ["accuracy %", "gain over baseline", "baseline"]
    assert {line[0]: line[4:6] for line in summary.lines} == {
        "sser": ["–", "–"],
        "sser-no_triplet": ["-2.00", "sser"],
        "uda": ["–", "–"],
        "uda-raw": ["+1.00", "uda"],
    }
    assert len({len(summary.header), *map(len, summary.lines)}) == 1


def test_a_name_is_no_baseline_by_its_first_letters():
    rows = accuracies({"sser": {0: 0.5}, "sser-no_triplet": {0: 0.48}})
    assert summarize(rows).header == ["method", "labels", "seeds", "accuracy %", "last epoch: accuracy %"]


def test_stale_rows_are_counted_and_enter_no_mean_and_no_gain():
    rows = accuracies({"supervised": {0: 0.4, 1: 0.9}, "uda": {0: 0.5, 1: 0.7}, "old": {0: 0.1, 1: 0.1}})
    stale = {("supervised", "1"), ("old", "0"), ("old", "1")}
    summary = summarize(rows, dict.fromkeys(["supervised", "uda", "old", "later"], "supervised"), stale)
    assert {line[0]: line[2:5] for line in summary.lines} == {
        "supervised": ["1 + 1 stale", "40.00", "–"],
        "uda": ["2", "60.00 ± 14.14", "+10.00"],
        "old": ["0 + 2 stale", "stale", "–"],
    }


def test_rows_that_two_processes_add_at_once_are_all_kept(tmp_path):
    file = tmp_path / "results.csv"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: add_row(file, row("uda", seed, 0.5)), range(20)))
    assert [r["seed"] for r in read_rows(file)] == [str(seed) for seed in range(20)]
