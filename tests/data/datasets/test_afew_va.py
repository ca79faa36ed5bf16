import json
import logging
import shutil

import numpy as np
import pytest
from archives import AFEW_VA_CLIPS, afew_va, picture

from fer_lightning.data.datasets import AFEWVA
from fer_lightning.data.datasets.base import DataError
from fer_lightning.errors import InputError

NAMES = [f"{clip}/{frame:05d}.png" for clip, (_, count) in AFEW_VA_CLIPS.items() for frame in range(count)]


@pytest.fixture
def root(tmp_path):
    return afew_va(tmp_path / "AFEW-VA")


def edit(root, clip="01/001", frame=None, **values):
    """Change keys of a clip or of one of its frames; None takes a key away."""
    path = root / clip / f"{clip[-3:]}.json"
    content = json.loads(path.read_text())
    target = content["frames"][frame] if frame else content
    for key, value in values.items():
        if value is None:
            del target[key]
        else:
            target[key] = value
    path.write_text(json.dumps(content))


def warnings(caplog, root, **options):
    with caplog.at_level(logging.WARNING):
        faces = AFEWVA(root, **options).load(8)
    return faces, caplog.text


def test_frames_come_with_valence_arousal_actor_and_clip(root):
    faces = AFEWVA(root).load(8)
    assert faces.names.tolist() == NAMES
    assert set(faces.label.tolist()) == {-1}
    np.testing.assert_allclose(faces.valence_arousal[:3], [[0, 0], [0.1, -0.1], [0.2, -0.2]], rtol=1e-6)
    assert faces.subject.tolist() == ["ann lee"] * 5 + ["bo"] * 4 + ["cy"] + ["di"] * 2
    assert faces.clip[:6].tolist() == ["001"] * 3 + ["002"] * 2 + ["051"]
    for row, name in enumerate(NAMES):
        assert (faces.images[row] == 10 * int(name[4:9])).all()


@pytest.mark.parametrize("wrapper", ["", "afew-va/afew-va"])
def test_clips_need_no_outer_folders(root, tmp_path, wrapper):
    flat = afew_va(tmp_path / "flat" / wrapper, flat=True)
    assert AFEWVA(tmp_path / "flat").load(8).names.tolist() == NAMES
    assert AFEWVA(flat).load(8).partition.tolist() == AFEWVA(root).load(8).partition.tolist()


def test_actors_go_to_the_fold_with_the_fewest_frames(root):
    tests = []
    for fold in range(1, 6):
        faces = AFEWVA(root, fold=fold).load(8)
        tests.append(set(faces.subject[faces.partition == "test"].tolist()))
        following = AFEWVA(root, fold=fold % 5 + 1).load(8)
        assert ((faces.partition == "val") == (following.partition == "test")).all()
        assert faces.dataset == f"afew_va-fold{fold}"
    assert tests == [{"ann lee"}, {"bo"}, {"di"}, {"cy"}, set()]


def test_annotations_belong_to_frames_by_name(root):
    (root / "01/001/00000.png").unlink()
    faces = AFEWVA(root, on_bad_image="skip").load(8)
    assert faces.names[:2].tolist() == ["001/00001.png", "001/00002.png"]
    np.testing.assert_allclose(faces.valence_arousal[:2, 0], [0.1, 0.2], rtol=1e-6)
    assert (faces.images[0] == 10).all()


def test_missing_frames_are_named_and_extra_ones_told(root, caplog):
    (root / "02/051/00002.png").unlink()
    with pytest.raises(
        DataError, match=r"051: 4 frames annotated, 3 images; 00002\.png is missing, and 0 more"
    ):
        AFEWVA(root).load(8)
    picture(root / "01/001/00009.png", 90, 60)
    _, told = warnings(caplog, root, on_bad_image="skip")
    assert "00002.png is missing, and 0 more: left out" in told
    assert "001: 1 frames have no annotation and are left out" in told


def test_folders_of_crops_are_ignored_and_told(root, caplog):
    shutil.copytree(root / "01/001", root / "01/001_cropped")
    faces, told = warnings(caplog, root)
    assert faces.names.tolist() == NAMES
    assert "1 folders end in _cropped: ignored" in told


def test_values_that_were_divided_before_are_told(root, caplog):
    for clip, (_, count) in AFEW_VA_CLIPS.items():
        for frame in range(count):
            outer = f"{1 + (int(clip) - 1) // 50:02d}"
            edit(root, f"{outer}/{clip}", f"{frame:05d}", valence=0.5, arousal=-1)
    faces, told = warnings(caplog, root)
    assert "give scale=1 if they had been divided" in told
    caplog.clear()
    faces, told = warnings(caplog, root, scale=1)
    assert "scale" not in told
    assert faces.valence_arousal[0].tolist() == [0.5, -1]


def test_published_counts_are_compared(root, caplog):
    _, told = warnings(caplog, root)
    assert "all: found 12 / expected 30,051 (AFEW-VA)" in told
    assert "5 clips (600 in AFEW-VA)" in told
    with pytest.raises(DataError, match="expected 30,051"):
        AFEWVA(root, strict=True).load(8)


@pytest.mark.parametrize(
    ("frame", "values", "message"),
    [
        (None, {"actor": None}, r"001\.json has no 'actor'; the official shape is"),
        (None, {"actor": " "}, "actor is empty; the folds keep actors apart"),
        (None, {"video_id": "002"}, "video_id is 002; expected 001"),
        (None, {"frames": None}, "has no 'frames'"),
        ("00001", {"valence": None}, "frame 00001 has no 'valence'"),
        ("00001", {"valence": 10.5}, r"frame 00001: valence is 10.5; expected -10\.\.10"),
        ("00001", {"arousal": "high"}, "frame 00001: arousal is high"),
        ("00001", {"landmarks": [[1, 2]]}, r"frame 00001: landmarks are \(1, 2\); expected 68 x and y"),
        ("00001", {"landmarks": [[1, 2], [3]]}, "frame 00001: landmarks are"),
        ("00001", {"landmarks": None}, "frame 00001 has no 'landmarks'"),
    ],
)
def test_a_wrong_annotation_is_named(root, frame, values, message):
    edit(root, frame=frame, **values)
    with pytest.raises(DataError, match=message):
        AFEWVA(root).load(8)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is no JSON"), ("[]", "is of another shape; expected")]
)
def test_a_file_that_is_no_annotation_is_named(root, content, message):
    (root / "01/001/001.json").write_text(content)
    with pytest.raises(DataError, match=rf"001\.json {message}"):
        AFEWVA(root).load(8)


def test_packed_folders_and_doubled_clips_are_named(root):
    shutil.copytree(root / "01/001", root / "001")
    with pytest.raises(DataError, match="are both clip 001; remove one"):
        AFEWVA(root).load(8)
    (root / "03.zip").write_text("")
    with pytest.raises(DataError, match=r"03\.zip is still packed; unpack it to .*03"):
        AFEWVA(root).load(8)


def test_what_is_no_afew_va_is_told(tmp_path):
    with pytest.raises(DataError, match=r"holds nothing; expected clips 001 \.\.\. 600"):
        AFEWVA(tmp_path).load(8)
    with pytest.raises(InputError, match="scale"):
        AFEWVA(tmp_path, scale=0)


def test_clips_without_frames_are_told(tmp_path):
    (tmp_path / "001").mkdir()
    (tmp_path / "001/001.json").write_text('{"video_id": "001", "actor": "a", "frames": {}}')
    with pytest.raises(DataError, match="no clip has a frame"):
        AFEWVA(tmp_path).load(8)
