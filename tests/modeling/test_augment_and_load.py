"""Augmentation and loading: the same seed gives the same pixels, whoever reads them."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from medic.modeling.augment import Augmentation
from medic.modeling.training.loading import EpochSampler, PreparedDataset, SampleKey, loader
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


def in_one_go(augmentation: Augmentation, pixels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """How images were varied before drawing was parted from applying; results committed with the project rest on it."""
    a = augmentation
    if len(pixels) > 1.5 * size:
        smaller = round(1.25 * size)
        pixels = cv2.resize(pixels, (smaller, smaller), interpolation=cv2.INTER_AREA)
    mirror = a.flip and random.random() < 0.5
    angle, stretch, right, down, light, grip = random.uniform(-1, 1, 6)
    tint = random.uniform(-1, 1, 3)
    side, turn = len(pixels), np.deg2rad(a.rotate * angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = side / size / (1 + a.scale * stretch) * matrix
    if mirror:
        matrix[:, 0] *= -1
    offset = (side - 1) / 2 + a.shift * side * np.array((right, down)) - matrix @ np.full(2, (size - 1) / 2)
    matrix = np.column_stack([matrix, offset])
    warped = cv2.warpAffine(pixels, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    levels = np.arange(256, dtype=np.float32)[:, None]
    table = ((levels - 128) * (1 + a.contrast * grip) + 128) * (1 + a.brightness * light) * (1 + a.colour * tint)
    table = levels + (table - levels) * np.minimum(levels / 15, 1)
    return cv2.LUT(warped, table.clip(0, 255).astype(np.uint8)[None])


STRONG = Augmentation(rotate=180, scale=0.3, shift=0.2, brightness=0.4, contrast=0.4, colour=0.2)


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(flip=False), STRONG])
@pytest.mark.parametrize("size", [192, 144, 96])
def test_an_image_is_varied_bit_for_bit_as_it_always_was(augmentation, size, smooth):
    noise = np.random.default_rng(1).integers(0, 256, smooth.shape, dtype=np.uint8)
    for seed in range(10):
        for pixels in (smooth, noise):
            random, before = np.random.default_rng(seed), np.random.default_rng(seed)
            made = augmentation.apply(pixels, size, random)
            assert np.array_equal(made, in_one_go(augmentation, pixels, size, before))
            assert random.random() == before.random(), "as much is drawn"


def varied_as_a_batch(augmentation: Augmentation, images: np.ndarray, size: int, device: str) -> np.ndarray:
    drawn = [augmentation.draw(np.random.default_rng(seed), images.shape[1], size) for seed in range(len(images))]
    matrices, tables = (torch.from_numpy(np.stack(part)).to(device) for part in zip(*drawn, strict=True))
    made = augmentation.apply_batch(torch.from_numpy(images).to(device), matrices, tables, size)
    assert made.device.type == device
    assert made.dtype == torch.uint8
    assert made.shape == (len(images), size, size, 3)
    return made.cpu().numpy()


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("augmentation", [NOTHING, Augmentation(), STRONG])
@pytest.mark.parametrize("size", [240, 192, 160, 96])
def test_a_batch_on_a_device_is_varied_as_each_image_by_itself(augmentation, size, device, smooth):
    images = np.stack([np.roll(smooth, shift, axis=2) for shift in range(6)])
    allowed = 6 if augmentation is STRONG else 3  # its table makes twice as much of a difference
    together = varied_as_a_batch(augmentation, images, size, device)
    for seed, (pixels, image) in enumerate(zip(together, images, strict=True)):
        alone = augmentation.apply(image, size, np.random.default_rng(seed))
        apart = np.abs(pixels.astype(int) - alone)
        # At the border of the image half a grey level's difference in place is a step from light to black.
        edge = cv2.morphologyEx(alone, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) > 40
        assert apart[~edge].max() <= allowed
        assert apart.mean() < 0.6
        assert edge.mean() < 0.15


@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_around_it_moves_no_pixel_of_a_batch(device, smooth):
    images = np.stack([smooth] * 4)
    plain = varied_as_a_batch(STRONG, images, 160, device)
    with torch.autocast(device, torch.bfloat16):
        assert np.array_equal(varied_as_a_batch(STRONG, images, 160, device), plain)


def test_at_its_own_size_a_batch_with_nothing_drawn_changes_no_pixel():
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    assert np.array_equal(varied_as_a_batch(NOTHING, noise, 64, "cpu"), noise)


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
    first = dataset[SampleKey(5, 2)][0]
    for index in (3, 8):
        dataset[SampleKey(index, 2)]
    assert torch.equal(dataset[SampleKey(5, 2)][0], first)
    assert not torch.equal(dataset[SampleKey(5, 3)][0], first)


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


@pytest.mark.parametrize(("count", "drawn"), [(33, 32), (34, 34), (32, 32), (16, 16), (1, 1)])
def test_no_image_is_alone_in_the_last_batch_of_a_training(tiny_prepared, count, drawn):
    rows = pd.concat([tiny_prepared.split("train")] * 2).head(count)
    dataset = PreparedDataset(replace(tiny_prepared, records=rows), "train")
    sampler = EpochSampler(dataset.labels, RETINOPATHY)
    assert sum(len(batch.images) for batch in loader(dataset, 16, sampler)) == drawn
    assert sum(len(batch.images) for batch in loader(dataset, 16)) == count
