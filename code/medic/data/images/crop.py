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

    @property
    def square(self) -> tuple[int, int, int]:
        """Left, top and side of the square around it, in whole pixels; it may begin outside the frame."""
        return round(self.x - self.radius), round(self.y - self.radius), max(1, round(2 * self.radius))


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
    # Channel by channel: NumPy's maximum over the last axis alone would take as long as all the rest.
    red, green, blue = cv2.split(cv2.medianBlur(small, 3))
    brightest = cv2.max(cv2.max(red, green), blue)
    _, lit = cv2.threshold(brightest, DARK, 1, cv2.THRESH_BINARY)
    count, labels = cv2.connectedComponents(lit, connectivity=4)
    if count == 1:
        return None
    areas = np.bincount(labels.ravel())
    largest = 1 + int(areas[1:].argmax())
    if areas[largest] < lit.size / 20:
        return None
    region = (labels == largest).astype(np.uint8)
    left, top, wide, high = cv2.boundingRect(region)
    circle = _fit_circle(region, (left, top, wide, high))
    longer = max(wide, high)
    if circle is None or not longer * 0.9 <= 2 * circle.radius <= longer * 1.5:
        circle = Disc(left + (wide - 1) / 2, top + (high - 1) / 2, longer / 2)
    return Disc((circle.x + 0.5) * scale, (circle.y + 0.5) * scale, circle.radius * scale)


def _fit_circle(region: np.ndarray, box: tuple[int, int, int, int]) -> Disc | None:
    left, top, wide, high = box
    inside = region[top : top + high, left : left + wide]  # connected, so that each of its rows has two edges
    rows = np.arange(top, top + high)
    first = left + inside.argmax(axis=1)
    last = left + wide - 1 - inside[:, ::-1].argmax(axis=1)
    x = np.concatenate([first, last]).astype(float)
    y = np.concatenate([rows, rows]).astype(float)
    in_frame = (x > 0) & (x < region.shape[1] - 1)
    x, y = x[in_frame], y[in_frame]
    for _ in range(2):
        if len(x) < 20:
            return None
        # The normal equations about the mean, which keeps them well conditioned: two unknowns, no matrix library.
        u, v = x - x.mean(), y - y.mean()
        squares = u * u + v * v
        uu, uv, vv = u @ u, u @ v, v @ v
        determinant = uu * vv - uv * uv
        if determinant <= 1e-9 * uu * vv:  # all points on one line
            return None
        right, down = squares @ u / 2, squares @ v / 2
        a, b = (right * vv - down * uv) / determinant, (down * uu - right * uv) / determinant
        radius = float(np.sqrt(squares.mean() + a * a + b * b)) + 0.5
        circle = Disc(float(x.mean() + a), float(y.mean() + b), radius)
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
        to a square: ``medic.data.check.check`` reports it.
    """
    disc = find_disc(pixels)
    return square(pixels) if disc is None else window(pixels, *disc.square)


def square(pixels: np.ndarray) -> np.ndarray:
    """Pad an image with black to a square, the image in the middle.

    Args:
        pixels: uint8 (H, W, 3) RGB.

    Returns:
        uint8 (S, S, 3) RGB, S the longer side.
    """
    height, width = pixels.shape[:2]
    side = max(height, width)
    return window(pixels, -((side - width) // 2), -((side - height) // 2), side)


def window(pixels: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """Cut a square, which may reach beyond the frame: what lies outside is black.

    Args:
        pixels: uint8 (H, W, 3) RGB.
        left: column of the square's first pixel; negative outside the frame.
        top: its row.
        side: of the square, in pixels.

    Returns:
        uint8 (side, side, 3) RGB, a copy.
    """
    height, width = pixels.shape[:2]
    cut = np.zeros((side, side, 3), np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    cut[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
    return cut


CROPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"fundus": fundus, "square": square}
"""The crops by the names that a manifest stores."""
