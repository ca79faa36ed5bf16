import re
import sys

import pytest
from faces import tiny_data
from full_run import full_fit

from fer_lightning.callbacks.epoch_lines import in_words


def test_a_line_per_epoch_where_no_terminal_shows_a_bar(tmp_path, capsys):
    full_fit(tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    number = r"\d+\.\d{4}"
    for epoch, line in enumerate(lines):
        assert re.fullmatch(
            rf"epoch {epoch}  step {5 * (epoch + 1)}  train/loss {number}  val/score {number}"
            rf"  audit/coverage {number}  audit/purity {number}  \d+ s",
            line,
        )
    assert len(lines) == 2


def test_none_beside_the_bar_of_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    full_fit(tmp_path, max_epochs=1)
    assert "epoch 0" not in capsys.readouterr().out


@pytest.mark.parametrize(("accumulate", "left"), [(1, 8), (2, 4)])
def test_the_time_is_estimated_once_after_the_first_batches(tmp_path, capsys, accumulate, left):
    full_fit(tmp_path, data=tiny_data(steps_per_epoch=10), accumulate_grad_batches=accumulate)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("About")]
    assert len(lines) == 1
    assert re.fullmatch(rf"About \d+ \w+ for the {left} steps to come, not counting validation", lines[0])


def test_no_time_is_estimated_in_a_run_of_a_few_batches(tmp_path, capsys):
    full_fit(tmp_path)
    assert "About" not in capsys.readouterr().out


def test_durations_in_words():
    words = {3: "3 seconds", 119: "119 seconds", 120: "2 minutes", 7300: "2 hours", 200_000: "2 days"}
    assert {seconds: in_words(seconds) for seconds in words} == words
