"""The augmentation of published retinopathy recipes: eight transformations, each applied in half of the cases."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import cv2
import numpy as np

REFERENCE_SIDE = 380
"""Side in pixels for which the published lengths (elastic jitter and smoothing) are meant."""

_COARSE = 8
"""The random field of the elastic deformation is drawn at every so many pixels."""


@dataclass(frozen=True)
class PublishedAugmentation:
    """The chain with which the EfficientNetV2 recipe for retinopathy was published, with its values as defaults.

    After the resize to the network's size come, in this order: crop, elastic deformation, rotation, hue, saturation
    and value, CLAHE, flip, brightness and contrast, blur. Each interpolates or maps the pixels anew, and so costs
    several times what ``medic.modeling.augment.Augmentation`` does.

    Attributes:
        crop: smallest side of the part that is cut out and enlarged again, as a share of the frame.
        elastic: largest random displacement of a pixel before smoothing, in pixels at a side of 380.
        smoothing: standard deviation of the Gaussian that smooths these displacements, in pixels at a side of 380.
        jitter: largest move of each of three points, which makes the affine part, in pixels at a side of 380.
        rotate: largest angle either way, in degrees.
        hue: largest shift either way, in steps of two degrees.
        saturation: the same, in grey levels.
        value: the same, in grey levels.
        clahe: largest clip limit of the local histogram equalisation, drawn from 1 upwards.
        tiles: tiles a side of the local histogram equalisation.
        flip: mirror left and right, up and down, or both.
        brightness: largest change either way, as a share of 255.
        contrast: largest relative change either way.
        blur: largest side of the box, in pixels; drawn from 3 upwards, odd.
        probability: of each transformation.
    """

    crop: float = 0.75
    elastic: float = 1.0
    smoothing: float = 50.0
    jitter: float = 20.0
    rotate: float = 45.0
    hue: int = 10
    saturation: int = 15
    value: int = 10
    clahe: float = 4.0
    tiles: int = 8
    flip: bool = True
    brightness: float = 0.12
    contrast: float = 0.12
    blur: int = 5
    probability: float = 0.5

    def apply(self, pixels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
        """Vary one image and bring it to the size that the network wants.

        Args:
            pixels: uint8 (S, S, 3) RGB, a prepared image.
            size: side of the result in pixels.
            random: source of all that is drawn.

        Returns:
            uint8 (size, size, 3) RGB.
        """
        if len(pixels) != size:
            way = cv2.INTER_AREA if len(pixels) > size else cv2.INTER_LINEAR
            pixels = cv2.resize(pixels, (size, size), interpolation=way)
        scale = size / REFERENCE_SIDE

        def now() -> bool:
            return random.random() < self.probability

        if now():
            pixels = crop(pixels, random, self.crop)
        if now():
            pixels = elastic(pixels, random, self.elastic * scale, self.smoothing * scale, self.jitter * scale)
        if now():
            pixels = rotate(pixels, random.uniform(-self.rotate, self.rotate))
        if now():
            limits = np.array([self.hue, self.saturation, self.value])
            pixels = shift_colour(pixels, random.integers(-limits, limits + 1))
        if now():
            pixels = equalise(pixels, random.uniform(1, self.clahe), self.tiles)
        if self.flip and now():
            pixels = cv2.flip(pixels, int(random.integers(-1, 2)))  # -1 both ways, 0 up and down, 1 left and right
        if now():
            gain, offset = random.uniform(-1, 1, 2) * (self.contrast, self.brightness)
            pixels = cv2.LUT(pixels, (np.arange(256) * (1 + gain) + 255 * offset).round().clip(0, 255).astype(np.uint8))
        if now():
            side = 2 * int(random.integers(1, self.blur // 2 + 1)) + 1
            pixels = cv2.blur(pixels, (side, side))
        return np.ascontiguousarray(pixels)

    def to_dict(self) -> dict:
        """Plain values, for JSON; ``kind`` tells them from those of ``Augmentation``."""
        return {"kind": "published"} | asdict(self)


def crop(pixels: np.ndarray, random: np.random.Generator, smallest: float) -> np.ndarray:
    """Cut out a square of ``smallest`` to 1 of the side, anywhere, and enlarge it to the whole: uint8 (S, S, 3)."""
    size = len(pixels)
    side = int(random.integers(round(smallest * size), size + 1))
    top, left = random.integers(0, size - side + 1, 2)
    return cv2.resize(pixels[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_LINEAR)


def elastic(
    pixels: np.ndarray, random: np.random.Generator, strength: float, smoothing: float, jitter: float
) -> np.ndarray:
    """Deform smoothly: an affine map from three jittered points, and a smoothed random field of displacements.

    Simard, Steinkraus & Platt, Best practices for convolutional neural networks applied to visual document analysis,
    ICDAR 2003, p. 958, section 2. The field is drawn and smoothed on a coarser grid and then enlarged: it is far
    smoother than the grid is coarse, and as much weaker as the mean of that many pixels would be.

    Args:
        pixels: uint8 (S, S, 3) RGB.
        random: source of all that is drawn.
        strength: largest displacement before smoothing, in pixels.
        smoothing: standard deviation of the Gaussian, in pixels.
        jitter: largest move of each point in x and in y, in pixels.

    Returns:
        uint8 (S, S, 3); black where the map leaves the image.
    """
    size = len(pixels)
    middle, third = (size - 1) / 2, size / 3
    points = np.float32([[middle + third, middle + third], [middle + third, middle - third], [middle - third] * 2])
    matrix = cv2.getAffineTransform(points, points + random.uniform(-jitter, jitter, (3, 2)).astype(np.float32))
    coarse = -(-size // _COARSE)
    field = random.uniform(-strength / _COARSE, strength / _COARSE, (coarse, coarse, 2)).astype(np.float32)
    field = cv2.GaussianBlur(field, (0, 0), smoothing / _COARSE, borderType=cv2.BORDER_REFLECT)
    field = cv2.resize(field, (size, size), interpolation=cv2.INTER_LINEAR)
    inverse = cv2.invertAffineTransform(matrix).astype(np.float32)
    steps = np.arange(size, dtype=np.float32)
    x, y = (row[0] * steps + row[1] * steps[:, None] + row[2] for row in inverse)
    return cv2.remap(pixels, x + field[..., 0], y + field[..., 1], cv2.INTER_LINEAR, borderValue=(0, 0, 0))


def rotate(pixels: np.ndarray, angle: float) -> np.ndarray:
    """Turn about the centre by ``angle`` degrees, anticlockwise: uint8 (S, S, 3), black where nothing was."""
    size = len(pixels)
    matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), angle, 1)
    return cv2.warpAffine(pixels, matrix, (size, size), flags=cv2.INTER_LINEAR)


def shift_colour(pixels: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Add to hue (of 180 steps, cyclic), saturation and value (of 255, clipped): uint8 (S, S, 3) RGB."""
    levels = np.arange(256)
    hue, saturation, value = (int(shift) for shift in shifts)
    table = np.stack(
        [(levels + hue) % 180, (levels + saturation).clip(0, 255), (levels + value).clip(0, 255)], axis=1
    ).astype(np.uint8)
    hsv = cv2.LUT(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), table[None])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def equalise(pixels: np.ndarray, limit: float, tiles: int) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation (CLAHE) of the lightness: uint8 (S, S, 3) RGB.

    Zuiderveld, Contrast limited adaptive histogram equalization, Graphics Gems IV, 1994, p. 474.

    Args:
        pixels: uint8 (S, S, 3) RGB.
        limit: highest bin of a tile's histogram, as a multiple of the mean bin.
        tiles: tiles a side.
    """
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=limit, tileGridSize=(tiles, tiles)).apply(lab[..., 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
