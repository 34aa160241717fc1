"""The drawn samples: which set can be written, and at which size it is drawn to learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medic.sample import chest_set, digits, fundus_set, lesion_set


@dataclass(frozen=True)
class Sample:
    """The sample of one data set.

    Attributes:
        write: writes the sample that the repository holds, ``write(folder, patients=, seed=, hospital=, masks=)``; for
            the digits, which are real and whose number is given, ``write(folder)``.
        draw: writes generated images to pretrain on, ``draw(folder, patients, seed, side)`` with ``side`` the pixels
            across their subject; None where none can be drawn.
    """

    write: Callable[..., pd.DataFrame | None]
    draw: Callable[[Path, int, int, int], object] | None = None


def _draw_fundi(folder: Path, patients: int, seed: int, side: int) -> None:
    # The retina is about five eighths of the frame wide.
    fundus_set.write_sample(folder, patients=patients, seed=seed, width=side * 8 // 5, height=side * 6 // 5)


def _draw_radiographs(folder: Path, patients: int, seed: int, side: int) -> None:
    chest_set.write_sample(folder, patients=patients, seed=seed, size=side)


def _draw_lesions(folder: Path, patients: int, seed: int, side: int) -> None:
    # A dermoscope's picture is padded to a square, so that its width is what counts.
    lesion_set.write_sample(folder, patients=patients, seed=seed, width=side, height=side * 3 // 4)


SAMPLES = {
    "retinopathy": Sample(fundus_set.write_sample, _draw_fundi),
    "chest_xray": Sample(chest_set.write_sample, _draw_radiographs),
    "digits": Sample(digits.write_sample),
    "skin_lesion": Sample(lesion_set.write_sample, _draw_lesions),
}
"""Samples by the name of their data set (``medic.data.readers.DATA_SETS``)."""
