"""Synthetic photographs of the retina, drawn from random numbers: no real eye is behind any of them.

A retina is drawn as light travels: the glow of the fundus, the optic disc, deposits, then blood (vessels and
haemorrhages), which absorbs, then the camera (focus, exposure, grain, round field). Smooth parts are computed at a
quarter of the resolution, sharp ones are antialiased polygons.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from medic.errors import MedicError
from medic.sample.fundus.lesions import Lesions, draw_lesions
from medic.sample.strokes import Field, draw_ribbons, winding_paths

Eye = Literal["left", "right"]

# looks of real photographs, RGB of 0-1: brown-orange, red, pale pink, ochre
LOOKS = np.array([(0.68, 0.36, 0.13), (0.74, 0.29, 0.09), (0.82, 0.49, 0.34), (0.70, 0.42, 0.13)])


@dataclass(frozen=True)
class Anatomy:
    """What the two eyes of a person have in common.

    Attributes:
        colour: of the retina, RGB, 0-1.
        mottle: contrast of the pigment's texture, 0-0.1.
        disc_radius: of the optic disc, in field radii, 0.12-0.16.
        cup: radius of the optic disc's pale cup, in disc radii, 0.3-0.65.
        vessel_width: of the widest vein, in field radii.
        tortuosity: how much vessels wind, radians.
        field: radius of the field in widths of the photograph; above 3/8 of a 4:3 frame the field is cut.
        vessel_seed: of the vessels' course.
    """

    colour: tuple[float, float, float]
    mottle: float
    disc_radius: float
    cup: float
    vessel_width: float
    tortuosity: float
    field: float
    vessel_seed: int


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a person."""
    colour = rng.dirichlet(np.full(len(LOOKS), 0.5)) @ LOOKS
    return Anatomy(
        colour=tuple(colour.tolist()),
        mottle=rng.uniform(0.025, 0.07),
        disc_radius=rng.uniform(0.12, 0.155),
        cup=rng.uniform(0.3, 0.65),
        vessel_width=rng.uniform(0.022, 0.029),
        tortuosity=rng.uniform(0.1, 0.3),
        field=0.36 if rng.random() < 0.15 else rng.uniform(0.41, 0.45),
        vessel_seed=int(rng.integers(2**31)),
    )


def fundus_photograph(
    grade: int,
    eye: Eye,
    rng: np.random.Generator,
    *,
    anatomy: Anatomy | None = None,
    width: int = 640,
    height: int = 480,
) -> np.ndarray:
    """Draw one photograph of a retina.

    Args:
        grade: 0-4 on the International Clinical Diabetic Retinopathy scale.
        eye: "left" (the optic disc left of the macula) or "right".
        rng: source of everything that differs between two photographs: lesions, pose, focus, exposure, grain.
        anatomy: the person; None draws another one.
        width: pixels, at least 32.
        height: pixels, at least 32.

    Returns:
        uint8 (height, width, 3) RGB, black outside the round field.

    Raises:
        MedicError: the grade is not 0-4, the eye neither left nor right, or the frame below 32 pixels.
    """
    if grade not in range(5) or eye not in ("left", "right") or min(width, height) < 32:
        raise MedicError(
            f"cannot draw grade {grade!r} of the {eye!r} eye at {width} x {height}: "
            "use a grade of 0-4, 'left' or 'right', and at least 32 pixels"
        )
    anatomy = anatomy or sample_anatomy(rng)
    field = _pose(anatomy, eye, rng, width, height)
    pixels = _glow(anatomy, field, rng)
    _optic_disc(pixels, anatomy, field, rng)
    lesions = draw_lesions(grade, field, rng)
    pixels = _deposits(pixels, lesions)
    vessels = _vessels(anatomy, field, beading=rng.uniform(0.25, 0.5) if grade == 3 else 0.0)
    blood = vessels if lesions.blood is None else cv2.max(vessels, lesions.blood)
    pixels = _absorb(pixels, blood)
    return _camera(pixels, field, rng)


def _pose(anatomy: Anatomy, eye: Eye, rng: np.random.Generator, width: int, height: int) -> Field:
    disc = (rng.uniform(-0.66, -0.46), rng.uniform(-0.08, 0.08))
    away = 5.0 * anatomy.disc_radius * rng.uniform(0.94, 1.06)  # 2.5 disc diameters
    return Field(
        width=width,
        height=height,
        centre=(0.5 * width + rng.normal(0, 0.008) * width, 0.5 * height + rng.normal(0, 0.006) * height),
        radius=min(anatomy.field * width, 0.6 * height),
        side=1 if eye == "left" else -1,
        disc=disc,
        disc_radius=anatomy.disc_radius,
        macula=(disc[0] + away, disc[1] + rng.uniform(0.04, 0.12)),
    )


def _glow(anatomy: Anatomy, field: Field, rng: np.random.Generator) -> np.ndarray:
    """The retina without vessels: colour, illumination, pigment, macula; uint8 (height, width, 3)."""
    shape = (max(field.height // 4, 8), max(field.width // 4, 8))
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    x = ((x + 0.5) * field.width / shape[1] - field.centre[0]) / (field.side * field.radius)
    y = ((y + 0.5) * field.height / shape[0] - field.centre[1]) / field.radius

    def spot(centre: tuple[float, float], size: float) -> np.ndarray:
        return np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * size**2))

    def texture(rows: int) -> np.ndarray:
        grid = rng.standard_normal((rows, rows * 4 // 3), np.float32)
        return cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC)

    slope = rng.normal(0, 0.1, 2)
    light = 1 - rng.uniform(0.12, 0.48) * (x**2 + y**2) + slope[0] * x + slope[1] * y
    light += 0.05 * texture(4) + anatomy.mottle * (0.3 * texture(10) + 0.4 * texture(24) + 0.5 * texture(60))
    light += 0.16 * spot(field.disc, 2.2 * anatomy.disc_radius)
    light *= 1 - rng.uniform(0.12, 0.3) * spot(field.macula, 0.26) - rng.uniform(0.2, 0.4) * spot(field.macula, 0.08)
    colour = np.array(anatomy.colour) * rng.uniform(0.95, 1.05, 3)
    # the rim and the shades are redder: dim light comes out of the choroid
    glow = light.clip(0.02)[..., None] ** (0.8, 1.2, 1.4) * colour
    if rng.random() < 0.35:  # the lens' reflection, a bluish haze near the middle
        place = tuple(rng.normal(0, 0.12, 2))
        glow += rng.uniform(0.04, 0.14) * spot(place, rng.uniform(0.06, 0.14))[..., None] * (0.7, 0.8, 1.0)
    if rng.random() < 0.15:  # stray light: a pale crescent at the rim
        turn = rng.uniform(0, 2 * np.pi)
        crescent = np.clip(np.hypot(x - 0.12 * np.cos(turn), y - 0.12 * np.sin(turn)) - 0.95, 0, 0.3)
        glow += rng.uniform(1, 2.6) * crescent[..., None] * (1.0, 0.85, 0.6)
    glow = (glow.clip(0, 1) * 255).astype(np.float32)
    return cv2.resize(glow, (field.width, field.height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def _optic_disc(pixels: np.ndarray, anatomy: Anatomy, field: Field, rng: np.random.Generator) -> None:
    """Paint the pale disc and its paler cup, in place."""
    centre, radius = field.to_pixels(np.array(field.disc)), anatomy.disc_radius * field.radius
    axes = np.array([radius * rng.uniform(0.86, 0.95), radius * rng.uniform(1.0, 1.1)])
    pallor = rng.uniform(0.0, 0.8)
    rim = np.array([252, 172 + 40 * pallor, 78 + 75 * pallor]) * rng.uniform(0.9, 1.0)
    cup = np.array([255, 218 + 14 * pallor, 140 + 50 * pallor])
    low = np.maximum(np.floor(centre - 1.6 * radius), 0).astype(int)
    high = np.ceil(centre + 1.6 * radius).astype(int)
    part = pixels[low[1] : high[1], low[0] : high[0]]
    y, x = np.mgrid[: part.shape[0], : part.shape[1]].astype(np.float32)
    x, y = (x + low[0] - centre[0]) / axes[0], (y + low[1] - centre[1]) / axes[1]
    distance = np.hypot(x, y)
    uneven = 1 + 0.05 * np.sin(np.arctan2(y, x) * 2 + rng.uniform(0, 6))
    over = 0.92 / (1 + np.exp((distance * uneven - 1) * rng.uniform(12, 24)))
    inner = 0.8 / (1 + np.exp((np.hypot(x - 0.12 * field.side, y) - anatomy.cup) * 9))
    colour = rim + inner[..., None] * (cup - rim)
    part[:] = part + over[..., None] * (colour - part)


def _deposits(pixels: np.ndarray, lesions: Lesions) -> np.ndarray:
    for layer, colour in (
        (lesions.cotton_wool, (232, 214, 170)),
        (lesions.exudate, (250, 222, 105)),
        (lesions.scar, (222, 206, 150)),
    ):
        if layer is not None:
            covered = np.arange(256)[:, None] * np.array(colour) / 255
            layers = cv2.merge([layer] * 3)
            paint = cv2.LUT(layers, np.rint(covered).astype(np.uint8)[None])
            pixels = cv2.add(cv2.multiply(pixels, 255 - layers, scale=1 / 255), paint)
    return pixels


def _vessels(anatomy: Anatomy, field: Field, beading: float) -> np.ndarray:
    """Veins and arteries that leave the optic disc, arch round the macula, branch and taper; uint8 (height, width)."""
    rng = np.random.default_rng([anatomy.vessel_seed, field.side + 1])
    # an artery and a vein for each: arcades above and below, two to the nose; then three small ones to the macula
    heading = np.radians([-86, -74, 84, 72, -128, -142, 132, 146, 168, -20, 24, 8])
    bend = np.radians([112, 92, -112, -92, -22, -16, 24, 16, 10, 26, -22, 4])
    length = np.array([1.75, 1.65, 1.75, 1.65, 0.8, 0.75, 0.8, 0.75, 0.5, 0.5, 0.5, 0.3])
    size = np.array([1, 0.74, 1, 0.74, 0.62, 0.5, 0.62, 0.5, 0.4, 0.34, 0.34, 0.28])
    vein = np.array([1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0], bool)
    count = len(heading)
    heading, bend = heading + rng.normal(0, 0.12, count), bend * rng.uniform(0.8, 1.15, count)
    length = length * rng.uniform(0.9, 1.1, count)
    start = np.asarray(field.disc) + rng.normal(0, 0.14, (count, 2)) * anatomy.disc_radius
    layer = field.layer()
    levels = []
    for level in range(3):
        paths = winding_paths(rng, start, heading, length, bend, anatomy.tortuosity * (1 + 0.4 * level), points=48)
        t = np.linspace(0, 1, 48)
        widths = anatomy.vessel_width * size[:, None] * (1 - 0.62 * t)
        if beading and level < 2:
            beads = np.sin(rng.uniform(60, 90, (len(paths), 1)) * length[:, None] * t)
            widths = widths * (1 + beading * vein[:, None] * np.minimum(1, 3 * t) * beads)
        # nothing crosses the fovea: vessels thin out to nothing before it
        distance = np.linalg.norm(paths - field.macula, axis=-1)
        reaches = np.minimum.accumulate(distance > 0.13, axis=1)
        stop = np.maximum(reaches.sum(axis=1), 2) - 1
        paths = paths[np.arange(len(paths))[:, None], np.minimum(np.arange(48), stop[:, None])]
        levels.append((paths, widths, np.where(vein, 132, 100) - 10 * level))
        if level == 2:
            break
        # children leave to alternate sides, then turn to run beside their parent
        each = (6, 3)[level]
        parent = np.repeat(np.arange(len(paths)), each)
        at = (np.tile(np.arange(each), len(paths)) + rng.uniform(0.1, 0.9, len(parent))) / each * 0.86 + 0.14
        step = np.clip(at * 44, 3, 46).astype(int)
        side = np.where(np.arange(len(parent)) % 2, 1, -1)
        start = paths[parent, step]
        along = start - paths[parent, step - 2]
        heading = np.arctan2(along[:, 1], along[:, 0]) + side * rng.uniform(0.45, 1.0, len(parent))
        bend = -side * rng.uniform(-0.1, 0.8, len(parent))
        length = length[parent] * rng.uniform(0.22, 0.5, len(parent)) * (1 - 0.35 * at)
        size = size[parent] * (1 - 0.62 * at) * rng.uniform(0.45, 0.75, len(parent))
        vein = vein[parent]
    for paths, widths, values in reversed(levels):
        draw_ribbons(layer, field, paths, widths, values)
    return layer


def _absorb(pixels: np.ndarray, blood: np.ndarray) -> np.ndarray:
    """Darken as blood does: green and blue at once, red only where there is much of it."""
    depth = np.arange(256)[:, None] / 255
    passes = np.exp(-np.concatenate([0.75 * depth**2, 1.6 * depth, 1.25 * depth], axis=1))
    factors = cv2.LUT(cv2.merge([blood] * 3), np.rint(255 * passes).astype(np.uint8)[None])
    return cv2.multiply(pixels, factors, scale=1 / 255)


def _camera(pixels: np.ndarray, field: Field, rng: np.random.Generator) -> np.ndarray:
    """Focus, haze, exposure, grain, and the black surround."""
    focus = field.radius * (0.0022 + 0.008 * rng.beta(0.8, 4))
    pixels = cv2.GaussianBlur(pixels, (0, 0), max(focus, 0.3))
    haze = 0.3 * rng.beta(0.6, 4)
    exposure = rng.uniform(0.72, 1.18)
    tone = np.linspace(0, 1, 256)[:, None] * (1 - haze) + haze * np.array([0.72, 0.6, 0.48])
    pixels = cv2.LUT(pixels, np.rint(255 * np.clip(exposure * tone, 0, 1)).astype(np.uint8)[None])
    grain = rng.standard_normal((field.height // 2, field.width // 2), np.float32) * rng.uniform(0.8, 2.2) + 4
    grain = cv2.resize(grain, (field.width, field.height), interpolation=cv2.INTER_LINEAR)
    grain = cv2.merge([np.rint(grain).clip(0, 8).astype(np.uint8)] * 3)
    pixels = cv2.subtract(cv2.add(pixels, grain), np.full_like(pixels, 4))
    inside = field.layer()
    centre, radius = (np.array([*field.centre, field.radius]) * 16).astype(int)[[0, 1]], round(field.radius * 16)
    cv2.circle(inside, tuple(centre.tolist()), radius, 255, -1, cv2.LINE_AA, 4)
    inside = cv2.GaussianBlur(inside, (0, 0), max(0.004 * field.radius, 0.3))
    return cv2.multiply(pixels, cv2.merge([inside] * 3), scale=1 / 255)
