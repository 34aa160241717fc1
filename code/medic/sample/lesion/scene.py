"""What a dermoscope shows around a lesion: skin with its lines, freckles and vessels; hairs, ruler, stickers, tube."""

import cv2
import numpy as np

from medic.sample.strokes import Array, Canvas, Rng, constants, winding_paths

CONSTANTS = constants("lesion")
TONES, STICKERS = (np.array(CONSTANTS[colours]) for colours in ("tones", "stickers"))
MELANIN, BLOOD = np.array([(0.50, 1.0, 1.52), (0.18, 0.80, 0.66)], np.float32)  # absorption of red, green, blue


def draw_skin(person: int, rng: Rng, frame: Canvas) -> Array:
    """Draw skin without a lesion, float32 (height, width, 3) RGB of 0-1; ``person`` is the seed of the skin's tone.

    The unit of ``frame`` is its height, the origin its upper left corner.
    """
    own = np.random.default_rng([person, 1])
    first, second = own.choice(len(TONES), 2, p=CONSTANTS["shares"])
    tone = (TONES[first] + (TONES[second] - TONES[first]) * own.uniform(0, 0.35)) * own.uniform(0.95, 1.03)
    redness, freckles = own.beta(1.2, 3), rng.poisson(own.exponential(2.0))
    width, height = frame.size
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.uniform(-90, 90)), 1.45)
    furrows = frame.noise(rng, 80, 0.2) + frame.noise(rng, 18, 4.5)
    furrows = cv2.warpAffine(furrows, turn, frame.size, borderMode=cv2.BORDER_REFLECT)
    pores = 0.03 * frame.noise(rng, 110)
    pigment = 0.05 * frame.noise(rng, 3) + 0.03 * frame.noise(rng, 9) + 0.01 * furrows + pores
    spots = _places(frame, rng, freckles), np.exp(rng.normal(-3.9, 0.45, freckles)), rng.uniform(50, 140, freckles)
    pigment += 0.6 / 255 * frame.blurred(frame.spots(rng, *spots), 0.012, 0)
    blood = (0.03 + 0.10 * redness) * np.maximum(frame.noise(rng, 4) + 0.3 * frame.noise(rng, 14), 0)
    if redness > 0.3:
        count = int(rng.integers(8, 26))
        angles, lengths = rng.uniform(-np.pi, np.pi, count), rng.uniform(0.1, 0.35, count)
        paths = winding_paths(rng, _places(frame, rng, count), angles, lengths, rng.normal(0, 1, count), 0.5)
        blood += redness * 0.9 / 255 * frame.blurred(frame.ribbons(paths, 0.006, rng.uniform(60, 150, count)), 0.006, 0)
    absorbed = pigment[..., None] * MELANIN * 0.9 + blood[..., None] * BLOOD
    return tone.clip(0, 0.97).astype(np.float32) * cv2.exp(-absorbed.astype(np.float32))


def add_things(image: Array, rng: Rng, person: int, sticker: bool, hospital: int) -> Array:
    """Lay a sticker, a ruler, hairs and the tube over an image, float32 (height, width, 3) of 0-1."""
    (height, width), own = image.shape[:2], np.random.default_rng([person, 2])
    frame = Canvas((width, height), (0, 0), height)
    if sticker:  # it reaches into the image from its left or right border
        layer, side = frame.layer(), rng.choice([0.0, width / height])
        centre = frame.to_pixels([side + rng.uniform(-0.05, 0.05), rng.uniform(0.15, 0.85)]) * 16
        radius = round(rng.uniform(0.2, 0.32) * 16 * height)
        cv2.circle(layer, np.rint(centre).astype(int).tolist(), radius, 255, -1, cv2.LINE_AA, 4)
        colour = STICKERS[rng.integers(len(STICKERS))] * rng.uniform(0.85, 1.05)
        image = _cover(image, frame.blurred(layer, 0.03, 0) // 5, np.zeros(3))
        image = _cover(image, layer, colour.clip(0, 1) * (1 + 0.04 * frame.noise(rng, 40)[..., None]))
    if rng.random() < 0.14:
        image = _cover(image, _ruler(frame, rng), np.array((0.1, 0.1, 0.12)))
    if rng.random() < 0.4:
        hairs = _hairs(frame, rng, 2 + int(min(own.lognormal(1.9, 0.8), 38)))
        image = _cover(image, frame.blurred(hairs, 0.01, 0) // 4, np.zeros(3))
        image = _cover(image, hairs, np.array((0.13, 0.09, 0.07) if own.random() < 0.75 else (0.42, 0.27, 0.16)))
    kind = rng.choice(3, p=CONSTANTS["hospital"][hospital - 1]["tube"])
    if kind:
        y, x = np.mgrid[:height, :width] / height
        away = np.hypot(x - 0.5 * width / height - rng.normal(0, 0.02), y - 0.5 - rng.normal(0, 0.015))
        low, high = ((0.66, 0.3, 0.05), (0.76, 0.5, 0.3)) if kind == 1 else ((0.5, 0.04, 0.01), (0.66, 0.05, 0.02))
        radius, soft, least = rng.uniform(low, high)
        image = image * (least + (1 - least) * step(radius - away, soft))[..., None]
    return image.astype(np.float32)


def photograph(image: Array, rng: Rng, hospital: int) -> Array:
    """Add light, focus, colour balance and grain: float (height, width, 3) of 0-1 to uint8."""
    (height, width), camera = image.shape[:2], CONSTANTS["hospital"][hospital - 1]
    angle, uneven = rng.uniform(-np.pi, np.pi), rng.choice([0.1, rng.uniform(0.2, 1)])
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = 1 + uneven * (0.11 * (np.cos(angle) * x + np.sin(angle) * y) - 0.05 * (x * x + y * y))
    balance = rng.normal(1, (0.025, 0.02, 0.045)) * camera["balance"] * rng.uniform(0.93, 1.05)
    blur = max(camera["blur"] * height * rng.uniform(0.7, 1.3), 0.3)
    image = cv2.GaussianBlur(image * light[..., None] * balance, (0, 0), blur)
    grain = rng.uniform(0.002, 0.005) * rng.standard_normal((height, width, 1))
    return np.rint(255 * (np.clip(image, 0, 1) ** rng.uniform(0.9, 1.12) + grain)).clip(0, 255).astype(np.uint8)


def step(value: Array, soft: float | Array) -> Array:
    """Rise smoothly from 0 to 1 where a value rises from ``-soft / 2`` to ``soft / 2``."""
    t = np.clip(value / soft + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _cover(image: Array, layer: Array, colour: Array) -> Array:
    """Paint where a uint8 layer is bright."""
    share = (layer.astype(np.float32) / 255)[..., None]
    return image * (1 - share) + colour * share


def _places(frame: Canvas, rng: Rng, count: int) -> Array:
    return rng.uniform(0, 1, (count, 2)) * (frame.size[0] / frame.size[1], 1.0)


def _hairs(frame: Canvas, rng: Rng, count: int) -> Array:
    heading = rng.uniform(-np.pi, np.pi) + rng.normal(0, rng.uniform(0.25, 0.9), count)
    length = rng.uniform(0.5, 1.5, count)
    start = _places(frame, rng, count) - np.stack([np.cos(heading), np.sin(heading)], -1) * length[:, None] / 2
    paths = winding_paths(rng, start, heading, length, 1.5 * rng.normal(0, 0.9, count), 0.03)
    widths = rng.uniform(0.004, 0.012) * rng.uniform(0.6, 1.1, (count, 1))
    return frame.ribbons(paths, widths * (1 - 0.65 * np.linspace(0, 1, paths.shape[1]) ** 2), 235)


def _ruler(frame: Canvas, rng: Rng) -> Array:
    """The ticks of a scale along the upper or lower border, every fifth longer, every tenth longest."""
    along = np.arange(-0.02, frame.size[0] / frame.size[1] + 0.02, rng.uniform(0.032, 0.055))
    number, inset = np.arange(len(along)) + rng.integers(0, 10), rng.uniform(0.01, 0.05)
    long = np.where(number % 10 == 0, 0.085, np.where(number % 5 == 0, 0.065, 0.04))
    ticks = np.stack([np.stack([along, inset + long * t], -1) for t in (0, 0.5, 1)], 1)
    layer = frame.ribbons(ticks, 0.0085, 235)
    return layer if rng.random() < 0.5 else layer[::-1]
