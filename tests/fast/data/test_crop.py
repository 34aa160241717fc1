"""Finding the retina, and the square around it."""

import numpy as np
import pytest

from medic.data.images.crop import find_disc, fundus, square

WHOLE = (640, 480, 320, 240, 220)
CUT_ABOVE_AND_BELOW = (640, 480, 320, 240, 300)
OFF_CENTRE = (640, 480, 230, 260, 200)
CUT_AT_ONE_SIDE = (640, 480, 180, 240, 215)
SMALL = (800, 600, 500, 200, 110)
LARGE = (1500, 1000, 760, 495, 575)
TINY_FRAME = (96, 64, 48, 32, 29)


@pytest.mark.parametrize(
    "shape", [WHOLE, CUT_ABOVE_AND_BELOW, OFF_CENTRE, CUT_AT_ONE_SIDE, SMALL, LARGE, TINY_FRAME], ids=str
)
def test_the_disc_is_found_within_two_per_cent_of_its_radius(shape, photograph):
    _, _, x, y, radius = shape
    disc = find_disc(photograph(*shape))
    assert disc.radius == pytest.approx(radius, rel=0.02)
    assert np.hypot(disc.x - x, disc.y - y) < 0.02 * radius


def test_noise_in_the_dark_surround_and_a_notch_do_not_move_the_disc(photograph):
    pixels = photograph(*WHOLE, noise=5)
    scattered = np.random.default_rng(0).random(pixels.shape[:2]) < 0.002
    pixels[scattered] = 200
    pixels[60:100, 470:520] = 180  # the notch that cameras cut into the edge
    disc = find_disc(pixels)
    assert disc.radius == pytest.approx(220, rel=0.02)
    assert np.hypot(disc.x - 320, disc.y - 240) < 0.02 * 220


def test_a_black_photograph_has_no_disc_and_is_kept_whole(photograph):
    black = np.random.default_rng(0).integers(0, 9, (480, 640, 3), dtype=np.uint8)
    assert find_disc(black) is None
    assert find_disc(np.zeros((480, 640, 3), np.uint8)) is None
    kept = fundus(black)
    assert kept.shape == (640, 640, 3)
    assert np.array_equal(kept[80:560], black)


def test_a_speck_of_light_is_no_retina():
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[100:150, 100:150] = 200
    assert find_disc(pixels) is None


def test_all_channels_are_cut_at_the_same_place_though_one_is_dark(photograph):
    pixels = photograph(*OFF_CENTRE, colour=(180, 80, 6))
    disc = find_disc(pixels)
    left, top = round(disc.x - disc.radius), round(disc.y - disc.radius)
    cut = fundus(pixels)
    inside = pixels[max(0, top) : top + len(cut), max(0, left) : left + len(cut)]
    above, before = max(0, -top), max(0, -left)
    assert inside[:, :, 2].any()
    assert np.array_equal(cut[above : above + inside.shape[0], before : before + inside.shape[1]], inside)
    # the dark channel by itself would have given no square, or another one
    alone = find_disc(np.repeat(pixels[:, :, 2:], 3, axis=2))
    assert alone is None or alone.radius < 0.9 * disc.radius


@pytest.mark.parametrize("shape", [WHOLE, CUT_ABOVE_AND_BELOW, OFF_CENTRE, SMALL], ids=str)
def test_the_cut_is_a_square_as_wide_as_the_disc(shape, photograph):
    cut = fundus(photograph(*shape))
    assert cut.shape[0] == cut.shape[1]
    assert cut.shape[0] == pytest.approx(2 * shape[4], rel=0.02)
    assert cut.dtype == np.uint8


def test_what_the_camera_cut_off_comes_out_black_and_the_disc_stays_round(photograph):
    cut = fundus(photograph(*CUT_ABOVE_AND_BELOW))
    missing = (len(cut) - 480) // 2
    assert not cut[: missing - 8].any()
    assert not cut[len(cut) - missing + 8 :].any()
    assert cut[len(cut) // 2, len(cut) // 2].max() > 100


@pytest.mark.parametrize("size", [(3, 2000), (1, 1000), (1000, 1), (1, 1), (2, 3)])
def test_odd_shapes_still_give_a_square(size):
    cut = fundus(np.full((*size, 3), 120, np.uint8))
    assert cut.shape[0] == cut.shape[1]


def test_padding_to_a_square_keeps_the_image_in_the_middle():
    pixels = np.full((10, 30, 3), 7, np.uint8)
    padded = square(pixels)
    assert padded.shape == (30, 30, 3)
    assert np.array_equal(padded[10:20], pixels)
    assert padded.sum() == pixels.sum()
