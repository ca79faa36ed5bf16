"""The front door holds what it says: files and options exist, and its Python runs."""

import csv
import re
import shlex
from pathlib import Path

import cv2
import lightning as L
import numpy as np
import pytest
import yaml
from faces import TINY, quiet_trainer, tiny_data

from fer_lightning.cli import HELP, main

ROOT = Path(__file__).parents[1]
PAGES_OF_TEXT = ("README.md", "CONTRIBUTING.md", "experiments/README.md", "experiments/results/README.md")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The words of every ``fer-lightning`` command of a page, without the program's name."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("fer-lightning ")]


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """The folders that the README trains on, and its working directory."""
    generator = np.random.default_rng(0)
    labeled = [
        f"{root}/{emotion}" for root in ("faces/labeled", "other/faces") for emotion in ("happy", "sad")
    ]
    for folder, count in (*((name, 6) for name in labeled), ("faces/unlabeled", 12)):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / f"{folder}/{number}.png"), pixels)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predicted(folder: Path) -> list[dict[str, str]]:
    with (folder / "runs/mine/predictions-unlabeled.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_readme_is_a_front_door():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES_OF_TEXT)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text())
    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "experiments/README.md"])
def test_pages_name_verbs_and_files_that_exist(page):
    text = (ROOT / page).read_text()
    verbs = re.findall(r"fer-lightning (\w+)", text)
    assert verbs
    assert [verb for verb in verbs if f"  {verb} " not in HELP] == []
    files = re.findall(r"(?<![\w/])(?:experiments|tests|fer_lightning)/[\w/]+(?:\.\w+)?", text)
    written = (".csv",)  # by the program
    missing = [file for file in files if not file.endswith(written) and not (ROOT / file).exists()]
    assert [file for file in missing if "NAME" not in file] == []


def test_pages_name_options_that_exist(faces, capsys):
    # Options that take a class list those of the class; print_config lists all others.
    asked = [
        "fit --model FixMatch --data.dataset FaceFolder --data.dataset.labeled faces/labeled --print_config",
        "fit --data.dataset.help FER2013",
        "fit --data.dataset.help FaceFolder",
        "fit --data.dataset.help CKPlus",
        "fit --trainer.logger.help WandbLogger",
        *(f"{verb} --help" for verb in ("splits make", "splits verify", "matrix", "results", "methods")),
        *(f"{verb} --help" for verb in ("recognize", "calibrate")),
    ]
    known = {"--model.help"}
    for line in asked:
        with pytest.raises(SystemExit):
            main(line.split())
        shown = capsys.readouterr().out
        known |= set(re.findall(r"--[\w.]+", shown))
        if "--print_config" in line:
            config = yaml.safe_load(shown)
            known |= {f"--{name}" for name in config}
            known |= {f"--{group}.{name}" for group in ("data", "trainer") for name in config[group]}
            known |= {f"--model.{name}" for name in config["model"]["init_args"]}
    named = {
        option
        for page in PAGES_OF_TEXT
        for option in re.findall(r"(?<![\w-])--[a-z][\w.]*\w", (ROOT / page).read_text())
    }
    torchrun = {"--nnodes", "--node_rank", "--nproc_per_node", "--master_addr", "--master_port", "--no"}
    assert named - known - {"--config", "--dataset.root"} - torchrun == set()
    assert "--data.dataset.root" in known


def test_files_of_the_table_exist():
    table = (ROOT / "experiments/README.md").read_text().split("| goal | file |")[1].split("```")[0]
    folder = ""
    for file in re.findall(r"`([\w/]+\.yaml)`", table):
        if "NAME" in file:
            continue
        folder = file.rpartition("/")[0] if "/" in file else folder
        paths = (ROOT / "experiments" / file, ROOT / "experiments" / folder / file)
        assert any(path.exists() for path in paths), file


def test_commands_of_the_readme_train_and_predict(faces):
    fit, predict, test, calibrate, recognize, *_ = commands("README.md")
    verbs = ["fit", "predict", "test", "calibrate", "recognize"]
    assert [words[0] for words in (fit, predict, test, calibrate, recognize)] == verbs
    small = {
        "--trainer.max_steps": "2",
        "--data.batch_size": "2",
        "--data.unlabeled_ratio": "1",
        "--data.image_size": "16",
        "--data.workers": "0",
    }
    assert main([*fit, *(word for option in small.items() for word in option)]) == 0
    assert main(predict) == 0
    assert main(test) == 0
    with (faces / "runs/mine/test.csv").open(newline="", encoding="utf-8") as file:
        assert [row["checkpoint"] for row in csv.DictReader(file)] == ["best.ckpt"]
    rows = predicted(faces)
    assert len(rows) == 12
    assert {"name", "emotion", "confidence", "happiness"} <= set(rows[0])
    assert main(calibrate) == 0
    (faces / "photographs").symlink_to(faces / "faces/unlabeled")
    assert main([*recognize, "--aligned", "true"]) == 0  # else a detector would be fetched
    with (faces / "recognized.csv").open(newline="", encoding="utf-8") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["face"] * 12


def test_python_of_the_readme_trains_and_predicts(faces):
    (code,) = blocks("README.md", "python")
    small = {
        "max_steps=2000": "max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False",
        "batch_size=32, unlabeled_ratio=4": "batch_size=2, unlabeled_ratio=1, image_size=16, workers=0",
    }
    for full, tiny in small.items():
        assert full in code
        code = code.replace(full, tiny)
    exec(code, {})
    assert len(predicted(faces)) == 12


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
