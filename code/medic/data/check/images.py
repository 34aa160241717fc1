"""What an image is like, from one decoding: readable or not, how bright, how sharp, which channels, which picture."""

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from medic.data.images.crop import DARK
from medic.data.images.decode import decode, read_header, shrunk
from medic.data.parallel import each
from medic.data.prepare import bits_of_set
from medic.data.stores import Store
from medic.errors import ImageError

# Values are of 255. The shares lie below those of every sound image in the real sets (fundus, skin, chest).
NEARLY_BLACK = 40  # of the brightest hundredth of the pixels: an image below it shows nothing that could be judged
WHITE, WHITE_SHARE = 250, 0.5  # of all channels of a pixel that is overexposed, and of the pixels that may be
DARK_SHARE = 0.4  # of the set's median brightness; the darkest sound images have 0.47
BLURRED_SHARE = 1 / 3
"""Of the set's median ratio of fine to coarse detail; the softest sound images have 0.41, blurred ones about 0.3."""
RARE_SHARE, RARE_CHANNELS = 0.01, 0.05
"""Of the set that may share an odd size, or odd channels while four images in five share others."""
FAR = 2.5
"""Standard deviations, by the median absolute deviation (Leys et al., J. Exp. Soc. Psychol. 49(4), 2013, p. 764)."""
FEWEST = 20  # images that make a set to compare with; a smaller one has no usual

_SIDE = 192
_COLOURLESS = 6
_STORED = {"1": "grey", "L": "grey", "LA": "grey with transparency", "P": "palette"}
_SAID = {
    "too_dark": "its lit part has a mean of {0.brightness:.0f} of 255, where {0.light:.0f} is usual",
    "too_bright": "{0.white:.0%} of its pixels are white, nothing is seen there",
    "blurred": "against coarse detail it has {0.share:.0%} of the usual fine detail",
    "odd_size": "{0.width:.0f} x {0.height:.0f} pixels, a size that hardly any other has (usual: {0.size})",
    "odd_channels": "{0.channels}, where {0.most}",
}
_STEPS = 31  # of int8 for one local standard deviation: four of them fit
_SMALLEST = 48  # pixels: smaller images, such as digits at 28 pixels, look alike by chance


class ImageStats(NamedTuple):
    """One image as the check sees it; all below ``detail`` is known of a decoded image only."""

    digest: bytes  # SHA-256 of the file; empty where it could not be read
    fault: str = ""  # what is wrong with it by itself, such as ``truncated``
    detail: str = ""  # the same in a sentence
    width: float = np.nan  # pixels, as stored
    height: float = np.nan
    channels: str = ""  # how the file holds them and whether it shows colour, such as ``RGB (all grey)``
    brightness: float = np.nan  # mean of the lit pixels over the channels, 0..255
    white: float = np.nan  # share of the pixels that are overexposed, 0..1
    sharpness: float = np.nan  # log of fine over coarse detail, of the lit part at 192 pixels; NaN for smaller images
    fingerprint: np.ndarray | None = None


def stats_of_set(
    store: Store, names: Sequence[str], *, title: str, scheduler: str | None = None
) -> tuple[pd.DataFrame, int | None]:
    """Return ``image`` and ``ImageStats`` by row, and how many of 16 bits the set uses where it is not all of them."""
    bits = bits_of_set(store, names, scheduler)
    rows = list(each(partial(_stats, store, bits=bits), names, title=title, scheduler=scheduler))
    return pd.DataFrame(rows, columns=ImageStats._fields).assign(image=list(names)), bits


def measure(records: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Measure each image: what differs between cameras and sittings before any disease does.

    Returns:
        The records' ``image`` with ``width`` and ``height`` (pixels, as stored), ``brightness`` (mean of the lit
        pixels, 0..255), ``white`` (share of overexposed pixels, 0..1) and ``sharpness`` (log of fine over coarse
        detail, of the lit part at 192 pixels). Missing where an image is absent, unreadable or too small.
    """
    stats, _ = stats_of_set(store, records["image"].tolist(), title="measuring")
    return stats[["image", "width", "height", "brightness", "white", "sharpness"]].set_axis(records.index)


def _stats(store: Store, name: str, bits: int | None) -> ImageStats:
    digest = b""
    try:
        data = store.read(name)
        digest = hashlib.sha256(data).digest()
        header, pixels = read_header(data), decode(data, at_least=_SIDE, bits=bits)
    except ImageError as error:
        return ImageStats(digest, error.reason, str(error))
    large = max(pixels.shape[:2]) >= _SIDE
    pixels = shrunk(pixels, _SIDE)
    brightest = pixels.max(axis=2)
    lit = (brightest > DARK).astype(np.uint8)
    level = int(np.quantile(brightest, 0.99))
    black = level < NEARLY_BLACK
    stored = "grey" if header.mode.startswith("I") else _STORED.get(header.mode, header.mode)
    # On means of many pixels: JPEG's coarse colours are not to count.
    small = cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA).astype(int)
    colourless = np.abs(small - small[:, :, 1:2]).max() <= _COLOURLESS
    return ImageStats(
        digest=digest,
        fault="nearly_black" if black else "",
        detail=f"99 % of the pixels are below {level + 1} of 255" if black else "",
        width=header.width,
        height=header.height,
        channels=f"{stored} (all grey)" if colourless and not stored.startswith("grey") else stored,
        brightness=float(np.mean(cv2.mean(pixels, mask=lit)[:3])),
        white=float((pixels.min(axis=2) >= WHITE).mean()),
        sharpness=_sharpness(pixels[:, :, 1], lit) if large else np.nan,
        fingerprint=None if black else fingerprint(pixels),
    )


def _sharpness(green: np.ndarray, lit: np.ndarray) -> float:
    """The first against the third step of a Laplacian pyramid (Burt and Adelson, IEEE Trans. Commun. 31(4), 1983)."""
    # The rim of the lit part is sharp in any photograph, in focus or not.
    inside = cv2.erode(lit, np.ones((9, 9), np.uint8))
    level, deviations = green.astype(np.float32), []
    for _ in range(3):
        coarser = cv2.pyrDown(level)
        detail = level - cv2.pyrUp(coarser, dstsize=level.shape[::-1])
        deviations.append(float(cv2.meanStdDev(detail, mask=inside)[1][0, 0]) + 0.05)
        level, inside = coarser, cv2.resize(inside, coarser.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return float(np.log(deviations[0] / deviations[2]))


def fingerprint(pixels: np.ndarray) -> np.ndarray | None:
    """Return what an image shows, freed from brightness, contrast, size and shading.

    Each pixel counts by how far it is from its surroundings' mean, in their standard deviations (local contrast
    normalisation; Jarrett et al., ICCV 2009, p. 2146): the rim that all fundus photographs share weighs no more than
    their vessels.

    Args:
        pixels: uint8 (H, W, 3) RGB.

    Returns:
        int8 (64, 64), 31 to a standard deviation; None for an image too small or too plain to be told from others.
    """
    if max(pixels.shape[:2]) < _SMALLEST:
        return None
    detail = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA)
    detail = detail - cv2.GaussianBlur(detail.astype(np.float32), (0, 0), 4)
    # Two grey levels more than the surroundings' deviation, or the noise of black areas would count as a picture.
    detail /= np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 4)) + 2
    steps = np.rint(np.clip(detail * _STEPS, -127, 127)).astype(np.int8)
    return steps if steps.std() > 0.15 * _STEPS else None


def outliers(stats: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Find sound images that stand out of 20 sound ones or more: image, finding and detail.

    Shapes count as the same within a tenth of the sides' ratio, upright or lying; sizes within a factor 1.5.
    """
    table = stats[stats["fault"] == ""]
    if len(table) < FEWEST:
        return []
    middle, channels = table.median(numeric_only=True), table["channels"].value_counts()
    longer, shorter = table[["width", "height"]].max(axis=1), table[["width", "height"]].min(axis=1)
    table = table.assign(
        share=np.exp(table["sharpness"] - middle["sharpness"]),
        light=middle["brightness"],
        size=f"{middle['width']:.0f} x {middle['height']:.0f}",
        most=f"{channels.iloc[0]} of {len(table)} are {channels.index[0]}",
    )
    rare = table["channels"].map(channels) <= RARE_CHANNELS * len(table)
    found = {
        "too_dark": _far_below(np.log1p(table["brightness"]), DARK_SHARE),
        # Not where white is usual: drawings and scans on white paper.
        "too_bright": (table["white"] > WHITE_SHARE) & (middle["white"] < WHITE_SHARE / 2),
        "blurred": _far_below(table["sharpness"], BLURRED_SHARE),
        "odd_size": _rare(longer / shorter, 1.1) | _rare(longer, 1.5),
        "odd_channels": rare & (channels.iloc[0] >= 0.8 * len(table)),
    }
    return [(one.image, name, _SAID[name].format(one)) for name in found for one in table[found[name]].itertuples()]


def _far_below(logarithms: pd.Series, share: float) -> pd.Series:
    """Whether values are outliers, and less than a share of the median; missing ones are not."""
    spread = 1.4826 * (logarithms - logarithms.median()).abs().median()
    return logarithms < logarithms.median() - max(FAR * spread, -np.log(share))


def _rare(values: pd.Series, within: float) -> pd.Series:
    """Whether hardly any other value lies within a factor."""
    ordered = np.sort(values)
    near = np.searchsorted(ordered, values * within, side="right") - np.searchsorted(ordered, values / within) - 1
    return pd.Series(near <= RARE_SHARE * len(values), values.index)
