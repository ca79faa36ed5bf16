import logging
import shutil

import numpy as np
import pytest
from archives import (
    AFFECTNET_HEADER,
    AFFECTNET_VA,
    affectnet_arrays,
    affectnet_automatic,
    affectnet_lists,
    affectnet_row,
    picture,
    text,
)

from fer_lightning.data.datasets import AffectNet
from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.expected import ALL
from fer_lightning.emotions import AFFECTNET_7, AFFECTNET_8

TRAINING = "Manually_Annotated_file_lists/training.csv"
VALIDATION = "Manually_Annotated_file_lists/validation.csv"


@pytest.fixture
def listed(tmp_path):
    return affectnet_lists(tmp_path / "AffectNet")


@pytest.fixture
def numbered(tmp_path):
    return affectnet_arrays(tmp_path / "AffectNet")


def warnings(caplog, root, **options):
    with caplog.at_level(logging.WARNING):
        faces = AffectNet(root, **options).load(8)
    return faces, caplog.text


def relist(root, *rows, header=AFFECTNET_HEADER, file=TRAINING):
    text(root / file, "\n".join(line for line in (header, *rows) if line))


# The lists


def test_faces_are_cut_out_of_their_pictures(listed):
    faces = AffectNet(listed).load(8)
    assert faces.dataset == "affectnet-8"
    assert faces.taxonomy == AFFECTNET_8
    assert faces.names[0] == f"1/{0:056x}.jpg"
    assert faces.partition.tolist() == ["train"] * 8 + ["test"] * 8
    assert faces.label.tolist() == list(range(8)) * 2
    np.testing.assert_array_equal(faces.valence_arousal, np.tile(np.array(AFFECTNET_VA, np.float32), (16, 1)))
    for row, value in enumerate([*range(0, 80, 10), *range(110, 190, 10)]):
        assert (faces.images[row] == value).all()


def test_seven_classes_leave_contempt_out(listed):
    faces = AffectNet(listed, classes=7).load(8)
    assert (faces.dataset, faces.taxonomy) == ("affectnet-7", AFFECTNET_7)
    assert faces.label.tolist() == list(range(7)) * 2


@pytest.mark.parametrize(("classes", "kept"), [(8, [*range(8), -1]), (7, [*range(7), -1, -1])])
def test_faces_outside_the_emotions_may_stay_for_their_valence(listed, classes, kept):
    faces = AffectNet(listed, classes=classes, outside="valence_arousal").load(8)
    assert faces.label.tolist() == kept * 2
    assert not np.isnan(faces.valence_arousal).any()
    assert faces.dataset == f"affectnet-{classes}-valence_arousal"


def test_a_face_without_valence_has_none(listed):
    row = affectnet_row(f"1/{0:056x}.jpg", 0, va="-2,-2")
    relist(listed, row)
    faces = AffectNet(listed).load(8)
    assert np.isnan(faces.valence_arousal[0]).all()
    assert not np.isnan(faces.valence_arousal[1:]).any()


@pytest.mark.parametrize(
    ("lists", "images"),
    [
        ("Manually_Annotated", "Manually_Annotated/Manually_Annotated/Manually_Annotated_Images"),
        ("Manually_annotated_file_list", "Manually_Annotated/Manually_Annotated_Images"),
        ("Manually_Annotated/Manually_Annotated_file_lists", "Manually_Annotated/Manually_Annotated"),
        (".", "Manually_Annotated_compressed"),
    ],
)
def test_folders_of_other_spellings_are_found(listed, tmp_path, lists, images):
    other = tmp_path / "other/wrapper"
    for name in ("training", "validation"):
        (other / lists).mkdir(parents=True, exist_ok=True)
        shutil.copy(
            listed / f"Manually_Annotated_file_lists/{name}.csv", other / lists / f"Manually_{name}.csv"
        )
    (other / images).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(listed / "Manually_Annotated_Images", other / images)
    assert AffectNet(tmp_path / "other").load(8).names.tolist() == AffectNet(listed).load(8).names.tolist()


def test_a_list_without_header_is_read_and_told(listed, caplog):
    wanted = AffectNet(listed).load(8).names.tolist()
    lines = (listed / VALIDATION).read_text().splitlines()[1:]
    text(listed / VALIDATION, "\r\n".join(lines))
    faces, told = warnings(caplog, listed)
    assert faces.names.tolist() == wanted
    assert "validation.csv: no header line; taken as the official nine columns" in told


def test_a_header_may_begin_with_a_hash(tmp_path, caplog):
    root = affectnet_lists(tmp_path, header=f"\ufeff#{AFFECTNET_HEADER}")
    faces, told = warnings(caplog, root)
    assert len(faces) == 16
    assert "header" not in told


def test_a_picture_listed_again_is_another_face(listed):
    file = f"1/{0:056x}.jpg"
    relist(listed, affectnet_row(file, 0), affectnet_row(file, 1, box="0,0,10,10"))
    faces = AffectNet(listed).load(8)
    assert faces.names[:2].tolist() == [file, f"{file}#2"]
    assert [faces.images[row][0, 0, 0] for row in (0, 1)] == [0, 255]


def test_images_of_other_spellings_are_found_and_counted(listed, caplog):
    folder = listed / "Manually_Annotated_Images/1"
    (folder / f"{0:056x}.jpg").rename(folder / f"{0:056x}.TIF")
    (folder / f"{3:056x}.jpg").rename(folder / f"{3:056x}.JPG")
    (folder / "Thumbs.db").write_text("")
    faces, told = warnings(caplog, listed)
    assert len(faces) == 16
    assert faces.names[0] == f"1/{0:056x}.jpg"
    assert "1 images found in another case" in told
    assert "1 images found with another suffix" in told


@pytest.mark.parametrize("box", ["10,10,-1,-1", "NULL,NULL,NULL,NULL", "10.0,10.0,0,5"])
def test_rows_without_a_face_are_left_out_and_counted(listed, caplog, box):
    relist(listed, affectnet_row(f"1/{0:056x}.jpg", 0, box=box), affectnet_row(f"2/{1:056x}.jpg", 1))
    faces, told = warnings(caplog, listed)
    assert faces.label[:2].tolist() == [1, 0]
    assert "training.csv: 1 rows have no box of a face and are left out" in told


def test_the_automatic_half_is_a_pool_without_labels(listed):
    affectnet_automatic(listed)
    faces = AffectNet(listed, automatic=True).load(8)
    assert len(faces) == 17
    assert (faces.names[-1], faces.partition[-1], faces.label[-1]) == ("automatic/7/a.png", "unlabeled", -1)
    assert np.isnan(faces.valence_arousal[-1]).all()
    assert (faces.images[16] == 250).all()
    assert len(AffectNet(listed).load(8)) == 16


@pytest.mark.parametrize(
    ("classes", "outside", "train", "test"),
    [
        (8, "drop", 287_652, 4_000),
        (7, "drop", 283_902, 3_500),
        (8, "valence_arousal", 320_740, 4_500),
    ],
)
def test_the_published_counts_of_the_lists_sum_up(listed, classes, outside, train, test):
    (variant,) = AffectNet(listed, classes=classes, outside=outside).index().variants
    assert (variant.counts["train"][ALL], variant.counts["test"][ALL]) == (train, test)


# The lists, wrong


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (affectnet_row("1/a.jpg", 11), "expression is '11'; expected 0..10"),
        (affectnet_row("1/a.jpg", 0, va="1.5,0"), r"valence is 1.5; expected \[-1, 1\], or -2 if unknown"),
        (affectnet_row("1/a.jpg", 0, va="0,high"), "arousal is 'high', not a number"),
        (affectnet_row("1/a.jpg", 0, box="a,b,1,2"), "the box is a b 1 2; expected four numbers"),
        ("1/a.jpg,1,2,3", "4 columns instead of 9; is it cut off"),
    ],
)
def test_a_wrong_line_is_named(listed, row, message):
    relist(listed, affectnet_row(f"1/{0:056x}.jpg", 0), "", row)
    text(listed / TRAINING, f"{AFFECTNET_HEADER}\n{affectnet_row(f'1/{0:056x}.jpg', 0)}\n\n{row}\n")
    with pytest.raises(DataError, match=rf"training\.csv, line 4: {message}"):
        AffectNet(listed).load(8)


def test_a_derived_list_is_refused(listed):
    header = ",".join(
        AFFECTNET_HEADER.split(",")[:5] + [f"x{i}" for i in range(136)] + ["expression", "valence"]
    )
    relist(listed, header=header)
    with pytest.raises(DataError, match=r"columns 5\.\.\.\d+ are landmarks; give the original CSV"):
        AffectNet(listed).load(8)
    relist(listed, header="image,label")
    with pytest.raises(DataError, match=r"has no column subDirectory_filePath, .*; it has: image, label"):
        AffectNet(listed).load(8)
    relist(listed, header="")
    with pytest.raises(DataError, match=r"training\.csv is empty"):
        AffectNet(listed).load(8)


def test_what_is_there_of_each_list_is_told(listed):
    shutil.rmtree(listed / "Manually_Annotated_Images")
    for i in range(11, 22):
        picture(listed / f"Manually_Annotated_Images/{1 + i % 3}/{i:056x}.jpg", 120, 80)
    message = (
        r"listed 16 images, present 8;.*There are of training\.csv: 0 of 8 faces; validation\.csv: 8 of 8"
    )
    with pytest.raises(DataError, match=message):
        AffectNet(listed).load(8)
    (listed / TRAINING).unlink()
    with pytest.raises(
        DataError, match=r"holds Manually_Annotated_file_lists/validation\.csv, but not training\.csv"
    ):
        AffectNet(listed).load(8)


def test_missing_images_may_be_left_out(listed, caplog):
    (listed / f"Manually_Annotated_Images/1/{0:056x}.jpg").unlink()
    faces, told = warnings(caplog, listed, on_bad_image="skip")
    assert faces.label.tolist() == [*range(1, 8), *range(8)]
    assert "1 are left out" in told


def test_packed_images_are_named(listed):
    shutil.rmtree(listed / "Manually_Annotated_Images")
    with pytest.raises(
        DataError, match=r"Manually_Annotated_Images does not exist; expected the folders 1, 2"
    ):
        AffectNet(listed).load(8)
    (listed / "Manually_Annotated.part1.rar").write_text("")
    with pytest.raises(DataError, match=r"Manually_Annotated\.part1\.rar is still packed"):
        AffectNet(listed).load(8)


def test_a_missing_automatic_list_is_named(listed):
    with pytest.raises(DataError, match=r"holds no automatically_annotated\.csv"):
        AffectNet(listed, automatic=True).load(8)


# The form of March 2021


@pytest.mark.parametrize("as_text", [True, False])
def test_numbered_faces_are_read(tmp_path, as_text):
    faces = AffectNet(affectnet_arrays(tmp_path, as_text)).load(8)
    assert faces.dataset == "affectnet2021-8"
    assert faces.names[:3].tolist() == ["train_set/0.jpg", "train_set/3.jpg", "train_set/6.jpg"]
    assert faces.names[-1] == "val_set/121.jpg"
    assert faces.partition.tolist() == ["train"] * 8 + ["test"] * 8
    assert faces.label.tolist() == list(range(8)) * 2
    np.testing.assert_array_equal(faces.valence_arousal[5], np.array(AFFECTNET_VA, np.float32))
    assert [faces.images[row][0, 0, 0] for row in range(8)] == list(range(0, 80, 10))


def test_numbered_faces_of_seven_classes(numbered):
    assert AffectNet(numbered, classes=7).load(8).label.tolist() == list(range(7)) * 2


def test_the_small_files_are_read_once(numbered, monkeypatch):
    wanted = AffectNet(numbered).load(8)
    monkeypatch.setattr(np, "load", Guard(np.load))
    faces = AffectNet(numbered).load(8)
    np.testing.assert_array_equal(faces.emotion, wanted.emotion)
    np.save(numbered / "train_set/annotations/0_exp.npy", np.array("7"))
    with pytest.raises(AssertionError, match="read again"):
        AffectNet(numbered).load(8)


class Guard:
    """Opens the cache and no annotation."""

    def __init__(self, load):
        self.load = load

    def __call__(self, path, **options):
        assert "annotations" not in str(path), "read again"
        return self.load(path, **options)


@pytest.mark.parametrize(("classes", "train", "test"), [(8, 287_651, 3_999), (7, 283_901, 3_500)])
def test_the_published_counts_of_2021_sum_up(numbered, classes, train, test):
    (variant,) = AffectNet(numbered, classes=classes).index().variants
    assert (variant.counts["train"][ALL], variant.counts["test"][ALL]) == (train, test)


def test_other_counts_are_an_error_if_strict(numbered):
    with pytest.raises(DataError, match=r"train: found 8 / expected 287,651"):
        AffectNet(numbered, strict=True).load(8)


def test_an_image_without_label_and_a_label_without_image_are_named(numbered, caplog):
    (numbered / "train_set/images/3.jpg").unlink()
    (numbered / "train_set/annotations/9_exp.npy").unlink()
    with pytest.raises(
        DataError, match=r"3_exp\.npy has no .*images/3\.jpg, and 0 more; .*9\.jpg has no .*9_exp\.npy"
    ):
        AffectNet(numbered).load(8)
    faces, told = warnings(caplog, numbered, on_bad_image="skip")
    assert faces.label.tolist() == [0, 2, 4, 5, 6, 7, *range(8)]
    assert "9.jpg has no" in told


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("exp", "8", r"holds 8; expected 0\.\.7"),
        ("val", "1.5", r"holds 1.5; expected \[-1, 1\]"),
        ("aro", "calm", "does not hold one number"),
        ("val", [1.0, 2.0], "does not hold one number"),
    ],
)
def test_a_wrong_small_file_is_named(numbered, kind, value, message):
    np.save(numbered / f"train_set/annotations/3_{kind}.npy", np.array(value))
    with pytest.raises(DataError, match=rf"3_{kind}\.npy {message}"):
        AffectNet(numbered).load(8)


def test_unknown_valence_is_counted(numbered, caplog):
    np.save(numbered / "train_set/annotations/3_val.npy", np.array("-2"))
    (numbered / "train_set/annotations/6_aro.npy").unlink()
    faces, told = warnings(caplog, numbered)
    assert np.isnan(faces.valence_arousal).any(1).sum() == 2
    assert "2 faces have no valence or arousal" in told


def test_packed_annotations_are_named(numbered):
    shutil.rmtree(numbered / "train_set/annotations")
    (numbered / "train_set/annotations.zip").write_text("")
    with pytest.raises(DataError, match=r"annotations\.zip is still packed"):
        AffectNet(numbered).load(8)


def test_options_of_the_lists_are_refused(numbered):
    with pytest.raises(DataError, match="no automatic half"):
        AffectNet(numbered, automatic=True).load(8)


# Neither


def test_neither_form_names_both_and_the_page(tmp_path):
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(DataError, match=r"holds holiday\.jpg; expected .*training\.csv.*_exp\.npy"):
        AffectNet(tmp_path).load(8)
    with pytest.raises(DataError, match="nowhere does not exist"):
        AffectNet(tmp_path / "nowhere").load(8)


def test_both_forms_are_ambiguous(listed):
    affectnet_arrays(listed)
    with pytest.raises(DataError, match="holds both forms"):
        AffectNet(listed).load(8)


@pytest.mark.parametrize(
    "folders",
    [
        ("angry", "happy", "sad"),
        ("train/0", "train/1", "train/2"),
        ("a/Test/Anger", "a/Test/fear", "a/Test/Happy"),
    ],
)
def test_a_repackaged_subset_is_named(tmp_path, folders):
    for folder in folders:
        picture(tmp_path / folder / "1.png", 4, 4)
    with pytest.raises(
        DataError, match=r"3 images in class folders: a re-packaged subset.*FaceFolder.*mohammadmahoor"
    ):
        AffectNet(tmp_path).load(8)
