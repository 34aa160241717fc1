"""Loading: the same seed gives the same pixels, whoever reads them, in an order that the epoch decides."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from medic.modeling.augment import Augmentation
from medic.modeling.training.loading import EpochSampler, PreparedDataset, SampleKey, loader


def batches(prepared, workers: int, epoch: int, seed: int = 3) -> list:
    dataset = PreparedDataset(prepared, "train", Augmentation(), size=48, seed=seed)
    sampler = EpochSampler(dataset, seed)
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
    sampler = EpochSampler(dataset)
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
    sampler = EpochSampler(range(50), seed=1)
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


@pytest.mark.parametrize(("count", "drawn"), [(33, 32), (34, 34), (32, 32), (16, 16), (1, 1)])
def test_no_image_is_alone_in_the_last_batch_of_a_training(tiny_prepared, count, drawn):
    rows = pd.concat([tiny_prepared.split("train")] * 2).head(count)
    dataset = PreparedDataset(replace(tiny_prepared, records=rows), "train")
    sampler = EpochSampler(dataset)
    assert sum(len(batch.images) for batch in loader(dataset, 16, sampler)) == drawn
    assert sum(len(batch.images) for batch in loader(dataset, 16)) == count
