"""The strokes of which images are drawn: winding paths, tapering ribbons, irregular spots, smooth noise."""

import tomllib
from pathlib import Path

import cv2
import numpy as np

Array, Rng = np.ndarray, np.random.Generator
Layer = Array | None  # uint8 (height, width) to draw on, or a new one


class Canvas:
    """An image of ``size`` (width, height) to draw on in a unit of ``radius`` pixels, whose origin is at ``centre``."""

    def __init__(self, size: tuple, centre: tuple | Array, radius: float, turn: float = 0, mirror: int = 1):
        """Lay the unit's axes: turned by ``turn`` radians, the first towards the left where ``mirror`` is -1."""
        self.size, self.centre, self.radius = size, np.asarray(centre), radius
        self.axes = radius * np.array([[mirror * np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])

    def to_pixels(self, places: Array) -> Array:
        """Turn places (..., 2) in units into pixels, float (..., 2)."""
        return np.asarray(places) @ self.axes + self.centre

    def layer(self) -> Array:
        """Return an empty layer to draw on, uint8 (height, width)."""
        return np.zeros(self.size[::-1], np.uint8)

    def blurred(self, layer: Array, sigma: float, least: float = 0.4) -> Array:
        """Blur a layer by ``sigma`` units, at least ``least`` pixels."""
        return cv2.GaussianBlur(layer, (0, 0), max(least, sigma * self.radius))

    def noise(self, rng: Rng, cells: float, stretch: float = 1.0) -> Array:
        """Return smooth noise, about normal, float32: ``cells`` to the height, ``stretch`` times as many across."""
        shape = max(2, round(cells)), max(2, round(cells * self.size[0] / self.size[1] * stretch))
        return cv2.resize(rng.standard_normal(shape, np.float32), self.size, interpolation=cv2.INTER_CUBIC)

    def ribbons(self, paths: Array, widths: Array | float, values: Array | float, on: Layer = None) -> Array:
        """Draw paths (n, p, 2) as ribbons of full widths (n, p), both in units, with values (n,) of 0-255."""
        centre = self.to_pixels(paths)
        along = np.gradient(centre, axis=1)
        along /= np.linalg.norm(along, axis=-1, keepdims=True) + 1e-9
        across = np.stack([-along[..., 1], along[..., 0]], -1)
        pixels = np.broadcast_to(widths, paths.shape[:2]) * self.radius
        # OpenCV's antialiased edge adds about a pixel to the width; a ribbon that should be thinner is drawn fainter.
        half = across * (np.maximum(pixels - 1.0, 0.1) / 2)[..., None]
        outlines = np.concatenate([centre + half, (centre - half)[:, ::-1]], axis=1)
        return self.fill(outlines, values * np.clip(pixels.mean(axis=1) / 1.3, 0.25, 1), on)

    def spots(self, rng: Rng, places: Array, radii: Array, values: Array, rough: tuple = (0.25, 0.2), on: Layer = None):
        """Draw spots at places (n, 2) with radii (n,), both in units, with values (n,) of 0-255.

        ``rough`` is the relative roughness of the outline, and how far from round a spot may be.
        """
        angle, (irregular, stretch) = np.linspace(0, 2 * np.pi, 16, endpoint=False), rough
        outline, each = np.ones((len(places), 16)), (len(places), 1)
        for harmonic in (2, 3, 5):
            phase = rng.uniform(0, 2 * np.pi, each)
            outline += rng.normal(0, irregular, each) / harmonic**0.5 * np.sin(harmonic * angle + phase)
        pixels = radii * self.radius
        # As for ribbons: the smallest disc that OpenCV draws has a radius of about one pixel.
        outline = np.clip(outline, 0.35, 2) * np.maximum(pixels - 0.5, 0.3)[:, None]
        longer = np.exp(rng.normal(0, stretch, each))
        x, y = outline * np.cos(angle) * longer, outline * np.sin(angle) / longer
        turn = rng.uniform(0, np.pi, each)
        shape = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], -1)
        return self.fill(self.to_pixels(places)[:, None] + shape, values * np.clip(pixels, 0.3, 1) ** 1.5, on)

    def fill(self, outlines: Array, values: Array | float, on: Layer = None) -> Array:
        """Fill polygons (n, p, 2), in pixels, with values (n,) of 0-255, the brightest on top; return the layer."""
        layer, corners = self.layer() if on is None else on, np.rint(outlines * 16).astype(np.int32)  # 1/16 pixel
        values = np.minimum(np.broadcast_to(values, len(corners)), 255)
        for index in np.argsort(values, kind="stable"):
            cv2.fillPoly(layer, [corners[index]], float(values[index]), cv2.LINE_AA, 4)
        return layer


def winding_paths(
    rng: Rng, start: Array, heading: Array, length: Array, bend: Array, wiggle: Array | float, points: int = 24
) -> Array:
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


def constants(name: str) -> dict:
    """Return what a drawing rests on beside its code, ``NAME/constants.toml``: curves, colours, shares, hospitals."""
    return tomllib.loads(Path(__file__).with_name(name).joinpath("constants.toml").read_text(encoding="utf-8"))
