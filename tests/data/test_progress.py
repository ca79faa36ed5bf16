import pytest
from lightning.pytorch.utilities import rank_zero_only

from fer_lightning.data import progress
from fer_lightning.data.progress import tracked


def test_quick_work_shows_nothing(capsys):
    assert list(tracked(iter(range(5)), 5, "counting")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("rank", [0, 1])
def test_slow_work_is_shown_by_rank_zero_alone(capsys, monkeypatch, rank):
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    assert list(tracked(iter(range(5)), 5, "counting")) == [0, 1, 2, 3, 4]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("counting" in shown.err and "100%" in shown.err) == (rank == 0)


def test_the_bar_ends_where_the_work_fails(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", -1.0)

    def failing():
        yield 1
        yield 2
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(tracked(failing(), 9, "counting"))
    assert "22%" in capsys.readouterr().err
