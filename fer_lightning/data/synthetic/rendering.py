"""Draws a face from an identity, the actions of its muscles, and a scene.

A face is a handful of curves in *face units*: the origin between nose and eyes, x to the viewer's right, y
down, 1 = half the width of a broad face. Facial actions (FACS action units) move the curves, the pose moves
all their points at once, OpenCV fills them at twice the size, and averaging 2 x 2 pixels smooths
the edges.

The same arguments give the same bytes on any machine: coordinates are rounded to 1/16 pixel before they are
drawn, pixels are only ever changed by integer arithmetic, and noise is read from the bit generator itself,
whose stream NumPy guarantees.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fer_lightning.errors import InputError

Color = tuple[float, float, float]
"""RGB, 0-255."""
Curve = npt.NDArray[np.float64]

_OVERSAMPLE = 2
_SHIFT = 4  # OpenCV's fixed-point coordinates: 1/16 pixel

# Parameters of curves with two ends, of ellipses, and of the upper half of a head from left to right.
_U = np.linspace(-1, 1, 11)
_ARCH = 1 - _U**2
_CUPID = np.sqrt(_ARCH) * (1 - 0.35 * np.exp(-((4 * _U) ** 2)))  # the upper lip's bow
_ROUND = np.linspace(0, 2 * np.pi, 14, endpoint=False)
_COS, _SIN = np.cos(_ROUND), np.sin(_ROUND)
_CROWN = np.linspace(np.pi, 2 * np.pi, 17)
_CROWN_X, _CROWN_Y = np.cos(_CROWN), np.sin(_CROWN)
_SIDES = np.array([[-1.0], [1.0]])  # what is drawn on both sides of the face has one row for each

_SKULL = 1.12  # height of the skull above the origin
_EYES = -0.12  # height of the eyes
_UNIT = 0.45  # one face unit, as a fraction of the image's side
_CENTER = (0.5, 0.48)  # where the origin lies, as fractions of the image's side
_VISIBLE = 0.2  # how strong an action must be to fold the skin

# Skin from palest to darkest, at equal steps of `Identity.skin_tone`.
_SKIN = ((250, 224, 204), (238, 196, 164), (214, 164, 126), (174, 124, 90), (132, 90, 66))
_WHITE, _INK, _LIPS = (250, 250, 247), (34, 24, 24), (176, 44, 56)
_MOUTH, _TEETH, _TONGUE = (74, 18, 26), (246, 242, 232), (196, 84, 92)


@dataclass(frozen=True)
class Actions:
    """Strengths of facial actions: the action units (AU) of the Facial Action Coding System, in [0, 1].

    Ekman, Friesen and Hager, Facial Action Coding System, 2002.

    Raises:
        InputError: if an action lies outside [0, 1].
    """

    inner_brow_raiser: float = 0.0
    """AU1."""
    outer_brow_raiser: float = 0.0
    """AU2."""
    brow_lowerer: float = 0.0
    """AU4: brows down and together, a furrow between them."""
    upper_lid_raiser: float = 0.0
    """AU5: eyes wide open."""
    cheek_raiser: float = 0.0
    """AU6: lower lids up, crow's feet."""
    lid_tightener: float = 0.0
    """AU7: eyes narrowed."""
    nose_wrinkler: float = 0.0
    """AU9."""
    upper_lip_raiser: float = 0.0
    """AU10."""
    lip_corner_puller: float = 0.0
    """AU12: the smile."""
    lip_corner_depressor: float = 0.0
    """AU15."""
    chin_raiser: float = 0.0
    """AU17: lower lip pushed up."""
    lip_stretcher: float = 0.0
    """AU20: mouth pulled wide and flat."""
    lip_tightener: float = 0.0
    """AU23: lips narrow and thin."""
    lips_part: float = 0.0
    """AU25."""
    jaw_drop: float = 0.0
    """AU26."""
    eyes_closed: float = 0.0
    """AU43."""

    def __post_init__(self) -> None:
        """Require [0, 1]."""
        for action, value in vars(self).items():
            if not 0 <= value <= 1:
                raise InputError(f"{action} is {value}; an action lies in [0, 1]")


@dataclass(frozen=True)
class Identity:
    """The shape and colors of a person. Lengths and heights in face units, y down; by default average."""

    skin_tone: float = 0.3
    """From 0 (palest) to 1 (darkest)."""
    hair: Color = (70, 46, 34)
    iris: Color = (84, 58, 40)
    face_width: float = 0.95
    """Half of it."""
    face_length: float = 1.2
    """From the origin to the chin."""
    jaw: float = 0.5
    """From 0 (pointed) to 1 (square)."""
    hair_volume: float = 0.18
    """Thickness of the hair on the skull; 0 is bald."""
    hair_length: float = 0.2
    """Height down to which the hair hangs beside the face."""
    hairline: float = -0.78
    """Height of the hairline; from about -0.4 a fringe covers the brows."""
    parting: float = 0.3
    """Slant of the hairline, negative to the left."""
    brow_height: float = -0.46
    brow_thickness: float = 0.1
    brow_slope: float = 0.0
    """How much lower the inner end lies at rest: positive makes the face stern, negative worried."""
    eye_spacing: float = 0.43
    """From the middle of the face to the middle of an eye."""
    eye_size: float = 0.28
    """Half the width of an eye."""
    eye_slope: float = 0.02
    """How much higher the outer corner lies."""
    nose_length: float = 0.3
    """Height of its tip."""
    nose_width: float = 0.15
    """Half of it."""
    mouth_height: float = 0.64
    mouth_width: float = 0.4
    """Half of it."""
    mouth_curve: float = 0.0
    """How much the corners turn up at rest."""
    lip_thickness: float = 0.1
    beard: float = 0.0
    """From 0 (shaved) to 1 (full)."""
    asymmetry: float = 0.0
    """By what fraction brows, eyes and mouth move more on the viewer's right, and less on the left."""

    @property
    def skin(self) -> Color:
        """Color of the skin."""
        step, rest = divmod(min(max(self.skin_tone, 0.0), 0.999) * (len(_SKIN) - 1), 1)
        return _mix(_SKIN[int(step)], _SKIN[int(step) + 1], rest)


@dataclass(frozen=True)
class Cover:
    """Something in front of the face: a bar that crosses it, or the fingers of a hand that end on it."""

    x: float
    y: float
    """Its middle, in face units."""
    angle: float
    """Degrees, of its long side against the horizontal."""
    width: float
    """Of all of it, across the long side, in face units."""
    color: Color
    fingers: int = 1
    """1 is a bar; a hand has several."""


@dataclass(frozen=True)
class Scene:
    """Pose, background and light. The defaults are a passport photograph, cropped to the face."""

    roll: float = 0.0
    """Degrees in the image plane, clockwise."""
    yaw: float = 0.0
    """Degrees, positive to the viewer's right."""
    pitch: float = 0.0
    """Degrees, positive downwards."""
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    """Of the face to the right and down, as a fraction of the image's side."""
    gaze: tuple[float, float] = (0.0, 0.0)
    """Direction of the eyes, to the right and down, in [-1, 1]."""
    background: tuple[Color, Color] = ((168, 186, 200), (150, 170, 186))
    """Its two halves."""
    background_angle: float = 0.0
    """Degrees, of the edge between the two halves."""
    brightness: float = 1.0
    """Factor on the pixels; with ``light`` at most 2."""
    light: tuple[float, float] = (0.0, 0.0)
    """How much brighter the right edge is than the left one, and the bottom than the top, as a fraction."""
    gamma: float = 1.0
    blur: float = 0.0
    """Standard deviation of a Gaussian, as a fraction of the image's side."""
    noise: float = 0.0
    """Largest deviation of a pixel, in gray levels of 255; at most 127."""
    noise_seed: int = 0
    glasses: Color | None = None
    """Color of the rims, if any."""
    tint: float = 0.0
    """How dark the lenses are, from 0 to 1."""
    cover: Cover | None = None


def render(identity: Identity, actions: Actions, scene: Scene, size: int) -> npt.NDArray[np.uint8]:
    """Draw one face.

    Args:
        identity: the person.
        actions: strengths of the facial actions.
        scene: pose, background and light.
        size: side of the image in pixels, at least 16.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        InputError: if the image is too small to show a face.
    """
    if size < 16:
        raise InputError(f"size is {size}; a face needs at least 16 pixels a side", option="data.image_size")
    sketch = _Sketch()
    _draw_head(sketch, identity, actions)
    _draw_nose(sketch, identity, actions)
    _draw_mouth(sketch, identity, actions)
    _draw_eyes(sketch, identity, actions, scene.gaze)
    _draw_hair(sketch, identity)
    _draw_covers(sketch, identity, scene)
    return _develop(sketch.paint(identity, scene, size * _OVERSAMPLE), scene, size)


class _Sketch:
    """Filled shapes and lines in face units, in the order in which they are painted.

    Coordinates are (points,) for one curve or (curves, points) for several of one color.
    """

    def __init__(self) -> None:
        self.x: list[Curve] = []
        self.y: list[Curve] = []
        self.ink: list[tuple[Color, float]] = []

    def line(self, x: Curve, y: Curve, color: Color, width: float) -> None:
        """Draw open curves; ``width`` in face units."""
        if x.shape != y.shape:
            x, y = x + 0 * y, y + 0 * x
        self.x.append(x)
        self.y.append(y)
        self.ink.append((color, width))

    def fill(self, x: Curve, y: Curve, color: Color) -> None:
        """Fill closed curves."""
        self.line(x, y, color, 0.0)

    def band(self, x: Curve, top: Curve, bottom: Curve, color: Color) -> None:
        """Fill what lies between two curves over the same x."""
        there_and_back = np.concatenate((x, x[..., ::-1]), -1), np.concatenate((top, bottom[..., ::-1]), -1)
        self.fill(*there_and_back, color)

    def paint(self, identity: Identity, scene: Scene, side: int) -> npt.NDArray[np.uint8]:
        """Paint everything in the scene's pose, (side, side, 3) uint8 RGB."""
        x, y = (np.concatenate([curve.ravel() for curve in curves]) for curves in (self.x, self.y))
        # A turning head: points shift by their height over the outline, which is that of an ellipsoid.
        height = np.where(y < 0, _SKULL, identity.face_length)
        z = np.sqrt(np.maximum(0, 1 - (x / identity.face_width) ** 2 - (y / height) ** 2))
        x += z * math.sin(math.radians(scene.yaw))
        y += z * math.sin(math.radians(scene.pitch))
        fixed_unit = side * scene.zoom * _UNIT * 2**_SHIFT
        cos, sin = (fixed_unit * f(math.radians(scene.roll)) for f in (math.cos, math.sin))
        points = np.empty((len(x), 2))
        points[:, 0] = x * cos - y * sin + 2**_SHIFT * side * (_CENTER[0] + scene.shift[0])
        points[:, 1] = x * sin + y * cos + 2**_SHIFT * side * (_CENTER[1] + scene.shift[1])
        fixed = np.rint(points).astype(np.int32)

        canvas = _background(scene, side)
        start = 0
        for curve, (color, width) in zip(self.x, self.ink, strict=True):
            end = start + curve.size
            curves = list(fixed[start:end].reshape(-1, curve.shape[-1], 2))
            start = end
            if width:
                pixels = max(1, round(width * side * scene.zoom * _UNIT))
                cv2.polylines(canvas, curves, False, color, pixels, cv2.LINE_8, _SHIFT)
            else:
                cv2.fillPoly(canvas, curves, color, cv2.LINE_8, _SHIFT)
        return canvas


def _background(scene: Scene, side: int) -> npt.NDArray[np.uint8]:
    canvas = np.empty((side, side, 3), np.uint8)
    cv2.rectangle(canvas, (0, 0), (side, side), scene.background[0], cv2.FILLED)
    angle = math.radians(scene.background_angle)
    x, y = math.cos(angle), math.sin(angle)
    corners = np.array(((x, y), (x - y, y + x), (-x - y, -y + x), (-x, -y)))
    cv2.fillConvexPoly(canvas, np.rint(side * (0.5 + corners)).astype(np.int32), scene.background[1])
    return canvas


def _draw_head(sketch: _Sketch, who: Identity, act: Actions) -> None:
    """Draw the hair behind the head, neck, ears, face, beard and the folds of the forehead."""
    skin, width = who.skin, who.face_width
    if who.hair_volume:
        outer = width + 0.8 * who.hair_volume
        x = np.concatenate((outer * _CROWN_X, np.array((1.0, 0.8, -0.8, -1.0)) * outer))
        ends = who.hair_length + np.array((-0.15, 0.0, 0.0, -0.15))
        y = np.concatenate(((_SKULL + who.hair_volume) * _CROWN_Y, ends))
        sketch.fill(x, y, _shade(who.hair, 0.75))
    sketch.fill(np.array((-0.45, 0.45, 0.8, -0.8)), np.array((0.6, 0.6, 2.4, 2.4)), _shade(skin, 0.8))
    sketch.fill(_SIDES * (width - 0.02) + 0.13 * _COS, 0.02 + 0.22 * _SIN, _shade(skin, 0.86))

    chin = who.face_length * (1 + 0.13 * act.jaw_drop)
    x = width * np.sign(_CROWN_X) * np.abs(_CROWN_X) ** (0.95 - 0.35 * who.jaw)
    y = chin * np.abs(_CROWN_Y) ** (0.75 + 0.25 * who.jaw)
    sketch.fill(np.concatenate((x, -width * _CROWN_X)), np.concatenate((y, _SKULL * _CROWN_Y)), skin)
    if who.beard:
        top = np.minimum(0.22 + 0.30 * (1 - (x / width) ** 2), y)
        sketch.band(x, top, y, _mix(skin, who.hair, 0.1 + 0.4 * who.beard))

    for action, reach, above in ((act.outer_brow_raiser, 0.5, 0.3), (act.inner_brow_raiser, 0.28, 0.22)):
        if action > _VISIBLE:
            height = who.brow_height - above - 0.04 * _ARCH
            sketch.line(reach * _U, height, _mix(skin, _INK, 0.25 * action), 0.03)


def _draw_eyes(sketch: _Sketch, who: Identity, act: Actions, gaze: tuple[float, float]) -> None:
    """Draw the eyes with their lids, brows and crow's feet."""
    skin, size = who.skin, who.eye_size
    strength = 1 + _SIDES * who.asymmetry
    u = _SIDES * _U  # -1 at the inner corner, on both sides
    middle = _SIDES * who.eye_spacing
    x = middle + size * _U
    axis = _EYES - who.eye_slope * u
    squint = strength * (0.24 * act.lid_tightener + 0.1 * act.nose_wrinkler)
    lower = size * np.maximum(0.02, 0.4 - squint - strength * 0.3 * act.cheek_raiser)
    opened = 0.58 + strength * (0.5 * act.upper_lid_raiser - 0.16 * act.cheek_raiser) - squint
    upper = (1 - act.eyes_closed) * size * np.maximum(0.12, opened) - act.eyes_closed * lower
    top, bottom = axis - upper * _ARCH, axis + lower * _ARCH

    sketch.band(x, top - 0.08 * _ARCH, bottom + 0.03, _shade(skin, 0.87))
    sketch.band(x, top, bottom, _WHITE)
    iris_x, iris_y = 0.4 * size * gaze[0], 0.15 * size * gaze[1] - 0.01
    for radius, color in ((0.5 * size, who.iris), (0.26 * size, _INK)):
        ring_x, ring_y = iris_x + radius * _COS, iris_y + radius * _SIN
        lid = 1 - (ring_x / size) ** 2
        ring_y = np.maximum(-upper * lid, np.minimum(ring_y, lower * lid))
        sketch.fill(middle + ring_x, _EYES + ring_y, color)
    if act.eyes_closed < 0.5:
        sparkle_x = iris_x - 0.02 + 0.21 * size * np.array((0, 1, 1, 0))
        sparkle_y = iris_y - 0.21 * size * np.array((0, 0, 1, 1))
        sketch.fill(middle + sparkle_x, _EYES + sparkle_y, _WHITE)
    sketch.line(x, top, _INK, 0.045)
    sketch.line(x, bottom, _shade(skin, 0.65), 0.02)
    if act.cheek_raiser > _VISIBLE:
        fold = _mix(skin, _INK, 0.3 * act.cheek_raiser)
        sketch.line(x[:, 1:-1], (bottom + 0.09 * _ARCH + 0.03)[:, 1:-1], fold, 0.025)
        feet = np.array((0.12, 0.0, 0.12))
        corner = middle + _SIDES * (1.2 * size + feet)
        sketch.line(corner, _EYES + np.array((-0.08, 0.0, 0.08)), fold, 0.025)

    raised, lowered = strength * act.inner_brow_raiser, strength * act.brow_lowerer
    arched = strength * act.outer_brow_raiser
    inner_end = who.brow_slope + 0.24 * lowered - 0.22 * raised + 0.06 * act.nose_wrinkler
    outer_end = 0.05 * lowered - 0.2 * arched
    between = 0.13 * lowered - 0.12 * raised - 0.16 * arched - 0.06
    height = who.brow_height + inner_end * u * (u - 1) / 2 + between * _ARCH + outer_end * u * (u + 1) / 2
    brow_x = x + _SIDES * (0.12 * size * u - 0.045 * act.brow_lowerer * (1 - u))
    half = who.brow_thickness * (0.62 - 0.3 * u)
    sketch.band(brow_x, height - half, height + half, _mix(who.hair, _INK, 0.6))


def _draw_nose(sketch: _Sketch, who: Identity, act: Actions) -> None:
    """Draw the nose, the frown above it, and the folds beside it."""
    skin = who.skin
    wide = who.nose_width * (1 + 0.25 * act.nose_wrinkler)
    tip = who.nose_length - 0.08 * act.nose_wrinkler
    x = np.array((-0.05, 0.07, wide, 0.0, -wide))
    sketch.fill(x, np.array((_EYES, _EYES, tip, tip + 0.07, tip)), _shade(skin, 0.92))
    ridge = np.array((_EYES + 0.05, 0.05, tip, tip + 0.04))
    sketch.line(np.array((0.07, 0.08, wide, 0.5 * wide)), ridge, _shade(skin, 0.72), 0.03)
    nostril = tip + 0.02 + 0.03 * _SIN
    sketch.fill(_SIDES * 0.55 * wide + 0.05 * _COS, nostril, _shade(skin, 0.5))
    if act.brow_lowerer > _VISIBLE:
        furrow = np.array((-0.42, -0.24))
        sketch.line(_SIDES * np.array((0.06, 0.08)), furrow, _mix(skin, _INK, 0.4 * act.brow_lowerer), 0.03)
    if act.nose_wrinkler > _VISIBLE:
        bridge = np.array(((-0.12,), (-0.03,))) - 0.05 * _ARCH
        sketch.line(0.11 * _U, bridge, _mix(skin, _INK, 0.4 * act.nose_wrinkler), 0.025)
    depth = max(act.lip_corner_puller, act.upper_lip_raiser, act.nose_wrinkler)
    if depth > _VISIBLE:
        spread = 0.06 * act.lip_corner_puller
        x = np.array((wide + 0.03, wide + 0.16 + spread, who.mouth_width + 0.08 + 2 * spread))
        y = np.array((tip - 0.04, tip + 0.08, who.mouth_height - 0.03))
        sketch.line(_SIDES * x, y, _mix(skin, _INK, 0.32 * depth), 0.03)


def _draw_mouth(sketch: _Sketch, who: Identity, act: Actions) -> None:
    """Draw the lips, what shows between them, and the chin."""
    skin = who.skin
    rounded = 0.3 * act.jaw_drop * (1 - 0.6 * act.lip_corner_puller)
    pulled = 0.28 * act.lip_corner_puller + 0.3 * act.lip_stretcher
    x = who.mouth_width * (1 + pulled - rounded - 0.2 * act.lip_tightener) * _U
    rise = 0.3 * act.lip_corner_puller - 0.27 * act.lip_corner_depressor - 0.12 * act.lip_stretcher
    corners = -(who.mouth_curve + rise * (1 + who.asymmetry * _U)) * _U**2
    middle = who.mouth_height - 0.05 * act.chin_raiser + corners
    gap = act.lips_part * (0.1 + 0.06 * act.lip_corner_puller) + 0.4 * act.jaw_drop
    snarl = 0.16 * act.upper_lip_raiser + 0.08 * act.nose_wrinkler
    opening = _ARCH ** (1 - 0.5 * act.jaw_drop)
    top, bottom = middle - (snarl + 0.25 * gap) * opening, middle + (gap - 0.5 * snarl) * opening

    lips = _mix(skin, _LIPS, 0.65)
    thin = who.lip_thickness * (1 - 0.65 * act.lip_tightener - 0.3 * act.lip_corner_puller)
    pout = thin * (1 + 0.5 * act.chin_raiser)
    sketch.band(x, top - 0.75 * thin * _CUPID, bottom + pout * np.sqrt(_ARCH), lips)
    if gap + 0.5 * snarl > 0.03:
        sketch.band(x, top, bottom, _MOUTH)
        if act.jaw_drop > _VISIBLE:
            sketch.band(0.7 * x, bottom - 0.35 * (bottom - top), bottom, _TONGUE)
        sketch.band(0.94 * x, top, top + np.minimum(0.6 * (bottom - top), 0.13), _TEETH)
    else:
        sketch.line(x, middle, _shade(lips, 0.55), 0.03)
    if act.chin_raiser > _VISIBLE:
        dent = who.mouth_height + 0.2 - 0.06 * _ARCH
        sketch.line(0.16 * _U, dent, _mix(skin, _INK, 0.3 * act.chin_raiser), 0.03)


def _draw_hair(sketch: _Sketch, who: Identity) -> None:
    """Draw the hair over the forehead, between the skull and the hairline."""
    if who.hair_volume:
        skull = (_SKULL + who.hair_volume) * _CROWN_Y
        temples = (min(0.1, who.hair_length) - who.hairline) * np.abs(_CROWN_X) ** 6
        line = who.hairline + 0.25 * who.parting * _CROWN_X + temples
        width = who.face_width + 0.5 * who.hair_volume
        sketch.band(width * _CROWN_X, np.minimum(skull, line), line, who.hair)


def _draw_covers(sketch: _Sketch, who: Identity, scene: Scene) -> None:
    """Draw glasses, and what stands before the face."""
    if scene.glasses is not None:
        reach = who.eye_size + 0.09
        x = _SIDES * who.eye_spacing + reach * np.append(_COS, _COS[0])
        y = _EYES + 0.02 + (reach - 0.06) * np.append(_SIN, _SIN[0])
        if scene.tint:
            sketch.fill(x, y, _mix(_WHITE, _INK, scene.tint))
        sketch.line(x, y, scene.glasses, 0.045)
        sketch.line((who.eye_spacing - reach) * _SIDES[:, 0], np.full(2, _EYES), scene.glasses, 0.045)
    if scene.cover is not None:
        cover = scene.cover
        cos, sin = math.cos(math.radians(cover.angle)), math.sin(math.radians(cover.angle))
        each = cover.width / cover.fingers
        along = np.array((-2.5 if cover.fingers == 1 else 0.0, 2.5))
        for finger in range(cover.fingers):
            across = (finger - (cover.fingers - 1) / 2) * each
            x, y = cover.x + cos * along - sin * across, cover.y + sin * along + cos * across
            sketch.line(x, y, _shade(cover.color, 1 - 0.1 * (finger % 2)), each)


def _develop(canvas: npt.NDArray[np.uint8], scene: Scene, size: int) -> npt.NDArray[np.uint8]:
    """Turn the drawing into a photograph: smaller, lit, blurred and noisy."""
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    ramp = (np.arange(size) + 0.5) / size - 0.5
    gain = scene.brightness * (1 + scene.light[0] * ramp + scene.light[1] * ramp[:, None])
    factor = np.rint(128 * gain).clip(0, 256).astype(np.uint16)[:, :, None]
    tone = np.rint(255 * (np.arange(512) / 255).clip(0, 1) ** scene.gamma).astype(np.uint8)
    image = tone[np.right_shift(image * factor, 7)]
    if scene.blur:
        image = cv2.GaussianBlur(image, (0, 0), scene.blur * size)
    if scene.noise:
        raw = np.random.PCG64(scene.noise_seed).random_raw(size * size * 3 // 8 + 1)
        grain = raw.view(np.int8)[: image.size].reshape(image.shape) * np.int16(2 * scene.noise)
        image = cv2.add(image, np.right_shift(grain, 8), dtype=cv2.CV_8U)  # saturates
    return np.asarray(image, np.uint8)


def _mix(start: Color, end: Color, amount: float) -> Color:
    """Return ``start`` at 0, ``end`` at 1."""
    (r, g, b), (red, green, blue) = start, end
    return r + amount * (red - r), g + amount * (green - g), b + amount * (blue - b)


def _shade(color: Color, brightness: float) -> Color:
    return color[0] * brightness, color[1] * brightness, color[2] * brightness
