"""The body of a synthetic chest radiograph: a person, and how that person stands in one exposure.

Places are in *chest units*: the origin lies on the midline at the height of the lungs' apices, 1 is half of the
thorax's inner width (about 14 cm), u grows towards the image's right and v downwards. The patient's left, and so the
heart, is at the image's right.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from medic.sample.strokes import Canvas

# half of the thorax's inner width, by height
WALL = ((-0.02, 0, 0.03, 0.08, 0.16, 0.28, 0.45, 0.75, 1.1, 1.5, 1.8, 2.2),
        (0.3, 0.4, 0.48, 0.56, 0.65, 0.75, 0.845, 0.94, 0.985, 1, 0.985, 0.95))  # fmt: skip
# borders of the mediastinum: vena cava at the image's left, aortic knob at its right
MIDDLE = {-1: ((-0.8, -0.2, 0.1, 2.6), (0.18, 0.16, 0.17, 0.18)),
          1: ((-0.8, -0.2, 0.1, 0.24, 0.33, 0.42, 0.52, 0.66, 0.85, 2.6),
              (0.18, 0.16, 0.18, 0.21, 0.27, 0.29, 0.25, 0.24, 0.24, 0.2))}  # fmt: skip
# the heart's borders, from its base (0) to the diaphragm (1), as shares of the widest place
HEART = {-1: ((-0.35, 0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.88, 0.98, 1.08, 1.2, 1.4),
              (0.3, 0.52, 0.7, 0.85, 0.95, 1, 1, 0.95, 0.88, 0.77, 0.6, 0.3)),
         1: ((-0.35, 0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.88, 0.98, 1.08, 1.2, 1.4),
             (0.25, 0.4, 0.5, 0.62, 0.75, 0.87, 0.96, 1, 0.99, 0.92, 0.75, 0.4))}  # fmt: skip


@dataclass(frozen=True)
class Person:
    """What all radiographs of a person have in common."""

    sex: str  # "F" or "M"
    half_width: float  # of the thorax, as a share of the image's width
    lung_height: float  # from the apex to the right dome of the diaphragm at full inspiration, chest units
    heart: float  # width of the heart over that of the thorax (cardiothoracic ratio), below 0.5 in health
    dome: float  # height of the domes of the diaphragm over the costophrenic angles, chest units
    build: float  # thickness of soft tissue, 0-1
    seed: int  # of the bones' and vessels' course and of the places of findings


def draw_person(rng: np.random.Generator, sex: str | None = None) -> Person:
    """Draw a person; of either sex where none is given."""
    low, high = np.transpose([(0.325, 0.375), (1.45, 1.68), (0.385, 0.465), (0.3, 0.42), (0.1, 0.9)])
    return Person(sex or str(rng.choice(["F", "M"])), *rng.uniform(low, high).tolist(), int(rng.integers(2**31)))


class Chest(Canvas):
    """A person before the detector; in bed with less inspiration and a larger heart. Fields are (size, size)."""

    def __init__(
        self, person: Person, changes: dict[str, float], bed: bool, rng: np.random.Generator, size: int, zoom: float
    ):
        """Place the person, as findings change them (``findings.changes_of``); ``rng`` is the source of the pose."""
        found = {"heart": person.heart, "height": 0, "flat": 0, "left": 0, "right": 0, "shift": 0} | changes
        height = person.lung_height * (rng.uniform(0.8, 0.93) if bed else rng.uniform(0.95, 1.04))
        height *= 1 + found["height"]
        radius = zoom * (rng.uniform(0.9, 1) if bed else rng.uniform(0.95, 1.03)) * person.half_width * size
        top = np.clip(0.9 - (height + person.dome) * radius / size, 0.06, 0.2) + rng.normal(0, 0.012)
        centre, tilt = (size * (0.5 + rng.normal(0, 0.02)), size * top), rng.normal(0, 0.03 if bed else 0.012)
        super().__init__((size, size), centre, radius, tilt)
        place = np.mgrid[:size, :size].astype(np.float32)
        y, x = (place - np.reshape(centre[::-1], (2, 1, 1)).astype(np.float32)) / radius
        u = (x * np.cos(tilt) + y * np.sin(tilt)).astype(np.float32)
        v = (y * np.cos(tilt) - x * np.sin(tilt)).astype(np.float32)

        away, wall = np.abs(u), curve(*WALL, v, 0.02)
        depth = person.dome * (1 - 0.72 * found["flat"]) * rng.uniform(0.9, 1.1)
        tops = height - found["left"] + step(u, 0.1) * (0.08 + found["left"] - found["right"])
        lateral, medial = np.clip((away - 0.42) / 0.58, 0, 1.2) ** 2.3, np.clip(1 - away / 0.42, 0, 1) ** 2
        dome = tops + depth * lateral + 0.12 * depth * medial
        width = 2 * (found["heart"] + (rng.uniform(0.02, 0.05) if bed else 0))
        heart = {-1: 0.345 * width, 1: 0.655 * width}
        scaled, beat = v * 1.6 / height, (v / height - 0.4) / 0.59
        border = {s: np.maximum(curve(*MIDDLE[s], scaled), heart[s] * curve(*HEART[s], beat, 0.08)) for s in (-1, 1)}
        beside = u - found["shift"]
        middle = np.where(beside < 0, -beside - border[-1], beside - border[1])
        apex = v - 1.9 * np.clip(0.4 - away, 0, 1) ** 2
        lung = step(wall - away, 0.03) * step(apex, 0.04) * step(dome - v, 0.03) * step(middle, 0.028)
        rim, above = np.clip((wall - away) / 0.35, 0, 1), np.clip((dome - v) / 0.5, 0, 1)
        air = (0.52 + 0.26 * np.sqrt(rim * (2 - rim)) + 0.22 * above) * (0.78 + 0.22 * step(v - 0.2, 0.25))

        self.person, self.bed = person, bed
        self.height = height  # of the lungs, from the apices to the right dome
        self.heart = heart  # where it ends at the image's left (-1) and right (1), both positive
        self.u, self.v = u, v  # of each pixel
        self.wall = wall  # half of the thorax's inner width at each pixel's height
        self.dome = dome.astype(np.float32)  # how low the diaphragm lies at each pixel's distance from the midline
        self.middle = middle.astype(
            np.float32
        )  # how far each pixel lies outside mediastinum and heart; negative within
        self.lung = lung.astype(np.float32)  # 0-1, where air is beside the mediastinum and above the diaphragm
        self.air = (0.48 * lung * air).astype(np.float32)  # how much density the air of the lungs takes away

    def lines(self, paths: np.ndarray, widths: np.ndarray | float, soft: float = 0.006) -> np.ndarray:
        """Draw paths (n, p, 2) of full widths that broadcast to (n, p) as soft ribbons; float32 of 0-1."""
        layer = self.ribbons(np.asarray(paths), widths, np.full(len(paths), 255.0))
        return self.blurred(layer, soft, 0.3).astype(np.float32) / 255

    def at(self, side: int) -> np.ndarray:
        """Return 0-1: the image's left (-1) or right (+1) half."""
        return step(side * self.u, 0.04)

    def spot(self, u: float, v: float, wide: float, high: float) -> np.ndarray:
        """Return a soft spot, 1 at its centre, with these standard deviations."""
        return np.exp(-0.5 * (((self.u - u) / wide) ** 2 + ((self.v - v) / high) ** 2))


def step(distance: np.ndarray, soft: float) -> np.ndarray:
    """Rise smoothly from 0 where a distance is ``-soft`` to 1 where it is ``soft``."""
    t = np.clip(distance * (0.5 / soft) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def curve(knots: tuple, values: tuple, at: np.ndarray | float, smoothing: float = 0.03) -> np.ndarray:
    """Evaluate a curve through knots, its corners rounded over ``smoothing``."""
    fine = np.arange(-2.0, 4.0, 0.01)
    sharp = np.interp(fine, knots, values)[None]
    smooth = cv2.GaussianBlur(sharp, (0, 0), 100 * smoothing, borderType=cv2.BORDER_REPLICATE)[0]
    return np.interp(at, fine, smooth).astype(np.float32)
