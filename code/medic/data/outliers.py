"""Images unlike nearly all others of their set: dark, bright, blurred, of another size, with other channels.

What is dark for one camera is usual for another, and a radiograph has less detail than a lesion of the skin. So each
image is compared with its own set. A distance in median absolute deviations alone would always find somebody, in a set
as even as you like; so each finding also needs a difference that a person sees.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medic.data.appearance import Appearance

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
the image's width leaves about 0.3; the softest images of the real sets that are in focus have 0.45 (fundus), 0.35
(dermoscopy, with a black bar above and below) and 0.50 (chest X-rays)."""
RARE_SHARE = 0.01
"""Of the set that may share an odd size: 1 image in 100."""
RARE_CHANNELS = 0.05
"""Of the set that may share odd channels, while four images in five share others."""


def outliers(names: Sequence[str], looks: Sequence[Appearance]) -> list[tuple[str, str, str]]:
    """Find images that stand out of their set.

    Args:
        names: of the images that could be decoded and are not nearly black.
        looks: what they look like, in the same order.

    Returns:
        Image, finding and detail: ``too_dark``, ``too_bright``, ``blurred``, ``odd_size`` and ``odd_channels``. None
        for fewer than 20 images.
    """
    if len(names) < FEWEST:
        return []
    brightness = np.array([look.brightness for look in looks])
    white = np.array([look.white for look in looks])
    sharpness = np.array([look.sharpness for look in looks])
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
    return found + _odd_sizes(names, looks) + _odd_channels(names, looks)


def _below(values: np.ndarray) -> tuple[float, np.ndarray]:
    """The median, and which values lie far below it; missing ones do not."""
    middle = float(np.nanmedian(values))
    spread = 1.4826 * float(np.nanmedian(np.abs(values - middle)))
    return middle, values < middle - FAR * spread


def _odd_sizes(names: Sequence[str], looks: Sequence[Appearance]) -> list[tuple[str, str, str]]:
    """Those whose shape or size hardly any other has.

    Shapes count as the same within a tenth of the sides' ratio, upright or lying; sizes within a factor 1.5 of the
    longer side.
    """
    sides = np.array([(look.width, look.height) for look in looks], dtype=float)
    usual = " x ".join(f"{side:.0f}" for side in np.median(sides, axis=0))
    longer, shorter = sides.max(axis=1), sides.min(axis=1)
    allowed = int(RARE_SHARE * len(names))
    found: dict[str, tuple[str, str, str]] = {}
    for values, within, what in ((longer / shorter, 1.1, "shape"), (longer, 1.5, "size")):
        for at in np.flatnonzero(_neighbours(np.log(values), np.log(within)) <= allowed):
            mine = f"{looks[at].width} x {looks[at].height} pixels"
            detail = f"{mine}, a {what} that hardly any other has (usual: {usual})"
            found.setdefault(names[at], (names[at], "odd_size", detail))
    return list(found.values())


def _neighbours(values: np.ndarray, within: float) -> np.ndarray:
    """How many others each value has at most so far away: int (N,)."""
    ordered = np.sort(values)
    last = np.searchsorted(ordered, values + within + 1e-9, side="right")
    return last - np.searchsorted(ordered, values - within - 1e-9, side="left") - 1


def _odd_channels(names: Sequence[str], looks: Sequence[Appearance]) -> list[tuple[str, str, str]]:
    kinds, codes, counts = np.unique([look.channels for look in looks], return_inverse=True, return_counts=True)
    usual = int(counts.argmax())
    if counts[usual] < 0.8 * len(names):
        return []
    return [
        (names[at], "odd_channels", f"{kinds[codes[at]]}, where {counts[usual]} of {len(names)} are {kinds[usual]}")
        for at in np.flatnonzero(counts[codes] <= RARE_CHANNELS * len(names))
    ]
