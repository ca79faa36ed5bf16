import numpy as np
import pytest

from fer_lightning.data.synthetic.dataset import PROTOTYPES, SyntheticFaces, draw_clip, draw_face
from fer_lightning.data.synthetic.rendering import Actions, Identity, Scene, render
from fer_lightning.emotions import BASIC_7, UnknownEmotion
from fer_lightning.errors import InputError

SIZE = 24


@pytest.fixture(scope="module")
def faces():
    return SyntheticFaces(train=70, val=21, test=35, unlabeled=14).load(SIZE)


def pixels(faces):
    return np.stack([faces.images[position] for position in range(len(faces))])


def test_two_loads_give_the_same_bytes(faces):
    again = SyntheticFaces(train=70, val=21, test=35, unlabeled=14).load(SIZE)
    np.testing.assert_array_equal(pixels(faces), pixels(again))
    np.testing.assert_array_equal(faces.emotion, again.emotion)
    np.testing.assert_array_equal(faces.valence_arousal, again.valence_arousal)


def test_another_seed_gives_other_faces(faces):
    other = SyntheticFaces(train=70, val=21, test=35, unlabeled=14, seed=1).load(SIZE)
    assert (pixels(other) != pixels(faces)).any((1, 2, 3)).all()
    assert other.dataset != faces.dataset


def test_no_two_faces_are_the_same(faces):
    assert len(np.unique(pixels(faces).reshape(len(faces), -1), axis=0)) == len(faces)


def test_a_face_depends_on_no_other():
    few, many = SyntheticFaces(train=10, val=3, test=0), SyntheticFaces(train=30, val=0, test=5, unlabeled=9)
    few, many = few.load(SIZE), many.load(SIZE)
    same = few.partition == "train"
    np.testing.assert_array_equal(pixels(few)[same], pixels(many)[:10])
    for column in ("names", "emotion", "valence_arousal", "subject", "group"):
        np.testing.assert_array_equal(getattr(few, column)[same], getattr(many, column)[:10])


def test_names_say_where_a_face_belongs(faces):
    assert faces.names[[0, 12, 70, 91, 126]].tolist() == [
        "train/00000", "train/00012", "val/00000", "test/00000", "unlabeled/00000",
    ]  # fmt: skip
    assert [name.split("/")[0] for name in faces.names] == faces.partition.tolist()


def test_what_was_requests_for_is_in_the_name_of_the_data_set():
    requests = [{}, {"train": 8}, {"val": 8}, {"test": 8}, {"unlabeled": 8}, {"seed": 8}]
    small = {"train": 1, "val": 1, "test": 1}
    assert len({SyntheticFaces(**(small | options)).load(16).dataset for options in requests}) == len(
        requests
    )


def test_partitions_share_no_subject_and_no_face(faces):
    subjects = {p: set(faces.subject[faces.partition == p]) for p in ("train", "val", "test", "unlabeled")}
    assert {p: len(s) for p, s in subjects.items()} == {"train": 10, "val": 3, "test": 5, "unlabeled": 2}
    assert len(set.union(*subjects.values())) == 20
    people = {
        draw_face(0, p, 7 * k).identity for p in ("train", "val", "test", "unlabeled") for k in range(9)
    }
    assert len(people) == 36


def test_a_subject_poses_each_emotion_once_and_stays_the_same_person(faces):
    for subject in np.unique(faces.subject[faces.partition == "train"]):
        of = faces.subject == subject
        assert sorted(faces.label[of]) == list(range(7))
        assert len(set(faces.group[of])) == 1
    assert len({draw_face(0, "train", number).identity for number in range(7)}) == 1


def test_labels_are_hard_and_unlabeled_faces_have_none(faces):
    hidden = faces.partition == "unlabeled"
    assert faces.taxonomy == BASIC_7
    np.testing.assert_array_equal(
        np.sort(faces.emotion[~hidden], 1), np.tile([0, 0, 0, 0, 0, 0, 1], (126, 1))
    )
    assert np.isnan(faces.emotion[hidden]).all()
    assert np.isnan(faces.valence_arousal[hidden]).all()
    assert not np.isnan(faces.valence_arousal[~hidden]).any()


# Signs of valence and arousal, from the circumplex.
@pytest.mark.parametrize(
    ("emotion", "valence", "arousal"),
    [
        ("anger", -1, 1), ("disgust", -1, 1), ("fear", -1, 1), ("happiness", 1, 1),
        ("sadness", -1, -1), ("surprise", 1, 1), ("neutral", 0, 0),
    ],
)  # fmt: skip
def test_valence_and_arousal_follow_the_emotion_and_its_intensity(faces, emotion, valence, arousal):
    of = faces.valence_arousal[faces.label == BASIC_7.index(emotion)]
    assert np.abs(of).max() <= 1
    assert (np.sign(of) == [valence, arousal]).all()
    if emotion != "neutral":
        assert len(np.unique(of, axis=0)) > 10  # each face has its own intensity
        angles = np.arctan2(of[:, 1], of[:, 0])
        assert np.ptp(angles) < 1e-4  # and the emotion its own direction


def test_all_groups_are_there():
    groups = {draw_face(0, "train", 7 * k).identity.skin_tone * 3 // 1 for k in range(40)}
    assert groups == {0, 1, 2}
    loaded = SyntheticFaces(train=280, val=0, test=0).load(16)
    assert set(loaded.group) == {"skin-light", "skin-medium", "skin-dark"}
    mean = {g: pixels(loaded)[loaded.group == g, 3:7, 6:10].mean() for g in set(loaded.group)}
    assert mean["skin-light"] > mean["skin-medium"] > mean["skin-dark"]


def test_prototypes_are_there_for_every_emotion_and_all_differ():
    assert tuple(PROTOTYPES) == BASIC_7.emotions
    drawn = [render(Identity(), p.always, Scene(), 48).astype(int) for p in PROTOTYPES.values()]
    for k, image in enumerate(drawn):
        for other in drawn[:k]:
            assert np.abs(image - other).mean() > 2


@pytest.mark.parametrize("emotion", BASIC_7.emotions)
def test_a_clip_goes_from_neutral_to_the_apex(emotion):
    clip = draw_clip(emotion, frames=9, size=48, seed=5)
    neutral = draw_clip("neutral", frames=2, size=48, seed=5)
    assert clip.images.shape == (9, 48, 48, 3)
    assert clip.images.dtype == np.uint8
    np.testing.assert_array_equal(clip.images[0], neutral.images[0])  # the same person, at rest
    assert clip.intensity[0] == 0
    assert clip.intensity[-1] == 1
    assert (np.diff(clip.intensity) > 0).all()
    prototype = PROTOTYPES[emotion]
    np.testing.assert_allclose(
        clip.valence_arousal, clip.intensity[:, None] * [[prototype.valence, prototype.arousal]], atol=1e-6
    )
    if emotion != "neutral":
        away = np.abs(clip.images.astype(int) - clip.images[0]).mean((1, 2, 3))
        assert away[0] == 0 < away[4] < away[8]


def test_a_clip_depends_on_its_seed_alone():
    first, again, other = (draw_clip("joy", 3, 24, seed).images for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


def test_every_drawn_face_stays_within_the_range_of_its_actions():
    for number in range(70):
        actions = draw_face(3, "test", number).actions
        assert isinstance(actions, Actions)  # would have raised otherwise
        assert max(vars(actions).values()) > 0.05  # no face is quite at rest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": -1}, "train is -1; it must be"),
        ({"unlabeled": -3}, "unlabeled is -3; it must be"),
        ({"seed": -1}, "seed is -1; it must be"),
        ({"train": 0, "val": 0, "test": 0}, "are all 0; SyntheticFaces needs a face"),
    ],
)
def test_impossible_requests_are_errors(options, message):
    with pytest.raises(InputError, match=message):
        SyntheticFaces(**options)


def test_images_too_small_for_a_face_are_an_error():
    with pytest.raises(ValueError, match="size is 8"):
        SyntheticFaces(train=1, val=0, test=0).load(8)


def test_impossible_clips_are_errors():
    with pytest.raises(ValueError, match="frames is 1"):
        draw_clip("fear", frames=1, size=24)
    with pytest.raises(ValueError, match="seed is -1"):
        draw_clip("fear", frames=3, size=24, seed=-1)
    with pytest.raises(UnknownEmotion, match="boredom"):
        draw_clip("boredom", frames=3, size=24)
