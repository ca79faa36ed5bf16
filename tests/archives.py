"""Small archives in the official layouts of the data sets, for the tests."""

import json
from pathlib import Path

import cv2
import numpy as np

RAF_LABELS = {
    **{f"train_{i:05d}.jpg": 1 + i % 7 for i in range(1, 15)},
    **{f"test_{i:04d}.jpg": 1 + i % 7 for i in range(1, 8)},
}
"""The list of the small RAF-DB."""


def picture(path: Path, width: int, height: int, value: int = 0) -> None:
    """Write a picture of one gray value, so that it comes back through JPEG as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), value, np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())


def text(path: Path, content: str) -> Path:
    """Write a text file, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
    return path


def raf_db(root: Path, labels: dict[str, int] = RAF_LABELS) -> Path:
    """Make RAF-DB's ``basic`` folder: aligned faces, originals with boxes, attributes, distributions.

    Face ``i`` of the list is of gray value 10 ``i``, also in its box; around it the original is white.
    """
    lines, votes = [], []
    for i, (name, label) in enumerate(labels.items()):
        stem = name.removesuffix(".jpg")
        lines.append(f"{name} {label}\n")
        share = np.full(7, 0.05)
        share[min(label, 7) - 1] = 0.7
        votes.append(f"{name} {' '.join(f'{each:.3f}' for each in share)}\n")
        picture(root / f"Image/aligned/{stem}_aligned.jpg", 100, 100, 10 * i)
        original = np.full((80, 120, 3), 255, np.uint8)
        original[16:48, 64:96] = 10 * i
        path = root / f"Image/original/{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", original)[1].tobytes())  # the content counts, not the suffix
        text(root / f"Annotation/boundingbox/{stem}_boundingbox.txt", "64.0 16.0 96.0 48.0\n")
        points = "70.5\t30.1\n80 30\n75 35\n71 41\n79 41\n"
        text(root / f"Annotation/manual/{stem}_manu_attri.txt", f"{points}{i % 3}\n{i % 3}\n{i % 5}\n")
    text(root / "EmoLabel/list_patition_label.txt", "".join(lines))
    text(root / "EmoLabel/distribution_basic.txt", "".join(votes))
    return root


def raf_db_folders(root: Path, labels: dict[str, int] = RAF_LABELS, first: int = 1) -> Path:
    """Make the common copy of RAF-DB in folders ``DATASET/train/1`` ... ``DATASET/test/7``."""
    for i, (name, label) in enumerate(labels.items()):
        part, stem = name.partition("_")[0], name.removesuffix(".jpg")
        picture(root / f"DATASET/{part}/{label - 1 + first}/{stem}_aligned.jpg", 100, 100, 10 * i)
    text(root / "train_labels.csv", "image,label\n")
    return root


AFFECTNET_HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
)
AFFECTNET_VA = (0.5, -0.25)


def affectnet_row(file: str, expression: int, box: str = "64.0,16.0,32,32", va: str = "") -> str:
    """Return a line of AffectNet's lists; uncertain pictures and those without a face have -2."""
    known = expression < 9
    return (
        f"{file},{box},1;2;3;4,{expression},{va or (','.join(map(str, AFFECTNET_VA)) if known else '-2,-2')}"
    )


def affectnet_lists(root: Path, header: str = AFFECTNET_HEADER) -> Path:
    """Make AffectNet's lists: a face of each of the 11 expressions in training, and again in validation.

    The face of row ``i`` is of gray value 10 ``i``; around its box the picture is white.
    """
    rows = [(f"{1 + i % 3}/{i:056x}.jpg", i % 11) for i in range(22)]
    for i, (file, _) in enumerate(rows):
        affectnet_picture(root / "Manually_Annotated_Images" / file, 10 * i)
    for name, part in (("training", rows[:11]), ("validation", rows[11:])):
        lines = [header, *(affectnet_row(*row) for row in part)]
        text(
            root / f"Manually_Annotated_file_lists/{name}.csv", "".join(f"{line}\n" for line in lines if line)
        )
    return root


def affectnet_automatic(root: Path) -> Path:
    """Add two automatically annotated faces, one of them in a picture that shows none."""
    affectnet_picture(root / "Automatically_Annotated_Images/7/a.png", 250)
    affectnet_picture(root / "Automatically_Annotated_Images/7/b.png", 250)
    rows = [affectnet_row("7/a.png", 3), affectnet_row("7/b.png", 10, box="0,0,-1,-1")]
    lines = [AFFECTNET_HEADER, *rows]
    text(root / "Automatically_annotated_file_list/automatically_annotated.csv", "\n".join(lines))
    return root


def affectnet_picture(path: Path, value: int) -> None:
    """Write a white picture of 120x80 with a gray face in the box 64, 16, 32x32."""
    picture = np.full((80, 120, 3), 255, np.uint8)
    picture[16:48, 64:96] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def affectnet_arrays(root: Path, as_text: bool = True) -> Path:
    """Make AffectNet as of March 2021: a face of each of the 8 emotions in both sets, numbered with gaps."""
    for start, name in ((0, "train_set"), (100, "val_set")):
        for expression in range(8):
            number = start + 3 * expression
            picture(root / f"{name}/images/{number}.jpg", 224, 224, 10 * expression)
            folder = root / f"{name}/annotations"
            folder.mkdir(parents=True, exist_ok=True)
            for kind, value in zip(("exp", "val", "aro"), (expression, *AFFECTNET_VA), strict=True):
                np.save(folder / f"{number}_{kind}.npy", np.array(str(value) if as_text else value))
            np.save(folder / f"{number}_lnd.npy", np.zeros(136))
    return root


SFEW_EMOTIONS = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")


def sfew(root: Path, aligned: bool = True, size: tuple[int, int] = (143, 181)) -> Path:
    """Make SFEW: two faces of each emotion in training, one in validation, two unlabeled ones in test."""
    for part, folder, films in (
        ("Train", "Train_Aligned_Faces", ("Airheads", "The_Ring")),
        ("Val", "Val_Aligned_Faces_new", ("Juno",)),
    ):
        for number, emotion in enumerate(SFEW_EMOTIONS):
            for film in films:
                place = root / part / folder if aligned else root / part
                picture(place / emotion / f"{film}_00051924{number}_00000005.png", *size, 10 * number)
    for number in range(2):
        place = root / "Test/Test_Aligned_Faces" if aligned else root / "Test"
        picture(place / f"Hulk_00000000{number}_00000001.png", *size, 200 + number)
    return root


def ck_plus(root: Path, subjects: int = 12, frames: int = 5) -> Path:
    """Make CK+: two sequences of each subject; the first is labeled, the second has no or an empty folder.

    The face of frame ``f`` (from 1) is of gray value 20 ``f``; around its landmarks the frame is white.
    """
    points = "".join(f"   {x:.7e}   {y:.7e}\n" for x, y in ([40, 20], [60, 40], *[[50, 30]] * 66))
    for number in range(subjects):
        subject = f"S{5 + number:03d}"
        for sequence in ("001", "002"):
            for frame in range(1, frames + 1):
                stem = f"{subject}/{sequence}/{subject}_{sequence}_{frame:08d}"
                pixels = np.full((60, 90), 255, np.uint8)
                pixels[15:46, 35:66] = 20 * frame
                path = root / f"cohn-kanade-images/{stem}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
                text(root / f"Landmarks/{stem}_landmarks.txt", points)
            text(root / f"cohn-kanade-images/{subject}/{sequence}/.DS_Store", "")
        label = f"   {1 + number % 7:.7e}\n"
        text(root / f"Emotion/{subject}/001/{subject}_001_{frames:08d}_emotion.txt", label)
        if number % 2:
            (root / f"Emotion/{subject}/002").mkdir()
    return root


def ck_plus_48(root: Path, subjects: int = 12, frames: int = 5) -> Path:
    """Make the copy CK+48 of ``ck_plus``."""
    folders = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
    for number in range(subjects):
        for frame in range(frames - 2, frames + 1):
            name = f"S{5 + number:03d}_001_{frame:08d}.png"
            picture(root / f"CK+48/{folders[number % 7]}/{name}", 48, 48, 20 * frame)
    return root


AFEW_VA_CLIPS = {
    "001": ("Ann Lee", 3),
    "002": ("ANN LEE ", 2),
    "051": ("Bo", 4),
    "052": ("Cy", 1),
    "053": ("Di", 2),
}
"""Number of a clip -> actor and frames."""


def afew_va(root: Path, flat: bool = False) -> Path:
    """Make AFEW-VA: clips of 50 a folder; valence is the number of the frame, arousal its negative.

    Frames are numbered from 0; their faces are of gray value 10 times the number, around them it is white.
    """
    points = [[40, 20], [60, 40], *[[50, 30]] * 66]
    for name, (actor, count) in AFEW_VA_CLIPS.items():
        folder = root / ("" if flat else f"{1 + (int(name) - 1) // 50:02d}") / name
        for frame in range(count):
            pixels = np.full((60, 90), 255, np.uint8)
            pixels[15:46, 35:66] = 10 * frame
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{frame:05d}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        frames = {
            f"{frame:05d}": {"landmarks": points, "valence": float(frame), "arousal": float(-frame)}
            for frame in range(count)
        }
        content = {"video_id": name, "actor": actor, "frames": frames}
        text(folder / f"{name}.json", json.dumps(content))
    return root


AFF_WILD2_TRIALS = {
    "train": ("1-30-1280x720", "7-60-1920x1080-2", "video45_1_left", "105"),
    "test": ("105-30-640x480_right", "video2"),
}
VA, EXPR = "VA_Estimation_Challenge", "EXPR_Recognition_Challenge"


def aff_wild2(root: Path) -> Path:
    """Make Aff-Wild2: each trial has 11 labels and crops 2 ... 10; the last two lie in the second folder.

    Frame ``n`` is of gray value 10 ``n``, has valence ``n / 20``, arousal ``-n / 20``, and emotion
    ``(n - 1) % 8``; the label of frame 3 is to be ignored.
    """
    va = "valence,arousal\n" + "".join("-5,-5\n" if n == 3 else f"{n / 20},{-n / 20}\n" for n in range(1, 12))
    emotions = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n" + "".join(
        "-1\n" if n == 3 else f"{(n - 1) % 8}\n" for n in range(1, 12)
    )
    trials = [(part, trial) for part, of_part in AFF_WILD2_TRIALS.items() for trial in of_part]
    for number, (part, trial) in enumerate(trials):
        folder = "cropped_aligned" if number < 4 else "cropped_aligned_new_50_vids"
        for n in range(2, 11):
            picture(root / folder / trial / f"{n:05d}.jpg", 16, 16, 10 * n)
        name = {"train": "Train_Set", "test": "Validation_Set"}[part]
        text(root / f"Third ABAW Annotations/{VA}/{name}/{trial}.txt", va)
        text(root / f"Third ABAW Annotations/{EXPR}/{name}/{trial}.txt", emotions)
    return root
