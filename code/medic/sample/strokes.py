"""The strokes of which synthetic images are drawn: winding paths, tapering ribbons, irregular spots.

Whatever is drawn on has a unit of its own and turns it into pixels (`Canvas`). For a retina (`Field`) these are *field
units*: the origin is the centre of the photograph's round field, 1 is its radius, x grows towards the temple (the side
of the macula) and y downwards.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

SUBPIXEL_BITS = 4  # OpenCV draws polygons at 1/16 pixel


class Canvas(Protocol):
    """What strokes are drawn on: places in a unit of its own, turned into pixels.

    Attributes:
        radius: pixels of one unit.
    """

    radius: float

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Places (..., 2) to pixels (..., 2), float."""


@dataclass(frozen=True)
class Field:
    """Where the round field lies in a photograph, and where the landmarks lie in the field.

    Attributes:
        width: of the photograph, pixels.
        height: of the photograph, pixels.
        centre: of the field, pixels (x, y).
        radius: of the field, pixels.
        side: +1 for a left eye (the macula to the right of the optic disc), -1 for a right eye.
        disc: centre of the optic disc, field units.
        disc_radius: of the optic disc, field units.
        macula: centre of the macula, field units.
    """

    width: int
    height: int
    centre: tuple[float, float]
    radius: float
    side: int
    disc: tuple[float, float]
    disc_radius: float
    macula: tuple[float, float]

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Field units (..., 2) to pixels (..., 2), float."""
        return points * (self.side * self.radius, self.radius) + self.centre

    def layer(self) -> np.ndarray:
        """An empty layer to draw on: uint8 (height, width), zeros."""
        return np.zeros((self.height, self.width), np.uint8)

    def places(self, rng: np.random.Generator, count: int, reach: float = 0.93) -> np.ndarray:
        """``count`` random visible places off the optic disc, float (count, 2), field units."""
        points = rng.uniform(-reach, reach, (count * 4 + 16, 2))
        points[:, 1] *= min(1.0, 0.5 * self.height / self.radius)
        inside = np.hypot(*points.T) < reach
        off_disc = np.hypot(*(points - self.disc).T) > 1.5 * self.disc_radius
        return points[inside & off_disc][:count]


def winding_paths(
    rng: np.random.Generator,
    start: np.ndarray,
    heading: np.ndarray,
    length: np.ndarray,
    bend: np.ndarray,
    wiggle: float | np.ndarray,
    points: int = 24,
) -> np.ndarray:
    """Paths that set out along ``heading``, turn by ``bend`` on the way and wind a little.

    Args:
        rng: source of the winding.
        start: (n, 2), field units.
        heading: (n,), radians.
        length: (n,), field units.
        bend: (n,), radians turned between start and end.
        wiggle: amplitude of the winding, radians.
        points: points of a path.

    Returns:
        Float (n, points, 2), field units.
    """
    t = np.linspace(0, 1, points)
    phase = rng.uniform(0, 2 * np.pi, (2, len(start), 1))
    pace = rng.uniform(1.0, 2.6, (len(start), 1)) * 2 * np.pi
    winding = np.sin(pace * t + phase[0]) + 0.6 * np.sin(2.3 * pace * t + phase[1])
    angle = heading[:, None] + bend[:, None] * t + np.reshape(wiggle, (-1, 1)) * winding * np.minimum(1, 4 * t)
    steps = np.stack([np.cos(angle), np.sin(angle)], -1) * (length / points)[:, None, None]
    return np.asarray(start)[:, None] + np.cumsum(steps, axis=1)


def draw_ribbons(layer: np.ndarray, field: Canvas, paths: np.ndarray, widths: np.ndarray, values: np.ndarray) -> None:
    """Draw paths (n, p, 2) as ribbons of full widths (n, p), all in field units, with values (n,) of 0-255."""
    centre = field.to_pixels(paths)
    along = np.gradient(centre, axis=1)
    along /= np.linalg.norm(along, axis=-1, keepdims=True) + 1e-9
    across = np.stack([-along[..., 1], along[..., 0]], -1)
    pixels = widths * field.radius
    # OpenCV's antialiased edge adds about a pixel to the width; a ribbon that should be thinner is drawn fainter
    half = across * (np.maximum(pixels - 1.0, 0.1) / 2)[..., None]
    fainter = np.clip(pixels.mean(axis=1) / 1.3, 0.25, 1)
    outlines = np.concatenate([centre + half, (centre - half)[:, ::-1]], axis=1)
    fill(layer, outlines, values * fainter)


def draw_spots(
    layer: np.ndarray,
    field: Field,
    rng: np.random.Generator,
    spots: tuple[np.ndarray, np.ndarray],
    value: float | np.ndarray,
    irregular: float = 0.15,
    stretch: float = 0.2,
) -> None:
    """Draw irregular round spots, given as places (n, 2) and radii (n,) in field units, with values of 0-255.

    ``irregular`` is the relative roughness of the outline, ``stretch`` how far from round a spot may be.
    """
    places, radii = spots
    count = len(places)
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    outline = np.ones((count, 16))
    for harmonic in (2, 3, 5):
        phase, size = rng.uniform(0, 2 * np.pi, (count, 1)), rng.normal(0, irregular, (count, 1)) / harmonic**0.5
        outline += size * np.sin(harmonic * angle + phase)
    pixels = radii * field.radius
    # as for ribbons: the smallest disc that OpenCV draws has a radius of about one pixel
    outline = np.clip(outline, 0.35, 2) * np.maximum(pixels - 0.5, 0.3)[:, None]
    longer = np.exp(rng.normal(0, stretch, (count, 1)))
    x, y = outline * np.cos(angle) * longer, outline * np.sin(angle) / longer
    turn = rng.uniform(0, np.pi, (count, 1))
    shape = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], -1)
    fill(layer, field.to_pixels(places)[:, None] + shape, value * np.clip(pixels, 0.3, 1) ** 1.5)


def fill(layer: np.ndarray, outlines: Iterable[np.ndarray], values: np.ndarray | float) -> None:
    """Fill polygons (n, p, 2), in pixels, with values (n,) of 0-255; what is brighter covers what is not."""
    outlines = np.rint(np.asarray(outlines) * (1 << SUBPIXEL_BITS)).astype(np.int32)
    values = np.broadcast_to(values, len(outlines))
    for index in np.argsort(values, kind="stable"):
        cv2.fillPoly(
            layer, [outlines[index]], float(min(values[index], 255)), lineType=cv2.LINE_AA, shift=SUBPIXEL_BITS
        )
