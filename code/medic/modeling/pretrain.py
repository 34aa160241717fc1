"""A short pretraining on generated photographs: a better start than random weights where no others can be had."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from medic.data.prepare import Prepared, prepare
from medic.data.preprocess import Preprocessing
from medic.data.readers import retinopathy
from medic.data.split import split_by_patient
from medic.data.synthetic import write_sample
from medic.modeling.classifier import Classifier
from medic.modeling.distributed import join
from medic.modeling.fit import fit
from medic.modeling.recipe import Recipe
from medic.modeling.run import Run
from medic.task import RETINOPATHY

SEED = 7919
"""Not the seed of the committed sample: no photograph of that is among those pretrained on."""


@dataclass(frozen=True)
class Pretraining:
    """How to pretrain.

    Attributes:
        patients: generated patients, two photographs each.
        recipe: how to train on them.
    """

    patients: int = 150
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=6, batch_size=16))


def pretrain_on_generated(
    backbone: str,
    folder: str | os.PathLike,
    image_size: int,
    *,
    contrast: float | None = None,
    pretraining: Pretraining | None = None,
) -> Run:
    """Train a network on synthetic fundus photographs made for the purpose.

    The photographs, their prepared set and the run stay in ``folder`` and are not made twice. Whoever reports a result
    that started from these weights says so: they are no ImageNet weights, and a test set from the same generator is
    then easier than a real one.

    Args:
        backbone: a torchvision classification network's name.
        folder: where all of it goes.
        image_size: side of the network's input in pixels.
        contrast: as ``Classifier`` takes it; that of the model which is going to start from these weights.
        pretraining: how much and how; the defaults when None.

    Returns:
        The run; ``run.folder / "last"`` can be given as ``weights`` to a new ``Classifier``.
    """
    folder, pretraining = Path(folder), pretraining or Pretraining()
    processes = join()
    if processes.first:
        _photographs(folder, pretraining.patients, image_size)
    processes.wait()
    prepared = Prepared.load(_prepared(folder, pretraining.patients, image_size))
    torch.manual_seed(SEED)
    model = Classifier(
        RETINOPATHY, backbone, preprocessing=prepared.preprocessing, image_size=image_size, contrast=contrast
    )
    # As many images a step as asked for, or the next number that all processes can share.
    batch_size = -(-pretraining.recipe.batch_size // processes.count) * processes.count
    recipe = replace(pretraining.recipe, batch_size=batch_size)
    settings = json.dumps([recipe.to_dict(), contrast]).encode()
    name = f"{backbone}-{image_size}px-{pretraining.patients}-{hashlib.sha256(settings).hexdigest()[:8]}"
    return fit(model, prepared, folder / name, recipe)


def _enlarged(image_size: int) -> int:
    """How many times the smallest photographs these are: as large as the network can make use of, and no larger."""
    return -(-image_size // 128)


def _prepared(folder: Path, patients: int, image_size: int) -> Path:
    return folder / f"prepared-{patients}-{160 * _enlarged(image_size)}px"


def _photographs(folder: Path, patients: int, image_size: int) -> None:
    width, height = 256 * _enlarged(image_size), 192 * _enlarged(image_size)
    made = folder / f"photographs-{patients}-{width}px"
    if not (made / "planted_faults.csv").is_file():  # the file that is written last
        write_sample(made, patients=patients, seed=SEED, width=width, height=height)
    records, store = retinopathy.read(made)
    records = split_by_patient(records.assign(split="train"), validation=0.1)  # nothing here is ever tested on
    target = _prepared(folder, patients, image_size)
    prepare(records, store, target, Preprocessing(size=160 * _enlarged(image_size)))
