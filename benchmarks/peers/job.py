"""What every peer is told, and how it answers. It imports what both environments have: torch, timm, Pillow, NumPy."""

import importlib.metadata
import json
import sys
import time
from dataclasses import asdict, dataclass

import timm
import torch
from torch import nn


@dataclass(frozen=True)
class Job:
    """One training, the same photographs and the same ImageNet weights for every peer.

    Attributes:
        train: (file, grade) of each photograph to train on.
        test: the files to grade afterwards.
        weights: file of EfficientNet-Lite0's ImageNet weights.
        classes: number of grades.
        epochs: passes over ``train``.
        size: side in pixels of what the network sees.
        seed: of the last layer, the order and the augmentation.
        threads: that torch computes with.
    """

    train: list[tuple[str, int]]
    test: list[str]
    weights: str
    classes: int
    epochs: int
    size: int
    seed: int
    threads: int

    def to_json(self) -> str:
        """Return the job as text, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_arguments(cls) -> "Job":
        """Read the job from the file that the command line names, and set torch's threads and seed."""
        with open(sys.argv[-1], encoding="utf-8") as file:
            job = cls(**json.load(file))
        torch.set_num_threads(job.threads)
        torch.manual_seed(job.seed)
        return job


def lite0(job: Job) -> nn.Module:
    """Return EfficientNet-Lite0 with its ImageNet weights and a new last layer."""
    network = timm.create_model("tf_efficientnet_lite0")
    values = torch.load(job.weights, map_location="cpu", weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), values, strict=True)))
    network.reset_classifier(job.classes)
    return network


def answer(ready: float, trained: float, probabilities: object, *packages: str) -> None:
    """Print the result as the last line.

    Args:
        ready: ``time.time()`` when the first epoch began.
        trained: the same when the last one ended.
        probabilities: (N, classes) of the test photographs, in the job's order.
        packages: what it was done with, beside torch; their versions are told.
    """
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in (*packages, "torch"))
    rows = [[float(value) for value in row] for row in probabilities]
    print(json.dumps({"ready": ready, "trained": trained, "probabilities": rows, "with": versions}))


def now() -> float:
    """Return the time that the orchestrating process shares."""
    return time.time()
