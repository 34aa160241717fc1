"""Finding the retina, and the square around it."""

import numpy as np
import pytest

from medic.data.images.crop import find_disc, fundus, square

SHAPES = {
    "whole": (640, 480, 320, 240, 220),
    "cut above and below": (640, 480, 320, 240, 300),
    "off centre": (640, 480, 230, 260, 200),
    "cut at one side": (640, 480, 180, 240, 215),
    "small": (800, 600, 500, 200, 110),
    "large": (1500, 1000, 760, 495, 575),
    "tiny frame": (96, 64, 48, 32, 29),
}


@pytest.mark.parametrize(("name", "disturbed"), [*((name, False) for name in SHAPES), ("whole", True)])
def test_the_disc_is_found_and_cut_within_two_per_cent_of_its_radius(name, disturbed, photograph):
    _, _, x, y, radius = SHAPES[name]
    pixels = photograph(*SHAPES[name])
    if disturbed:  # light in the dark surround, and the notch that cameras cut into the edge
        pixels[np.random.default_rng(0).random(pixels.shape[:2]) < 0.002] = 200
        pixels[60:100, 470:520] = 180
    disc, cut = find_disc(pixels), fundus(pixels)
    assert (disc.radius, len(cut) / 2) == pytest.approx((radius, radius), rel=0.02)
    assert np.hypot(disc.x - x, disc.y - y) < 0.02 * radius
    assert cut.shape == (len(cut), len(cut), 3)


def test_all_channels_are_cut_at_the_same_place_though_one_is_dark(photograph):
    pixels = photograph(*SHAPES["off centre"], colour=(180, 80, 6))
    left, top, side = find_disc(pixels).square
    cut = fundus(pixels)
    inside = pixels[max(0, top) : top + side, max(0, left) : left + side]
    above, before = max(0, -top), max(0, -left)
    assert inside[:, :, 2].any()
    assert np.array_equal(cut[above : above + inside.shape[0], before : before + inside.shape[1]], inside)


def test_a_photograph_without_a_retina_is_kept_whole():
    noise = np.random.default_rng(0).integers(0, 9, (480, 640, 3), dtype=np.uint8)
    speck = np.zeros((480, 640, 3), np.uint8)
    speck[100:150, 100:150] = 200
    for pixels in (noise, speck):
        assert find_disc(pixels) is None
        assert np.array_equal(fundus(pixels)[80:560], pixels)


@pytest.mark.parametrize("size", [(3, 2000), (1, 1000), (1000, 1), (1, 1), (10, 30)], ids=str)
def test_odd_shapes_still_give_a_square_with_the_image_in_the_middle(size):
    pixels, side = np.full((*size, 3), 120, np.uint8), max(size)
    assert fundus(pixels).shape[0] == fundus(pixels).shape[1]
    top, left = ((side - length) // 2 for length in size)
    assert np.array_equal(square(pixels)[top : top + size[0], left : left + size[1]], pixels)
    assert square(pixels).sum() == pixels.sum(dtype=int)
