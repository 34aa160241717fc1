"""What an image is like, from one decoding: readable or not, how bright, how sharp, which channels, which picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import pandas as pd

from medic.data.check.duplicates import fingerprint
from medic.data.images.crop import DARK
from medic.data.images.decode import Header, decode, decode_with_header, read_header, shrunk, used_bits
from medic.data.parallel import each
from medic.data.stores import Store
from medic.errors import ImageError

NEARLY_BLACK = 40
"""An image whose brightest hundredth stays below this (of 255) shows nothing that could be graded."""
WHITE = 250
"""From this value on, in every channel, a pixel is overexposed: nothing is left to see in it."""

_SIDE = 192
_COLOURLESS = 6
_STORED = {"1": "grey", "L": "grey", "LA": "grey with transparency", "P": "palette"}


@dataclass(frozen=True, eq=False)
class ImageStats:
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
        sharpness: fine detail against coarse, of the lit part of the green channel at 192 pixels (natural logarithm of
            the ratio of two standard deviations); NaN for smaller images.
        fingerprint: as ``medic.data.check.duplicates.fingerprint`` gives it.
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


def stats_of_set(
    store: Store, names: Sequence[str], *, title: str, scheduler: str | None = None
) -> tuple[list[ImageStats], int | None]:
    """Take down what each image is like, and how many of 16 bits the set uses where it is not all of them."""
    bits = max(each(partial(_bits, store), names, title=f"{title}, bits", scheduler=scheduler), default=0)
    used = bits if 9 <= bits < 16 else None
    return list(each(partial(image_stats, store, bits=used), names, title=title, scheduler=scheduler)), used


def _bits(store: Store, name: str) -> int:
    try:
        return 0 if name.lower().endswith((".jpg", ".jpeg", ".bmp")) else used_bits(store.read(name)) or 0
    except ImageError:
        return 0


def image_stats(store: Store, name: str, bits: int | None = None) -> ImageStats:
    """Read and decode one image, once, and take down all that findings are made from; ``bits`` as ``decode`` has it."""
    try:
        data = store.read(name)
    except ImageError as error:
        return ImageStats(b"", error.reason, str(error))
    digest = hashlib.sha256(data).digest()
    try:
        header, pixels = decode_with_header(data, at_least=_SIDE, bits=bits)
    except ImageError as error:
        return ImageStats(digest, error.reason, str(error))
    large = max(pixels.shape[:2]) >= _SIDE
    pixels = shrunk(pixels, _SIDE)
    red, green, blue = cv2.split(pixels)
    brightest = cv2.max(cv2.max(red, green), blue)
    lit = (brightest > DARK).astype(np.uint8)
    fault, detail = _too_dark_to_see(brightest)
    return ImageStats(
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


def _too_dark_to_see(brightest: np.ndarray) -> tuple[str, str]:
    counts = cv2.calcHist([brightest], [0], None, [256], [0, 256]).ravel()
    level = int(np.searchsorted(counts.cumsum(), 0.99 * brightest.size))
    if level >= NEARLY_BLACK:
        return "", ""
    return "nearly_black", f"99 % of the pixels are below {level + 1} of 255"


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


def measure(records: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Measure each image: what differs between cameras and sittings before any disease does.

    Args:
        records: as every reader gives them.
        store: where their images are.

    Returns:
        The records' ``image`` with ``width`` and ``height`` (pixels, as stored), ``brightness`` (mean of the lit
        region's pixels, 0..255), ``red``, ``green``, ``blue`` (the same by channel) and ``sharpness`` (variance of the
        Laplacian of the green channel at about 512 px; Pech-Pacheco et al., ICPR 2000, p. 314). Missing values
        where an image is absent or cannot be read.
    """
    columns = ["width", "height", "brightness", "red", "green", "blue", "sharpness"]
    values = list(each(partial(_measured, store), list(records["image"]), title="measuring"))
    return pd.DataFrame(values, columns=columns, index=records.index).assign(image=records["image"])[
        ["image", *columns]
    ]


def _measured(store: Store, name: str) -> tuple[float, ...]:
    try:
        data = store.read(name) if name in store else b""
        header = read_header(data)
        pixels = decode(data, at_least=512)
    except ImageError:
        return (np.nan,) * 7
    scale = 512 / max(pixels.shape[:2])
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    lit = pixels.max(axis=2) > DARK
    colour = pixels[lit].mean(axis=0) if lit.any() else np.zeros(3)
    inside = cv2.erode(lit.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    edges = cv2.Laplacian(pixels[:, :, 1], cv2.CV_32F)
    sharpness = float(edges[inside].var()) if inside.any() else 0.0
    return (header.width, header.height, float(colour.mean()), *map(float, colour), sharpness)


FEWEST = 20
"""Images that make a set to compare with; a smaller one has no usual."""
FAR = 2.5
"""Standard deviations, reckoned from the median absolute deviation, from which on a value is an outlier (Leys et al.,
Journal of Experimental Social Psychology 49(4), 2013, p. 764)."""
DARK_SHARE = 0.4
"""Of the set's median brightness: a darker image is called dark. The darkest sound photographs of the real sets have
0.47 (fundus), 0.53 (dermoscopy) and 0.67 (chest X-rays)."""
WHITE_SHARE = 0.5
"""Of the pixels that are overexposed. Not where a quarter is usual: drawings and scans on white paper are."""
BLURRED_SHARE = 1 / 3
"""Of the set's median ratio of fine to coarse detail: an image with less is called blurred. Gaussian blur of 0.8 % of
the image's width leaves about 0.3; the softest images of the real sets that are in focus have 0.41 (fundus), 0.46
(dermoscopy) and 0.58 (chest X-rays)."""
RARE_SHARE = 0.01
"""Of the set that may share an odd size: 1 image in 100."""
RARE_CHANNELS = 0.05
"""Of the set that may share odd channels, while four images in five share others."""


def outliers(names: Sequence[str], stats: Sequence[ImageStats]) -> list[tuple[str, str, str]]:
    """Find images that stand out of their set.

    Args:
        names: of the images that could be decoded and are not nearly black.
        stats: what ``image_stats`` says of them, in the same order.

    Returns:
        Image, finding and detail: ``too_dark``, ``too_bright``, ``blurred``, ``odd_size`` and ``odd_channels``. None
        for fewer than 20 images.
    """
    if len(names) < FEWEST:
        return []
    brightness = np.array([one.brightness for one in stats])
    white = np.array([one.white for one in stats])
    sharpness = np.array([one.sharpness for one in stats])
    found = []
    usual, lower = _below(np.log(brightness + 1))
    for at in np.flatnonzero(lower & (brightness + 1 < DARK_SHARE * np.exp(usual))):
        detail = f"its lit part has a mean of {brightness[at]:.0f} of 255, where {np.exp(usual) - 1:.0f} is usual"
        found.append((names[at], "too_dark", detail))
    if np.median(white) < WHITE_SHARE / 2:
        for at in np.flatnonzero(white > WHITE_SHARE):
            found.append((names[at], "too_bright", f"{white[at]:.0%} of its pixels are white, nothing is seen there"))
    if np.isfinite(sharpness).sum() >= FEWEST:
        usual, lower = _below(sharpness)
        for at in np.flatnonzero(lower & (sharpness < usual + np.log(BLURRED_SHARE))):
            share = np.exp(sharpness[at] - usual)
            found.append((names[at], "blurred", f"against coarse detail it has {share:.0%} of the usual fine detail"))
    return found + _odd_sizes(names, stats) + _odd_channels(names, stats)


def _below(values: np.ndarray) -> tuple[float, np.ndarray]:
    """The median, and which values lie far below it; missing ones do not."""
    middle = float(np.nanmedian(values))
    spread = 1.4826 * float(np.nanmedian(np.abs(values - middle)))
    return middle, values < middle - FAR * spread


def _odd_sizes(names: Sequence[str], stats: Sequence[ImageStats]) -> list[tuple[str, str, str]]:
    """Those whose shape or size hardly any other has.

    Shapes count as the same within a tenth of the sides' ratio, upright or lying; sizes within a factor 1.5 of the
    longer side.
    """
    sides = np.array([(one.width, one.height) for one in stats], dtype=float)
    usual = " x ".join(f"{side:.0f}" for side in np.median(sides, axis=0))
    longer, shorter = sides.max(axis=1), sides.min(axis=1)
    allowed = int(RARE_SHARE * len(names))
    found: dict[str, tuple[str, str, str]] = {}
    for values, within, what in ((longer / shorter, 1.1, "shape"), (longer, 1.5, "size")):
        for at in np.flatnonzero(_neighbours(np.log(values), np.log(within)) <= allowed):
            mine = f"{stats[at].width} x {stats[at].height} pixels"
            detail = f"{mine}, a {what} that hardly any other has (usual: {usual})"
            found.setdefault(names[at], (names[at], "odd_size", detail))
    return list(found.values())


def _neighbours(values: np.ndarray, within: float) -> np.ndarray:
    """How many others each value has at most so far away: int (N,)."""
    ordered = np.sort(values)
    last = np.searchsorted(ordered, values + within + 1e-9, side="right")
    return last - np.searchsorted(ordered, values - within - 1e-9, side="left") - 1


def _odd_channels(names: Sequence[str], stats: Sequence[ImageStats]) -> list[tuple[str, str, str]]:
    kinds, codes, counts = np.unique([one.channels for one in stats], return_inverse=True, return_counts=True)
    usual = int(counts.argmax())
    if counts[usual] < 0.8 * len(names):
        return []
    return [
        (names[at], "odd_channels", f"{kinds[codes[at]]}, where {counts[usual]} of {len(names)} are {kinds[usual]}")
        for at in np.flatnonzero(counts[codes] <= RARE_CHANNELS * len(names))
    ]
