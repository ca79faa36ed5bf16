import logging
import shutil

import numpy as np
import pytest
from archives import RAF_LABELS, picture, raf_db, raf_db_folders, text

from fer_lightning.data.datasets import RAFDB
from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.expected import ALL
from fer_lightning.data.datasets.raf_db import VARIANTS
from fer_lightning.emotions import RAF_DB

LIST = "EmoLabel/list_patition_label.txt"
NAMES = list(RAF_LABELS)


@pytest.fixture
def root(tmp_path):
    return raf_db(tmp_path / "basic")


def relist(root, lines):
    text(root / LIST, "".join(f"{line}\n" for line in lines))


def warnings(caplog, root, **options):
    with caplog.at_level(logging.WARNING):
        faces = RAFDB(root, **options).load(8)
    return faces, caplog.text


# The official archive


def test_names_labels_and_parts_are_those_of_the_list(root):
    faces = RAFDB(root).load(8)
    assert faces.names.tolist() == NAMES
    assert faces.dataset == "raf_db"
    assert faces.taxonomy == RAF_DB
    assert (faces.label + 1).tolist() == list(RAF_LABELS.values())
    assert faces.partition.tolist() == ["train"] * 14 + ["test"] * 7
    assert [faces.images[row][0, 0, 0] for row in range(21)] == [10 * row for row in range(21)]


@pytest.mark.parametrize("wrapper", [".", "raf-basic", "RAF/basic/basic"])
def test_wrappers_change_nothing(tmp_path, wrapper):
    raf_db(tmp_path / wrapper)
    assert RAFDB(tmp_path).load(8).names.tolist() == NAMES


def test_the_list_may_have_either_spelling_and_windows_lines(root):
    lines = (root / LIST).read_text().splitlines()
    (root / LIST).unlink()
    text(root / "EmoLabel/list_partition_label.txt", "\ufeff" + "\r\n".join(lines))
    assert RAFDB(root).load(8).names.tolist() == NAMES


def test_original_pictures_are_cut_by_their_boxes(root):
    faces = RAFDB(root, images="original").load(8)
    assert faces.names.tolist() == NAMES
    for row in range(21):
        assert (faces.images[row] == 10 * row).all()


@pytest.mark.parametrize(
    ("group", "first"),
    [
        ("gender", ["male", "female", "", "male", "female"]),
        ("race", ["Caucasian", "African-American", "Asian", "Caucasian", "African-American"]),
        ("age", ["0-3", "4-19", "20-39", "40-69", "70+"]),
    ],
)
def test_an_attribute_groups_the_faces(root, group, first):
    assert RAFDB(root, group=group).load(8).group[:5].tolist() == first


def test_attributes_that_change_are_read_again(root):
    RAFDB(root, group="gender").load(8)
    (root / "Annotation/manual/train_00001_manu_attri.txt").write_text("1 1\n" * 5 + "1\n0\n0\n")
    assert RAFDB(root, group="gender").load(8).group[0] == "female"


def test_votes_are_soft_labels(root):
    faces = RAFDB(root, labels="distribution").load(8)
    assert faces.dataset == "raf_db-distribution"
    assert (faces.label + 1).tolist() == list(RAF_LABELS.values())
    np.testing.assert_allclose(faces.emotion[0], [0.05, 0.7, *[0.05] * 5], rtol=1e-5)


def test_the_compound_set_is_a_pool_without_labels(root, tmp_path):
    compound = raf_db(tmp_path / "compound", {"train_00001.jpg": 11, "test_0001.jpg": 1})
    faces = RAFDB(root, compound=compound, group="age").load(8)
    assert faces.names[-2:].tolist() == ["compound/train_00001.jpg", "compound/test_0001.jpg"]
    assert faces.partition[-2:].tolist() == ["unlabeled"] * 2
    assert faces.label[-2:].tolist() == [-1, -1]
    assert faces.group[-3:].tolist() == ["0-3", "", ""]
    assert RAFDB(root, compound=compound).load(8).images[22][0, 0, 0] == 10


def test_the_published_counts_sum_up():
    counts = VARIANTS[0].counts
    assert (counts["train"][ALL], counts["test"][ALL]) == (12_271, 3_068)
    assert (counts["train"]["fear"], counts["test"]["neutral"]) == (281, 680)


def test_other_counts_are_a_warning_and_an_error_if_strict(root, caplog):
    _, text = warnings(caplog, root)
    assert "train: found 14 / expected 12,271 (RAF-DB): unknown difference" in text
    with pytest.raises(DataError, match="train: found 14 / expected 12,271"):
        RAFDB(root, strict=True).load(8)


# Copies


def test_a_copy_in_class_folders_has_the_same_names_and_labels(root, tmp_path):
    wanted = RAFDB(root).load(8)
    faces = RAFDB(raf_db_folders(tmp_path / "archive")).load(8)
    rows = [faces.names.tolist().index(name) for name in NAMES]
    assert len(faces) == len(wanted)
    assert faces.dataset == wanted.dataset
    np.testing.assert_array_equal(faces.emotion[rows], wanted.emotion)
    assert (faces.partition[rows] == wanted.partition).all()


def test_folders_from_zero_need_their_order(tmp_path):
    copy = raf_db_folders(tmp_path, first=0)
    with pytest.raises(DataError, match=r"class folders 0\.\.6 are ambiguous .*give class_order"):
        RAFDB(copy).load(8)
    raf = RAFDB(copy, class_order="raf_db").load(8)
    assert (raf.label + 1).tolist() == [RAF_LABELS[name] for name in raf.names.tolist()]
    affectnet = RAFDB(copy, class_order="affectnet7").load(8)
    assert affectnet.label[raf.label == 0].tolist() == [RAF_DB.index("neutral")] * (raf.label == 0).sum()


def test_class_folders_have_no_annotations(tmp_path):
    with pytest.raises(DataError, match=r"copy in class folders.*leave group=none.*whdeng\.cn"):
        RAFDB(raf_db_folders(tmp_path), group="age").load(8)


def test_an_augmented_copy_is_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("fer_lightning.data.datasets.raf_db.TRAIN", (2,) * 7)
    copy = raf_db_folders(tmp_path)
    shutil.copy(copy / "DATASET/test/2/test_0001_aligned.jpg", copy / "DATASET/train/2/augmented.jpg")
    faces, text = warnings(caplog, copy)
    assert "train has 15 files, RAF-DB 14; 1 of them are byte-identical to test faces" in text
    assert "faces are named by their paths" in text
    assert "train/2/augmented.jpg" in faces.names


def test_a_face_in_another_part_than_its_name_says_is_told(tmp_path, caplog):
    copy = raf_db_folders(tmp_path)
    shutil.move(copy / "DATASET/test/2/test_0001_aligned.jpg", copy / "DATASET/train/2")
    assert (
        "1 faces lie in another part than their names say, such as test_0001.jpg" in warnings(caplog, copy)[1]
    )


def test_realigned_faces_are_told(root, caplog):
    for name in NAMES[:3]:
        picture(root / f"Image/aligned/{name.replace('.', '_aligned.')}", 224, 224)
    assert "3 of 21 aligned images tried are not 100x100 (such as 224x224)" in warnings(caplog, root)[1]


# What is wrong is named


def test_packed_images_are_named(root):
    shutil.rmtree(root / "Image/aligned")
    (root / "Image/aligned.zip").write_text("")
    with pytest.raises(DataError, match=r"Image/aligned\.zip is still packed; unpack it to .*Image/aligned"):
        RAFDB(root).load(8)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            "aligned",
            r'aligned holds original names: 21 files matched without "_aligned", 0 of 21 tried are 100x100',
        ),
        ("original", r'original holds aligned names: 21 files matched with "_aligned", 21 of 21 tried'),
    ],
)
def test_swapped_folders_are_named(root, images, message):
    (root / "Image/aligned").rename(root / "Image/moved")
    (root / "Image/original").rename(root / "Image/aligned")
    (root / "Image/moved").rename(root / "Image/original")
    with pytest.raises(DataError, match=message):
        RAFDB(root, images=images).load(8)


def test_missing_images_stop_or_are_left_out(root, caplog):
    (root / "Image/aligned/train_00003_aligned.jpg").unlink()
    message = r"listed 21 images, present 20; the first missing one is train_00003_aligned\.jpg.*derived copy"
    with pytest.raises(DataError, match=message):
        RAFDB(root).load(8)
    faces, text = warnings(caplog, root, on_bad_image="skip", group="age")
    assert faces.names.tolist() == [name for name in NAMES if name != "train_00003.jpg"]
    assert faces.group[2] == "40-69"
    assert "1 are left out" in text


def test_images_that_do_not_decode_stop_or_are_left_out(root):
    (root / "Image/aligned/train_00003_aligned.jpg").write_text("404")
    with pytest.raises(DataError, match="1 of 21 images"):
        RAFDB(root).load(8)
    assert len(RAFDB(root, on_bad_image="skip").load(8)) == 20


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["train_00001.jpg 5 1"], r"line 1 has 3 fields; official lines.*Ada-CM"),
        (
            [f"train_{i:05d}.jpg {i % 7}" for i in range(1, 15)],
            r"labels run 0\.\.6; the official list is 1\.\.7",
        ),
        (["train_00001.jpg 11"], r"labels run 1\.\.11: this is the compound set; give basic"),
        (["train_00001.jpg 5", "train_00002.jpg 12"], "line 2: label is 12; expected a number from 1 to 7"),
        (["train_00001.jpg happy"], "line 1: label is happy"),
        (["00001.jpg 5"], r"line 1: found 00001\.jpg; expected train_NNNNN\.jpg or test_NNNN\.jpg"),
        (
            ["train_00001.jpg 5", "train_00001.jpg 6"],
            "line 1: train_00001.jpg is listed again in line 2 with label 6",
        ),
        ([], "is empty"),
    ],
)
def test_another_list_is_refused(root, lines, message):
    relist(root, lines)
    with pytest.raises(DataError, match=message):
        RAFDB(root).load(8)


def test_a_face_listed_twice_alike_is_read_once(root, caplog):
    relist(root, [*(f"{name} {label}" for name, label in RAF_LABELS.items()), "train_00002.jpg 3"])
    faces, text = warnings(caplog, root)
    assert faces.names.tolist() == NAMES
    assert "line 2: train_00002.jpg is listed again in line 22 with the same label: read once" in text


@pytest.mark.parametrize(
    ("file", "content", "options", "message"),
    [
        (
            "manual/train_00001_manu_attri.txt",
            "1 2\n" * 5 + "0\n3\n0\n",
            {"group": "race"},
            "race is 3; expected 0..2",
        ),
        ("manual/train_00001_manu_attri.txt", "", {"group": "race"}, "found nothing; expected 3 numbers"),
        ("boundingbox/train_00001_boundingbox.txt", "1 2 3\n", {"images": "original"}, "expected 4 numbers"),
        (
            "boundingbox/train_00001_boundingbox.txt",
            "900 0 990 9",
            {"images": "original"},
            "is outside the 120x80",
        ),
    ],
)
def test_a_wrong_annotation_names_its_file(root, file, content, options, message):
    text(root / "Annotation" / file, content)
    with pytest.raises(DataError, match=rf"train_00001.*{message}"):
        RAFDB(root, **options).load(8)


def test_missing_annotations_are_named(root):
    (root / "Annotation/manual/train_00004_manu_attri.txt").unlink()
    with pytest.raises(DataError, match=r"manual/train_00004_manu_attri\.txt is missing, and 0 more"):
        RAFDB(root, group="age").load(8)
    shutil.rmtree(root / "Annotation/boundingbox")
    with pytest.raises(DataError, match=r"boundingbox does not exist.*since version 1\.1"):
        RAFDB(root, images="original").load(8)
    (root / "Annotation/boundingbox.zip").write_text("")
    with pytest.raises(DataError, match=r"boundingbox\.zip is still packed"):
        RAFDB(root, images="original").load(8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train_00001.jpg 0.5 0.1 0 0 0 0 0\n", "line 1: the shares of the votes sum to 0.6; expected 1"),
        ("train_00001.jpg 0.5 0.5\n", "line 1: found 0.5 0.5; expected 7 numbers"),
        ("train_00001.jpg 1 0 0 0 0 0 0\n", "train_00002.jpg is not listed, and 19 more"),
    ],
)
def test_wrong_votes_are_named(root, content, message):
    text(root / "EmoLabel/distribution_basic.txt", content)
    with pytest.raises(DataError, match=rf"distribution_basic\.txt.*{message}"):
        RAFDB(root, labels="distribution").load(8)


def test_a_release_without_votes_is_named(root):
    (root / "EmoLabel/distribution_basic.txt").unlink()
    with pytest.raises(DataError, match="not every release has it: leave labels=majority"):
        RAFDB(root, labels="distribution").load(8)


def test_votes_that_contradict_the_list_are_counted(root, caplog):
    lines = (root / "EmoLabel/distribution_basic.txt").read_text().splitlines()
    lines[0] = "train_00001.jpg 1 0 0 0 0 0 0"
    text(root / "EmoLabel/distribution_basic.txt", "\n".join(lines))
    assert "1 faces have another label in the list" in warnings(caplog, root, labels="distribution")[1]


def test_basic_beside_compound_asks_for_one(root, tmp_path):
    raf_db(tmp_path / "compound", {"train_00001.jpg": 11})
    with pytest.raises(DataError, match=r"basic and .*compound both hold"):
        RAFDB(tmp_path).load(8)
    with pytest.raises(DataError, match="this is the basic set; give compound"):
        RAFDB(root, compound=root).load(8)
    with pytest.raises(DataError, match="goes with images=aligned"):
        RAFDB(root, images="original", compound=tmp_path / "compound").load(8)
