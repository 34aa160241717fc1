"""The loop that both plain peers share: fp32, AdamW with amsgrad, images read in the training process."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from peers.job import Job, Photograph, answer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18

Read = Callable[[Photograph, bool], Tensor]
"""A photograph to float32 (3, S, S), normalised; varied where the second argument says that it is for training."""


class _Photographs(Dataset):
    def __init__(self, photographs: tuple[Photograph, ...], read: Read, training: bool):
        self.photographs, self.read, self.training = photographs, read, training

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        photograph = self.photographs[index]
        return self.read(photograph, self.training), photograph.label


def train(job: Job, read: Read) -> None:
    """Train a resnet18 and print the answer."""
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    network = resnet18(num_classes=job.classes)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, amsgrad=True)
    cost = nn.CrossEntropyLoss()
    training = DataLoader(_Photographs(job.train, read, True), batch_size=job.batch_size, shuffle=True)
    validation = DataLoader(_Photographs(job.validation, read, False), batch_size=job.batch_size)
    seconds, decided = [], []
    for _ in range(job.epochs):
        start = time.perf_counter()
        network.train()
        for images, labels in training:
            optimizer.zero_grad()
            cost(network(images), labels).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            decided = [code for images, _ in validation for code in network(images).argmax(dim=1).tolist()]
        seconds.append(time.perf_counter() - start)
    answer(seconds, decided)
