"""What is in a dermoscopic image beside skin and lesion: hairs, ruler, frame, gel bubbles, stickers, uneven light."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from medic.errors import MedicError
from medic.sample.lesion.skin import Frame, Skin
from medic.sample.strokes import draw_ribbons, winding_paths

FRAMES = ("none", "vignette", "circle", "bars")
STICKERS = np.array([(0.16, 0.42, 0.78), (0.95, 0.80, 0.18), (0.20, 0.62, 0.42), (0.93, 0.47, 0.14)])


@dataclass(frozen=True)
class Nuisances:
    """What an image shows beside skin and lesion.

    Attributes:
        hairs: how many cross the image.
        stubble: how many short, shaved ones stand in it.
        ruler: whether a millimetre scale lies at a border.
        frame: "none", "vignette" (dark corners), "circle" (the black tube of the dermoscope), "bars" (black borders).
        bubbles: how many there are in the gel.
        stickers: how many coloured ones lie on the skin, as are put beside lesions of children.
        uneven: how much the light falls off to one side, 0-1.

    Raises:
        MedicError: an unknown frame.
    """

    hairs: int = 0
    stubble: int = 0
    ruler: bool = False
    frame: Literal["none", "vignette", "circle", "bars"] = "none"
    bubbles: int = 0
    stickers: int = 0
    uneven: float = 0.0

    def __post_init__(self) -> None:
        if self.frame not in FRAMES:
            raise MedicError(f"no dermoscope has the frame {self.frame!r}; there is: {', '.join(FRAMES)}")


def sample_nuisances(rng: np.random.Generator, skin: Skin, *, stickers: int = 0) -> Nuisances:
    """Draw what is in an image; nothing of it depends on the lesion, so stickers are the caller's to say."""
    hairy, shaved, ruled, gel, uneven = rng.random(5) < (0.36, 0.06, 0.14, 0.22, 0.6)
    return Nuisances(
        hairs=int(skin.hairs * rng.uniform(0.5, 1.3)) if hairy else 0,
        stubble=int(rng.integers(12, 40)) if shaved and not hairy else 0,
        ruler=bool(ruled),
        frame=FRAMES[rng.choice(4, p=(0.5, 0.22, 0.22, 0.06))],
        bubbles=1 + int(rng.poisson(2.5)) if gel else 0,
        stickers=stickers,
        uneven=float(rng.uniform(0.2, 1)) if uneven else 0.1,
    )


def add_nuisances(image: np.ndarray, nuisances: Nuisances, skin: Skin, rng: np.random.Generator) -> np.ndarray:
    """Lay stickers, bubbles, ruler, hairs and frame over an image, in this order.

    Args:
        image: float32 (height, width, 3) RGB of 0-1.
        nuisances: what there is.
        skin: whose hairs.
        rng: source of where everything lies.

    Returns:
        float32, of the same shape.
    """
    frame = Frame(image.shape[1], image.shape[0])
    if nuisances.stickers:
        image = _stickers(image, frame, rng, nuisances.stickers)
    if nuisances.bubbles:
        image = _bubbles(image, frame, rng, nuisances.bubbles)
    if nuisances.ruler:
        image = _cover(image, _ruler(frame, rng), (0.1, 0.1, 0.12))
    if nuisances.hairs or nuisances.stubble:
        hairs = _hairs(frame, rng, nuisances)
        shadow = cv2.GaussianBlur(hairs, (0, 0), 0.01 * frame.height).astype(np.float32) * (0.25 / 255)
        image = _cover(image * (1 - shadow[..., None]), hairs, skin.hair)
    if nuisances.frame != "none":
        image = image * _tube(frame, rng, nuisances.frame)[..., None]
    return image


def photograph(image: np.ndarray, nuisances: Nuisances, rng: np.random.Generator) -> np.ndarray:
    """Light, focus, colour balance and grain of the camera: float (height, width, 3) of 0-1 to uint8."""
    height, width = image.shape[:2]
    angle = rng.uniform(-np.pi, np.pi)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    slope = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    light = 1 + 0.11 * nuisances.uneven * slope - 0.05 * nuisances.uneven * (x * x + y * y)
    balance = rng.normal(1, (0.025, 0.02, 0.045)) * rng.uniform(0.93, 1.05)
    image = image * light.astype(np.float32)[..., None] * balance.astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), max(0.002 * height * rng.uniform(0.7, 1.3), 0.3))
    grain = rng.uniform(0.002, 0.006) * rng.standard_normal((height, width), np.float32)
    pixels = 255 * (np.clip(image, 0, 1) ** np.float32(rng.uniform(0.9, 1.12)) + grain[..., None])
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def _cover(image: np.ndarray, layer: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    """Paint where a uint8 layer is bright."""
    share = (layer.astype(np.float32) / 255)[..., None]
    return image * (1 - share) + np.array(colour, np.float32) * share


def _hairs(frame: Frame, rng: np.random.Generator, nuisances: Nuisances) -> np.ndarray:
    """Hairs that lie one way, more or less, thick and thin; uint8 (height, width)."""
    layer = frame.layer()
    grain, apart = rng.uniform(-np.pi, np.pi), rng.uniform(0.25, 0.9)  # the way they lie, and how much they cross
    for count, lengths, thick in (
        (nuisances.hairs, (0.5, 1.5), (0.004, 0.012)),
        (nuisances.stubble, (0.025, 0.05), (0.009, 0.014)),
    ):
        if not count:
            continue
        heading = grain + rng.normal(0, apart, count)
        length = rng.uniform(*lengths, count)
        middle = frame.places(rng, count)
        start = middle - np.stack([np.cos(heading), np.sin(heading)], -1) * length[:, None] / 2
        paths = winding_paths(rng, start, heading, length, rng.normal(0, 0.9, count) * lengths[1], 0.03, points=20)
        taper = 1 - 0.65 * np.linspace(0, 1, 20) ** 2
        widths = rng.uniform(*thick) * rng.uniform(0.6, 1.1, (count, 1)) * taper
        draw_ribbons(layer, frame, paths, widths, rng.uniform(170, 245, count))
    return layer


def _ruler(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """The ticks of a scale along one border, every fifth longer, every tenth longest; uint8 (height, width)."""
    layer = frame.layer()
    gap, first, tilt = rng.uniform(0.032, 0.055), rng.integers(0, 10), rng.normal(0, 0.04)
    side, inset = int(rng.integers(4)), rng.uniform(0.01, 0.05)
    span = frame.wide if side % 2 == 0 else 1.0
    along = np.arange(-0.02, span + 0.02, gap)
    number = np.arange(len(along)) + first
    long = np.where(number % 10 == 0, 0.085, np.where(number % 5 == 0, 0.065, 0.04))
    across = inset + tilt * (along - span / 2)
    ends = [np.stack([along, across], -1), np.stack([along - tilt * long, across + long], -1)]
    ticks = np.stack(ends, 1)
    if side % 2:
        ticks = ticks[..., ::-1]
    if side >= 2:
        ticks = np.array([frame.wide, 1.0]) - ticks
    t = np.linspace(0, 1, 3)[:, None]
    paths = ticks[:, :1] * (1 - t) + ticks[:, 1:] * t
    draw_ribbons(layer, frame, paths, np.full(paths.shape[:2], 0.0085), np.full(len(paths), 235))
    return layer


def _bubbles(image: np.ndarray, frame: Frame, rng: np.random.Generator, count: int) -> np.ndarray:
    """Bubbles in the gel: rings with a dark and a bright side."""
    bright, dark = frame.layer(), frame.layer()
    for place in frame.places(rng, count):
        radius = frame.height * float(np.exp(rng.normal(-3.6, 0.45)).clip(0.015, 0.08))
        centre = tuple(np.rint(frame.to_pixels(place) * 16).astype(int).tolist())
        axes = (round(radius * 16), round(radius * rng.uniform(0.85, 1) * 16))
        turn, thick = float(rng.uniform(0, 360)), max(1, round(frame.height / 170))
        cv2.ellipse(dark, centre, axes, turn, 0, 360, 90, thick, cv2.LINE_AA, 4)
        cv2.ellipse(bright, centre, axes, turn, 20, 150, 200, thick, cv2.LINE_AA, 4)
    image = _cover(image, cv2.GaussianBlur(dark, (0, 0), 0.6), (0.35, 0.3, 0.3))
    return _cover(image, cv2.GaussianBlur(bright, (0, 0), 0.5), (1.0, 1.0, 1.0))


def _stickers(image: np.ndarray, frame: Frame, rng: np.random.Generator, count: int) -> np.ndarray:
    """Round coloured stickers that reach into the image from its left and right borders."""
    sides = rng.permutation([0.0, frame.wide])[:count]
    for side in sides:
        layer = frame.layer()
        centre = frame.to_pixels(np.array([side + rng.uniform(-0.05, 0.05), rng.uniform(0.15, 0.85)]))
        radius = frame.height * rng.uniform(0.2, 0.34)
        at = tuple(np.rint(centre * 16).astype(int).tolist())
        cv2.circle(layer, at, round(radius * 16), 255, -1, cv2.LINE_AA, 4)
        layer = cv2.GaussianBlur(layer, (0, 0), max(0.5, 0.008 * frame.height))
        colour = STICKERS[rng.integers(len(STICKERS))] * rng.uniform(0.85, 1.05)
        shade = 1 + 0.05 * frame.noise(rng, 3) + 0.02 * frame.noise(rng, 40)
        share = (layer.astype(np.float32) / 255)[..., None]
        shadow = cv2.GaussianBlur(layer, (0, 0), 0.03 * frame.height).astype(np.float32) * (0.2 / 255)
        image = image * (1 - shadow[..., None])
        image = image * (1 - share) + colour.clip(0, 1).astype(np.float32) * shade[..., None] * share
    return image


def _tube(frame: Frame, rng: np.random.Generator, kind: str) -> np.ndarray:
    """How much light the dermoscope's tube lets through, 0-1, float32 (height, width)."""
    if kind == "bars":
        through = np.ones((frame.height, frame.width), np.float32)
        wide = [round(frame.height * rng.uniform(0.02, 0.07)) for _ in range(2)]
        through[: wide[0]], through[frame.height - wide[1] :] = 0.01, 0.01
        return through
    x = np.arange(frame.width, dtype=np.float32) / frame.height - frame.wide / 2 - np.float32(rng.normal(0, 0.02))
    y = np.arange(frame.height, dtype=np.float32)[:, None] / frame.height - 0.5 - np.float32(rng.normal(0, 0.015))
    away = np.sqrt(x * x + y * y)
    if kind == "circle":
        radius, soft, least = rng.uniform(0.49, 0.68), rng.uniform(0.015, 0.09), 0.015
    else:
        radius, soft, least = rng.uniform(0.66, 0.76), rng.uniform(0.3, 0.5), rng.uniform(0.05, 0.3)
    t = np.clip((radius - away) / np.float32(soft) + 0.5, 0, 1)
    return (least + (1 - least) * t * t * (3 - 2 * t)).astype(np.float32)
