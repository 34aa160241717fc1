"""Small copies of images: what a page can show of a photograph without being sent all of it."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from medic.data.decode import decode, shrunk
from medic.data.stores import Store
from medic.errors import ImageError

SIZES = {"thumbnail": 128, "large": 800}
"""Pixels of the longer side; smaller images are not enlarged."""

_LOSSLESS = 160
"""Pixels up to which PNG is small enough; JPEG would blur a digit of 28 x 28 pixels."""


class Copy(NamedTuple):
    """An encoded picture: its media type and its bytes."""

    kind: str
    data: bytes


def pixels_of(store: Store, name: str, side: int) -> np.ndarray:
    """An image of a store, scaled down.

    Args:
        store: where the image is.
        name: of the image.
        side: pixels of the longer side at most.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        ImageError: it is absent or cannot be decoded.
    """
    if name not in store:
        raise ImageError(f"{name} is not in {store.location.name}; put it there or drop its row", "unreadable")
    return shrunk(decode(store.read(name), at_least=side), side)


def small_copy(store: Store, name: str, side: int) -> Copy:
    """The same as a file: PNG where the picture is tiny, otherwise JPEG; raises as ``pixels_of``."""
    pixels = cv2.cvtColor(pixels_of(store, name, side), cv2.COLOR_RGB2BGR)
    if max(pixels.shape[:2]) < _LOSSLESS and side > _LOSSLESS:
        return Copy("image/png", cv2.imencode(".png", pixels)[1].tobytes())
    return Copy("image/jpeg", cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())


def pixels_or_grey(store: Store, name: str, side: int) -> np.ndarray:
    """As ``pixels_of``, and a grey square where the image cannot be shown."""
    try:
        return pixels_of(store, name, side)
    except ImageError:
        return np.full((side, side, 3), 200, np.uint8)
