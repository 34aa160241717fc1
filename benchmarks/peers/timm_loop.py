"""A loop of timm's parts, put together as its own training script does: loader, transforms, optimizer, schedule.

Ross Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models.
"""

from __future__ import annotations

import time

import timm
import torch
from peers.job import Job, Photograph, answer
from PIL import Image
from timm.data import create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.utils.data import Dataset


class _Photographs(Dataset):
    """As timm's loader wants it: the transform is set from outside."""

    transform = None

    def __init__(self, photographs: tuple[Photograph, ...]):
        self.photographs = photographs

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, index: int) -> tuple:
        photograph = self.photographs[index]
        return self.transform(Image.open(photograph.prepared).convert("RGB")), photograph.label


@torch.inference_mode()
def _decided(network: nn.Module, batches) -> list[int]:
    network.eval()
    return [code for images, _ in batches for code in network(images).argmax(dim=1).tolist()]


def main() -> None:
    job = Job.from_arguments()
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    device = torch.device("cpu")
    options = {
        "input_size": (3, job.size, job.size),
        "batch_size": job.batch_size,
        "num_workers": 0,
        "persistent_workers": False,
        "device": device,
    }
    training = create_loader(_Photographs(job.train), is_training=True, **options)
    validation = create_loader(_Photographs(job.validation), **options)
    network = timm.create_model("resnet18", num_classes=job.classes)
    optimizer = create_optimizer_v2(network, opt="adamw", lr=1e-3, weight_decay=0.05)
    schedule = CosineLRScheduler(optimizer, t_initial=job.epochs)
    cost = nn.CrossEntropyLoss()
    seconds, decided = [], []
    for epoch in range(job.epochs):
        start = time.perf_counter()
        network.train()
        for images, labels in training:
            optimizer.zero_grad()
            cost(network(images), labels).backward()
            optimizer.step()
        schedule.step(epoch + 1)
        decided = _decided(network, validation)
        seconds.append(time.perf_counter() - start)
    answer(seconds, decided, "timm")


if __name__ == "__main__":
    main()
