"""A plain PyTorch loop on prepared images, with the transforms of torchvision v2; fp32, no workers."""

from __future__ import annotations

import torch
from peers.job import Job, Photograph
from peers.plain import train
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2


def _transform(size: int, *varied: v2.Transform) -> v2.Transform:
    return v2.Compose(
        [
            *(varied or (v2.Resize((size, size), antialias=True),)),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )


def main() -> None:
    job = Job.from_arguments()
    still = _transform(job.size)
    varied = _transform(
        job.size,
        v2.RandomResizedCrop(job.size, scale=(0.8, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomRotation(15),
        v2.ColorJitter(brightness=0.1, contrast=0.1, hue=0.02),
    )

    def read(photograph: Photograph, training: bool) -> torch.Tensor:
        pixels = decode_image(photograph.prepared, ImageReadMode.RGB)
        return (varied if training else still)(pixels)

    train(job, read)


if __name__ == "__main__":
    main()
