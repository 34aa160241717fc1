"""A plain PyTorch loop as published: originals, read by the reference method in every epoch; fp32, no workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import reference
import torch
from peers.job import Job, Photograph
from peers.plain import train


def main() -> None:
    job = Job.from_arguments()
    random = np.random.default_rng(job.seed)

    def read(photograph: Photograph, training: bool) -> torch.Tensor:
        pixels = reference.pixels(Path(photograph.original).read_bytes(), job.size)
        return torch.from_numpy(reference.normalise(reference.augment(pixels, random) if training else pixels))

    train(job, read)


if __name__ == "__main__":
    main()
