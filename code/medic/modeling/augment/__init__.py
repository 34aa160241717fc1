"""Augmentation: one warp for flip, rotation, scale and shift, and one table for brightness, contrast and colour."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from medic.data.images.crop import DARK

if TYPE_CHECKING:
    from torch import Tensor


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
        matrix, table = self.draw(random, len(pixels), size)
        side = _side_read(len(pixels), size)
        if side != len(pixels):
            pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
        warped = cv2.warpAffine(pixels, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        return cv2.LUT(warped, table[None], warped)

    def draw(self, random: np.random.Generator, side: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw a variation without applying it, for ``apply_batch``; what ``apply`` draws from the same generator.

        Args:
            random: source of all that is drawn.
            side: side of the prepared image in pixels.
            size: side of the result in pixels.

        Returns:
            The warp, float32 (2, 3), from pixel centres (x, y) of the result to those of the image (as ``apply_batch``
            has shrunk it, if it does), and the table of colours, uint8 (256, 3).
        """
        mirror = self.flip and random.random() < 0.5
        angle, stretch, right, down, light, grip = random.uniform(-1, 1, 6)
        tint = random.uniform(-1, 1, 3)
        matrix = self._matrix(_side_read(side, size), size, mirror, angle, stretch, (right, down))
        levels = np.arange(256, dtype=np.float32)[:, None]
        gain = (1 + self.brightness * light) * (1 + self.colour * tint)
        table = ((levels - 128) * (1 + self.contrast * grip) + 128) * gain
        # The dark surround stays dark, and so does the JPEG noise in it: below DARK the change fades out to none.
        table = levels + (table - levels) * np.minimum(levels / DARK, 1)
        return matrix.astype(np.float32), table.clip(0, 255).astype(np.uint8)

    @staticmethod
    def apply_batch(images: Tensor, matrices: Tensor, tables: Tensor, size: int) -> Tensor:
        """Apply drawn variations to a batch of images at once, on the device that holds them.

        Agrees with ``apply`` up to interpolation: OpenCV and torch shrink with other filters, and OpenCV rounds between
        shrinking and warping.

        Args:
            images: uint8 (N, S, S, 3) RGB, prepared images.
            matrices: float32 (N, 2, 3), as ``draw(random, S, size)`` gives them.
            tables: uint8 (N, 256, 3).
            size: side of the result in pixels.

        Returns:
            uint8 (N, size, size, 3) RGB, on the device of ``images``.
        """
        # torch is imported here, so that whoever only reads images need not wait for it.
        import torch
        import torch.nn.functional as F

        count, side = len(images), images.shape[1]
        x = images.permute(0, 3, 1, 2).float()
        smaller = _side_read(side, size)
        if smaller != side:
            x = F.interpolate(x, size=(smaller, smaller), mode="bilinear", align_corners=False, antialias=True)
        # Not affine_grid: it multiplies matrices, which autocast and TF32 round to a third of a pixel.
        steps = torch.arange(size, dtype=torch.float32, device=x.device)
        across, down, moved = matrices.to(x.device, torch.float32).view(count, 2, 1, 1, 3).unbind(-1)
        source = across * steps + down * steps[:, None] + moved
        grid = ((2 * source + 1) / smaller - 1).permute(0, 2, 3, 1)  # -1 and 1 are the outer edges of the image
        x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        levels = x.round().clamp(0, 255).long().flatten(2)
        coloured = tables.to(x.device).transpose(1, 2).gather(2, levels)
        return coloured.view(count, 3, size, size).permute(0, 2, 3, 1)

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

    def scaled(self, strength: float) -> Augmentation:
        """The same with all limits times ``strength``: 0 leaves but the mirror image, 1 all as it is, 2 doubles.

        Angles stay within 180 degrees, and shares within 0.9, from where on an image could vanish.
        """
        limits = {"rotate": 180.0} | dict.fromkeys(("scale", "shift", "brightness", "contrast", "colour"), 0.9)
        changed = {name: min(getattr(self, name) * strength, most) for name, most in limits.items()}
        return replace(self, **changed)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)


def _side_read(side: int, size: int) -> int:
    """How large an image is when it is warped: much larger ones are shrunk first, as a warp reads four pixels only."""
    return round(1.25 * size) if side > 1.5 * size else side
