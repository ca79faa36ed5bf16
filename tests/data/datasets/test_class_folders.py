import numpy as np
import pytest

from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.class_folders import in_order, numbered_files
from fer_lightning.emotions import BASIC_7, RAF_DB


def put(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("")


def test_images_come_with_part_and_number(tmp_path):
    put(tmp_path, "train/1/b.jpg", "train/1/a.jpg", "valid/10/c.png", "test/2/d.jpg", "notes/3/e.jpg")
    put(tmp_path, "train/.DS_Store", "train_labels.csv")
    found = numbered_files(tmp_path)
    assert found.files == ["test/2/d.jpg", "train/1/a.jpg", "train/1/b.jpg", "valid/10/c.png"]
    assert found.partition.tolist() == ["test", "train", "train", "val"]
    assert found.number.tolist() == [2, 1, 1, 10]


def test_a_folder_that_is_no_number_is_named(tmp_path):
    put(tmp_path, "train/1/b.jpg", "train/happy/a.jpg")
    with pytest.raises(DataError, match=r"happy: expected folders with the number.*FaceFolder"):
        numbered_files(tmp_path)
    with pytest.raises(DataError, match="holds no images"):
        numbered_files(tmp_path / "train")


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_count_from_zero_or_one(tmp_path, first):
    label = in_order(np.array([first, first + 6]), "raf_db", BASIC_7, tmp_path)
    assert label.tolist() == [BASIC_7.index("surprise"), BASIC_7.index("neutral")]


def test_more_folders_than_emotions_are_refused(tmp_path):
    with pytest.raises(DataError, match="folders run to 8, class_order has 7 emotions"):
        in_order(np.array([1, 8]), RAF_DB.name, RAF_DB, tmp_path)
