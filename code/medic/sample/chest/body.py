"""The body of a synthetic chest radiograph: a person, and how that person stands in one exposure.

Places are in *chest units*: the origin lies on the midline at the height of the lungs' apices, 1 is half of the
thorax's inner width (about 14 cm), u grows towards the image's right and v downwards. The patient's left, and so the
heart, is at the image's right.
"""

from collections.abc import Mapping

import cv2
import numpy as np

from medic.sample.strokes import Array, Canvas, Rng, constants
from medic.task import FINDINGS

CONSTANTS = constants("chest")
WALL = CONSTANTS["wall"]


class Person:
    """What all radiographs of a person have in common; of either sex where none is given."""

    def __init__(self, rng: Rng, sex: str | None = None):
        self.sex = sex or str(rng.choice(["F", "M"]))
        self.half_width = rng.uniform(0.325, 0.375)  # of the thorax, as a share of the image's width
        self.lung_height = rng.uniform(1.45, 1.68)  # from the apex to the right dome of the diaphragm, breathed in
        self.heart = rng.uniform(0.385, 0.465)  # its width over the thorax's (cardiothoracic ratio)
        self.dome = rng.uniform(0.3, 0.42)  # height of the diaphragm's domes over the costophrenic angles
        self.build = rng.uniform(0.1, 0.9)  # thickness of soft tissue, 0-1
        self.seed = int(rng.integers(2**31))  # of the course of bones and vessels

    def source(self, finding: str) -> Rng:
        """Return a person's own random numbers for one finding: it keeps its place between radiographs."""
        return np.random.default_rng([self.seed, 100 + FINDINGS.index(finding)])


class Chest(Canvas):
    """A person before the detector; in bed with less inspiration and a larger heart. Fields are (size, size)."""

    def __init__(self, person: Person, findings: Mapping[str, float], bed: bool, rng: Rng, size: int, zoom: float):
        """Place the person, with what findings do to the shape of heart, lungs and diaphragm; ``rng`` is the pose's."""
        self.person, self.bed = person, bed
        ratio, longer, flat, raised, shift = person.heart, 0, 0, {-1: 0, 1: 0}, 0
        if s := findings.get("Fibrosis"):
            longer = -0.01 - 0.09 * s
        if s := findings.get("Emphysema"):
            longer, flat, ratio = 0.02 + 0.13 * s, 0.1 + 0.8 * s, person.heart - 0.07 * s
        if s := findings.get("Cardiomegaly"):  # a ratio over 0.5, whatever it was before
            ratio = 0.51 + 0.14 * s
        if (s := findings.get("Atelectasis", 0)) > 0.4:  # the diaphragm rises, the mediastinum moves to that side
            side = person.source("Atelectasis").choice([-1, 1])
            raised[side], shift = 0.04 + 0.2 * s, side * (0.14 * s - 0.016)
        height = person.lung_height * (rng.uniform(0.8, 0.93) if bed else rng.uniform(0.95, 1.04))
        height *= 1 + longer
        radius = zoom * (rng.uniform(0.9, 1) if bed else rng.uniform(0.95, 1.03)) * person.half_width * size
        top = np.clip(0.9 - (height + person.dome) * radius / size, 0.06, 0.2) + rng.normal(0, 0.012)
        centre, tilt = (size * (0.5 + rng.normal(0, 0.02)), size * top), rng.normal(0, 0.03 if bed else 0.012)
        super().__init__((size, size), centre, radius, tilt)
        place = np.mgrid[:size, :size].astype(np.float32)
        y, x = (place - np.reshape(centre[::-1], (2, 1, 1)).astype(np.float32)) / radius
        self.u = u = (x * np.cos(tilt) + y * np.sin(tilt)).astype(np.float32)
        self.v = v = (y * np.cos(tilt) - x * np.sin(tilt)).astype(np.float32)
        self.height = height  # of the lungs, from the apices to the right dome
        self.wall = wall = curve(*WALL, v, 0.02)  # half of the thorax's inner width at each pixel's height

        away, depth = np.abs(u), person.dome * (1 - 0.72 * flat) * rng.uniform(0.9, 1.1)
        tops = height - raised[-1] + step(u, 0.1) * (0.08 + raised[-1] - raised[1])
        lateral, medial = np.clip((away - 0.42) / 0.58, 0, 1.2) ** 2.3, np.clip(1 - away / 0.42, 0, 1) ** 2
        dome = tops + depth * lateral + 0.12 * depth * medial
        width = 2 * (ratio + (rng.uniform(0.02, 0.05) if bed else 0))
        self.heart = {-1: 0.345 * width, 1: 0.655 * width}  # where it ends at the image's left and right
        scaled, beat = v * 1.6 / height, (v / height - 0.4) / 0.59
        left, right = (
            np.maximum(curve(*of["middle"], scaled), self.heart[s] * curve(CONSTANTS["beat"], of["heart"], beat, 0.08))
            for s, of in ((-1, CONSTANTS["left"]), (1, CONSTANTS["right"]))
        )
        beside = u - shift
        middle = np.where(beside < 0, -beside - left, beside - right)
        apex = v - 1.9 * np.clip(0.4 - away, 0, 1) ** 2
        lung = step(wall - away, 0.03) * step(apex, 0.04) * step(dome - v, 0.03) * step(middle, 0.028)
        rim, above = np.clip((wall - away) / 0.35, 0, 1), np.clip((dome - v) / 0.5, 0, 1)
        air = (0.52 + 0.26 * np.sqrt(rim * (2 - rim)) + 0.22 * above) * (0.78 + 0.22 * step(v - 0.2, 0.25))
        self.dome = dome.astype(np.float32)  # how low the diaphragm lies at each pixel's distance from the midline
        self.middle = middle.astype(np.float32)  # how far outside mediastinum and heart; negative within
        self.lung = lung.astype(np.float32)  # 0-1, where air is beside the mediastinum and above the diaphragm
        self.air = (0.48 * lung * air).astype(np.float32)  # how much density the air of the lungs takes away

    def lines(self, paths: Array, widths: Array | float, soft: float = 0.006) -> Array:
        """Draw paths (n, p, 2) of full widths that broadcast to (n, p) as soft ribbons; float32 of 0-1."""
        return self.blurred(self.ribbons(paths, widths, 255), soft, 0.3).astype(np.float32) / 255

    def at(self, side: int) -> Array:
        """Return 0-1: the image's left (-1) or right (+1) half."""
        return step(side * self.u, 0.04)

    def spot(self, u: float, v: float, wide: float, high: float) -> Array:
        """Return a soft spot, 1 at its centre, with these standard deviations."""
        return np.exp(-0.5 * (((self.u - u) / wide) ** 2 + ((self.v - v) / high) ** 2))


def step(distance: Array, soft: float) -> Array:
    """Rise smoothly from 0 where a distance is ``-soft`` to 1 where it is ``soft``."""
    t = np.clip(distance * (0.5 / soft) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def curve(knots: tuple, values: tuple, at: Array | float, smoothing: float = 0.03) -> Array:
    """Evaluate a curve through knots, its corners rounded over ``smoothing``."""
    fine = np.arange(-2.0, 4.0, 0.01)
    sharp = np.interp(fine, knots, values)[None]
    smooth = cv2.GaussianBlur(sharp, (0, 0), 100 * smoothing, borderType=cv2.BORDER_REPLICATE)[0]
    return np.interp(at, fine, smooth).astype(np.float32)
