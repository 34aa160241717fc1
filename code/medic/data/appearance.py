"""What an image is like, from one decoding: readable or not, how bright, how sharp, which channels, which picture."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np

from medic.data.crop import DARK
from medic.data.decode import Header, decode_with_header, shrunk
from medic.data.duplicates import fingerprint
from medic.data.stores import Store
from medic.errors import ImageError

NEARLY_BLACK = 40
"""An image whose brightest hundredth stays below this (of 255) shows nothing that could be graded."""
WHITE = 250
"""From this value on, in every channel, a pixel is overexposed: nothing is left to see in it."""

_SIDE = 256
_COLOURLESS = 6
_STORED = {"1": "grey", "L": "grey", "LA": "grey with transparency", "P": "palette"}


@dataclass(frozen=True, eq=False)
class Appearance:
    """One image as the check sees it.

    Attributes:
        digest: SHA-256 of the file; empty where it could not be read.
        fault: what is wrong with it by itself, such as ``truncated``; empty where nothing is. All that follows is only
            known of an image that could be decoded.
        detail: the same in a sentence.
        width: pixels, as stored.
        height: pixels, as stored.
        channels: how the file holds them and whether it shows colour, such as ``RGB`` or ``RGB (all grey)``.
        brightness: mean of the lit pixels over the channels, 0..255.
        white: share of the pixels that are overexposed, 0..1.
        sharpness: fine detail against coarse, of the lit part of the green channel at 256 pixels (natural logarithm of
            the ratio of two standard deviations); NaN for smaller images.
        fingerprint: as ``medic.data.duplicates.fingerprint`` gives it.
    """

    digest: bytes
    fault: str = ""
    detail: str = ""
    width: int = 0
    height: int = 0
    channels: str = ""
    brightness: float = float("nan")
    white: float = float("nan")
    sharpness: float = float("nan")
    fingerprint: np.ndarray | None = None


def look(store: Store, name: str) -> Appearance:
    """Read and decode one image, once, and take down all that findings are made from."""
    try:
        data = store.read(name)
    except ImageError as error:
        return Appearance(b"", error.reason, str(error))
    digest = hashlib.sha256(data).digest()
    try:
        header, pixels = decode_with_header(data, at_least=_SIDE)
    except ImageError as error:
        return Appearance(digest, error.reason, str(error))
    large = max(pixels.shape[:2]) >= _SIDE
    pixels = shrunk(pixels, _SIDE)
    red, green, blue = cv2.split(pixels)
    brightest = cv2.max(cv2.max(red, green), blue)
    lit = (brightest > DARK).astype(np.uint8)
    fault, detail = _too_dark_to_see(brightest, data)
    return Appearance(
        digest=digest,
        fault=fault,
        detail=detail,
        width=header.width,
        height=header.height,
        channels=_channels(header, red, green, blue),
        brightness=float(np.mean(cv2.mean(pixels, mask=lit)[:3])),
        white=float((cv2.min(cv2.min(red, green), blue) >= WHITE).mean()),
        sharpness=_sharpness(green, lit) if large else float("nan"),
        fingerprint=None if fault else fingerprint(pixels),
    )


def _too_dark_to_see(brightest: np.ndarray, data: bytes) -> tuple[str, str]:
    counts = cv2.calcHist([brightest], [0], None, [256], [0, 256]).ravel()
    level = int(np.searchsorted(counts.cumsum(), 0.99 * brightest.size))
    if level >= NEARLY_BLACK:
        return "", ""
    detail = f"99 % of the pixels are below {level + 1} of 255"
    if _sixteen_bits(data):
        detail += "; of its 16 bits the values may use only the lower ones: save it anew, scaled to all of them"
    return "nearly_black", detail


def _sixteen_bits(data: bytes) -> bool:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels is not None and pixels.dtype == np.uint16


def _channels(header: Header, red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> str:
    stored = "grey" if header.mode.startswith("I") else _STORED.get(header.mode, header.mode)
    if stored.startswith("grey"):
        return stored
    # On means of many pixels: JPEG's coarse colours are not to count.
    small = [cv2.resize(channel, (64, 64), interpolation=cv2.INTER_AREA) for channel in (red, green, blue)]
    largest = max(int(cv2.absdiff(one, small[1]).max()) for one in small)
    return f"{stored} (all grey)" if largest <= _COLOURLESS else stored


def _sharpness(green: np.ndarray, lit: np.ndarray) -> float:
    """The first against the third step of a Laplacian pyramid (Burt and Adelson, IEEE Trans. Commun. 31(4), 1983)."""
    # The rim of the lit part is sharp in any photograph, in focus or not.
    inside = cv2.erode(lit, np.ones((9, 9), np.uint8))
    level, deviations = green.astype(np.float32), []
    for _ in range(3):
        coarser = cv2.pyrDown(level)
        detail = level - cv2.pyrUp(coarser, dstsize=level.shape[::-1])
        deviations.append(float(cv2.meanStdDev(detail, mask=inside)[1][0, 0]) + 0.05)
        level = coarser
        inside = cv2.resize(inside, level.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return float(np.log(deviations[0] / deviations[2]))
