"""Augmentation: one warp for flip, rotation, scale and shift, and one table for brightness, contrast and colour."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import cv2
import numpy as np

from medic.data.crop import DARK


@dataclass(frozen=True)
class Augmentation:
    """How far a training image may be varied. Zero everywhere leaves it as it is.

    Geometry is drawn first and applied as a single affine warp, so that pixels are interpolated once; colour is a
    table of 256 entries a channel. Both are drawn from a generator that belongs to the image and the epoch, so the
    result does not depend on the number of workers or on an interruption.

    Attributes:
        flip: mirror left and right in half of the cases.
        rotate: largest angle either way, in degrees. A retina has no up and down that matters, 180 is allowed.
        scale: largest relative change of size either way, 0..1.
        shift: largest move either way, as a share of the side.
        brightness: largest relative change either way, 0..1.
        contrast: the same about the middle grey.
        colour: the same for each channel by itself.
    """

    flip: bool = True
    rotate: float = 15.0
    scale: float = 0.1
    shift: float = 0.03
    brightness: float = 0.1
    contrast: float = 0.1
    colour: float = 0.03

    def apply(self, pixels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
        """Vary one image and bring it to the size that the network wants.

        Args:
            pixels: uint8 (S, S, 3) RGB, a prepared image.
            size: side of the result in pixels.
            random: source of all that is drawn.

        Returns:
            uint8 (size, size, 3) RGB.
        """
        if len(pixels) > 1.5 * size:  # a warp reads four pixels and would alias
            smaller = round(1.25 * size)
            pixels = cv2.resize(pixels, (smaller, smaller), interpolation=cv2.INTER_AREA)
        mirror = self.flip and random.random() < 0.5
        angle, stretch, right, down, light, grip = random.uniform(-1, 1, 6)
        tint = random.uniform(-1, 1, 3)
        warped = cv2.warpAffine(
            pixels,
            self._matrix(len(pixels), size, mirror, angle, stretch, (right, down)),
            (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        levels = np.arange(256, dtype=np.float32)[:, None]
        gain = (1 + self.brightness * light) * (1 + self.colour * tint)
        table = ((levels - 128) * (1 + self.contrast * grip) + 128) * gain
        # The dark surround stays dark, and so does the JPEG noise in it: below DARK the change fades out to none.
        table = levels + (table - levels) * np.minimum(levels / DARK, 1)
        return cv2.LUT(warped, table.clip(0, 255).astype(np.uint8)[None])

    def _matrix(
        self, side: int, size: int, mirror: bool, angle: float, stretch: float, shift: tuple[float, float]
    ) -> np.ndarray:
        """From pixels of the result to pixels of the source, both about their centres: float64 (2, 3)."""
        turn = np.deg2rad(self.rotate * angle)
        zoom = side / size / (1 + self.scale * stretch)
        matrix = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        if mirror:
            matrix[:, 0] *= -1
        centre = (side - 1) / 2 + self.shift * side * np.array(shift)
        offset = centre - matrix @ np.full(2, (size - 1) / 2)
        return np.column_stack([matrix, offset])

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)
