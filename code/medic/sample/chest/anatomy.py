"""The anatomy of a synthetic chest radiograph: a person, and how that person stands in one exposure.

Places are in *chest units*: the origin lies on the midline at the height of the lungs' apices, 1 is half of the
thorax's inner width (about 14 cm), u grows towards the image's right and v downwards. The patient faces the
viewer: the patient's left, and so the heart, is at the image's right.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

View = Literal["PA", "AP"]
Sex = Literal["F", "M"]

# half of the thorax's inner width, by height from the apices
WALL_V = np.array([-0.02, 0.0, 0.03, 0.08, 0.16, 0.28, 0.45, 0.75, 1.1, 1.5, 1.8, 2.2])
WALL_U = np.array([0.3, 0.4, 0.48, 0.56, 0.65, 0.75, 0.845, 0.94, 0.985, 1.0, 0.985, 0.95])
# borders of the mediastinum (vena cava at the image's left, aortic knob at its right); the heart is added below
MIDDLE_V = np.array([-0.8, -0.2, 0.1, 0.24, 0.33, 0.42, 0.52, 0.66, 0.85, 2.6])
RIGHT_U = np.array([0.18, 0.16, 0.17, 0.17, 0.18, 0.17, 0.17, 0.18, 0.18, 0.18])
LEFT_U = np.array([0.18, 0.16, 0.18, 0.21, 0.27, 0.29, 0.25, 0.24, 0.24, 0.2])
# the heart's borders over its height, 0 at its base and 1 at the diaphragm, as shares of the widest place
HEART_T = np.array([-0.35, 0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.88, 0.98, 1.08, 1.2, 1.4])
HEART_RIGHT = np.array([0.3, 0.52, 0.7, 0.85, 0.95, 1.0, 1.0, 0.95, 0.88, 0.77, 0.6, 0.3])
HEART_LEFT = np.array([0.25, 0.4, 0.5, 0.62, 0.75, 0.87, 0.96, 1.0, 0.99, 0.92, 0.75, 0.4])


@dataclass(frozen=True)
class Anatomy:
    """What all radiographs of a person have in common.

    Attributes:
        sex: "F" or "M".
        half_width: of the thorax, as a share of the image's width, 0.325-0.375.
        lung_height: from the apex to the right dome of the diaphragm, chest units, at full inspiration.
        cardiothoracic_ratio: width of the heart over that of the thorax, 0.38-0.47 in health.
        heart_to_right: share of the heart's width at the image's left of the midline.
        dome: height of the domes of the diaphragm over the costophrenic angles, chest units.
        left_lower: how much lower the left dome lies, chest units.
        build: thickness of soft tissue, 0-1.
        rib_slope: how steeply the ribs run, 0.8-1.25 of the usual.
        seed: of the vessels' course and of the places of findings.
    """

    sex: Sex
    half_width: float
    lung_height: float
    cardiothoracic_ratio: float
    heart_to_right: float
    dome: float
    left_lower: float
    build: float
    rib_slope: float
    seed: int


def sample_anatomy(rng: np.random.Generator, sex: Sex | None = None) -> Anatomy:
    """Draw a person; of either sex where none is given."""
    return Anatomy(
        sex=sex or ("F" if rng.random() < 0.48 else "M"),
        half_width=rng.uniform(0.325, 0.375),
        lung_height=rng.uniform(1.45, 1.68),
        cardiothoracic_ratio=rng.uniform(0.385, 0.465),
        heart_to_right=rng.uniform(0.31, 0.38),
        dome=rng.uniform(0.3, 0.42),
        left_lower=rng.uniform(0.05, 0.11),
        build=rng.beta(2, 2),
        rib_slope=rng.uniform(0.8, 1.25),
        seed=int(rng.integers(2**31)),
    )


@dataclass(frozen=True)
class Changes:
    """What findings do to the anatomy before anything is drawn; two changes add up.

    Attributes:
        heart: added to the cardiothoracic ratio.
        height: added to the lung's height, as a share of it.
        flat: how flat the diaphragm is, 0 (domes) to 1.
        raised: how much the diaphragm is raised at the image's left and right, chest units.
        shift: of the mediastinum towards the image's right, chest units.
    """

    heart: float = 0.0
    height: float = 0.0
    flat: float = 0.0
    raised: tuple[float, float] = (0.0, 0.0)
    shift: float = 0.0

    def __add__(self, other: "Changes") -> "Changes":
        return Changes(
            self.heart + other.heart,
            self.height + other.height,
            max(self.flat, other.flat),
            (self.raised[0] + other.raised[0], self.raised[1] + other.raised[1]),
            self.shift + other.shift,
        )


@dataclass(frozen=True, eq=False)
class Chest:
    """A person in one exposure. Fields of shape (size, size) are float32, in chest units.

    Attributes:
        size: of the image, pixels.
        centre: of the chest units' origin, pixels (x, y).
        radius: pixels of one chest unit.
        tilt: of the body in the image, radians.
        height: of the lungs, from the apices to the right dome.
        heart: where the heart ends at the image's left and right, chest units, both positive.
        u: how far each pixel lies from the midline, towards the image's right.
        v: how far it lies below the apices.
        wall: half of the thorax's inner width at each pixel's height.
        dome: how low the diaphragm lies at each pixel's distance from the midline.
        middle: how far each pixel lies outside the mediastinum and heart; negative within.
        lung: 0-1, where air is in front of no mediastinum and above the diaphragm.
        air: how much density the air of the lungs takes away, 0-0.5: most in the middle of each.
    """

    size: int
    centre: tuple[float, float]
    radius: float
    tilt: float
    height: float
    heart: tuple[float, float]
    u: np.ndarray
    v: np.ndarray
    wall: np.ndarray
    dome: np.ndarray
    middle: np.ndarray
    lung: np.ndarray
    air: np.ndarray

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Chest units (..., 2) to pixels (..., 2), float."""
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        return self.radius * points @ np.array([[cos, sin], [-sin, cos]]) + self.centre

    def layer(self) -> np.ndarray:
        """An empty layer to draw on: uint8 (size, size), zeros."""
        return np.zeros((self.size, self.size), np.uint8)

    def at(self, side: int) -> np.ndarray:
        """0-1, float32 (size, size): the image's left (-1) or right (+1) half."""
        return step(side * self.u, 0.04)

    def wall_at(self, v: np.ndarray | float) -> np.ndarray:
        """Half of the thorax's inner width at these heights."""
        return np.interp(v, WALL_V, WALL_U)

    def noise(self, rng: np.random.Generator, cells: int) -> np.ndarray:
        """Smooth random texture, float32 (size, size), about normal, with this many cells across the image."""
        grid = rng.standard_normal((cells, cells), np.float32)
        return cv2.resize(grid, (self.size, self.size), interpolation=cv2.INTER_CUBIC)


def step(distance: np.ndarray, softness: float) -> np.ndarray:
    """0 where a distance is below ``-softness``, 1 above ``softness``, smooth between."""
    t = np.clip(distance * (0.5 / softness) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def spot(chest: Chest, centre: tuple[float, float], size: tuple[float, float], turn: float = 0.0) -> np.ndarray:
    """A soft elliptic spot, 1 at its centre; ``size`` is a standard deviation along and across, chest units."""
    u, v = chest.u - centre[0], chest.v - centre[1]
    if turn:
        u, v = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
    return np.exp(-0.5 * ((u / size[0]) ** 2 + (v / size[1]) ** 2))


def pose(anatomy: Anatomy, view: View, changes: Changes, rng: np.random.Generator, size: int) -> Chest:
    """Place a person before the detector: in AP views (in bed) with less inspiration and a larger heart."""
    bed = view == "AP"
    height = anatomy.lung_height * (rng.uniform(0.8, 0.93) if bed else rng.uniform(0.95, 1.04)) * (1 + changes.height)
    scale = rng.uniform(0.9, 1.0) if bed else rng.uniform(0.95, 1.03)
    radius = scale * anatomy.half_width * size
    # as a radiographer does, keep the angles in the picture where they fit
    top = max(0.06, min(0.2, 0.9 - (height + anatomy.dome) * radius / size)) + rng.normal(0, 0.012)
    centre = (size * (0.5 + rng.normal(0, 0.02)), size * top)
    tilt = rng.normal(0, 0.03 if bed else 0.012)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    x, y = (x - centre[0]) / radius, (y - centre[1]) / radius
    u = (x * np.cos(tilt) + y * np.sin(tilt)).astype(np.float32)
    v = (y * np.cos(tilt) - x * np.sin(tilt)).astype(np.float32)

    away = np.abs(u)
    wall = _smooth_curve(v, WALL_V, WALL_U, 0.02)
    dome = _diaphragm(anatomy, changes, height, u, rng)
    ratio = anatomy.cardiothoracic_ratio + changes.heart + (rng.uniform(0.02, 0.05) if bed else 0.0)
    heart = (2 * ratio * anatomy.heart_to_right, 2 * ratio * (1 - anatomy.heart_to_right))
    middle = _outside_of_mediastinum(u - changes.shift, v, height, heart)
    apex = v - 1.9 * np.clip(0.4 - away, 0, 1) ** 2
    lung = step(wall - away, 0.03) * step(apex, 0.04) * step(dome - v, 0.03) * step(middle, 0.028)
    lung = lung.astype(np.float32)
    air = lung * _depth_of_air(wall - away, dome - v, v)
    return Chest(size, centre, radius, tilt, height, heart, u, v, wall, dome, middle, lung, air)


def _depth_of_air(from_wall: np.ndarray, above_dome: np.ndarray, v: np.ndarray) -> np.ndarray:
    rim = np.clip(from_wall / 0.35, 0, 1)
    across = np.sqrt(rim * (2 - rim))
    above = np.clip(above_dome / 0.5, 0, 1)
    return 0.48 * (0.52 + 0.26 * across + 0.22 * above) * (0.78 + 0.22 * step(v - 0.2, 0.25))


def _smooth_curve(v: np.ndarray, knots: np.ndarray, values: np.ndarray, smoothing: float) -> np.ndarray:
    """A curve through knots, its corners rounded over ``smoothing`` units, at each v."""
    fine = np.arange(-1.0, 3.4, 0.01)
    reach = max(1, round(3 * smoothing / 0.01))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * 0.01 / smoothing) ** 2)
    curve = np.interp(fine, knots, values)
    curve = np.convolve(np.pad(curve, reach, "edge"), kernel / kernel.sum(), "valid")
    return np.interp(v, fine, curve).astype(np.float32)


def _diaphragm(
    anatomy: Anatomy, changes: Changes, height: float, u: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    away = np.abs(u)
    depth = anatomy.dome * (1 - 0.72 * changes.flat) * rng.uniform(0.9, 1.1)
    lateral = np.clip((away - 0.42) / 0.58, 0, 1.2) ** 2.3
    medial = np.clip((0.42 - away) / 0.42, 0, 1) ** 2
    right = step(u, 0.1)
    tops = height - changes.raised[0] + right * (anatomy.left_lower + changes.raised[0] - changes.raised[1])
    return (tops + depth * lateral + 0.12 * depth * medial).astype(np.float32)


def _outside_of_mediastinum(u: np.ndarray, v: np.ndarray, height: float, heart: tuple[float, float]) -> np.ndarray:
    """How far each pixel lies outside the mediastinum and the heart, in chest units along u."""
    base, low = 0.4 * height, 0.99 * height
    at = base + HEART_T * (low - base)
    left = np.maximum(
        _smooth_curve(v, MIDDLE_V * height / 1.6, RIGHT_U, 0.03), heart[0] * _smooth_curve(v, at, HEART_RIGHT, 0.05)
    )
    right = np.maximum(
        _smooth_curve(v, MIDDLE_V * height / 1.6, LEFT_U, 0.03), heart[1] * _smooth_curve(v, at, HEART_LEFT, 0.05)
    )
    return np.where(u < 0, -u - left, u - right).astype(np.float32)
