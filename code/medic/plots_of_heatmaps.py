"""Heatmaps over the pictures they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from medic.plots import image_grid

if TYPE_CHECKING:
    from medic.deployment.heatmap import Explanation


def over(pixels: np.ndarray, heatmap: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """A picture with a heatmap over it: Viridis, transparent where there is little evidence.

    Args:
        pixels: uint8 (S, S, 3) RGB.
        heatmap: float32 (h, w) in 0..1, of the same square.
        opacity: of the strongest place, 0 to 1.

    Returns:
        uint8 (S, S, 3) RGB.
    """
    fine = np.clip(cv2.resize(heatmap, pixels.shape[1::-1], interpolation=cv2.INTER_CUBIC), 0, 1)[:, :, None]
    colours = 255 * mpl.colormaps["viridis"](fine[:, :, 0])[:, :, :3]
    return (pixels + opacity * fine * (colours - pixels)).round().astype(np.uint8)


def heatmaps(explanations: Sequence[Explanation]) -> Figure:
    """Pictures with what was decided above, the same with their heatmaps below; grey where a network has none."""
    names = [one.prediction.task.classes[int(one.prediction.decided[0])] for one in explanations]
    covered = [
        np.full_like(one.pixels, 200) if one.heatmap is None else over(one.pixels, one.heatmap) for one in explanations
    ]
    captions = ["no heatmap from this network" if one.of is None else f"for {one.of}" for one in explanations]
    pictures = [*(one.pixels for one in explanations), *covered]
    return image_grid(pictures, [*names, *captions], columns=len(explanations))
