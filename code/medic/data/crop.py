"""Where the subject is in the frame, and the square around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

DARK = 15
"""The black surround of a fundus photograph stays below this in every channel (of 255), JPEG noise included."""

_SEARCH_SIDE = 256
"""The disc is searched for on a copy of about this many pixels: a hundredth of the work, and half a per cent exact."""


@dataclass(frozen=True)
class Disc:
    """The lit disc of a fundus photograph, in pixels of the image it was found in; parts may lie outside the frame."""

    x: float
    y: float
    radius: float


def find_disc(pixels: np.ndarray) -> Disc | None:
    """Find the retina: the lit disc on the dark surround of a fundus photograph.

    The largest region that is not dark is taken, and a circle is fitted to its left and right edges by least squares
    (Kasa, IEEE Trans. Instrum. Meas. 25(1), 1976, p. 8), once more without the points that lie off the first circle.
    Most cameras cut the disc at the top and the bottom: the fit still gives its true centre and radius there. Where no
    edge is in the frame, or no circle fits, it is the circle around the region's box.

    Args:
        pixels: uint8 (H, W, 3) RGB.

    Returns:
        The disc, or None when less than a twentieth of the frame is lit (a black photograph).
    """
    height, width = pixels.shape[:2]
    scale = max(1.0, max(height, width) / _SEARCH_SIDE)
    small = cv2.resize(
        pixels, (max(1, round(width / scale)), max(1, round(height / scale))), interpolation=cv2.INTER_NEAREST
    )
    small = cv2.medianBlur(small, 3)
    lit = (small.max(axis=2) > DARK).astype(np.uint8)
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(lit, connectivity=4)
    if len(statistics) == 1:
        return None
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    left, top, wide, high, area = statistics[largest]
    if area < lit.size / 20:
        return None
    circle = _fit_circle(labels == largest)
    longer = max(wide, high)
    if circle is None or not longer * 0.9 <= 2 * circle.radius <= longer * 1.5:
        circle = Disc(left + (wide - 1) / 2, top + (high - 1) / 2, longer / 2)
    return Disc((circle.x + 0.5) * scale, (circle.y + 0.5) * scale, circle.radius * scale)


def _fit_circle(region: np.ndarray) -> Disc | None:
    rows = np.flatnonzero(region.any(axis=1))
    first = region[rows].argmax(axis=1)
    last = region.shape[1] - 1 - region[rows, ::-1].argmax(axis=1)
    x = np.concatenate([first, last]).astype(float)
    y = np.concatenate([rows, rows]).astype(float)
    inside = (x > 0) & (x < region.shape[1] - 1)
    x, y = x[inside], y[inside]
    for _ in range(2):
        if len(x) < 20:
            return None
        system = np.column_stack([x, y, np.ones_like(x)])
        (a, b, c), *_ = np.linalg.lstsq(system, x**2 + y**2, rcond=None)
        squared = c + a * a / 4 + b * b / 4
        if squared <= 0:
            return None
        circle = Disc(a / 2, b / 2, float(np.sqrt(squared)) + 0.5)
        off = np.abs(np.hypot(x - circle.x, y - circle.y) - circle.radius)
        near = off < 0.03 * circle.radius
        x, y = x[near], y[near]
    return circle if near.mean() > 0.5 else None


def fundus(pixels: np.ndarray) -> np.ndarray:
    """Cut the square around the retina, all channels together; what lies outside the frame is black.

    Args:
        pixels: uint8 (H, W, 3) RGB fundus photograph.

    Returns:
        uint8 (S, S, 3) RGB, S the disc's diameter. A photograph in which no retina is found is returned whole, padded
        to a square: ``medic.data.quality.check`` reports it.
    """
    disc = find_disc(pixels)
    if disc is None:
        return square(pixels)
    side = max(1, round(2 * disc.radius))
    return _window(pixels, round(disc.x - disc.radius), round(disc.y - disc.radius), side)


def square(pixels: np.ndarray) -> np.ndarray:
    """Pad an image with black to a square, the image in the middle.

    Args:
        pixels: uint8 (H, W, 3) RGB.

    Returns:
        uint8 (S, S, 3) RGB, S the longer side.
    """
    height, width = pixels.shape[:2]
    side = max(height, width)
    return _window(pixels, -((side - width) // 2), -((side - height) // 2), side)


def _window(pixels: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    window = np.zeros((side, side, 3), np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    window[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
    return window


CROPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"fundus": fundus, "square": square}
"""The crops by the names that a manifest stores."""
