"""fastai as its tutorials use it: a DataBlock with ``aug_transforms`` and a ``vision_learner``, from scratch, fp32.

Howard & Gugger, fastai: A Layered API for Deep Learning, Information 11(2), 2020; https://docs.fast.ai. Its mixed
precision is for CUDA alone (``MixedPrecision`` asks for an autocast of that device), so there is none on a CPU.
"""

from __future__ import annotations

import time

import pandas as pd
import torch
from fastai.vision.all import (  # the whole of it: methods of the learner are added as modules are imported
    Callback,
    CategoryBlock,
    ColReader,
    ColSplitter,
    CrossEntropyLossFlat,
    DataBlock,
    ImageBlock,
    Normalize,
    Resize,
    aug_transforms,
    imagenet_stats,
    vision_learner,
)
from peers.job import Job, answer
from torchvision.models import resnet18


class _Clock(Callback):
    """Seconds of each epoch, training and validation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.started = 0.0

    def before_epoch(self) -> None:
        self.started = time.perf_counter()

    def after_epoch(self) -> None:
        self.seconds.append(time.perf_counter() - self.started)


def main() -> None:
    job = Job.from_arguments()
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    table = pd.DataFrame(
        [(row.prepared, row.label, split == job.validation) for split in (job.train, job.validation) for row in split],
        columns=["file", "label", "held_out"],
    )
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(range(job.classes)), sort=False)),
        get_x=ColReader("file"),
        get_y=ColReader("label"),
        splitter=ColSplitter("held_out"),
        item_tfms=Resize(job.size),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(*imagenet_stats)],
    )
    loaders = block.dataloaders(table, bs=job.batch_size, num_workers=0, device=torch.device("cpu"))
    clock = _Clock()
    learner = vision_learner(
        loaders, resnet18, normalize=False, pretrained=False, loss_func=CrossEntropyLossFlat(), cbs=[clock]
    )
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(job.epochs, 1e-3)
        probabilities, _ = learner.get_preds(ds_idx=1)
    answer(clock.seconds[: job.epochs], probabilities.argmax(dim=1).tolist(), "fastai")


if __name__ == "__main__":
    main()
