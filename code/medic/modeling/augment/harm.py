"""How often an augmentation takes away what a lesion is judged by: its colour, or the lesion itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import torch

from medic.data.images.crop import DARK
from medic.errors import MedicError
from medic.modeling.augment.torchvision import Transforms, drawing_from

BROWN = (-10.0, 45.0)
"""Hues of red, brown and tan, in degrees of the colour circle."""

WHOLE = 0.95
"""Share of a lesion that has to be in view."""


def lesion_mask(pixels: np.ndarray) -> np.ndarray:
    """Where the lesion is, roughly: what is darker than the skin around it, in the middle of the picture.

    The threshold is Otsu's (IEEE Trans. Syst. Man Cybern. 9(1), 1979, p. 62) over the middle half; the black surround
    has no part in it. Good enough to count how often something is lost, not to measure a lesion.

    Args:
        pixels: uint8 (S, S, 3) RGB.

    Returns:
        bool (S, S).
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    side = len(grey)
    middle = slice(side // 4, side - side // 4)
    seen = grey[middle, middle]
    lit = seen[seen >= DARK]
    mask = np.zeros(grey.shape, bool)
    if lit.size:
        limit, _ = cv2.threshold(lit[None], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        mask[middle, middle] = (seen >= DARK) & (seen <= limit)
    return mask


def hue_of_lesion(pixels: np.ndarray, mask: np.ndarray) -> float:
    """The hue of a lesion's mean colour, in degrees of the colour circle.

    Args:
        pixels: uint8 (S, S, 3) RGB.
        mask: bool (S, S), as ``lesion_mask`` gives it of the image before its colours were changed.

    Returns:
        From -180 to 180: 0 is red, 20 to 30 brown, 120 green, -120 blue. NaN for an empty mask.
    """
    if not mask.any():
        return float("nan")
    colour = np.float32(pixels[mask].mean(axis=0) / 255)
    hue = cv2.cvtColor(colour[None, None], cv2.COLOR_RGB2HSV)[0, 0, 0]
    return float((hue + 180) % 360 - 180)


def share_in_view(mask: np.ndarray, window: dict[str, int]) -> float:
    """How much of a lesion a crop leaves, 0..1; NaN for an empty mask.

    Args:
        mask: bool (S, S).
        window: what is cut out: ``top``, ``left``, ``height``, ``width`` in pixels, as
            ``v2.RandomResizedCrop.make_params`` draws it.
    """
    top, left = window["top"], window["left"]
    inside = mask[top : top + window["height"], left : left + window["width"]]
    return float(inside.sum() / mask.sum()) if mask.any() else float("nan")


def losses(images: Sequence[np.ndarray], settings: Mapping[str, Transforms], seed: int = 0) -> pd.DataFrame:
    """Count what augmentations take away, over one epoch of images.

    Args:
        images: uint8 (S, S, 3) RGB each, all of one size.
        settings: the augmentations to compare, by a caption.
        seed: of what is drawn.

    Returns:
        One row an augmentation, shares 0..1 of the images in which a lesion was found: ``no longer brown`` (its mean
        hue lies outside ``BROWN``, as that of some does from the start: see the row ``as prepared``) and ``cut off``
        (the crop takes more than a twentieth of the lesion).

    Raises:
        MedicError: no lesion was found in any image.
    """
    found = [(pixels, mask) for pixels in images if (mask := lesion_mask(pixels)).any()]
    if not found:
        raise MedicError(f"no lesion was found in {len(images)} images; give prepared images of skin lesions")
    rows = {"as prepared": (_not_brown([hue_of_lesion(*one) for one in found]), 0.0)}
    for caption, transforms in settings.items():
        colours = replace(transforms, crop=1, stretch=0, flip=False, hairs=0, rotate=0, blur=0)
        hues, kept = [], []
        for number, (pixels, mask) in enumerate(found):
            side, random = len(pixels), np.random.default_rng([seed, number])
            hues.append(hue_of_lesion(colours.apply(pixels, side, random), mask))
            crop = transforms.pipeline(side).steps[0]
            with drawing_from(random):
                kept.append(share_in_view(mask, crop.make_params([torch.empty(3, side, side)])))
        rows[caption] = _not_brown(hues), float(np.mean(np.array(kept) < WHOLE))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["no longer brown", "cut off"])


def _not_brown(hues: Sequence[float]) -> float:
    return float(np.mean((np.array(hues) < BROWN[0]) | (np.array(hues) > BROWN[1])))
