"""The skin that synthetic lesions lie on: a person's tone, its lines, redness, freckles and small vessels."""

from dataclasses import dataclass

import cv2
import numpy as np

from medic.sample.strokes import draw_ribbons, draw_spots, winding_paths

# Tones as dermoscopes show them, RGB of 0-1, and how often: most archives hold few images of dark skin.
TONES = np.array(
    [
        (0.86, 0.78, 0.76),  # very fair
        (0.92, 0.72, 0.70),  # pink
        (0.93, 0.78, 0.66),  # peach
        (0.86, 0.80, 0.68),  # yellowish
        (0.80, 0.56, 0.40),  # tan
        (0.56, 0.37, 0.27),  # brown
    ]
)
SHARES = np.array([0.24, 0.26, 0.24, 0.14, 0.08, 0.04])


@dataclass(frozen=True)
class Skin:
    """A person's skin.

    Attributes:
        tone: RGB, 0-1.
        redness: of blotches and small vessels, 0-1.
        freckles: how many brown spots lie in an image's width, about.
        hairs: how many hairs cross an image of a hairy place.
        hair: colour of these, RGB, 0-1.
    """

    tone: tuple[float, float, float]
    redness: float
    freckles: float
    hairs: int
    hair: tuple[float, float, float]


@dataclass(frozen=True)
class Frame:
    """A whole image to draw on: the unit is its height, the origin its upper left corner.

    Attributes:
        width: pixels.
        height: pixels.
    """

    width: int
    height: int

    @property
    def radius(self) -> float:
        """Pixels of one unit."""
        return self.height

    @property
    def wide(self) -> float:
        """The width in units."""
        return self.width / self.height

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Units (..., 2) to pixels (..., 2), float."""
        return np.asarray(points) * float(self.height)

    def layer(self) -> np.ndarray:
        """An empty layer to draw on: uint8 (height, width), zeros."""
        return np.zeros((self.height, self.width), np.uint8)

    def places(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """``count`` random places in the image, float (count, 2), units."""
        return rng.uniform(0, 1, (count, 2)) * (self.wide, 1.0)

    def noise(self, rng: np.random.Generator, cells: float, stretch: float = 1.0) -> np.ndarray:
        """Smooth noise, ``cells`` to the height, ``stretch`` times as many to the width; float32 (height, width)."""
        rows, columns = max(2, round(cells)), max(2, round(cells * self.wide * stretch))
        grid = rng.standard_normal((rows, columns), np.float32)
        return cv2.resize(grid, (self.width, self.height), interpolation=cv2.INTER_CUBIC)


def sample_skin(rng: np.random.Generator) -> Skin:
    """Draw a person's skin."""
    first, second = rng.choice(len(TONES), 2, p=SHARES)
    mix = rng.uniform(0, 0.35)
    tone = (TONES[first] * (1 - mix) + TONES[second] * mix) * rng.uniform(0.95, 1.04)
    dark = rng.random() < 0.75
    return Skin(
        tone=tuple(np.clip(tone, 0, 0.97).tolist()),
        redness=float(rng.beta(1.2, 3)),
        freckles=float(rng.exponential(2.0)),
        hairs=int(np.exp(rng.normal(2.1, 0.8)).clip(2, 45)),
        hair=(0.13, 0.09, 0.07) if dark else (0.42, 0.27, 0.16),
    )


def draw_skin(skin: Skin, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Draw skin without a lesion.

    Args:
        skin: whose.
        rng: source of where everything lies.
        width: pixels.
        height: pixels.

    Returns:
        float32 (height, width, 3) RGB of 0-1.
    """
    frame = Frame(width, height)
    pigment = 0.05 * frame.noise(rng, 3) + 0.03 * frame.noise(rng, 9) + 0.01 * _lines(frame, rng)
    pigment += 0.036 * frame.noise(rng, 110)  # pores
    layer = frame.layer()
    count = rng.poisson(skin.freckles)
    draw_spots(
        layer,
        frame,
        rng,
        (frame.places(rng, count), np.exp(rng.normal(-3.9, 0.45, count))),
        rng.uniform(50, 140, count),
        0.25,
        0.2,
    )
    pigment += 0.6 / 255 * cv2.GaussianBlur(layer, (0, 0), 0.012 * height)
    blood = (0.03 + 0.10 * skin.redness) * np.maximum(frame.noise(rng, 4) + 0.3 * frame.noise(rng, 14), 0)
    if skin.redness > 0.3:
        blood += skin.redness * _vessels(frame, rng)
    absorbed = pigment[..., None] * np.array([0.5, 0.95, 1.3], np.float32)
    absorbed += blood[..., None] * np.array([0.15, 1.0, 0.8], np.float32)
    return np.array(skin.tone, np.float32) * cv2.exp(-absorbed.astype(np.float32))


def _lines(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """The furrows of skin: two sets that cross, float32 (height, width)."""
    along = frame.noise(rng, 80, 0.2)
    across = frame.noise(rng, 18, 4.5)
    turn = cv2.getRotationMatrix2D((frame.width / 2, frame.height / 2), float(rng.uniform(-90, 90)), 1.45)
    return cv2.warpAffine(along + across, turn, (frame.width, frame.height), borderMode=cv2.BORDER_REFLECT)


def _vessels(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """Fine winding vessels in the dermis, float32 (height, width)."""
    count = int(rng.integers(8, 26))
    layer = frame.layer()
    paths = winding_paths(
        rng,
        frame.places(rng, count),
        rng.uniform(-np.pi, np.pi, count),
        rng.uniform(0.1, 0.35, count),
        rng.normal(0, 1, count),
        0.5,
        points=12,
    )
    draw_ribbons(layer, frame, paths, np.full(paths.shape[:2], 0.006), rng.uniform(60, 150, count))
    return cv2.GaussianBlur(layer, (0, 0), 0.006 * frame.height).astype(np.float32) * (0.9 / 255)
