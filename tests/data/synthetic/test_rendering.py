from dataclasses import fields, replace

import cv2
import numpy as np
import pytest

from fer_lightning.data.synthetic.rendering import Actions, Cover, Identity, Scene, render

SIZE = 96
PLAIN = Scene(background=((128, 128, 128), (128, 128, 128)))
BALD = Identity(hair_volume=0.0)

# Between which heights of the image (0 top, 1 bottom) each action does nearly all of its work.
BROWS, EYES, MOUTH = (0.0, 0.35), (0.27, 0.52), (0.6, 1.0)
REGION = {
    "inner_brow_raiser": BROWS,
    "outer_brow_raiser": BROWS,
    "brow_lowerer": (0.15, 0.42),
    "upper_lid_raiser": EYES,
    "cheek_raiser": EYES,
    "lid_tightener": EYES,
    "nose_wrinkler": (0.2, 0.85),
    "upper_lip_raiser": (0.55, 0.85),
    "lip_corner_puller": (0.55, 0.9),
    "lip_corner_depressor": MOUTH,
    "chin_raiser": MOUTH,
    "lip_stretcher": MOUTH,
    "lip_tightener": MOUTH,
    "lips_part": MOUTH,
    "jaw_drop": MOUTH,
    "eyes_closed": EYES,
}


def drawn(identity=BALD, scene=PLAIN, size=SIZE, **actions):
    return render(identity, Actions(**actions), scene, size).astype(int)


def heights(mask):
    """Mean height of the pixels of a mask, 0 at the top and 1 at the bottom."""
    return np.nonzero(mask)[0].mean() / len(mask)


def dark(image):
    return image.sum(2) < 200


def red(image):
    return image[..., 0] - image[..., 1] > 85


def test_every_action_has_a_region_to_test():
    assert set(REGION) == {action.name for action in fields(Actions)}


@pytest.mark.parametrize("action", REGION)
def test_an_action_moves_its_part_of_the_face_and_no_other(action):
    change = np.abs(drawn(**{action: 1.0}) - drawn()).sum((1, 2))
    top, bottom = (round(edge * SIZE) for edge in REGION[action])
    assert change.sum() > 2000
    assert change[top:bottom].sum() > 0.95 * change.sum()


def test_brows_rise_and_sink():
    brows = {}
    for action in ("inner_brow_raiser", "outer_brow_raiser", "brow_lowerer"):
        brows[action] = heights(dark(drawn(**{action: 1.0}))[: SIZE // 3])
    assert max(brows["inner_brow_raiser"], brows["outer_brow_raiser"]) < heights(dark(drawn())[: SIZE // 3])
    assert heights(dark(drawn())[: SIZE // 3]) < brows["brow_lowerer"]


def test_the_inner_and_the_outer_brow_rise_each_at_its_end():
    rest, inner, outer = (
        dark(drawn(**actions))[: SIZE // 3]
        for actions in ({}, {"inner_brow_raiser": 1.0}, {"outer_brow_raiser": 1.0})
    )
    middle = np.abs(np.arange(SIZE) - SIZE / 2) < 0.1 * SIZE
    outside = np.abs(np.arange(SIZE) - SIZE / 2) > 0.27 * SIZE
    assert (inner & ~rest)[:, middle].sum() > 3 * (outer & ~rest)[:, middle].sum()
    assert (outer & ~rest)[:, outside].sum() > (inner & ~rest)[:, outside].sum()


def test_lip_corners_go_up_in_a_smile_and_down_in_grief():
    corners = np.zeros((SIZE, SIZE), bool)
    corners[SIZE // 2 :, [*range(SIZE // 4, 2 * SIZE // 5), *range(3 * SIZE // 5, 3 * SIZE // 4)]] = True
    smile, rest, grief = (
        heights(red(drawn(**actions)) & corners)
        for actions in ({"lip_corner_puller": 1.0}, {}, {"lip_corner_depressor": 1.0})
    )
    assert smile < rest - 0.02
    assert rest + 0.02 < grief


def test_the_mouth_opens_with_the_jaw():
    opened = [(dark(drawn(jaw_drop=drop))[int(0.65 * SIZE) :]).sum() for drop in (0.0, 0.3, 0.6, 1.0)]
    assert opened == sorted(set(opened))


def test_eyes_open_wide_and_close():
    def white(**actions):
        image = drawn(**actions)[int(0.3 * SIZE) : int(0.5 * SIZE)]
        return (image.min(2) > 230).sum()

    assert white(upper_lid_raiser=1.0) > white() > white(lid_tightener=1.0) > white(eyes_closed=1.0) == 0


def test_asymmetry_makes_one_side_act_more():
    lopsided = replace(BALD, asymmetry=0.5)
    change = np.abs(drawn(lopsided, inner_brow_raiser=0.6) - drawn(lopsided)).sum((0, 2))
    assert change[SIZE // 2 :].sum() > 1.5 * change[: SIZE // 2].sum()
    even = np.abs(drawn(inner_brow_raiser=0.6) - drawn()).sum((0, 2))
    assert even[SIZE // 2 :].sum() == pytest.approx(even[: SIZE // 2].sum(), rel=0.1)


def test_shift_moves_the_face_by_that_many_pixels():
    small = replace(PLAIN, zoom=0.7)  # so that the edge of the image cuts nothing but the neck
    moved = drawn(scene=replace(small, shift=(12 / SIZE, 6 / SIZE)))
    np.testing.assert_array_equal(moved[6:70, 12:], drawn(scene=small)[:64, :-12])


def test_zoom_and_roll_turn_the_drawing():
    def eyes(scene):
        image = drawn(scene=scene)
        rows, columns = np.nonzero(dark(image)[SIZE // 3 : SIZE // 2])
        return np.polyfit(columns, rows, 1)[0], np.ptp(columns)

    slope, width = eyes(PLAIN)
    assert slope == pytest.approx(0, abs=0.02)
    assert eyes(replace(PLAIN, roll=8.0))[0] > 0.04  # clockwise: the right eye is lower
    assert eyes(replace(PLAIN, zoom=0.8))[1] == pytest.approx(0.8 * width, abs=2)


def test_yaw_and_pitch_move_the_features_but_not_the_outline():
    turning = replace(PLAIN, yaw=20.0, pitch=15.0)
    outline, same = ((drawn(scene=scene) == 128).all(2)[: SIZE // 2] for scene in (PLAIN, turning))
    assert (outline != same).mean() < 0.005
    rest, turned = np.argwhere(red(drawn())), np.argwhere(red(drawn(scene=turning)))
    assert (turned.mean(0) > rest.mean(0) + 3).all()


def test_light_comes_from_where_it_should_and_gamma_darkens():
    lit = drawn(scene=replace(PLAIN, light=(0.6, 0.0)))
    assert lit[:, SIZE // 2 :].mean() > 1.2 * lit[:, : SIZE // 2].mean()
    from_below = drawn(scene=replace(PLAIN, light=(0.0, 0.6)))
    assert from_below[-9:, :9].mean() > 1.2 * from_below[:9, :9].mean()
    assert drawn(scene=replace(PLAIN, gamma=1.5)).mean() < drawn().mean() - 10
    assert drawn(scene=replace(PLAIN, brightness=2.0)).max() == 255


def test_blur_smooths_and_noise_is_bounded_and_seeded():
    def roughness(image):
        return np.abs(np.diff(image, axis=1)).mean()

    assert roughness(drawn(scene=replace(PLAIN, blur=0.02))) < 0.7 * roughness(drawn())
    noisy = [drawn(scene=replace(PLAIN, noise=10.0, noise_seed=seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert (noisy[0] != noisy[2]).mean() > 0.5
    assert 8 <= np.abs(noisy[0] - drawn()).max() <= 11


def test_glasses_and_covers_hide_what_is_behind_them():
    glasses = np.abs(drawn(scene=replace(PLAIN, glasses=(20, 20, 20))) - drawn()).sum((1, 2))
    assert glasses[int(0.25 * SIZE) : int(0.6 * SIZE)].sum() == glasses.sum() > 0
    covered = replace(PLAIN, cover=Cover(0.0, 0.64, 0.0, 0.6, (0, 200, 0)))
    mouth = slice(int(0.7 * SIZE), int(0.82 * SIZE))
    np.testing.assert_array_equal(drawn(scene=covered)[mouth], drawn(scene=covered, lips_part=1.0)[mouth])
    fingers = replace(PLAIN, cover=Cover(0.0, 0.64, 0.0, 0.6, (0, 200, 0), fingers=4))
    hidden = drawn(scene=fingers)[int(0.76 * SIZE)] - drawn()[int(0.76 * SIZE)]
    assert hidden[SIZE * 3 // 4 :].any()
    assert not hidden[: SIZE // 4].any()


def test_skin_gets_darker_with_its_tone_and_hair_can_be_lost():
    tones = [drawn(replace(BALD, skin_tone=tone)).sum() for tone in (0.0, 0.25, 0.6, 1.0)]
    assert tones == sorted(tones, reverse=True)
    haired = drawn(Identity(hair=(0, 0, 255), brow_thickness=0.0))
    assert (haired[..., 2] > 200).any(1)[: SIZE // 8].all()


@pytest.mark.parametrize("size", [16, 33, 48, 112])
def test_any_size_gives_the_same_face(size):
    image = render(Identity(), Actions(), PLAIN, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    big = render(Identity(), Actions(), PLAIN, 192)
    same = [cv2.resize(it, (8, 8), interpolation=cv2.INTER_AREA).astype(int) for it in (image, big)]
    assert np.abs(same[0] - same[1]).mean() < 16


def test_the_same_arguments_give_the_same_bytes_and_are_not_changed():
    arguments = Identity(beard=0.5), Actions(lips_part=0.3), Scene(noise=5.0, blur=0.01, yaw=5.0), 48
    first = render(*arguments)
    np.testing.assert_array_equal(first, render(*arguments))


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan")])
def test_an_action_outside_its_range_is_an_error(value):
    with pytest.raises(ValueError, match=r"jaw_drop is .*lies in"):
        Actions(jaw_drop=value)


def test_an_image_too_small_for_a_face_is_an_error():
    with pytest.raises(ValueError, match="size is 8; a face needs at least 16"):
        render(Identity(), Actions(), PLAIN, 8)
