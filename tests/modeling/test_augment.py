"""Augmentation: one seed gives the same pixels, each setting does what it says, and your own transforms work too."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from medic.errors import MedicError
from medic.modeling.augment import Augmentation, Pipeline, PublishedAugmentation, equalise

NOTHING = Augmentation(flip=False, rotate=0, scale=0, shift=0, brightness=0, contrast=0, colour=0)
OWN = Pipeline((v2.RandomRotation(10), v2.ColorJitter(hue=0.1)))
ALL = [Augmentation(), Augmentation(rotate=180), PublishedAugmentation(), OWN]


@pytest.fixture(scope="module")
def smooth() -> np.ndarray:
    y, x = np.mgrid[0:1:128j, 0:1:128j]
    return np.stack([55 + 150 * x, 120 + 60 * np.sin(4 * x + 3 * y), 55 + 150 * y * x], axis=2).astype(np.uint8)


def vary(augmentation, pixels: np.ndarray, size: int, seed: int) -> np.ndarray:
    return augmentation.apply(pixels, size, np.random.default_rng(seed))


@pytest.mark.parametrize("augmentation", ALL)
@pytest.mark.parametrize("size", [128, 96, 160])
def test_the_seed_decides_every_pixel_and_nothing_else_notices(augmentation, size, smooth):
    before, state = smooth.copy(), torch.get_rng_state()
    made = [vary(augmentation, smooth, size, seed) for seed in range(8)]
    assert all(pixels.shape == (size, size, 3) and pixels.dtype == np.uint8 for pixels in made)
    assert len({pixels.tobytes() for pixels in made}) >= 7
    torch.rand(3)
    assert all(np.array_equal(vary(augmentation, smooth, size, seed), pixels) for seed, pixels in enumerate(made))
    torch.set_rng_state(state)
    vary(augmentation, smooth, size, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(smooth, before)


def test_with_nothing_to_vary_only_the_size_changes(smooth):
    assert np.array_equal(vary(NOTHING, smooth, 128, 0), smooth)
    smaller = np.array(Image.fromarray(smooth).resize((96, 96), Image.Resampling.BILINEAR))
    assert np.array_equal(vary(NOTHING, smooth, 96, 0), smaller)


@pytest.mark.parametrize(
    ("settings", "least", "most"),
    [
        ({"rotate": 180.0}, 0.5, 2),  # the middle stays where it is
        ({"brightness": 0.4}, 30, 52),
        ({"contrast": 0.4}, 0.1, 52),
        ({"shift": 0.2}, 8, 70),
    ],
)
def test_each_setting_goes_as_far_as_it_is_told(settings, least, most, smooth):
    varied = [vary(Augmentation(**(vars(NOTHING) | settings)), smooth, 128, seed) for seed in range(60)]
    own, *middles = (pixels[60:68, 60:68].astype(float).mean((0, 1)) for pixels in [smooth, *varied])
    middle = [np.abs(one - own).max() for one in middles]
    assert least <= max(middle) <= most
    black = np.zeros_like(smooth)
    assert not vary(Augmentation(**settings), black, 96, 0).any(), "black stays black"
    assert len({pixels.tobytes() for pixels in varied}) == 60


def test_settings_are_plain_values_that_tell_augmentations_apart():
    others = [Pipeline((v2.RandomRotation(11),)), NOTHING]
    assert len({json.dumps(one.to_dict()) for one in ALL + others}) == len(ALL) + len(others)
    assert PublishedAugmentation().to_dict()["kind"] == "published"
    assert "RandomRotation(degrees=[-10.0, 10.0]" in OWN.to_dict()["steps"][0]


def test_local_equalisation_raises_the_contrast_and_keeps_the_order_of_the_channels(smooth):
    dull = (100 + smooth * [0.2, 0.1, 0.02]).astype(np.uint8)
    made = [np.array(equalise(Image.fromarray(dull), 40.0)).astype(int) for _ in range(20)]
    assert max(pixels[..., 0].std() for pixels in made) > 1.5 * dull[..., 0].std()
    assert all((pixels[..., 0] >= pixels[..., 2]).mean() > 0.95 for pixels in made)


def test_transforms_that_return_no_image_are_refused(smooth):
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="larger"):
        vary(Pipeline((v2.RandomCrop(500),)), smooth, 96, 0)
    assert torch.equal(torch.get_rng_state(), state), "it stands where it stood"
    with pytest.raises(MedicError, match=r"returned Image instead of an RGB image of Pillow's"):
        vary(Pipeline((v2.ToImage(),)), smooth, 96, 0)
    with pytest.raises(MedicError, match="leave ToImage"):
        vary(Pipeline((v2.Grayscale(),)), smooth, 96, 0)
