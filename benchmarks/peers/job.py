"""What every peer is told, and how it answers. Standard library only: two environments import it."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from dataclasses import asdict, dataclass
from typing import NamedTuple


class Photograph(NamedTuple):
    """One image: its prepared file, its original file, and its grade."""

    prepared: str
    original: str
    label: int


@dataclass(frozen=True)
class Job:
    """One training, the same for every peer.

    Attributes:
        train: photographs to train on.
        validation: photographs to look at after each epoch.
        folder: the prepared set that they are in.
        classes: number of grades.
        epochs: passes over ``train``.
        batch_size: images a step.
        size: side in pixels of what the network sees.
        seed: of weights, order and augmentation.
        threads: that torch computes with; the same for all.
    """

    train: tuple[Photograph, ...]
    validation: tuple[Photograph, ...]
    folder: str
    classes: int
    epochs: int
    batch_size: int
    size: int
    seed: int
    threads: int

    def to_json(self) -> str:
        """The job as text, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_arguments(cls) -> Job:
        """The job that the file named by the last argument of the command line holds."""
        with open(sys.argv[-1], encoding="utf-8") as file:
            values = json.load(file)
        for split in ("train", "validation"):
            values[split] = tuple(Photograph(*row) for row in values[split])
        return cls(**values)


def answer(seconds: list[float], decided: list[int], *packages: str) -> None:
    """Print the result as the last line.

    Args:
        seconds: of each epoch: training and one pass over the validation photographs.
        decided: grade of each validation photograph after the last epoch, in the job's order.
        packages: what it was done with, beside torch; their versions are told.
    """
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in (*packages, "torch"))
    print(json.dumps({"seconds": seconds, "decided": [int(code) for code in decided], "with": versions}))
