"""Synthetic dermoscopic images, drawn from random numbers: no real skin is behind any of them.

An image is drawn as light travels: skin reflects, pigment absorbs (melanin's density multiplies the skin's colour by an
exponential, blue most), blood absorbs green, melanin deep in the dermis scatters blue, scars are pale. The amount of
pigment at a place is the lesion's contour times its colours times its structures. What the dermoscope adds (hairs,
ruler, frame, grain) is in ``medic.sample.lesion.nuisances``.

The unit of the drawing is the lesion's mean radius, its origin the lesion's centre, its axes those of the lesion's
symmetry.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from medic.errors import MedicError
from medic.sample.lesion.nuisances import Nuisances, add_nuisances, photograph, sample_nuisances
from medic.sample.lesion.signs import Signs
from medic.sample.lesion.skin import Skin, draw_skin
from medic.sample.strokes import draw_ribbons, draw_spots

SMALLEST = 32  # pixels of the shorter side
MELANIN = np.array([0.50, 1.0, 1.52], np.float32)  # absorption of red, green, blue
BLOOD = np.array([0.18, 0.80, 0.66], np.float32)
BLUE_GREY = np.array([0.44, 0.46, 0.56], np.float32)
SCAR = np.array([0.93, 0.85, 0.83], np.float32)
_REACH = 3.2  # lesion radii that its textures cover


@dataclass(frozen=True)
class Lesion:
    """One lesion: several images of it show the same.

    Attributes:
        signs: what the ABCD rule counts in it.
        skin: on which it lies.
        seed: of its contour, and of where its colours and structures lie.
    """

    signs: Signs
    skin: Skin
    seed: int


@dataclass(frozen=True)
class Sight:
    """How a lesion lies in an image.

    Attributes:
        width: of the image, pixels.
        height: of the image, pixels.
        centre: of the lesion, pixels (x, y).
        radius: the lesion's mean radius, pixels.
        turn: of the lesion's axes against the image's, radians.
    """

    width: int
    height: int
    centre: tuple[float, float]
    radius: float
    turn: float

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Lesion units (..., 2) to pixels (..., 2), float."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return np.asarray(points) @ np.array([[cos, sin], [-sin, cos]]) * self.radius + self.centre

    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Every pixel's place in lesion units, float32 (height, width) each."""
        x = (np.arange(self.width, dtype=np.float32) - self.centre[0]) / self.radius
        y = (np.arange(self.height, dtype=np.float32)[:, None] - self.centre[1]) / self.radius
        cos, sin = np.float32(np.cos(self.turn)), np.float32(np.sin(self.turn))
        return cos * x + sin * y, cos * y - sin * x

    def layer(self) -> np.ndarray:
        """An empty layer to draw on: uint8 (height, width), zeros."""
        return np.zeros((self.height, self.width), np.uint8)


def dermoscopic_image(
    lesion: Lesion,
    rng: np.random.Generator,
    *,
    nuisances: Nuisances | None = None,
    width: int = 256,
    height: int = 192,
) -> np.ndarray:
    """Draw one image of a lesion through a dermoscope.

    Args:
        lesion: what is shown.
        rng: source of everything that differs between two images of one lesion: pose, light, hairs, frame, grain.
        nuisances: what is in the image beside skin and lesion; None draws some, but no coloured stickers.
        width: pixels, at least 32.
        height: pixels, at least 32.

    Returns:
        uint8 (height, width, 3) RGB.

    Raises:
        MedicError: a side below 32 pixels.
    """
    if min(width, height) < SMALLEST:
        raise MedicError(f"cannot draw a lesion at {width} x {height} pixels: use at least {SMALLEST}")
    nuisances = nuisances or sample_nuisances(rng, lesion.skin)
    finer = 2 if min(width, height) < 120 else 1  # below, structures are too fine to be drawn, but not to be seen
    # each part has its own numbers, so that one hair more changes nothing but the hairs
    place, around, over, camera = (np.random.default_rng(int(seed)) for seed in rng.integers(2**31, size=4))
    sight = _pose(lesion, place, width * finer, height * finer)
    image = draw_skin(lesion.skin, around, sight.width, sight.height)
    image = _draw_lesion(image, lesion, sight)
    image = add_nuisances(image, nuisances, lesion.skin, over)
    if finer > 1:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return photograph(image, nuisances, camera)


def _pose(lesion: Lesion, rng: np.random.Generator, width: int, height: int) -> Sight:
    own = np.random.default_rng([lesion.seed, 0])
    large = own.uniform(0.40, 0.52) if own.random() < 0.15 else own.uniform(0.25, 0.41)
    turn = own.uniform(-np.pi, np.pi)
    place = np.array([0.5, 0.5]) + rng.normal(0, (0.04, 0.035))
    centre = (float(place[0] * width), float(place[1] * height))
    return Sight(width, height, centre, large * height * rng.uniform(0.85, 1.15), turn + rng.normal(0, 0.25))


def _step(value: np.ndarray, soft: float | np.ndarray) -> np.ndarray:
    """From 0 to 1 where ``value`` rises from ``-soft / 2`` to ``soft / 2``, smoothly."""
    t = np.clip(value / soft + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


class _Ground:
    """The places of one lesion's pixels, warped as its contour is, and textures that lie still on the lesion."""

    def __init__(self, lesion: Lesion, sight: Sight):
        self.signs, self.sight = lesion.signs, sight
        self.rng = np.random.default_rng([lesion.seed, 1])
        self.u, self.v = sight.axes()
        # textures with large grains are computed at half the resolution
        self.still = self.u, self.v
        half = (sight.width // 2, sight.height // 2)
        self.coarse = [cv2.resize(axis, half, interpolation=cv2.INTER_AREA) for axis in self.still]
        warp = (0.05, 0.07, 0.09)[self.signs.asymmetry]
        fine = 0.014 + 0.003 * self.signs.border
        self.u = self.u + warp * self.texture(5) + fine * self.texture(18)
        self.v = self.v + warp * self.texture(5) + fine * self.texture(18)
        self.angle = cv2.phase(-self.u, -self.v)  # 0-2 pi, from the negative u axis on
        self.contour = self._contour()
        self.away = cv2.magnitude(self.u, self.v) / self.around(self.contour)

    def texture(self, cells: float) -> np.ndarray:
        """Smooth noise of mean 0 and deviation about 0.6, ``cells`` to a lesion's diameter, float32."""
        count = max(4, round(cells * _REACH)) + 3
        grid = self.rng.standard_normal((count, count), np.float32)
        scale = np.float32((count - 4) / (2 * _REACH))
        fine = cells > 10
        x, y = (axis * scale + np.float32(_REACH * scale + 1) for axis in (self.still if fine else self.coarse))
        how = cv2.INTER_LINEAR if fine else cv2.INTER_CUBIC
        noise = cv2.remap(grid, x, y, how, borderMode=cv2.BORDER_REFLECT)
        return noise if fine else cv2.resize(noise, (self.sight.width, self.sight.height))

    def around(self, values: np.ndarray) -> np.ndarray:
        """Values (n,) at equal angles from -pi on, spread over the pixels by their angle."""
        count = len(values)
        at = (self.angle * (count / (2 * np.pi))).astype(np.int32) % count
        return values.astype(np.float32)[at]

    def _contour(self) -> np.ndarray:
        """The radius at 1024 angles: alike on both sides of as many axes as the lesion is symmetric about."""
        angle = np.linspace(-np.pi, np.pi, 1024, endpoint=False)
        longer = np.exp(self.rng.uniform(0.02, 0.24))
        radius = 1 / np.hypot(np.cos(angle) / longer, np.sin(angle) * longer)
        for harmonic in (2, 3, 4, 5):
            size, phase = self.rng.uniform(0.35, 1), self.rng.uniform(-np.pi, np.pi)
            if self.signs.asymmetry < 2:
                phase = 0.0
            if self.signs.asymmetry == 0 and harmonic % 2:
                continue
            size *= (0.06, 0.17, 0.24)[self.signs.asymmetry] / harmonic
            radius *= 1 + size * np.cos(harmonic * angle + phase)
        return radius

    def spread(self, places: np.ndarray) -> np.ndarray:
        """Places (n, 2) and their mirror images about the lesion's axes of symmetry, (m, 2)."""
        mirrors = ([(1, 1), (-1, 1), (1, -1), (-1, -1)], [(1, 1), (1, -1)], [(1, 1)])[self.signs.asymmetry]
        return np.concatenate([places * np.array(mirror) for mirror in mirrors])

    def places(self, count: int, reach: float) -> np.ndarray:
        """About ``count`` places within ``reach`` of the centre: mirrored as the lesion is, else in one half."""
        angle = self.rng.uniform(-np.pi, np.pi, count)
        if self.signs.asymmetry == 2:
            angle = self.rng.uniform(-np.pi, np.pi) + self.rng.uniform(-1.3, 1.3, count)
        distance = reach * np.sqrt(self.rng.uniform(0.02, 1, count))
        each = 4 >> self.signs.asymmetry
        points = np.stack([np.cos(angle), np.sin(angle)], -1) * distance[:, None]
        return self.spread(points[: -(-count // each)])

    def patch(self, size: float, soft: float) -> np.ndarray:
        """A region of about the radius ``size``, 0-1: round the centre, mirrored, or to one side, as symmetry asks."""
        rough = 0.17 * self.texture(6) + 0.09 * self.texture(20)
        if self.signs.asymmetry == 0:
            if self.rng.random() < 0.82:  # round the centre; else a ring below the contour
                return _step(size - self.away + rough, soft)
            return _step(size - 2.2 * np.abs(self.away - 0.74) + rough, 1.6 * soft)
        angle, far = self.rng.uniform(-np.pi, np.pi), self.rng.uniform(0.3, 0.62)
        centre = np.array([np.cos(angle), np.sin(angle)]) * far
        if self.signs.asymmetry == 1 and self.rng.random() < 0.6:
            centre = np.array([far * np.sign(centre[0]), 0.0])
        centres = np.unique(self.spread(centre[None]), axis=0).astype(np.float32)
        distances = [cv2.magnitude(self.u - x, self.v - y) for x, y in centres]
        return _step(size - np.minimum.reduce(distances) + rough, soft)


def _draw_lesion(image: np.ndarray, lesion: Lesion, sight: Sight) -> np.ndarray:
    """Lay a lesion on skin, float32 (height, width, 3) of 0-1."""
    ground = _Ground(lesion, sight)
    colours, rng = lesion.signs.colours, ground.rng
    abrupt = np.zeros(8)
    abrupt[rng.permutation(8)[: lesion.signs.border]] = 1
    soft = np.repeat(np.where(abrupt, 0.09, rng.uniform(0.42, 0.6)), 128)
    soft = cv2.blur(np.pad(soft, 64, mode="wrap")[None], (65, 1))[0, 64:-64]
    edge = _step(1.0 - ground.away, ground.around(soft))

    brown = 0.5 if "light brown" in colours else 1.15
    level = brown * rng.uniform(0.9, 1.5) * (1.12 - 0.3 * np.minimum(ground.away, 1.2) ** 2 + 0.18 * ground.texture(4))
    if "dark brown" in colours and "light brown" in colours:
        level += rng.uniform(0.6, 1.0) * ground.patch(rng.uniform(0.45, 0.8), 0.4)
    white = ground.patch(rng.uniform(0.34, 0.5), 0.45) if "white" in colours else None
    if white is not None:
        level *= 1 - 0.92 * white
    if "black" in colours:
        level += rng.uniform(1.7, 2.6) * ground.patch(rng.uniform(0.34, 0.56), 0.25)
    structures, beyond = _structures(ground, edge, dark=brown + 0.7)
    density = np.clip(level * structures * edge + beyond * (1 if white is None else 1 - 0.8 * white), 0, 4.2)

    veil = edge * ground.patch(rng.uniform(0.46, 0.68), 0.6) if "blue-grey" in colours else None
    red = edge * ground.patch(rng.uniform(0.44, 0.66), 0.6) if "red" in colours else None
    halo = rng.uniform(0.0, 0.22) * _step(1.25 - ground.away, 0.6)  # many lesions have a pink rim
    blood = halo if red is None else halo + rng.uniform(0.45, 0.85) * red * (1 + 0.4 * ground.texture(12))
    if red is not None:
        density *= 1 - 0.6 * red
    if white is not None:
        share = (0.72 * edge * white)[..., None]
        image = image * (1 - share) + SCAR * share
    # exp of a sum of two densities; cv2.exp is several times as fast as NumPy's
    image = image * cv2.exp(-(density[..., None] * MELANIN + blood[..., None] * BLOOD))
    if veil is not None:
        uneven = 0.9 + 0.2 * ground.texture(7) + 0.15 * ground.texture(30)
        share = np.clip(rng.uniform(0.6, 0.85) * veil * uneven, 0, 0.9)[..., None]
        haze = BLUE_GREY * rng.uniform(0.75, 1.25)
        image = image * (1 - share) + (0.75 * haze + 0.3 * image) * share
    return image.astype(np.float32)


def _structures(ground: _Ground, edge: np.ndarray, dark: float) -> tuple[np.ndarray, np.ndarray]:
    """What the structures multiply the pigment by, and what they add to it; float32 (height, width) each."""
    signs, rng, sight = ground.signs, ground.rng, ground.sight
    factor = 1 + 0.2 * ground.texture(12) + 0.28 * ground.texture(34)
    added = sight.layer()
    if "network" in signs.structures:
        cell = rng.uniform(0.07, 0.105)
        x, y = (axis / cell + 0.3 * ground.texture(0.7 / cell) + 0.8 * ground.texture(4) for axis in ground.still)
        # three waves at 120 degrees make a honeycomb: its holes are their common maxima
        waves = sum(np.cos(2 * np.pi * (c * x + s * y)) for c, s in ((1, 0), (-0.5, 0.866), (-0.5, -0.866)))
        lines = _step(0.1 - 0.5 * waves - 1.25 * ground.texture(2.4 / cell), 2.6)
        clear = np.clip((cell * sight.radius - 2.0) / 2.5, 0.15, 1)  # a mesh finer than pixels is only a haze
        strength = np.clip(rng.uniform(0.3, 0.75) + 0.45 * ground.texture(5), 0.05, 1) * clear
        factor = factor * (1 + strength * (0.95 * lines - 0.42))
    if "globules" in signs.structures:
        places = ground.places(int(rng.integers(28, 64)), 0.85)
        sizes = (places, rng.uniform(0.035, 0.065, len(places)))
        draw_spots(added, sight, rng, sizes, rng.uniform(110, 210, len(places)), 0.12, 0.12)
    if "dots" in signs.structures:
        places = ground.places(int(rng.integers(40, 90)), 0.95)
        sizes = (places, rng.uniform(0.014, 0.026, len(places)))
        draw_spots(added, sight, rng, sizes, rng.uniform(170, 250, len(places)), 0.1, 0.1)
    if "streaks" in signs.structures:
        _streaks(added, ground)
    if "structureless" in signs.structures:
        plain = 0.9 * ground.patch(rng.uniform(0.4, 0.6), 0.5)
        factor = factor * (1 - plain) + (1 + 0.1 * ground.texture(9)) * plain
        added = (added * (1 - plain)).astype(np.uint8)
    soft = cv2.GaussianBlur(added, (0, 0), max(0.012 * sight.radius, 0.4))
    inside = _step(1.15 - ground.away, 0.3) * (0.35 + 0.65 * edge)
    return np.clip(factor, 0.15, 2.2), soft.astype(np.float32) * (dark / 255) * inside


def _streaks(layer: np.ndarray, ground: _Ground) -> None:
    """Fingers of pigment that run out over the contour: all round a symmetric lesion, else to one side."""
    rng, sight = ground.rng, ground.sight
    count = int(rng.integers(26, 40)) if ground.signs.asymmetry == 0 else int(rng.integers(14, 24))
    angle = np.linspace(-np.pi, np.pi, count, endpoint=False) + rng.normal(0, 0.05, count)
    if ground.signs.asymmetry:
        middle = 0.0 if ground.signs.asymmetry == 1 else rng.uniform(-np.pi, np.pi)
        angle = middle + rng.uniform(-0.9, 0.9, count)
    contour = ground.contour[((angle + np.pi) * (1024 / (2 * np.pi))).astype(int) % 1024]
    start, end = contour * rng.uniform(0.72, 0.85, count), contour * rng.uniform(1.02, 1.2, count)
    t = np.linspace(0, 1, 8)
    reach = start[:, None] + (end - start)[:, None] * t
    bent = angle[:, None] + rng.normal(0, 0.05, (count, 1)) * t
    paths = np.stack([np.cos(bent), np.sin(bent)], -1) * reach[..., None]
    widths = rng.uniform(0.035, 0.06, (count, 1)) * (1 - 0.35 * t)
    draw_ribbons(layer, sight, paths, widths, rng.uniform(140, 220, count))
