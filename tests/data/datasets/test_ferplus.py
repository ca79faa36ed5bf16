import csv
import logging
import os

import numpy as np
import pytest
from archives import picture

from fer_lightning.data.datasets import FERPlus
from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.ferplus import VOTES

USAGES = ("Training", "PublicTest", "PrivateTest")

# neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, not a face
ROWS = [
    # votes                          usage  majority, or why there is none     distribution
    ((8, 0, 0, 1, 1, 0, 0, 0, 0, 0), 0, "neutral", {"neutral": 1}),
    ((0, 6, 4, 0, 0, 0, 0, 0, 0, 0), 0, "happiness", {"happiness": 0.6, "surprise": 0.4}),
    ((0, 0, 0, 5, 5, 0, 0, 0, 0, 0), 0, None, {"sadness": 0.5, "anger": 0.5}),  # a tie
    ((4, 0, 0, 3, 3, 0, 0, 0, 0, 0), 0, None, {"neutral": 0.4, "sadness": 0.3, "anger": 0.3}),  # under half
    ((4, 1, 1, 1, 1, 1, 1, 0, 0, 0), 0, "neutral", {"neutral": 1}),  # single votes are noise
    ((0, 0, 0, 0, 0, 0, 0, 6, 0, 4), 0, "contempt", {"contempt": 1}),
    ((0, 3, 0, 0, 0, 0, 0, 0, 7, 0), 0, None, None),  # unknown
    ((0, 0, 0, 0, 0, 0, 0, 0, 0, 10), 1, None, None),  # no face
    ((0, 0, 0, 0, 0, 5, 0, 0, 5, 0), 1, None, None),  # as much unknown as disgust
    ((0, 0, 0, 0, 0, 2, 4, 0, 4, 0), 1, None, None),  # the leading emotion is not ahead of unknown
    (
        (0, 0, 0, 0, 0, 2, 5, 0, 3, 0),
        2,
        None,
        {"disgust": 0.2857, "fear": 0.7143},
    ),  # unknown counts as a choice
    ((1, 1, 1, 1, 1, 1, 1, 1, 1, 1), 2, None, None),  # nothing but noise
]
VOTED = np.array([row[0] for row in ROWS])
USAGE = np.array([row[1] for row in ROWS])


def write_pixels(path, **more):
    images = np.repeat(np.arange(len(ROWS), dtype=np.uint8), 48 * 48).reshape(-1, 48, 48)
    np.savez(path, images=images, label=np.zeros(len(ROWS), int), usage=USAGE, **more)


def write_votes(path, votes=VOTED, usage=USAGE, columns=("Usage", "Image name", *VOTES)):
    """Write a file like Microsoft's: its numbers skip, and a face that is none has no name."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row, (counts, part) in enumerate(zip(votes, usage, strict=True)):
            cells = dict(zip(VOTES, counts, strict=True))
            cells |= {"Usage": USAGES[part], "Image name": "" if counts[-1] == 10 else f"fer{row * 3:07}.png"}
            writer.writerow([cells[column] for column in columns])
    return path


@pytest.fixture
def root(tmp_path):
    write_pixels(tmp_path / "fer2013_uint8.npz")
    write_votes(tmp_path / "fer2013new.csv")
    return tmp_path


def read(faces):
    """Return the label of each face, by row of FER2013."""
    return {
        int(name[-5:]): {
            emotion: round(float(share), 4)
            for emotion, share in zip(faces.taxonomy.emotions, shares, strict=True)
            if share != 0
        }
        for name, shares in zip(faces.names, faces.emotion, strict=True)
    }


# From votes to labels


def test_majority_follows_the_published_rule(root):
    faces = FERPlus(root).load(48)
    assert read(faces) == {row: {label: 1} for row, (_, _, label, _) in enumerate(ROWS) if label}
    assert faces.taxonomy.name == "basic8"


def test_distribution_is_the_share_of_each_emotion(root):
    faces = FERPlus(root, labels="distribution").load(48)
    assert read(faces) == {row: shares for row, (*_, shares) in enumerate(ROWS) if shares}
    np.testing.assert_allclose(faces.emotion.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("labels", ["majority", "distribution"])
def test_seven_classes_leave_contempt_out(root, labels):
    eight, seven = (FERPlus(root, labels=labels, classes=classes).load(48) for classes in (8, 7))
    wanted = read(eight)
    assert wanted.pop(5) == {"contempt": 1}
    assert read(seven) == wanted
    assert seven.taxonomy.name == "basic7"


def test_pixels_partition_and_names_go_with_the_labels(root):
    faces = FERPlus(root, labels="distribution").load(48)
    row = np.array([int(name.removeprefix("fer2013/")) for name in faces.names])
    assert (faces.images.pixels[:, 0, 0].numpy() == row).all()
    assert (faces.partition == np.array(["train", "val", "test"])[USAGE[row]]).all()


def test_rejected_faces_may_stay_in_training_without_a_label(root):
    faces = FERPlus(root, rejected="unlabeled").load(48)
    without = faces.label < 0
    assert [int(name[-5:]) for name in faces.names[without]] == [2, 3, 6]
    assert (faces.partition[without] == "unlabeled").all()
    assert not (faces.partition[~without] == "unlabeled").any()


def test_the_number_of_rejected_faces_is_logged(root, caplog):
    with caplog.at_level(logging.INFO):
        FERPlus(root).load(48)
    assert "no majority over 8 emotions for 3 train / 3 val / 2 test faces; 0 of them stay" in caplog.text


def test_what_changes_the_labels_is_in_the_name_of_the_data_set(root):
    names = {
        FERPlus(root, labels=labels, classes=classes).load(48).dataset
        for labels in ("majority", "distribution")
        for classes in (7, 8)
    }
    assert len(names) == 4


# Where the votes are


def test_votes_are_found_beside_the_pixels_in_the_root_or_where_told(tmp_path):
    (tmp_path / "fer2013").mkdir()
    write_pixels(tmp_path / "fer2013" / "fer2013_uint8.npz")
    with pytest.raises(DataError, match=r"no votes of FER\+ in or beside .*fer2013new\.csv"):
        FERPlus(tmp_path).load(48)
    told = write_votes(tmp_path / "votes.csv")
    wanted = FERPlus(tmp_path, votes=told).load(48).names
    told.rename(tmp_path / "fer2013new.csv")
    assert (FERPlus(tmp_path).load(48).names == wanted).all()
    (tmp_path / "fer2013new.csv").rename(tmp_path / "fer2013" / "fer2013new.csv")
    assert (FERPlus(tmp_path).load(48).names == wanted).all()
    assert (FERPlus(tmp_path / "fer2013" / "fer2013_uint8.npz").load(48).names == wanted).all()


def test_votes_in_the_archive_are_used_without_the_file(root):
    wanted = FERPlus(root).load(48)
    (root / "fer2013new.csv").unlink()
    write_pixels(root / "fer2013_uint8.npz", ferplus_votes=VOTED.astype(np.int8))
    faces = FERPlus(root).load(48)
    np.testing.assert_array_equal(faces.emotion, wanted.emotion)
    np.testing.assert_array_equal(faces.names, wanted.names)


def test_columns_of_votes_are_read_by_name(root):
    wanted = FERPlus(root).load(48).emotion
    write_votes(root / "fer2013new.csv", columns=("Image name", *reversed(VOTES), "Usage"))
    np.testing.assert_array_equal(FERPlus(root).load(48).emotion, wanted)


# The folders of the authors' script

FOLDERS = ("FER2013Train", "FER2013Valid", "FER2013Test")


@pytest.fixture
def written(tmp_path):
    """Write what the script does: it leaves out rows without an image name, and boxes hold commas."""
    tables = {folder: [] for folder in FOLDERS}
    for row, (votes, usage, *_) in enumerate(ROWS):
        folder = FOLDERS[usage]
        picture(tmp_path / "written" / folder / f"fer{row:07}.png", 48, 48, row)
        tables[folder].append([f"fer{row:07}.png", "(0, 0, 48, 48)", *votes])
    for folder, rows in tables.items():
        with (tmp_path / "written" / folder / "label.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return tmp_path / "written"


@pytest.mark.parametrize("options", [{}, {"labels": "distribution", "classes": 7, "rejected": "unlabeled"}])
def test_folders_of_the_script_give_the_same_labels(root, written, options):
    wanted, faces = FERPlus(root, **options).load(48), FERPlus(written, **options).load(48)
    rows = [int(name[-11:-4]) for name in faces.names]
    order = np.argsort(rows)
    assert faces.names[0] == "FER2013Train/fer0000000.png"
    assert sorted(rows) == [int(name.rpartition("/")[2]) for name in wanted.names]
    np.testing.assert_array_equal(faces.emotion[order], wanted.emotion)
    assert (faces.partition[order] == wanted.partition).all()
    assert [faces.images[row][0, 0, 0] for row in range(len(faces))] == rows
    assert faces.dataset == wanted.dataset.replace("ferplus", "ferplus-folders")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('a.png,"(0, 0, 48, 48)",1,2\n', "row 0: expected a name, a box and 10 counts"),
        ('a.png,"(0, 0, 48, 48)",1,2,3,4,5,6,7,8,9,-1\n', "row 0: expected a name, a box"),
        ('a.png,"(0, 0, 48, 48)",1,2,3,4,5,6,7,8,9,1\n', r"row 0: there is no file .*a\.png"),
        ("a.png\n", "row 0: expected a name, a box"),
    ],
)
def test_a_wrong_row_of_the_folders_is_named(written, row, message):
    (written / "FER2013Valid/label.csv").write_text(row)
    with pytest.raises(DataError, match=rf"FER2013Valid/label\.csv, {message}"):
        FERPlus(written).load(48)


def test_a_missing_folder_or_table_is_named(written):
    (written / "FER2013Test/label.csv").unlink()
    with pytest.raises(DataError, match=r"FER2013Test/label\.csv does not exist; expected the votes"):
        FERPlus(written).load(48)
    (written / "FER2013Test").rename(written / "gone")
    with pytest.raises(DataError, match="FER2013Test does not exist"):
        FERPlus(written).load(48)


# What is wrong is named


def test_votes_of_another_order_are_refused(root):
    write_votes(root / "fer2013new.csv", VOTED[::-1], USAGE[::-1])
    with pytest.raises(
        DataError, match=r"fer2013new\.csv, row 0: Usage is PrivateTest, but Training in .*npz"
    ):
        FERPlus(root).load(48)


def test_votes_for_fewer_faces_are_refused(root):
    write_votes(root / "fer2013new.csv", VOTED[:-1], USAGE[:-1])
    with pytest.raises(DataError, match=r"fer2013new\.csv: votes are \(11, 10\), not \(12, 10\)"):
        FERPlus(root).load(48)


def test_a_file_without_the_columns_is_named(root):
    write_votes(root / "fer2013new.csv", columns=("Usage", *VOTES[:-2]))
    with pytest.raises(DataError, match=r"fer2013new\.csv has no column unknown, NF; it has: Usage, neutral"):
        FERPlus(root).load(48)


def test_a_vote_that_is_no_count_is_named(root):
    votes = VOTED.tolist()
    votes[3][2] = "-1"
    write_votes(root / "fer2013new.csv", votes)
    with pytest.raises(DataError, match=r"fer2013new\.csv, row 3: votes are 4, 0, -1, 3"):
        FERPlus(root).load(48)


def test_missing_votes_are_named(root):
    with pytest.raises(DataError, match=r"nowhere\.csv does not exist"):
        FERPlus(root, votes=root / "nowhere.csv").load(48)


def test_folders_cannot_be_paired_with_votes(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    with pytest.raises(DataError, match="paired with FER2013 by row"):
        FERPlus(tmp_path).load(48)


# The real thing


@pytest.mark.parametrize(
    ("labels", "classes", "train", "val", "test"),
    [
        ("majority", 8, 25_060, 3_199, 3_153),
        ("majority", 7, 24_941, 3_186, 3_137),
        ("distribution", 8, 28_153, 3_524, 3_521),
        ("distribution", 7, 27_904, 3_486, 3_490),
    ],
)
def test_the_real_counts_are_the_documented_ones(labels, classes, train, val, test):
    root = os.environ.get("FER_DATA_ROOT")
    if not root:
        pytest.skip("FER_DATA_ROOT does not name the folder of FER2013 and its FER+ votes")
    faces = FERPlus(root, labels=labels, classes=classes).load(48)
    counts = {part: int((faces.partition == part).sum()) for part in ("train", "val", "test")}
    assert counts == {"train": train, "val": val, "test": test}
    if labels == "majority" and classes == 8:
        order = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
        shown = np.bincount(faces.label[faces.partition == "test"])
        assert [shown[faces.taxonomy.index(name)] for name in order] == [1090, 893, 396, 384, 273, 18, 83, 16]
