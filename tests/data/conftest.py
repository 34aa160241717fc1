"""Pixels and bytes made on the spot: smooth colour, drawn discs, encoded in any format."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def smooth() -> Callable[..., np.ndarray]:
    """Smooth colours without a plain or dark area: uint8 (height, width, 3) RGB."""

    def draw(height: int = 300, width: int = 400) -> np.ndarray:
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        channels = [np.sin(5 * x + 2 * y), np.cos(4 * y - 3 * x), np.sin(7 * x * y + 1)]
        return (140 + 90 * np.stack(channels, axis=2)).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Pillow's encoding of pixels in a format and a colour mode, with its options."""

    def encoded(pixels: np.ndarray, format: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, format, **options)
        return file.getvalue()

    return encoded


@pytest.fixture(scope="session")
def photograph() -> Callable[..., np.ndarray]:
    """A drawn retina: a shaded disc of given centre and radius on black, a little noise on all of it."""

    def draw(
        width: int, height: int, x: float, y: float, radius: float, colour: tuple = (190, 95, 40), noise: float = 2.0
    ) -> np.ndarray:
        rows, columns = np.mgrid[0:height, 0:width] + 0.5
        distance = np.hypot(columns - x, rows - y) / radius
        shade = (1 - 0.45 * distance**2 + 0.15 * np.cos(columns * 12 / radius) * np.sin(rows * 9 / radius)) * (
            distance < 1
        )
        pixels = shade[:, :, None] * np.array(colour)
        pixels += np.random.default_rng(5).normal(0, noise, pixels.shape)
        return pixels.clip(0, 255).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def psnr() -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda one, other: cv2.PSNR(one, other)


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A folder that nobody may write to; below a regular file, because permission bits do not bind root."""
    (tmp_path / "a file").write_text("no folder")
    if os.geteuid() == 0:
        return tmp_path / "a file" / "below it"
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    return folder / "below it"
