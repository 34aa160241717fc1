"""The strokes of which images are drawn: winding paths, tapering ribbons, irregular spots.

A canvas has a unit of its own: ``radius`` is one unit in pixels, ``to_pixels`` turns places (..., 2) into pixels.
"""

from collections.abc import Iterable
from typing import Protocol

import cv2
import numpy as np

SUBPIXEL_BITS = 4  # OpenCV draws polygons at 1/16 pixel


class Canvas(Protocol):
    """What is drawn on."""

    radius: float

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Return places (..., 2) in pixels, float."""


def winding_paths(
    rng: np.random.Generator,
    start: np.ndarray,
    heading: np.ndarray,
    length: np.ndarray,
    bend: np.ndarray,
    wiggle: float | np.ndarray,
    points: int = 24,
) -> np.ndarray:
    """Return n paths, float (n, points, 2), that start at (n, 2) along ``heading`` (n,) in radians.

    They are ``length`` (n,) units long, turn by ``bend`` (n,) radians on the way and wind by ``wiggle`` radians.
    """
    t = np.linspace(0, 1, points)
    phase = rng.uniform(0, 2 * np.pi, (2, len(start), 1))
    pace = rng.uniform(1.0, 2.6, (len(start), 1)) * 2 * np.pi
    winding = np.sin(pace * t + phase[0]) + 0.6 * np.sin(2.3 * pace * t + phase[1])
    angle = heading[:, None] + bend[:, None] * t + np.reshape(wiggle, (-1, 1)) * winding * np.minimum(1, 4 * t)
    steps = np.stack([np.cos(angle), np.sin(angle)], -1) * (length / points)[:, None, None]
    return np.asarray(start)[:, None] + np.cumsum(steps, axis=1)


def draw_ribbons(layer: np.ndarray, canvas: Canvas, paths: np.ndarray, widths: np.ndarray, values: np.ndarray) -> None:
    """Draw paths (n, p, 2) as ribbons of full widths (n, p), both in units, with values (n,) of 0-255."""
    centre = canvas.to_pixels(paths)
    along = np.gradient(centre, axis=1)
    along /= np.linalg.norm(along, axis=-1, keepdims=True) + 1e-9
    across = np.stack([-along[..., 1], along[..., 0]], -1)
    pixels = widths * canvas.radius
    # OpenCV's antialiased edge adds about a pixel to the width; a ribbon that should be thinner is drawn fainter.
    half = across * (np.maximum(pixels - 1.0, 0.1) / 2)[..., None]
    outlines = np.concatenate([centre + half, (centre - half)[:, ::-1]], axis=1)
    fill(layer, outlines, values * np.clip(pixels.mean(axis=1) / 1.3, 0.25, 1))


def draw_spots(
    layer: np.ndarray,
    canvas: Canvas,
    rng: np.random.Generator,
    spots: tuple[np.ndarray, np.ndarray],
    value: float | np.ndarray,
    irregular: float = 0.15,
    stretch: float = 0.2,
) -> None:
    """Draw round spots at places (n, 2) with radii (n,), both in units, with values of 0-255.

    ``irregular`` is the relative roughness of the outline, ``stretch`` how far from round a spot may be.
    """
    places, radii = spots
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    outline = np.ones((len(places), 16))
    for harmonic in (2, 3, 5):
        phase = rng.uniform(0, 2 * np.pi, (len(places), 1))
        rough = rng.normal(0, irregular, (len(places), 1)) / harmonic**0.5
        outline += rough * np.sin(harmonic * angle + phase)
    pixels = radii * canvas.radius
    # As for ribbons: the smallest disc that OpenCV draws has a radius of about one pixel.
    outline = np.clip(outline, 0.35, 2) * np.maximum(pixels - 0.5, 0.3)[:, None]
    longer = np.exp(rng.normal(0, stretch, (len(places), 1)))
    x, y = outline * np.cos(angle) * longer, outline * np.sin(angle) / longer
    turn = rng.uniform(0, np.pi, (len(places), 1))
    shape = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], -1)
    fill(layer, canvas.to_pixels(places)[:, None] + shape, value * np.clip(pixels, 0.3, 1) ** 1.5)


def fill(layer: np.ndarray, outlines: Iterable[np.ndarray], values: np.ndarray | float) -> None:
    """Fill polygons (n, p, 2), in pixels, with values (n,) of 0-255; what is brighter covers what is not."""
    outlines = np.rint(np.asarray(outlines) * (1 << SUBPIXEL_BITS)).astype(np.int32)
    values = np.minimum(np.broadcast_to(values, len(outlines)), 255)
    for index in np.argsort(values, kind="stable"):
        cv2.fillPoly(layer, [outlines[index]], float(values[index]), lineType=cv2.LINE_AA, shift=SUBPIXEL_BITS)
