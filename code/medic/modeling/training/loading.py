"""From the prepared set to batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from medic.data.prepare import Prepared
from medic.data.records import class_weights, targets
from medic.errors import MedicError
from medic.modeling.augment import Augmentation
from medic.modeling.training.distributed import Processes
from medic.task import Task


class SampleKey(NamedTuple):
    """One image of one epoch: together with the seed, all that its augmentation depends on."""

    index: int
    epoch: int


class Batch(NamedTuple):
    """What a loader yields.

    Attributes:
        images: uint8 (N, S, S, 3) RGB.
        labels: int64 (N,), for multilabel tasks (N, C) of 0 and 1.
        matrices: float32 (N, 2, 3), and
        tables: uint8 (N, 256, 3): how each image is to be varied, where that is left to the device; otherwise None.
    """

    images: torch.Tensor
    labels: torch.Tensor
    matrices: torch.Tensor | None = None
    tables: torch.Tensor | None = None


class PreparedDataset(Dataset):
    """One split of a prepared set.

    Args:
        prepared: the set.
        split: ``train``, ``validation`` or ``test``.
        augmentation: None gives the prepared pixels as they are.
        size: side of augmented images in pixels (without augmentation the prepared size is kept).
        seed: of the augmentation.
        on_device: only draw how images are varied; whoever has the batch on its device applies it there.
        task: whose labels are read; None takes the column ``label``.
    """

    def __init__(
        self,
        prepared: Prepared,
        split: str,
        augmentation: Augmentation | None = None,
        size: int | None = None,
        seed: int = 0,
        on_device: bool = False,
        task: Task | None = None,
    ):
        self.prepared = prepared
        self.rows = prepared.split(split)
        self.augmentation = augmentation
        self.size = size or prepared.preprocessing.size
        self.seed = seed
        self.on_device = on_device
        self._files = self.rows["file"].to_list()
        self.labels = self.rows["label"].to_numpy() if task is None else targets(self.rows, task)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, draw: SampleKey | int) -> tuple:
        """One image, uint8 (S, S, 3) RGB, and its label. A plain index stands for the first epoch.

        With ``on_device`` the image as it was prepared, its label, a matrix (2, 3) and a table (256, 3).
        """
        index, epoch = draw if isinstance(draw, SampleKey) else (draw, 0)
        pixels = self.prepared.pixels(self._files[index])
        if self.augmentation is not None:
            random = np.random.default_rng([self.seed, epoch, index])
            if self.on_device:
                matrix, table = self.augmentation.draw(random, len(pixels), self.size)
                drawn = torch.from_numpy(matrix), torch.from_numpy(table)
                return torch.from_numpy(pixels), self.labels[index], *drawn
            pixels = self.augmentation.apply(pixels, self.size, random)
        return torch.from_numpy(pixels), self.labels[index]


class EpochSampler(Sampler[SampleKey]):
    """A new order in every epoch, the same for the same seed and epoch whatever went before.

    Args:
        labels: int (N,) labels of the images, for balancing; for multilabel tasks (N, C).
        task: whose labels they are.
        seed: of the order.
        balanced: draw with replacement so that every class is equally likely.
        batch_size: of the batches that are going to be made of it. Where the last of them would hold a single image,
            an epoch leaves that one out, each epoch another: batch normalisation finds no spread in one image.

    Raises:
        MedicError: balanced, and the task is multilabel: an image then has no one class to be drawn by.
    """

    def __init__(
        self, labels: np.ndarray, task: Task, seed: int = 0, balanced: bool = False, batch_size: int | None = None
    ):
        self.labels = np.asarray(labels)
        alone = batch_size is not None and len(self.labels) > batch_size > 1 and len(self.labels) % batch_size == 1
        self.drawn = len(self.labels) - alone
        self.task = task
        self.seed = seed
        self.balanced = balanced
        self.epoch = 0
        if balanced and task.kind == "multilabel":
            raise MedicError(
                f"images of the multilabel task {task.name!r} cannot be drawn so that every class is equally likely; "
                "weigh the loss instead (medic.modeling.objectives.weighted)"
            )

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.drawn

    def __iter__(self) -> Iterator[SampleKey]:
        random, count = np.random.default_rng([self.seed, self.epoch]), len(self.labels)
        if self.balanced:
            weights = np.array(class_weights(self.labels, self.task))[self.labels]
            order = random.choice(count, size=count, p=weights / weights.sum())
        else:
            order = random.permutation(count)
        return (SampleKey(int(index), self.epoch) for index in order[: self.drawn])


class DistributedBatchSampler(Sampler[list]):
    """Batches of an order, dealt out so that all processes together work on exactly one process's batch.

    Args:
        order: indices or draws; the same on every process.
        batch_size: images in a batch over all processes; the last one may be smaller.
        processes: who takes part.
    """

    def __init__(self, order: Sampler | Sequence, batch_size: int, processes: Processes):
        self.sampler = order  # the name by which Lightning finds it, to say which epoch comes next
        self.batch_size = batch_size
        self.processes = processes

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[list]:
        order = iter(self.sampler)
        while batch := list(islice(order, self.batch_size)):
            yield self.processes.deal(batch)


def loader(
    dataset: PreparedDataset,
    batch_size: int,
    sampler: EpochSampler | None = None,
    workers: int = 0,
    processes: Processes | None = None,
) -> DataLoader:
    """Batches of a data set; in the set's order when there is no sampler.

    Args:
        dataset: images and labels.
        batch_size: images in a batch, over all processes; the last one may be smaller.
        sampler: the order of training.
        workers: processes that read ahead; 0 reads in this process, which is best for a few hundred small images.
        processes: those that train together, each of which gets its share of every batch; None is this one alone.

    Returns:
        A DataLoader of ``Batch``.
    """
    if workers:
        # A process forked from one whose OpenCV threads are running waits for them for ever; one thread is none.
        cv2.setNumThreads(1)
    return DataLoader(
        dataset,
        batch_sampler=DistributedBatchSampler(
            range(len(dataset)) if sampler is None else sampler, batch_size, processes or Processes()
        ),
        num_workers=workers,
        collate_fn=_collate,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _collate(items: list[tuple]) -> Batch:
    images, labels, *drawn = zip(*items, strict=True)
    return Batch(torch.stack(images), torch.from_numpy(np.array(labels)), *(torch.stack(part) for part in drawn))
