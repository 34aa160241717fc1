"""Augmentation and loading: the same seed gives the same pixels, whoever reads them."""

import cv2
import numpy as np
import pytest
import torch

from medic.modeling.augment import Augmentation
from medic.modeling.load import Draw, EpochSampler, PreparedDataset, loader
from medic.task import RETINOPATHY

NOTHING = Augmentation(flip=False, rotate=0, scale=0, shift=0, brightness=0, contrast=0, colour=0)


@pytest.fixture(scope="module")
def smooth() -> np.ndarray:
    y, x = np.mgrid[0:1:192j, 0:1:192j]
    return np.stack([250 * x, 120 + 100 * np.sin(4 * x + 3 * y), 250 * y * x], axis=2).astype(np.uint8)


@pytest.mark.parametrize("size", [192, 160, 128, 96, 64])
def test_an_augmentation_of_nothing_is_the_plain_resize(size, smooth):
    plain = cv2.resize(smooth, (size, size), interpolation=cv2.INTER_AREA)
    made = NOTHING.apply(smooth, size, np.random.default_rng(0))
    assert made.dtype == np.uint8
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(made[inner].astype(int) - plain[inner]).max() <= 2


def test_at_its_own_size_an_augmentation_of_nothing_changes_no_pixel():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(NOTHING.apply(noise, 64, np.random.default_rng(0)), noise)


def test_a_flip_happens_in_half_of_the_cases(smooth):
    flipping = Augmentation(flip=True, rotate=0, scale=0, shift=0, brightness=0, contrast=0, colour=0)
    seen = [flipping.apply(smooth, 192, np.random.default_rng(seed)) for seed in range(400)]
    mirrored = sum(np.array_equal(pixels, smooth[:, ::-1]) for pixels in seen)
    kept = sum(np.array_equal(pixels, smooth) for pixels in seen)
    assert mirrored + kept == 400
    assert 160 < mirrored < 240


def test_rotation_goes_as_far_as_it_is_told_and_leaves_the_centre(smooth):
    turning = Augmentation(flip=False, rotate=180, scale=0, shift=0, brightness=0, contrast=0, colour=0)
    seen = [turning.apply(smooth, 96, np.random.default_rng(seed)) for seed in range(50)]
    assert len({pixels.tobytes() for pixels in seen}) == 50
    centre = cv2.resize(smooth, (96, 96), interpolation=cv2.INTER_AREA)[46:50, 46:50].mean(axis=(0, 1))
    assert all(np.abs(pixels[46:50, 46:50].mean(axis=(0, 1)) - centre).max() < 4 for pixels in seen)


def test_black_stays_black_and_so_does_the_noise_in_it():
    strong = Augmentation(brightness=0.5, contrast=0.5, colour=0.2)
    black = np.zeros((64, 64, 3), np.uint8)
    speckled = np.random.default_rng(0).integers(0, 4, (64, 64, 3), dtype=np.uint8)
    for seed in range(50):
        assert not strong.apply(black, 48, np.random.default_rng(seed)).any()
        assert strong.apply(speckled, 48, np.random.default_rng(seed)).max() < 25


def test_brighter_grey_never_becomes_darker_than_darker_grey():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 256, axis=0).repeat(3, axis=2)
    light = Augmentation(flip=False, rotate=0, scale=0, shift=0)
    for seed in range(50):
        row = light.apply(ramp, 256, np.random.default_rng(seed))[128].astype(int)
        assert (np.diff(row, axis=0) >= 0).all()


def test_the_default_changes_every_image_but_keeps_it_recognisable(smooth):
    made = [Augmentation().apply(smooth, 96, np.random.default_rng(seed)) for seed in range(20)]
    assert len({pixels.tobytes() for pixels in made}) == 20
    assert all(40 < pixels.mean() < 200 for pixels in made)


def batches(prepared, workers: int, epoch: int, seed: int = 3) -> list:
    dataset = PreparedDataset(prepared, "train", Augmentation(), size=48, seed=seed)
    sampler = EpochSampler(dataset.rows["label"].to_numpy(), RETINOPATHY, seed)
    sampler.set_epoch(epoch)
    return list(loader(dataset, 16, sampler, workers))


def same(one: list, other: list) -> bool:
    return all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(one, other, strict=True)
    )


def test_seed_and_epoch_decide_every_pixel_whoever_reads_them(tiny_prepared):
    here = batches(tiny_prepared, workers=0, epoch=4)
    assert same(here, batches(tiny_prepared, workers=2, epoch=4))
    assert not same(here, batches(tiny_prepared, workers=0, epoch=5))
    assert not same(here, batches(tiny_prepared, workers=0, epoch=4, seed=4))


def test_workers_that_stay_alive_learn_of_the_next_epoch(tiny_prepared):
    dataset = PreparedDataset(tiny_prepared, "train", Augmentation(), size=48)
    sampler = EpochSampler(dataset.rows["label"].to_numpy(), RETINOPATHY)
    lasting = loader(dataset, 16, sampler, workers=2)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        assert same(list(lasting), batches(tiny_prepared, workers=0, epoch=epoch, seed=0))


def test_an_images_variation_does_not_depend_on_its_place_in_the_order(tiny_prepared):
    dataset = PreparedDataset(tiny_prepared, "train", Augmentation(), size=48)
    first = dataset[Draw(5, 2)][0]
    for index in (3, 8):
        dataset[Draw(index, 2)]
    assert torch.equal(dataset[Draw(5, 2)][0], first)
    assert not torch.equal(dataset[Draw(5, 3)][0], first)


def test_without_augmentation_the_prepared_pixels_come_in_the_sets_order(tiny_prepared):
    dataset = PreparedDataset(tiny_prepared, "validation")
    labels = torch.cat([batch.labels for batch in loader(dataset, 7)])
    assert labels.tolist() == tiny_prepared.split("validation")["label"].tolist()
    pixels, label = dataset[0]
    row = tiny_prepared.split("validation").iloc[0]
    assert np.array_equal(pixels.numpy(), tiny_prepared.pixels(row["file"]))
    assert label == row["label"]


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own():
    sampler = EpochSampler(np.zeros(50, int), RETINOPATHY, seed=1)
    orders = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        draws = list(sampler)
        assert {draw.epoch for draw in draws} == {epoch}
        orders.append([draw.index for draw in draws])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(50))
    assert orders[0] != orders[1]
    sampler.set_epoch(0)
    assert [draw.index for draw in sampler] == orders[0]


def test_a_balanced_epoch_draws_every_class_equally_often():
    labels = np.repeat([0, 1, 4], [900, 90, 10])
    sampler = EpochSampler(labels, RETINOPATHY, balanced=True)
    drawn = np.bincount(labels[[draw.index for draw in sampler]], minlength=5)
    assert drawn.sum() == 1000
    assert drawn[[0, 1, 4]] == pytest.approx([333] * 3, abs=60)
