"""From the prepared set to batches."""

from collections.abc import Iterator, Sized
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.distributed
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from medic.data.prepare import Prepared
from medic.data.records import targets
from medic.modeling.augment import Augmentation
from medic.task import Task


class SampleKey(NamedTuple):
    """One image of one epoch: together with the seed, all that its augmentation depends on."""

    index: int
    epoch: int


class Batch(NamedTuple):
    """What a loader yields: images uint8 (N, S, S, 3) RGB, and labels int64 (N,), for multilabel tasks (N, C)."""

    images: torch.Tensor
    labels: torch.Tensor


class PreparedDataset(Dataset):
    """One split of a prepared set.

    Args:
        prepared: the set.
        split: ``train``, ``validation`` or ``test``.
        augmentation: None gives the prepared pixels as they are.
        size: side of augmented images in pixels; None is that of the prepared ones.
        seed: of the augmentation.
        task: whose labels are read; None takes the column ``label``.
    """

    def __init__(
        self,
        prepared: Prepared,
        split: str,
        augmentation: Augmentation | None = None,
        size: int | None = None,
        seed: int = 0,
        task: Task | None = None,
    ):
        self.prepared, self.rows = prepared, prepared.split(split)
        self.augmentation, self.size, self.seed = augmentation, size or prepared.preprocessing.size, seed
        self.files = self.rows["file"].to_list()
        self.labels = self.rows["label"].to_numpy() if task is None else targets(self.rows, task)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, draw: SampleKey | int) -> Batch:
        """Return one image, uint8 (S, S, 3) RGB, and its label. A plain index stands for the first epoch."""
        index, epoch = draw if isinstance(draw, SampleKey) else (draw, 0)
        pixels = self.prepared.pixels(self.files[index])
        if self.augmentation is not None:
            pixels = self.augmentation.apply(pixels, self.size, np.random.default_rng([self.seed, epoch, index]))
        return Batch(torch.from_numpy(pixels), self.labels[index])


class EpochSampler(DistributedSampler):
    """A new order in every epoch, the same for the same seed and epoch; under ``torchrun`` each process's share."""

    def __init__(self, images: Sized, seed: int = 0):
        several = torch.distributed.is_initialized()
        count, rank = (torch.distributed.get_world_size(), torch.distributed.get_rank()) if several else (1, 0)
        super().__init__(images, count, rank, seed=seed)

    def __iter__(self) -> Iterator[SampleKey]:
        return (SampleKey(int(index), self.epoch) for index in super().__iter__())


def loader(
    dataset: PreparedDataset, batch_size: int, sampler: EpochSampler | None = None, workers: int = 0
) -> DataLoader:
    """Return a ``DataLoader`` of ``Batch``; in the set's order when there is no sampler.

    With a sampler, a last batch of one image is left out: batch normalisation finds no spread in it. ``workers`` are
    processes that read ahead; 0 reads in this process, which is best for a few hundred small images.
    """
    if workers:
        # A process forked from one whose OpenCV threads are running waits for them for ever; one thread is none.
        cv2.setNumThreads(1)
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        drop_last=sampler is not None and len(sampler) > batch_size > 1 and len(sampler) % batch_size == 1,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
