"""Synthetic dermoscopic images, drawn from random numbers: no real skin is behind any of them.

An image is drawn as light travels: skin reflects, pigment absorbs (melanin's density multiplies the skin's colour by an
exponential, blue most), blood absorbs green, melanin deep in the dermis scatters blue, scars are pale. The amount of
pigment at a place is the lesion's contour times its colours times its structures. The unit is the lesion's mean radius,
the origin its centre, the axes those of its symmetry.

Signs are those of the ABCD rule of dermatoscopy (Nachbar et al., Journal of the American Academy of Dermatology 30(4),
1994, p. 551): weighed to a total dermatoscopy score, above 5.45 of a melanoma, below 4.75 of a benign lesion.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from medic.sample.lesion.scene import BLOOD, CONSTANTS, MELANIN, add_things, draw_skin, photograph, step
from medic.sample.strokes import Array, Canvas, Rng

ATYPIA = {False: (1.3, 3.4), True: (2.8, 1.3)}  # of the beta distribution, benign and malignant: they overlap
BLUE_GREY, SCAR = np.array([(0.44, 0.46, 0.56), (0.93, 0.85, 0.83)], np.float32)
REACH = 3.2  # lesion radii that its textures cover


@dataclass(frozen=True)
class Lesion:
    """One lesion, by the ABCD rule; several images of it show the same."""

    asymmetry: int  # axes about which contour, colours and structures differ, 0-2
    border: int  # of eight equal segments, those in which the pigment ends abruptly, 0-8
    colours: tuple[str, ...]  # one to six
    structures: tuple[str, ...]  # one to five
    person: int  # seed of the skin it lies on
    seed: int  # of its contour, and of where its colours and structures lie

    @property
    def score(self) -> float:
        """Return the total dermatoscopy score, 1.0 to 8.9."""
        return 1.3 * self.asymmetry + 0.1 * self.border + 0.5 * (len(self.colours) + len(self.structures))


def draw_lesion(malignant: bool, person: int, rng: Rng) -> Lesion:
    """Draw a lesion's signs: each is likelier the more atypical the lesion is, so they come together as in life."""
    atypia = rng.beta(*ATYPIA[malignant])
    shape = np.array([0.72, 0.24, 0.04]) * (1 - atypia) + np.array([0.02, 0.18, 0.80]) * atypia
    asymmetry, border = int(rng.choice(3, p=shape)), int(rng.binomial(8, 0.08 + 0.6 * atypia))
    always = rng.choice(["light brown", "dark brown"]), rng.choice(["network", "globules"])
    colours, structures = (
        tuple(
            name for name, (low, high) in rates.items() if name in always or rng.random() < low + (high - low) * atypia
        )
        for rates in (CONSTANTS["colours"], CONSTANTS["structures"])
    )
    return Lesion(asymmetry, border, colours, structures, person, int(rng.integers(2**31)))


def dermoscopic_image(
    lesion: Lesion, rng: Rng, *, size: tuple[int, int], hospital: int = 1, sticker: bool = False
) -> tuple[Array, Array]:
    """Draw one image of a lesion through a dermoscope, uint8 (height, width, 3) RGB, and the lesion's mask.

    From ``rng`` comes what differs between two images of one lesion: pose, light, hairs, tube, grain. ``size`` is
    (width, height) in pixels; below 120, structures are too fine to be seen. Hospital 1 or 2 takes it, with or without
    a coloured sticker beside the lesion. The mask is uint8 (height, width), 255 within.
    """
    # each part has its own numbers, so that one hair more changes nothing but the hairs
    place, around, over, light = (np.random.default_rng(int(seed)) for seed in rng.integers(2**31, size=4))
    image, edge = _lay(draw_skin(lesion.person, around, Canvas(size, (0, 0), size[1])), lesion, place)
    image = add_things(image, over, lesion.person, sticker, hospital)
    return photograph(image, light, hospital), np.where(edge > 0.5, 255, 0).astype(np.uint8)


class _Ground(Canvas):
    """The places of one lesion's pixels, warped as its contour is, and textures that lie still on the lesion."""

    def __init__(self, lesion: Lesion, shape: tuple[int, int], pose: Rng):
        own, self.rng = np.random.default_rng([lesion.seed, 0]), np.random.default_rng([lesion.seed, 1])
        self.asymmetry, (height, width) = lesion.asymmetry, shape
        large = own.uniform(0.40, 0.52) if own.random() < 0.15 else own.uniform(0.25, 0.41)
        radius, turn = large * height * pose.uniform(0.85, 1.15), own.uniform(-np.pi, np.pi) + pose.normal(0, 0.25)
        super().__init__((width, height), pose.normal(0.5, (0.04, 0.035)) * (width, height), radius, turn)
        y, x = (np.mgrid[:height, :width] - self.centre[::-1, None, None]) / radius
        cos, sin = np.cos(turn), np.sin(turn)
        self.still = (cos * x + sin * y).astype(np.float32), (cos * y - sin * x).astype(np.float32)
        warp, fine = (0.05, 0.07, 0.09)[self.asymmetry], 0.014 + 0.003 * lesion.border
        self.u, self.v = (axis + warp * self.texture(5) + fine * self.texture(18) for axis in self.still)
        self.angle = np.arctan2(self.v, self.u)
        angle, longer = np.linspace(-np.pi, np.pi, 1024, endpoint=False), np.exp(self.rng.uniform(0.02, 0.24))
        # the radius at 1024 angles: alike on both sides of as many axes as the lesion is symmetric about
        self.contour = 1 / np.hypot(np.cos(angle) / longer, np.sin(angle) * longer)
        for harmonic in (2, 4) if self.asymmetry == 0 else (2, 3, 4, 5):
            wave = self.rng.uniform(0.35, 1) * (0.06, 0.17, 0.24)[self.asymmetry] / harmonic
            phase = self.rng.uniform(-np.pi, np.pi) * (self.asymmetry == 2)
            self.contour *= 1 + wave * np.cos(harmonic * angle + phase)
        self.away = np.hypot(self.u, self.v) / self.around(self.contour)

    def texture(self, cells: float) -> Array:
        """Smooth noise of mean 0 and deviation about 0.6, ``cells`` to a lesion's diameter, float32."""
        count = max(4, round(cells * REACH)) + 3
        scale = np.float32((count - 4) / (2 * REACH))
        x, y = (axis * scale + np.float32(REACH * scale + 1) for axis in self.still)
        grid = self.rng.standard_normal((count, count), np.float32)
        return cv2.remap(grid, x, y, cv2.INTER_CUBIC if cells < 10 else cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)

    def around(self, values: Array) -> Array:
        """Values (n,) at equal angles from -pi on, spread over the pixels (or ``angle``) by their angle."""
        return values.astype(np.float32)[((self.angle + np.pi) * len(values) / (2 * np.pi)).astype(int) % len(values)]

    def mirrored(self, places: Array) -> Array:
        """Places (n, 2) and their mirror images about the lesion's axes of symmetry, (m, 2)."""
        mirrors = ([(1, 1), (-1, 1), (1, -1), (-1, -1)], [(1, 1), (1, -1)], [(1, 1)])[self.asymmetry]
        return np.concatenate([places * mirror for mirror in np.array(mirrors)])

    def places(self, count: int, reach: float) -> Array:
        """About ``count`` places within ``reach`` of the centre: mirrored as the lesion is, else in one half."""
        middle, half = (0, np.pi) if self.asymmetry < 2 else (self.rng.uniform(-3, 3), 1.3)
        angle = middle + self.rng.uniform(-half, half, count)
        points = np.stack([np.cos(angle), np.sin(angle)], -1) * reach * np.sqrt(self.rng.uniform(0.02, 1, (count, 1)))
        return self.mirrored(points[: -(-count // (4 >> self.asymmetry))])

    def patch(self, low: float, high: float, soft: float) -> Array:
        """A region of a radius between ``low`` and ``high``, 0-1: round the centre, mirrored, or to one side."""
        size = self.rng.uniform(low, high) + 0.17 * self.texture(6) + 0.09 * self.texture(20)
        if self.asymmetry == 0:
            ring = self.rng.random() < 0.18  # below the contour
            return step(size - (2.2 * np.abs(self.away - 0.74) if ring else self.away), soft * (1.6 if ring else 1))
        angle, far = self.rng.uniform(-np.pi, np.pi), self.rng.uniform(0.3, 0.62)
        centres = self.mirrored(far * np.array([[np.cos(angle), np.sin(angle)]]))
        return step(size - np.minimum.reduce([np.hypot(self.u - x, self.v - y) for x, y in centres]), soft)


def _lay(image: Array, lesion: Lesion, pose: Rng) -> tuple[Array, Array]:
    """Lay a lesion on skin, float32 (height, width, 3) of 0-1; return the image and the lesion's edge, 0-1."""
    ground = _Ground(lesion, image.shape[:2], pose)
    colours, rng = lesion.colours, ground.rng
    soft = np.where(rng.permutation(8) < lesion.border, 0.09, rng.uniform(0.42, 0.6)).repeat(128)
    soft = cv2.blur(np.pad(soft, 64, mode="wrap")[None], (65, 1))[0, 64:-64]
    edge = step(1.0 - ground.away, ground.around(soft)).astype(np.float32)

    brown = 0.5 if "light brown" in colours else 1.15
    level = brown * rng.uniform(0.9, 1.5) * (1.12 - 0.3 * np.minimum(ground.away, 1.2) ** 2 + 0.18 * ground.texture(4))
    if "dark brown" in colours and "light brown" in colours:
        level += rng.uniform(0.6, 1.0) * ground.patch(0.45, 0.8, 0.4)
    white = ground.patch(0.34, 0.5, 0.45) if "white" in colours else np.zeros_like(level)
    level *= 1 - 0.92 * white
    if "black" in colours:
        level += rng.uniform(1.7, 2.6) * ground.patch(0.34, 0.56, 0.25)
    factor, added = _structures(ground, lesion.structures, edge)
    density = np.clip(level * factor * edge + (brown + 0.7) * added * (1 - 0.8 * white), 0, 4.2)
    blood = rng.uniform(0.0, 0.22) * step(1.25 - ground.away, 0.6)  # many lesions have a pink rim
    if "red" in colours:
        red = edge * ground.patch(0.44, 0.66, 0.6)
        blood = blood + rng.uniform(0.45, 0.85) * red * (1 + 0.4 * ground.texture(12))
        density = density * (1 - 0.6 * red)
    share = (0.72 * edge * white)[..., None]
    image = image * (1 - share) + SCAR * share
    image = image * cv2.exp(-(density[..., None] * MELANIN + blood[..., None] * BLOOD).astype(np.float32))
    if "blue-grey" in colours:
        uneven = 0.9 + 0.2 * ground.texture(7) + 0.15 * ground.texture(30)
        share = np.clip(rng.uniform(0.6, 0.85) * edge * ground.patch(0.46, 0.68, 0.6) * uneven, 0, 0.9)[..., None]
        image = image * (1 - share) + (0.75 * BLUE_GREY * rng.uniform(0.75, 1.25) + 0.3 * image) * share
    return image, edge


def _structures(ground: _Ground, structures: tuple[str, ...], edge: Array) -> tuple[Array, Array]:
    """What the structures multiply the pigment by, and what they add to it; (height, width) each."""
    rng, added = ground.rng, ground.layer()
    factor = 1 + 0.2 * ground.texture(12) + 0.28 * ground.texture(34)
    if "network" in structures:
        cell = rng.uniform(0.07, 0.105)
        x, y = (axis / cell + 0.3 * ground.texture(0.7 / cell) + 0.8 * ground.texture(4) for axis in ground.still)
        # three waves at 120 degrees make a honeycomb: its holes are their common maxima
        waves = sum(np.cos(2 * np.pi * (c * x + s * y)) for c, s in ((1, 0), (-0.5, 0.866), (-0.5, -0.866)))
        lines = step(0.1 - 0.5 * waves - 1.25 * ground.texture(2.4 / cell), 2.6)
        clear = np.clip((cell * ground.radius - 2.0) / 2.5, 0.15, 1)  # a mesh finer than pixels is only a haze
        strength = clear * np.clip(rng.uniform(0.3, 0.75) + 0.45 * ground.texture(5), 0.05, 1)
        factor *= 1 + strength * (0.95 * lines - 0.42)
    for name, count, reach, radii, values in (
        ("globules", (28, 64), 0.85, (0.035, 0.065), (110, 210)),
        ("dots", (40, 90), 0.95, (0.014, 0.026), (170, 250)),
    ):
        if name in structures:
            places = ground.places(int(rng.integers(*count)), reach)
            spots = places, rng.uniform(*radii, len(places)), rng.uniform(*values, len(places))
            ground.spots(rng, *spots, rough=(0.12, 0.12), on=added)
    if "streaks" in structures:
        _streaks(added, ground)
    if "structureless" in structures:
        plain = 0.9 * ground.patch(0.4, 0.6, 0.5)
        factor, added = factor * (1 - plain) + plain, (added * (1 - plain)).astype(np.uint8)
    soft = ground.blurred(added, 0.012).astype(np.float32) / 255
    return np.clip(factor, 0.15, 2.2), soft * step(1.15 - ground.away, 0.3) * (0.35 + 0.65 * edge)


def _streaks(layer: Array, ground: _Ground) -> None:
    """Fingers of pigment that run out over the contour: all round a symmetric lesion, else to one side."""
    rng, t, round_it = ground.rng, np.linspace(0, 1, 8), ground.asymmetry == 0
    count = int(rng.integers(26, 40) if round_it else rng.integers(14, 24))
    angle = np.linspace(-np.pi, np.pi, count) if round_it else rng.uniform(-3, 3) + rng.uniform(-0.9, 0.9, count)
    contour = ground.contour[((angle + np.pi) * (1024 / (2 * np.pi))).astype(int) % 1024]
    reach = contour[:, None] * (rng.uniform(0.72, 0.85, (count, 1)) + rng.uniform(0.25, 0.38, (count, 1)) * t)
    bent = angle[:, None] + rng.normal(0, 0.05, (count, 1)) * (1 + t)
    paths = np.stack([np.cos(bent), np.sin(bent)], -1) * reach[..., None]
    widths = rng.uniform(0.035, 0.06, (count, 1)) * (1 - 0.35 * t)
    ground.ribbons(paths, widths, rng.uniform(140, 220, count), on=layer)
