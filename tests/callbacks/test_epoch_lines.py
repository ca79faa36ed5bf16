import re
import sys

from full_run import full_fit


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
