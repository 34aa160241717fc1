"""A short pretraining on generated images: a better start than random weights where no others can be had."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from medic.data.prepare import Prepared, prepare
from medic.data.readers import DATA_SETS, DataSet
from medic.data.split import split_by_patient
from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.modeling.objectives import default_objective, weighted
from medic.modeling.training.fit import fit
from medic.modeling.training.recipe import Recipe
from medic.modeling.training.run import Run
from medic.sample import SAMPLES

SEED = 7919
"""Not the seed of the committed sample: no photograph of that is among those pretrained on."""


@dataclass(frozen=True)
class Pretraining:
    """How to pretrain.

    Attributes:
        patients: generated patients: two photographs of eyes each, or one to five radiographs.
        recipe: how to train on them.
    """

    patients: int = 150
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=6, batch_size=16))


def pretrain_on_generated(
    backbone: str,
    folder: str | os.PathLike,
    image_size: int,
    *,
    line: DataSet = DATA_SETS["retinopathy"],
    contrast: float | None = None,
    pretraining: Pretraining | None = None,
) -> Run:
    """Train a network on synthetic images made for the purpose: fundus photographs, or radiographs.

    The images, their prepared set and the run stay in ``folder`` and are not made twice. Whoever reports a result
    that started from these weights says so: they are no ImageNet weights, and a test set from the same generator is
    then easier than a real one.

    Args:
        backbone: a torchvision classification network's name.
        folder: where all of it goes.
        image_size: side of the network's input in pixels.
        line: what is drawn; the network learns to answer the line's usual task.
        contrast: as ``Classifier`` takes it; that of the model which is going to start from these weights.
        pretraining: how much and how; the defaults when None.

    Returns:
        The run; ``run.folder / "last"`` can be given as ``weights`` to a new ``Classifier``.

    Raises:
        MedicError: no images of this line can be drawn.
    """
    if line.name not in SAMPLES:
        raise MedicError(f"no images of the line {line.name!r} can be drawn to pretrain on; start from scratch")
    folder, pretraining = Path(folder), pretraining or Pretraining()
    _images(folder, line, pretraining.patients, image_size)
    prepared = Prepared.load(_prepared(folder, line, pretraining.patients, image_size))
    task = line.tasks[0]
    objective = default_objective(task)
    if task.kind == "multilabel":
        # In so short a training a plain loss teaches little more than how rare each finding is.
        objective = weighted(objective, prepared.records, task)
    torch.manual_seed(SEED)
    model = Classifier(task, backbone, objective, prepared.preprocessing, image_size, contrast=contrast)
    recipe = pretraining.recipe
    settings = json.dumps([recipe.to_dict(), contrast]).encode()
    name = f"{line.name}-{backbone}-{image_size}px-{pretraining.patients}-{hashlib.sha256(settings).hexdigest()[:8]}"
    return fit(model, prepared, folder / name, recipe)


def _side(image_size: int) -> int:
    """Pixels of a drawn image: a multiple of 160, as large as the network can make use of, and no larger."""
    return 160 * -(-image_size // 128)


def _prepared(folder: Path, line: DataSet, patients: int, image_size: int) -> Path:
    return folder / f"prepared-{line.name}-{patients}-{_side(image_size)}px"


def _images(folder: Path, line: DataSet, patients: int, image_size: int) -> None:
    side = _side(image_size)
    made = folder / f"{line.name}-{patients}-{side}px"
    if not (made / "planted_faults.csv").is_file():  # the file that is written last
        drawn = SAMPLES[line.name]
        drawn.write(made, patients=patients, seed=SEED, size=round(drawn.frame * side))
    records, store = line.read(made)
    # Nothing here is ever tested on.
    records = split_by_patient(records.assign(split="train"), validation=0.1, task=line.tasks[0])
    prepare(records, store, _prepared(folder, line, patients, image_size), replace(line.preprocessing, size=side))
