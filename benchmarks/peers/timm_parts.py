"""The parts of timm as its own training script puts them together; its defaults, for fine-tuning.

Ross Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models: loader and transforms of
``create_loader``, AdamW, a cosine with warm-up, label smoothing 0.1. (The script itself is not in timm's wheel.)
"""

import torch
from peers.job import Job, answer, lite0, now
from PIL import Image
from timm.data import create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch.utils.data import Dataset


class _Photographs(Dataset):
    """As timm's loader wants it: the transform is set from outside."""

    transform = None

    def __init__(self, rows: list[tuple[str, int]]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple:
        file, label = self.rows[index]
        return self.transform(Image.open(file).convert("RGB")), label


def main() -> None:
    job = Job.from_arguments()
    options = {
        "input_size": (3, job.size, job.size),
        "batch_size": 16,
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "num_workers": 0,
        "persistent_workers": False,
        "device": torch.device("cpu"),
    }
    training = create_loader(_Photographs(job.train), is_training=True, vflip=0.5, color_jitter=0.4, **options)
    testing = create_loader(_Photographs([(file, 0) for file in job.test]), crop_pct=1.0, **options)
    network = lite0(job)
    optimizer = create_optimizer_v2(network, opt="adamw", lr=5e-4, weight_decay=0.05)
    schedule = CosineLRScheduler(optimizer, t_initial=job.epochs, warmup_t=min(1, job.epochs - 1), warmup_lr_init=1e-5)
    cost = LabelSmoothingCrossEntropy(0.1)
    ready = now()
    for epoch in range(job.epochs):
        schedule.step(epoch)
        network.train()
        for images, labels in training:
            optimizer.zero_grad()
            cost(network(images), labels).backward()
            optimizer.step()
    trained = now()
    network.eval()
    with torch.inference_mode():
        probabilities = torch.cat([network(images).softmax(dim=1) for images, _ in testing])
    answer(ready, trained, probabilities, "timm")


if __name__ == "__main__":
    main()
