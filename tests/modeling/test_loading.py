"""Loading: the same seed gives the same pixels, whoever reads them, in an order that the epoch decides."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from medic.modeling.augment import Augmentation
from medic.modeling.training.loading import EpochSampler, PreparedDataset, loader


def epochs(prepared, workers: int, *numbers: int, seed: int = 3) -> list[list]:
    """The batches of some epochs, from one loader."""
    dataset = PreparedDataset(prepared, "train", Augmentation(), size=48, seed=seed)
    sampler = EpochSampler(dataset, seed)
    batches = loader(dataset, 16, sampler, workers)
    return [(sampler.set_epoch(number), list(batches))[1] for number in numbers]


def same(one: list, other: list) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs)


def test_seed_and_epoch_decide_every_pixel_whoever_reads_them(tiny_prepared):
    fourth, fifth = epochs(tiny_prepared, 0, 4, 5)
    assert not same(fourth, fifth)
    assert same(fourth, epochs(tiny_prepared, 0, 4)[0]), "whatever was read before"
    assert not same(fourth, epochs(tiny_prepared, 0, 4, seed=4)[0])
    for here, there in zip((fourth, fifth), epochs(tiny_prepared, 2, 4, 5), strict=True):
        assert same(here, there), "workers that stay alive learn of the next epoch"


def test_without_augmentation_the_prepared_pixels_come_in_the_sets_order(tiny_prepared):
    dataset = PreparedDataset(tiny_prepared, "validation")
    labels = torch.cat([batch.labels for batch in loader(dataset, 7)])
    assert labels.tolist() == tiny_prepared.split("validation")["label"].tolist()
    pixels, label = dataset[0]
    row = tiny_prepared.split("validation").iloc[0]
    assert np.array_equal(pixels.numpy(), tiny_prepared.pixels(row["file"]))
    assert label == row["label"]


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own():
    sampler, orders = EpochSampler(range(50), seed=1), []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        draws = list(sampler)
        assert {draw.epoch for draw in draws} == {epoch}
        orders.append([draw.index for draw in draws])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(50))
    assert orders[0] != orders[1]


@pytest.mark.parametrize(("count", "drawn"), [(33, 32), (34, 34), (32, 32), (16, 16), (1, 1)])
def test_no_image_is_alone_in_the_last_batch_of_a_training(tiny_prepared, count, drawn):
    rows = pd.concat([tiny_prepared.split("train")] * 2).head(count)
    dataset = PreparedDataset(replace(tiny_prepared, records=rows), "train")
    sampler = EpochSampler(dataset)
    assert sum(len(batch.images) for batch in loader(dataset, 16, sampler)) == drawn
    assert sum(len(batch.images) for batch in loader(dataset, 16)) == count
