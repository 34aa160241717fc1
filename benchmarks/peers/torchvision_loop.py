"""A plain PyTorch loop with torchvision's transforms, as careful tutorials have it: one cycle, class weights."""

import numpy as np
import torch
from peers.job import Job, answer, lite0, now
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2


class _Photographs(Dataset):
    def __init__(self, files: list[str], labels: list[int], transform: v2.Transform):
        self.files, self.labels, self.transform = files, labels, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(decode_image(self.files[index], ImageReadMode.RGB)), self.labels[index]


def main() -> None:
    job = Job.from_arguments()
    still = [v2.Resize((job.size, job.size)), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    varied = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), v2.RandomRotation(180), v2.ColorJitter(0.2, 0.2)]
    files, labels = zip(*job.train, strict=True)
    training = DataLoader(_Photographs(files, labels, v2.Compose(varied + still)), 16, shuffle=True, drop_last=True)
    testing = DataLoader(_Photographs(job.test, [0] * len(job.test), v2.Compose(still)), 16)
    network = lite0(job)
    weights = len(labels) / np.bincount(labels, minlength=job.classes)
    cost = nn.CrossEntropyLoss(torch.tensor(weights / weights.mean(), dtype=torch.float32))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=job.epochs * len(training))
    ready = now()
    for _ in range(job.epochs):
        network.train()
        for images, grades in training:
            optimizer.zero_grad()
            cost(network(images), grades).backward()
            optimizer.step()
            schedule.step()
    trained = now()
    network.eval()
    with torch.inference_mode():
        probabilities = torch.cat([network(images).softmax(dim=1) for images, _ in testing])
    answer(ready, trained, probabilities, "torchvision")


if __name__ == "__main__":
    main()
