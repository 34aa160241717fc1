"""The same picture under two names is found by what it shows; pictures that only look alike are not."""

import io

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medic.data.check.duplicates import TURNS, connected, near_duplicates
from medic.data.check.images import fingerprint


def drawn_retina(seed: int) -> np.ndarray:
    """A disc with vessels and spots of its own."""
    random = np.random.default_rng(seed)
    pixels = np.zeros((240, 320, 3), np.uint8)
    cv2.circle(pixels, (160, 120), 110, (170, 90, 40), -1)
    for _ in range(9):
        points = np.cumsum(random.normal(0, 14, (12, 2)), axis=0) + random.uniform(90, 170, 2)
        cv2.polylines(pixels, [points.astype(np.int32)], False, (110, 40, 20), 3)
    for x, y in random.uniform(60, 220, (12, 2)).astype(int):
        cv2.circle(pixels, (int(x), int(y)), 4, (220, 190, 90), -1)
    return (cv2.GaussianBlur(pixels, (0, 0), 1.0) + random.normal(0, 3, pixels.shape)).clip(0, 255).astype(np.uint8)


PICTURES = [drawn_retina(seed) for seed in range(20)]
PRINTS = [fingerprint(pixels) for pixels in PICTURES]


def as_jpeg(pixels: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file))


CHANGES = {
    "saved as JPEG of low quality": as_jpeg,
    "half the size": lambda pixels: cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "another shape": lambda pixels: cv2.resize(pixels, (256, 256), interpolation=cv2.INTER_AREA),
    "brighter": lambda pixels: (255 * (pixels / 255.0) ** 0.7).astype(np.uint8),
    "other colours": lambda pixels: (pixels * [0.8, 1, 1.2]).clip(0, 255).astype(np.uint8),
    "mirrored left to right": lambda pixels: pixels[:, ::-1],
    "mirrored top to bottom": lambda pixels: pixels[::-1],
    "turned by 180 degrees": lambda pixels: pixels[::-1, ::-1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(change):
    copy = fingerprint(np.ascontiguousarray(CHANGES[change](PICTURES[4])))
    (pair,) = near_duplicates(np.stack([*PRINTS, copy])).itertuples()
    assert (pair.one, pair.other, pair.turn) == (4, len(PRINTS), change if change in TURNS else "")
    assert 0.9 <= pair.correlation <= 1
    assert len(near_duplicates(np.stack([PRINTS[4], copy]))) == 1, "in a set of two as well"


@pytest.mark.parametrize("count", [1, 2, 20])
def test_pictures_of_one_kind_are_not_one_picture(count):
    assert near_duplicates(np.stack(PRINTS[:count])).empty


def test_three_copies_are_three_pairs_and_one_group_wherever_they_lie():
    noise = np.random.default_rng(1).integers(-90, 90, (600, 64, 64), dtype=np.int8)
    noise[[3, 258, 599]] = PRINTS[0]
    pairs = near_duplicates(noise)[["one", "other"]].to_numpy()
    assert sorted(pairs.tolist()) == [[3, 258], [3, 599], [258, 599]]
    assert pd.Series(connected(600, pairs[:2])).value_counts().head(2).tolist() == [3, 1]


def test_what_shows_nothing_has_no_fingerprint():
    assert fingerprint(np.full((240, 320, 3), 90, np.uint8)) is None
    assert fingerprint(cv2.resize(PICTURES[0], (28, 28))) is None
