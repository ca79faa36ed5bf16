import cv2
import numpy as np
import pytest
from photographs import write_picture

from fer_lightning.errors import InputError
from fer_lightning.files import NotWritten
from fer_lightning.inference.annotation import COLOR, PALE, AnnotatedFiles, draw, label
from fer_lightning.inference.frames import Frame

IMAGE = np.full((120, 160, 3), 60, np.uint8)
FACE = {"status": "face", "x": 40, "y": 50, "width": 60, "height": 50}
HAPPY = FACE | {"emotion": "happiness", "confidence": 0.934, "abstain": False}
NONE = {"status": "no face"}


def test_a_box_is_drawn_around_the_face_and_the_picture_left_as_it_is():
    before = IMAGE.copy()
    drawn = draw(IMAGE, [HAPPY])
    assert (before == IMAGE).all()
    for x, y in ((40, 70), (99, 70), (70, 99)):
        assert tuple(drawn[y, x]) == COLOR
    assert (drawn[60:90, 50:90] == 60).all()
    assert (drawn[30:50] != 60).any()  # its name, above
    assert (draw(IMAGE, [NONE]) == IMAGE).all()


def test_an_abstention_is_pale_and_has_a_question_mark():
    unsure = HAPPY | {"abstain": True}
    assert tuple(draw(IMAGE, [unsure])[70, 40]) == PALE
    assert (label(HAPPY), label(unsure)) == ("happiness 93%", "happiness 93%?")
    assert label(FACE | {"valence": -0.5, "arousal": 0.25}) == "v -0.50 a +0.25"


@pytest.mark.parametrize("box", [(0, 0, 160, 120), (150, 0, 10, 120), (0, 110, 20, 10)])
def test_a_face_at_the_edge_has_its_name_within_the_picture(box):
    row = HAPPY | dict(zip(("x", "y", "width", "height"), box, strict=True))
    drawn = draw(IMAGE, [row])
    assert drawn.shape == IMAGE.shape
    white = (drawn > 200).all(-1)
    assert white.sum() > 60  # letters


def test_pictures_go_into_a_folder_under_their_names(tmp_path):
    with AnnotatedFiles(tmp_path / "out") as files:
        for name in ("a.png", "sub/b.png"):
            files.write(Frame(f"in/{name}", IMAGE, name=name), [HAPPY])
        files.write(Frame("in/bad.png", None, error="bad"), [])
    for name in ("a.png", "sub/b.png"):
        written = cv2.cvtColor(cv2.imread(str(tmp_path / "out" / name)), cv2.COLOR_BGR2RGB)
        assert (written == draw(IMAGE, [HAPPY])).all()
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2


def frames_in(file):
    capture, count = cv2.VideoCapture(str(file)), 0
    fps = capture.get(cv2.CAP_PROP_FPS)
    while capture.read()[0]:
        count += 1
    return count, fps


def test_a_video_goes_into_a_file_and_videos_into_a_folder(tmp_path):
    with AnnotatedFiles(tmp_path / "one.avi") as files:
        for number in range(5):
            files.write(Frame("v.mkv", IMAGE, number, fps=12.5, name="v.mkv"), [HAPPY])
    assert frames_in(tmp_path / "one.avi") == (5, 12.5)
    with AnnotatedFiles(tmp_path / "out") as files:
        for name, count in (("v.mkv", 3), ("w.avi", 4)):
            for number in range(count):
                files.write(Frame(name, IMAGE, number, fps=10.0, name=name), [])
    assert frames_in(tmp_path / "out/v.mkv.mp4") == (3, 10)
    assert frames_in(tmp_path / "out/w.avi") == (4, 10)


def test_an_ending_that_is_not_the_source_s_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.mp4 does not end like a picture, which a\.png is"):
        AnnotatedFiles(tmp_path / "a.mp4").write(Frame("a.png", IMAGE, name="a.png"), [])
    with pytest.raises(InputError, match="does not end like a video"):
        AnnotatedFiles(tmp_path / "a.png").write(Frame("v.mp4", IMAGE, fps=10.0, name="v.mp4"), [])
    assert list(tmp_path.iterdir()) == []


def test_a_source_is_not_written_over(tmp_path):
    file = write_picture(tmp_path / "a.png", IMAGE)
    before = file.read_bytes()
    for target in (file, tmp_path):
        with pytest.raises(InputError, match="would be written over") as caught:
            AnnotatedFiles(target).write(Frame(str(file), IMAGE, name="a.png"), [HAPPY])
        assert caught.value.option == "annotated"
    assert file.read_bytes() == before


@pytest.mark.parametrize("fps", [None, 10.0])
def test_an_unwritable_place_is_named(tmp_path, fps):
    (tmp_path / "file").write_text("")
    name = "a.png" if fps is None else "a.avi"
    with pytest.raises(NotWritten, match=rf"cannot write .*/file/{name}"):
        AnnotatedFiles(tmp_path / "file" / name).write(Frame("in", IMAGE, fps=fps, name=name), [])
