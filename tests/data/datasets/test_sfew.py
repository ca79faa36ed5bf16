import logging
import shutil

import pytest
from archives import SFEW_EMOTIONS, picture, sfew

from fer_lightning.data.datasets import SFEW
from fer_lightning.data.datasets.base import DataError
from fer_lightning.data.datasets.expected import ALL
from fer_lightning.data.datasets.sfew import VARIANTS
from fer_lightning.emotions import UnknownEmotion


@pytest.fixture
def root(tmp_path):
    return sfew(tmp_path / "SFEW 2.0")


def warnings(caplog, root, **options):
    with caplog.at_level(logging.WARNING):
        faces = SFEW(root, **options).load(8)
    return faces, caplog.text


def test_faces_come_with_film_and_scene(root):
    faces = SFEW(root).load(8)
    assert faces.dataset == "sfew"
    assert faces.names[:2].tolist() == [
        "Train/Angry/Airheads_000519240_00000005.png",
        "Train/Angry/The_Ring_000519240_00000005.png",
    ]
    assert faces.partition.tolist() == ["train"] * 14 + ["test"] * 7
    assert faces.label.tolist() == [emotion for emotion in range(7) for _ in range(2)] + list(range(7))
    assert faces.source[:2].tolist() == ["Airheads", "The_Ring"]
    assert faces.clip[:2].tolist() == ["Airheads_000519240", "The_Ring_000519240"]
    assert set(faces.subject.tolist()) == {""}
    assert [faces.images[row][0, 0, 0] for row in range(14, 21)] == list(range(0, 70, 10))


def test_test_faces_may_be_a_pool(root):
    faces = SFEW(root, test_as_unlabeled=True).load(8)
    assert faces.names[-2:].tolist() == [f"Test/Hulk_00000000{i}_00000001.png" for i in range(2)]
    assert faces.partition[-3:].tolist() == ["test", "unlabeled", "unlabeled"]
    assert faces.label[-2:].tolist() == [-1, -1]


@pytest.mark.parametrize(
    "moves",
    [
        {
            "Train/Train_Aligned_Faces": "Train_Aligned_Faces",
            "Val/Val_Aligned_Faces_new": "Val_Aligned_Faces",
        },
        {"Val/Val_Aligned_Faces_new": "Val/Val_Aligned_Faces"},
        {"Train/Train_Aligned_Faces": "Train_SFEW_2_0/Train_Aligned_Faces/Train_Aligned_Faces"},
    ],
)
def test_other_places_give_the_same_names(root, tmp_path, moves):
    wanted = SFEW(root).load(8).names.tolist()
    for old, new in moves.items():
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)
    assert SFEW(tmp_path).load(8).names.tolist() == wanted


def test_a_copy_without_the_inner_folder_has_the_same_names(root, tmp_path):
    copy = sfew(tmp_path / "copy", aligned=False)
    assert SFEW(copy).load(8).names.tolist() == SFEW(root).load(8).names.tolist()


@pytest.mark.parametrize(("variant", "train", "test"), [(0, 891, 431), (1, 958, 436)])
def test_the_published_counts_sum_up(variant, train, test):
    counts = VARIANTS[variant].counts
    assert (counts["train"][ALL], counts["test"][ALL]) == (train, test)


def test_other_counts_are_an_error_if_strict(root):
    with pytest.raises(
        DataError, match=r"train: found 14 / expected 891 \(SFEW 2.0, aligned: 891/431 of 958/436"
    ):
        SFEW(root, strict=True).load(8)


def test_film_frames_are_refused(tmp_path):
    frames = sfew(tmp_path, aligned=False, size=(720, 576))
    with pytest.raises(
        DataError, match="pictures are 720x576 film frames, not faces; give Train_Aligned_Faces"
    ):
        SFEW(frames).load(8)


@pytest.mark.parametrize("place", ["Train_Aligned_Faces.zip", "Train/Train_Aligned_Faces.zip"])
def test_packed_faces_are_named(root, place):
    shutil.rmtree(root / "Train/Train_Aligned_Faces")
    (root / place).write_text("")
    with pytest.raises(DataError, match=r"Train_Aligned_Faces\.zip is still packed; unpack it"):
        SFEW(root).load(8)


def test_a_tree_without_images_is_named(root):
    for file in (root / "Train/Train_Aligned_Faces/Angry").iterdir():
        file.unlink()
    with pytest.raises(
        DataError, match=r"Angry is empty: some repositories ship the folders.*cs\.anu\.edu\.au"
    ):
        SFEW(root).load(8)


def test_a_missing_part_is_named(root):
    shutil.rmtree(root / "Val")
    with pytest.raises(DataError, match="holds no Val and no Val_Aligned_Faces"):
        SFEW(root).load(8)


def test_what_is_no_sfew_is_told(tmp_path):
    with pytest.raises(DataError, match="holds nothing; expected Train/<emotion>"):
        SFEW(tmp_path).load(8)


def test_a_folder_that_is_no_emotion_is_named(root):
    picture(root / "Train/Train_Aligned_Faces/Bored/a_1_2.png", 4, 4)
    with pytest.raises(UnknownEmotion, match=r"Bored/a_1_2\.png: 'Bored' is not a known emotion"):
        SFEW(root).load(8)


def test_an_image_beside_the_folders_is_named(root):
    picture(root / "Train/Train_Aligned_Faces/a_1_2.png", 4, 4)
    with pytest.raises(DataError, match=r"1 images lie in no emotion's folder, such as a_1_2\.png"):
        SFEW(root).load(8)


def test_renamed_files_lose_the_film_and_that_is_told(root, caplog):
    folder = root / "Train/Train_Aligned_Faces/Angry"
    (folder / "Airheads_000519240_00000005.png").rename(folder / "1.png")
    faces, told = warnings(caplog, root)
    assert (faces.clip[0], faces.source[0]) == ("", "")
    assert "1 of 21 file names name no film: splits cannot be film-disjoint" in told


def test_labels_of_test_are_not_used(root, caplog):
    for emotion in SFEW_EMOTIONS:
        picture(root / f"Test/Test_Aligned_Faces/{emotion}/x_1_1.png", 16, 16)
    faces, told = warnings(caplog, root, test_as_unlabeled=True)
    assert set(faces.label[faces.partition == "unlabeled"].tolist()) == {-1}
    assert "labels of these faces were never published" in told
