"""Where the subject is in the frame, and the square around it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import cv2
import numpy as np

DARK = 15  # the black surround of a fundus photograph stays below this in every channel (of 255), JPEG noise included

# Pixels of the copy on which the disc is searched for: a hundredth of the work, and half a per cent exact.
_SEARCH_SIDE = 256


@dataclass(frozen=True)
class Disc:
    """The lit disc of a fundus photograph, in pixels of the image it was found in; parts may lie outside the frame."""

    x: float
    y: float
    radius: float

    @property
    def square(self) -> tuple[int, int, int]:
        """Left, top and side of the square around it, in whole pixels; it may begin outside the frame."""
        return round(self.x - self.radius), round(self.y - self.radius), max(1, round(2 * self.radius))


def find_disc(pixels: np.ndarray) -> Disc | None:
    """Find the retina: the lit disc on the dark surround of a fundus photograph.

    A circle is fitted to the left and right edges of the largest region that is not dark. Most cameras cut the disc at
    the top and the bottom: the fit still gives its true centre and radius there. Where no edge is in the frame, or no
    circle fits, it is the circle around the region's box.

    Args:
        pixels: uint8 (H, W, 3) RGB.

    Returns:
        The disc, or None when less than a twentieth of the frame is lit (a black photograph).
    """
    sides = np.array(pixels.shape[1::-1])
    scale = max(1.0, sides.max() / _SEARCH_SIDE)
    small = cv2.resize(pixels, np.rint(sides / scale).astype(int).clip(1), interpolation=cv2.INTER_NEAREST)
    lit = (reduce(cv2.max, cv2.split(cv2.medianBlur(small, 3))) > DARK).astype(np.uint8)
    _, labels = cv2.connectedComponents(lit, connectivity=4)
    areas = np.bincount(labels.ravel())
    areas[0] = 0  # the surround
    if areas.max() < lit.size / 20:
        return None
    region = labels == areas.argmax()
    left, top, wide, high = cv2.boundingRect(region.astype(np.uint8))
    circle, longer = _fit_circle(region), max(wide, high)
    if circle is None or not longer * 0.9 <= 2 * circle.radius <= longer * 1.5:
        circle = Disc(left + (wide - 1) / 2, top + (high - 1) / 2, longer / 2)
    return Disc((circle.x + 0.5) * scale, (circle.y + 0.5) * scale, circle.radius * scale)


def _fit_circle(region: np.ndarray) -> Disc | None:
    """Least squares (Kasa, IEEE Trans. Instrum. Meas. 25(1), 1976, p. 8), then without the points off that circle."""
    rows = np.flatnonzero(region.any(axis=1))
    last = region.shape[1] - 1
    x = np.concatenate([region[rows].argmax(axis=1), last - region[rows, ::-1].argmax(axis=1)]).astype(float)
    y, near = np.tile(rows, 2).astype(float), (x > 0) & (x < last)
    for _ in range(2):
        x, y = x[near], y[near]
        if len(x) < 20:
            return None
        a, b, c = np.linalg.lstsq(np.stack([2 * x, 2 * y, np.ones_like(x)], axis=1), x * x + y * y)[0]
        radius = float(np.sqrt(max(0, c + a * a + b * b))) + 0.5
        near = np.abs(np.hypot(x - a, y - b) - radius) < 0.03 * radius
    return Disc(float(a), float(b), radius) if near.mean() > 0.5 else None


def fundus(pixels: np.ndarray) -> np.ndarray:
    """Cut the square around the retina, all channels together: uint8 (S, S, 3) RGB, S the disc's diameter.

    What lies outside the frame is black. A fundus photograph, uint8 (H, W, 3), in which no retina is found is returned
    whole, padded to a square: ``medic.data.check.check`` reports it.
    """
    disc = find_disc(pixels)
    return square(pixels) if disc is None else window(pixels, *disc.square)


def square(pixels: np.ndarray) -> np.ndarray:
    """Pad an image, uint8 (H, W, 3), with black to a square, the image in the middle."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    return window(pixels, -((side - width) // 2), -((side - height) // 2), side)


def window(pixels: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """Cut a square, uint8 (side, side, 3), that may begin and end outside the frame: what lies there is black."""
    height, width = pixels.shape[:2]
    cut = np.zeros((side, side, 3), np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    cut[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
    return cut


CROPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"fundus": fundus, "square": square}
"""The crops by the names that a manifest stores."""
