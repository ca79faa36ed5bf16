import tomllib

import pytest
import yaml
from every import EXPERIMENTS

from fer_lightning.cli import main
from fer_lightning.cli.configs import FOLDER, config_files

PACKAGED = ("data", "methods", "presets", "prompts")


def test_files_are_written_as_they_are_in_experiments(tmp_path, capsys):
    assert main(["configs", str(tmp_path / "new")]) == 0
    written = {file.relative_to(tmp_path / "new") for file in (tmp_path / "new").rglob("*.yaml")}
    assert {str(file) for file in written} == set(config_files())
    for file in written:
        assert (tmp_path / "new" / file).read_bytes() == (EXPERIMENTS / file).read_bytes()
    command = capsys.readouterr().out.splitlines()[-1].split()
    assert command[0] == "fer-lightning"
    with pytest.raises(SystemExit):
        main([*command[1:], "--print_config"])
    assert "SyntheticFaces" in yaml.safe_load(capsys.readouterr().out)["data"]["dataset"]["class_path"]


def test_no_file_that_was_edited_is_overwritten(tmp_path, capsys):
    assert main(["configs", str(tmp_path)]) == 0
    assert main(["configs", str(tmp_path)]) == 0
    edited = tmp_path / "trainer.yaml"
    edited.write_text("trainer: {max_steps: 3}\n")
    (tmp_path / "methods/fixmatch.yaml").unlink()
    assert main(["configs", str(tmp_path)]) == 2
    assert f"{edited} would be overwritten" in capsys.readouterr().err
    assert edited.read_text() == "trainer: {max_steps: 3}\n"
    assert not (tmp_path / "methods/fixmatch.yaml").exists()


def test_every_configuration_is_packaged():
    files = [file for part in PACKAGED for file in (EXPERIMENTS / part).iterdir()]
    expected = sorted(file.relative_to(EXPERIMENTS).as_posix() for file in files)
    assert config_files() == sorted([*expected, "trainer.yaml"])
    folders = {file.parent.name for file in EXPERIMENTS.glob("*/*.yaml")}
    assert folders <= {*PACKAGED, "bench", "results"}
    project = tomllib.loads((EXPERIMENTS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    globs = project["tool"]["setuptools"]["package-data"]["fer_lightning"]
    found = {file for pattern in globs for file in FOLDER.parent.glob(pattern)}
    assert {FOLDER / name for name in config_files()} <= found
