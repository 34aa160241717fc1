"""The published augmentation: each transformation does what it says, and the seed decides all of it."""

import cv2
import numpy as np
import pytest

from medic.modeling.augment import Augmentation
from medic.modeling.augment.published import (
    PublishedAugmentation,
    crop,
    elastic,
    equalise,
    rotate,
    shift_colour,
)


@pytest.fixture(scope="module")
def smooth() -> np.ndarray:
    y, x = np.mgrid[0:1:128j, 0:1:128j]
    return np.stack([55 + 150 * x, 120 + 60 * np.sin(4 * x + 3 * y), 55 + 150 * y * x], axis=2).astype(np.uint8)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_seed_decides_every_pixel_and_every_seed_gives_another_image(smooth):
    made = [PublishedAugmentation().apply(smooth, 96, generator(seed)) for seed in range(30)]
    assert all(pixels.shape == (96, 96, 3) and pixels.dtype == np.uint8 for pixels in made)
    assert len({pixels.tobytes() for pixels in made}) == 30
    assert all(
        np.array_equal(pixels, PublishedAugmentation().apply(smooth, 96, generator(seed)))
        for seed, pixels in enumerate(made)
    )


@pytest.mark.parametrize("size", [128, 96, 160])
def test_with_probability_nought_only_the_size_changes(size, smooth):
    way = cv2.INTER_AREA if size < 128 else cv2.INTER_LINEAR
    plain = cv2.resize(smooth, (size, size), interpolation=way)
    assert np.array_equal(PublishedAugmentation(probability=0).apply(smooth, size, generator()), plain)


def test_the_image_that_was_given_is_left_as_it_was(smooth):
    before = smooth.copy()
    for seed in range(10):
        PublishedAugmentation(probability=1).apply(smooth, 128, generator(seed))
    assert np.array_equal(smooth, before)


def test_its_settings_tell_it_from_the_lean_augmentation():
    assert PublishedAugmentation().to_dict()["kind"] == "published"
    assert PublishedAugmentation().to_dict() != Augmentation().to_dict()
    assert PublishedAugmentation(blur=3).to_dict() != PublishedAugmentation().to_dict()


def test_a_crop_shows_at_least_its_share_of_the_frame():
    column = np.arange(200, dtype=np.uint8)
    ramp = np.broadcast_to(column[None, :, None], (200, 200, 3)).copy()
    spans = [np.ptp(crop(ramp, generator(seed), 0.75).astype(int)[100, :, 0]) for seed in range(200)]
    assert min(spans) >= 149
    assert max(spans) == 199
    starts = [crop(ramp, generator(seed), 0.75)[100, 0, 0] for seed in range(200)]
    assert min(starts) == 0
    assert max(starts) > 35


def test_without_jitter_and_displacement_the_elastic_map_moves_nothing(smooth):
    assert np.abs(elastic(smooth, generator(), 0, 50, 0).astype(int) - smooth).max() <= 1


def test_the_elastic_map_bends_what_is_straight_and_is_smooth():
    line = np.zeros((160, 160, 3), np.uint8)
    line[79:82] = 255
    weights = np.arange(160)[:, None]

    def centres(pixels: np.ndarray) -> np.ndarray:
        column = pixels[..., 0].astype(float)
        return (weights * column).sum(axis=0) / column.sum(axis=0)

    bent = centres(elastic(line, generator(), strength=500, smoothing=20, jitter=0))
    assert np.ptp(bent) > 1
    assert np.abs(np.diff(bent)).max() < 0.5
    straight = centres(elastic(line, generator(), strength=0, smoothing=20, jitter=10)[:, 20:-20])
    slope = np.polyfit(np.arange(len(straight)), straight, 1)
    assert np.abs(straight - np.polyval(slope, np.arange(len(straight)))).max() < 0.2


def test_the_displacements_are_as_strong_as_if_smoothed_at_full_resolution():
    # The standard deviation of uniform noise on -1..1 after a Gaussian is 1 / sqrt(3) / (2 sigma sqrt(pi)).
    ramp = np.broadcast_to(np.linspace(0, 255, 256, dtype=np.float32)[None, :, None], (256, 256, 3))
    moved = []
    for seed in range(40):
        made = elastic(ramp.copy(), generator(seed), strength=100, smoothing=16, jitter=0)
        moved.append(made[40:-40, 40:-40, 0] - ramp[40:-40, 40:-40, 0])
    assert np.std(moved) == pytest.approx(100 / np.sqrt(3) / (2 * 16 * np.sqrt(np.pi)), rel=0.15)


def test_a_rotation_turns_about_the_centre_and_leaves_black_corners(smooth):
    assert np.array_equal(rotate(smooth, 0), smooth)
    assert np.abs(rotate(smooth, 90).astype(int) - np.rot90(smooth)).max() <= 1
    turned = rotate(smooth, 45)
    assert not turned[:5, :5].any()
    assert np.abs(turned[64, 64].astype(int) - smooth[64, 64]).max() <= 2


def test_colour_shifts_move_hue_saturation_and_value(smooth):
    assert np.abs(shift_colour(smooth, np.zeros(3, int)).astype(int) - smooth).max() <= 4  # what HSV in bytes rounds
    pure = np.full((4, 4, 3), (200, 0, 0), np.uint8)
    assert shift_colour(pure, np.array([60, 0, 0]))[0, 0].tolist() == [0, 200, 0]
    assert shift_colour(pure, np.array([-60, 0, 0]))[0, 0].tolist() == [0, 0, 200]
    assert shift_colour(pure, np.array([0, 0, 10]))[0, 0].tolist() == [210, 0, 0]
    assert shift_colour(pure, np.array([0, -255, 0]))[0, 0].tolist() == [200, 200, 200]


def test_equalisation_spreads_the_lightness_where_it_was_flat(smooth):
    flat = (100 + smooth // 8).astype(np.uint8)
    assert np.ptp(equalise(flat, 4, 8)[..., 1]) > 1.5 * np.ptp(flat[..., 1])


def test_a_flip_goes_either_way_or_both(smooth):
    only = PublishedAugmentation(
        crop=1, elastic=0, jitter=0, rotate=0, hue=0, saturation=0, value=0, clahe=1, brightness=0, contrast=0
    )
    seen = set()
    for seed in range(60):
        made = cv2.resize(only.apply(smooth, 128, generator(seed)), (4, 4), interpolation=cv2.INTER_AREA).astype(int)
        ways = {"no": smooth, "x": smooth[:, ::-1], "y": smooth[::-1], "both": smooth[::-1, ::-1]}
        small = {
            name: cv2.resize(np.ascontiguousarray(way), (4, 4), interpolation=cv2.INTER_AREA).astype(int)
            for name, way in ways.items()
        }
        seen.add(min(small, key=lambda name: np.abs(small[name] - made).sum()))
    assert seen == {"no", "x", "y", "both"}


@pytest.mark.parametrize("seed", range(20))
def test_at_full_strength_an_image_stays_recognisable(seed, smooth):
    made = PublishedAugmentation(probability=1).apply(smooth, 96, generator(seed))
    assert 30 < made[24:72, 24:72].mean() < 225
    assert made[24:72, 24:72].std() > 10
