import pytest
from archives import affectnet_arrays, raf_db

from fer_lightning.cli import main
from fer_lightning.cli.data import published
from fer_lightning.data.datasets.expected import ALL, Variant


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("COLUMNS", "300")  # so that no message is broken over lines
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def data(*arguments) -> int:
    return main(["data", *map(str, arguments)])


def test_list_tells_terms_and_page_of_every_set(capsys):
    assert data("list") == 0
    shown = capsys.readouterr().out
    names = {kind.__name__ for kind in published()}
    assert {"FER2013", "FERPlus", "RAFDB", "AffectNet"} <= names
    assert not {"FaceFolder", "FaceTable"} & names
    for kind in published():
        assert f"{kind.__name__}: " in shown
        assert kind.license in shown
        assert kind.page in shown
        assert kind.license != "unknown"
        assert kind.page.startswith("http")


def test_check_prints_counts_beside_the_published_ones(tmp_path, capsys):
    assert data("check", "RAFDB", raf_db(tmp_path)) == 1
    shown = capsys.readouterr().out
    assert any(
        line.split("│")[2:5] == [" surprise  ", "     2 ", "    1,290 "] for line in shown.splitlines()
    )
    assert "train: found 14 / expected 12,271 (RAF-DB): unknown difference" in shown
    assert "http://www.whdeng.cn/RAF/model1.html" in shown


def test_check_ends_well_where_all_counts_agree(tmp_path, capsys, monkeypatch):
    variant = Variant("a small RAF-DB", {"train": {ALL: 14, "fear": 2}, "test": {ALL: 7}})
    monkeypatch.setattr("fer_lightning.data.datasets.raf_db.VARIANTS", (variant,))
    assert data("check", "RAFDB", raf_db(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert "compared with a small RAF-DB" in shown
    assert "unknown difference" not in shown


def test_check_takes_the_options_of_the_data_set(tmp_path, capsys):
    data("check", "AffectNet", affectnet_arrays(tmp_path), "--classes", 7)
    assert "affectnet2021-7" in capsys.readouterr().out
    assert data("check", "AffectNet", tmp_path, "--classes", 6) == 2
    assert "--classes must be" in capsys.readouterr().err


def test_check_tells_what_is_unusual_about_a_copy(tmp_path, capsys):
    raf_db(tmp_path)
    (tmp_path / "Image/aligned/train_00001_aligned.jpg").unlink()
    data("check", "RAFDB", tmp_path, "--on_bad_image", "skip")
    assert "the first missing one is train_00001_aligned.jpg" in capsys.readouterr().out


def test_check_names_the_page_of_what_is_not_there(tmp_path, capsys):
    (tmp_path / "holiday.jpg").write_text("")
    assert data("check", "RAFDB", tmp_path) == 2
    shown = capsys.readouterr().err
    assert "holds holiday.jpg; expected EmoLabel/list_patition_label.txt" in shown
    assert "The data are asked for at http://www.whdeng.cn/RAF/model1.html" in shown


def test_help_lists_the_sets_and_the_options_of_each(capsys):
    for words, told in (
        (["--help"], "compare an archive with its published counts"),
        (["check", "--help"], "RAF-DB's basic emotions"),
        (["check", "RAFDB", "--help"], "--group {none,gender,race,age}"),
    ):
        with pytest.raises(SystemExit) as ended:
            data(*words)
        assert ended.value.code == 0
        assert told in capsys.readouterr().out


def test_another_name_is_corrected(tmp_path, capsys):
    assert data("check", "RAF", tmp_path) == 2
    assert "no 'RAF' here; did you mean RAFDB?" in capsys.readouterr().err
