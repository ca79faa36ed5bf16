"""The front door holds what it says: files and options exist, and its Python runs."""

import re
from pathlib import Path

import cv2
import lightning as L
import numpy as np
import pytest
import yaml
from faces import TINY, quiet_trainer, tiny_data

from fer_lightning.cli import HELP

ROOT = Path(__file__).parents[1]
PAGES_OF_TEXT = ("README.md", "CONTRIBUTING.md", "experiments/README.md", "experiments/results/README.md")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_readme_is_a_front_door():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES_OF_TEXT)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text())
    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", ["README.md", "experiments/README.md"])
def test_commands_name_verbs_and_files_that_exist(page):
    text = " ".join(blocks(page, "bash")).replace("\\\n", " ")
    verbs = re.findall(r"^fer-lightning (\w+)", text, re.MULTILINE)
    assert verbs
    assert all(f"  {verb} " in HELP for verb in verbs)
    files = re.findall(r"experiments/[\w/]+\.yaml", (ROOT / page).read_text())
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_files_of_the_table_exist():
    table = (ROOT / "experiments/README.md").read_text().split("| goal | file |")[1].split("```")[0]
    folder = ""
    for file in re.findall(r"`([\w/]+\.yaml)`", table):
        if "NAME" in file:
            continue
        folder = file.rpartition("/")[0] if "/" in file else folder
        paths = (ROOT / "experiments" / file, ROOT / "experiments" / folder / file)
        assert any(path.exists() for path in paths), file


def test_python_of_the_readme_runs_on_folders_of_pictures(tmp_path, monkeypatch, capsys):
    generator = np.random.default_rng(0)
    for folder, count in (("labeled/happy", 6), ("labeled/sad", 6), ("unlabeled", 12)):
        (tmp_path / "faces" / folder).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / f"faces/{folder}/{number}.png"), pixels)
    (code,) = blocks("README.md", "python")
    small = {
        "max_steps=2000": "max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False",
        "batch_size=32": "batch_size=2, unlabeled_ratio=1, workers=0",
        "image_size=48": "image_size=16",
        'backbone="wrn_10_1"': 'backbone="wrn_10_1", backbone_arguments={"width": 0.25}',
    }
    for full, tiny in small.items():
        assert full in code
        code = code.replace(full, tiny)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert "happiness" in capsys.readouterr().out


def test_the_method_of_contributing_trains(tmp_path):
    (code,) = blocks("CONTRIBUTING.md", "python")
    names: dict = {"__name__": "a_users_module"}
    exec(code, names)
    L.seed_everything(0, verbose=False)
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(names["Confident"](**TINY, threshold=0.1), tiny_data())
    assert trainer.callback_metrics["train/unlabeled"] > 0


def test_the_citation_file_is_one():
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(content)
    assert len(content["references"]) == 4


def test_no_page_and_no_code_speaks_a_dialect_of_its_own():
    words = re.compile(r"believ|surer|chassis|mood\b", re.IGNORECASE)
    files = [
        ROOT / "README.md",
        *(ROOT / "fer_lightning").rglob("*.py"),
        *(ROOT / "experiments").rglob("*.*"),
    ]
    found = [
        str(file)
        for file in files
        if file.is_file() and file.suffix != ".png" and words.search(file.read_text())
    ]
    assert found == []
