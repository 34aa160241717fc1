"""A short pretraining on generated photographs: a better start than random weights where no others can be had."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from medic.data.prepare import prepare
from medic.data.preprocess import Preprocessing
from medic.data.readers import retinopathy
from medic.data.split import split_by_patient
from medic.data.synthetic import write_sample
from medic.modeling.classifier import Classifier
from medic.modeling.fit import Recipe, fit
from medic.modeling.run import Run
from medic.task import RETINOPATHY

SEED = 7919
"""Not the seed of the committed sample: no photograph of that is among those pretrained on."""


def pretrain_on_generated(
    backbone: str,
    folder: str | os.PathLike,
    image_size: int,
    *,
    patients: int = 150,
    epochs: int = 6,
    learning_rate: float = 1e-3,
) -> Run:
    """Train a network on synthetic fundus photographs made for the purpose.

    The photographs, their prepared set and the run stay in ``folder`` and are not made twice. Whoever reports a result
    that started from these weights says so: they are no ImageNet weights, and a test set from the same generator is
    then easier than a real one.

    Args:
        backbone: a torchvision classification network's name.
        folder: where all of it goes.
        image_size: side of the network's input in pixels.
        patients: generated patients, two photographs each.
        epochs: passes over their training photographs.
        learning_rate: peak of the schedule.

    Returns:
        The run; ``run.folder / "last"`` can be given as ``weights`` to a new ``Classifier``.
    """
    folder = Path(folder)
    photographs = folder / f"photographs-{patients}"
    if not (photographs / "planted_faults.csv").is_file():  # the file that is written last
        write_sample(photographs, patients=patients, seed=SEED, width=256, height=192)
    records, store = retinopathy.read(photographs)
    records = split_by_patient(records.assign(split="train"), validation=0.1)  # nothing here is ever tested on
    prepared = prepare(records, store, folder / f"prepared-{patients}", Preprocessing(size=160))
    torch.manual_seed(SEED)
    model = Classifier(RETINOPATHY, backbone, preprocessing=prepared.preprocessing, image_size=image_size)
    recipe = Recipe(epochs=epochs, batch_size=16, learning_rate=learning_rate, seed=SEED)
    return fit(model, prepared, folder / f"{backbone}-{image_size}-{patients}-{epochs}-{learning_rate:g}", recipe)
