import logging
import shutil

import numpy as np
import pytest
from archives import AFF_WILD2_TRIALS, EXPR, VA, aff_wild2, picture, text

from fer_lightning.data.datasets import AffWild2
from fer_lightning.data.datasets.aff_wild2_files import source_video
from fer_lightning.data.datasets.base import DataError
from fer_lightning.emotions import AFF_WILD2

YEAR = "Third ABAW Annotations"
LABELED = [2, *range(4, 11)]  # frames with a label and a crop


@pytest.fixture
def root(tmp_path):
    return aff_wild2(tmp_path / "Aff-Wild2")


def warnings(caplog, root, **options):
    with caplog.at_level(logging.WARNING):
        faces = AffWild2(root, **options).load(8)
    return faces, caplog.text


def test_line_n_is_the_crop_of_frame_n(root):
    faces = AffWild2(root, every=1).load(8)
    assert faces.dataset == "aff_wild2-valence_arousal"
    first = faces.clip == AFF_WILD2_TRIALS["train"][0]
    assert faces.names[first].tolist() == [f"1-30-1280x720/{n:05d}.jpg" for n in LABELED]
    np.testing.assert_allclose(faces.valence_arousal[first], [[n / 20, -n / 20] for n in LABELED], rtol=1e-6)
    assert [faces.images[row][0, 0, 0] for row in np.flatnonzero(first)] == [10 * n for n in LABELED]
    assert set(faces.label.tolist()) == {-1}


def test_the_sets_are_train_and_test_and_both_folders_of_crops_are_read(root):
    faces = AffWild2(root).load(8)
    for part, trials in AFF_WILD2_TRIALS.items():
        assert set(faces.clip[faces.partition == part].tolist()) == set(trials)


@pytest.mark.parametrize(("every", "numbers"), [(1, LABELED), (5, [6]), (2, [5, 7, 9])])
def test_every_so_many_frames_are_taken_by_their_number(root, every, numbers):
    faces = AffWild2(root, every=every).load(8)
    assert faces.names[faces.clip == "video2"].tolist() == [f"video2/{n:05d}.jpg" for n in numbers]


def test_emotions_are_another_task_and_other_is_none(root):
    faces = AffWild2(root, task="emotions", every=1).load(8)
    assert faces.dataset == "aff_wild2-emotions"
    first = faces.clip == "video2"
    assert faces.names[first].tolist() == [
        f"video2/{n:05d}.jpg" for n in (2, 4, 5, 6, 7, 9, 10)
    ]  # 8 is "other"
    assert faces.label[first].tolist() == [1, 3, 4, 5, 6, 0, 1]
    assert faces.taxonomy == AFF_WILD2
    assert np.isnan(faces.valence_arousal).all()


def test_classes_are_read_by_name(root):
    for folder in (root / YEAR / EXPR).iterdir():
        for path in folder.iterdir():
            lines = path.read_text().splitlines()
            path.write_text(
                "\n".join(["Anger,Neutral,Disgust,Fear,Happiness,Sadness,Surprise,Other", *lines[1:]])
            )
    faces = AffWild2(root, task="emotions", every=1).load(8)
    assert faces.label[faces.clip == "video2"].tolist() == [0, 3, 4, 5, 6, 1, 0]


@pytest.mark.parametrize(
    ("trial", "video"),
    [
        ("1-30-1280x720", "1-30-1280x720"),
        ("122-60-1920x1080-5", "122-60-1920x1080"),
        ("10-60-1280x720_right", "10-60-1280x720"),
        ("4-30-1920x1080-2_left", "4-30-1920x1080"),
        ("video45_7", "video45"),
        ("video2_left", "video2"),
        ("video5", "video5"),
        ("105", "105"),
    ],
)
def test_persons_and_parts_of_a_video_have_one_source(trial, video):
    assert source_video(trial) == video


def test_trials_know_their_video(root):
    faces = AffWild2(root).load(8)
    assert dict(zip(faces.clip.tolist(), faces.source.tolist(), strict=True)) == {
        trial: source_video(trial) for trials in AFF_WILD2_TRIALS.values() for trial in trials
    }


@pytest.mark.parametrize(
    "place",
    ["annotations", "6th_ABAW_Annotations/6th_ABAW_Annotations", "phoebe/dk15/new_aff_wild/ready"],
)
def test_annotations_are_found_in_wrappers(root, place):
    wanted = AffWild2(root).load(8).names.tolist()
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / YEAR).rename(root / place)
    va = root / place / VA
    va.rename(va.with_name("VA_Set"))
    (va.with_name("VA_Set") / "Train_Set").rename(va.with_name("VA_Set") / "Train_set")
    assert AffWild2(root).load(8).names.tolist() == wanted


def test_annotations_may_lie_elsewhere_and_crops_in_a_doubled_folder(root, tmp_path):
    wanted = AffWild2(root).load(8).names.tolist()
    (root / YEAR).rename(tmp_path / "labels")
    (root / "cropped_aligned").rename(root / "inner")
    (root / "cropped_aligned").mkdir()
    (root / "inner").rename(root / "cropped_aligned/cropped_aligned")
    (root / "cropped_aligned_new_50_vids").rename(root / "cropped_aligned/cropped_aligned_new_50_vids")
    assert AffWild2(tmp_path, annotations=tmp_path / "labels").load(8).names.tolist() == wanted


def test_windows_lines_and_blanks_in_the_header_change_nothing(root):
    wanted = AffWild2(root, every=1).load(8)
    path = root / YEAR / VA / "Train_Set/105.txt"
    lines = ["valence, arousal", *path.read_text().splitlines()[1:]]
    text(path, "\r\n".join(lines) + "\r\n")
    np.testing.assert_array_equal(AffWild2(root, every=1).load(8).valence_arousal, wanted.valence_arousal)


def test_labels_without_crops_and_crops_without_labels_are_usual(root, caplog):
    picture(root / "cropped_aligned/105/00050.jpg", 16, 16)  # beyond the last line
    faces, told = warnings(caplog, root, every=1)
    assert "105/00050.jpg" not in faces.names
    assert "4 and 2 trials; 12 labeled frames have no crop" in told
    assert "105: " not in told
    for n in (2, 4):
        (root / f"cropped_aligned/105/{n:05d}.jpg").unlink()
    assert "105: 4 of 10 labels have no crop" in warnings(caplog, root)[1]


def test_published_counts_are_those_of_every_frame(root, caplog):
    assert "expected" not in warnings(caplog, root)[1]
    assert "test: found 16 / expected" in warnings(caplog, root, every=1)[1]


# What is wrong is named


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("VA", "0.1,0.2\n0.1,0.2\n", r"the first line is '0\.1,0\.2', no header: labels would shift"),
        ("VA", "arousal,valence\n0,0\n", "the header is arousal,valence; expected valence,arousal"),
        ("VA", "valence,arousal\n0,0\n-2,0\n", r"line 3: found -2,0; expected \[-1, 1\], or -5"),
        ("VA", "valence,arousal\n0\n", "line 2: found '0'; expected valence,arousal"),
        ("VA", "valence,arousal\n0,0\n\n0,0\n", "line 3: found ''"),
        ("VA", "", "the first line is ''"),
        ("EXPR", "Neutral,Anger\n2\n", r"line 2: found '2'; expected 0\.\.1, or -1 to ignore"),
        ("EXPR", "Neutral,Anger\n-2\n", "line 2: found '-2'"),
        ("EXPR", "0\n1\n", "the first line is '0', no header"),
    ],
)
def test_a_wrong_label_file_is_named(root, task, content, message):
    folder, option = {"VA": (VA, "valence_arousal"), "EXPR": (EXPR, "emotions")}[task]
    text(root / YEAR / folder / "Train_Set/105.txt", content)
    with pytest.raises(DataError, match=rf"105\.txt.*{message}"):
        AffWild2(root, task=option).load(8)


def test_a_trial_in_both_sets_is_named(root):
    shutil.copy(root / YEAR / VA / "Train_Set/105.txt", root / YEAR / VA / "Validation_Set/105.txt")
    with pytest.raises(DataError, match=r"105\.txt is in .*Train_Set and in .*Validation_Set"):
        AffWild2(root).load(8)


def test_missing_trials_are_named(root, caplog):
    shutil.rmtree(root / "cropped_aligned_new_50_vids")
    message = "2 of 6 trials have annotations but no folder .*: is cropped_aligned_new_50_vids missing"
    with pytest.raises(DataError, match=message):
        AffWild2(root).load(8)
    shutil.copytree(root / "cropped_aligned/105", root / "cropped_aligned/video2")
    faces, told = warnings(caplog, root, on_bad_image="skip")
    assert set(faces.clip[faces.partition == "test"].tolist()) == {"video2"}
    assert "1 of 6 trials have annotations but no folder" in told


def test_two_years_are_ambiguous(root):
    shutil.copytree(root / YEAR, root / "6th_ABAW_Annotations")
    with pytest.raises(DataError, match="are both there; give annotations of one year"):
        AffWild2(root).load(8)
    assert len(AffWild2(root, annotations=root / YEAR).load(8)) == 6


def test_missing_sets_and_packed_crops_are_named(root, tmp_path):
    shutil.rmtree(root / YEAR / VA / "Validation_Set")
    with pytest.raises(
        DataError, match="holds no VA_Estimation_Challenge/Validation_Set; give a folder that does"
    ):
        AffWild2(root).load(8)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/cropped_aligned.zip").write_text("")
    with pytest.raises(DataError, match=r"cropped_aligned\.zip is still packed; unpack it"):
        AffWild2(tmp_path / "other").load(8)


def test_sets_without_a_labeled_frame_are_named(root):
    for path in (root / YEAR / VA).rglob("*.txt"):
        path.unlink()
    with pytest.raises(DataError, match="Validation_Set label no frame that has a crop"):
        AffWild2(root).load(8)
