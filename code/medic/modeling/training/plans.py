"""Whole plans by name: the network and how to train it, as measured here and as published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from medic.data.prepare import Prepared
from medic.data.readers import OWN, data_set_of
from medic.errors import MedicError
from medic.modeling.augment import Augmentation, PublishedAugmentation
from medic.modeling.classifier import Classifier
from medic.modeling.objectives import CrossEntropy, MultiLabel, Objective, Regression, weighted
from medic.modeling.training.fit import fit
from medic.modeling.training.recipe import Recipe
from medic.modeling.training.run import Run
from medic.task import CHEST_XRAY, CHEST_XRAY_BINARY, DIGITS, RETINOPATHY, SKIN_LESION, Task


@dataclass(frozen=True)
class Plan:
    """A network and how to train it.

    Attributes:
        task: what is predicted.
        recipe: how it is trained.
        backbone: a network's name, as ``Classifier`` takes it.
        image_size: side of the network's input in pixels.
        objective: loss and decoding.
        weights: what the network starts from, as ``Classifier`` takes it; None is random.
        weighted: how far the loss is weighted against imbalance, as counted on the training images: 0 not at all, 1 so
            that every class counts the same, 0.5 by the square root of that.
        flips: average over both mirror images when predicting.
        dropout: as ``Classifier`` takes it.
    """

    task: Task
    recipe: Recipe
    backbone: str = "efficientnet_lite0"
    image_size: int = 224
    objective: Objective = field(default_factory=CrossEntropy)
    weights: str | None = None
    weighted: float = 0
    flips: bool = False
    dropout: float | None = None

    def classifier(self, prepared: Prepared, weights: str | Path | None = None) -> Classifier:
        """Return the model to train; call ``torch.manual_seed`` first.

        Args:
            prepared: the set it is going to be trained on.
            weights: instead of the plan's own: ``"none"`` (random), ``"imagenet"`` or a saved model's folder.
        """
        objective, start = self.objective, self.weights if weights is None else weights
        if self.weighted:
            objective = weighted(objective, prepared.records, self.task)
            if isinstance(objective, CrossEntropy):
                shares = tuple(weight**self.weighted for weight in objective.class_weights)
                objective = replace(objective, class_weights=shares)
        return Classifier(
            self.task,
            self.backbone,
            objective,
            prepared.preprocessing,
            self.image_size,
            None if start == "none" else start,
            self.flips,
            self.dropout,
        )

    def train(
        self,
        prepared: Prepared,
        folder: str | Path,
        weights: str | Path | None = None,
        each_epoch: Callable[[dict[str, float]], None] | None = None,
    ) -> Run:
        """Build the model with the recipe's seed and train it, as ``medic train`` does.

        Args:
            prepared: the set to train on.
            folder: where the run goes.
            weights: as ``classifier`` takes them.
            each_epoch: as ``fit`` takes it.
        """
        torch.manual_seed(self.recipe.seed)
        return fit(self.classifier(prepared, weights), prepared, folder, self.recipe, each_epoch=each_epoch)


_FINE = Recipe(epochs=10, batch_size=16, learning_rate=4e-4, head_factor=10, choose_by="last")
_RADIOGRAPHS = Augmentation(rotate=5, scale=0.05, shift=0.02, colour=0)
_COLOURED = Augmentation(rotate=180, scale=0.1, shift=0.04, brightness=0.15, contrast=0.15, colour=0.05)
_DIGITS = Augmentation(flip=False, rotate=10, brightness=0, contrast=0, colour=0)

MEDIC = Plan(
    RETINOPATHY,
    replace(_FINE, augmentation=Augmentation(rotate=180)),
    image_size=288,
    objective=CrossEntropy(label_smoothing=0.05),
    weights="imagenet",
    weighted=0.5,
)
"""Ours for retinopathy: EfficientNet-Lite0 from its ImageNet weights, with a small learning rate for the layers that
have been trained and ten times that for the new last one. A retina has no upright, so any rotation keeps its grade."""

LESIONS = replace(
    MEDIC,
    task=SKIN_LESION,
    recipe=replace(_FINE, augmentation=_COLOURED, sensitivity=0.9),
    image_size=224,
    weighted=1,
    flips=True,
)
"""The same for skin lesions, and with their own classes for a person's own photographs. Colour is a sign, so it is
varied little. For two classes the operating point is chosen on the validation split for a sensitivity of 0.9."""

SCREENING = replace(
    LESIONS, task=CHEST_XRAY_BINARY, recipe=replace(LESIONS.recipe, augmentation=_RADIOGRAPHS), flips=False
)
FINDINGS = replace(
    SCREENING, task=CHEST_XRAY, recipe=replace(SCREENING.recipe, sensitivity=0.8), objective=MultiLabel()
)
"""Radiographs, any finding or none, and all findings at once: slight rotations and shifts."""

DIGITS_PLAN = Plan(
    DIGITS, replace(_FINE, epochs=4, batch_size=64, augmentation=_DIGITS), image_size=64, weights="imagenet"
)

PUBLISHED = Plan(
    RETINOPATHY,
    Recipe(
        epochs=30,
        batch_size=18,
        learning_rate=1e-3,
        weight_decay=1e-2,
        augmentation=PublishedAugmentation(),
        schedule="steps",
        amsgrad=True,
        choose_by="macro_f1",
    ),
    backbone="efficientnet_v2_m",
    image_size=380,
    objective=Regression(),
    weights="imagenet",
)
"""The recipe as it was published for retinopathy: smooth L1 loss on one output, AdamW with AMSGrad, a tenth of the
learning rate every ten epochs, heavy augmentation, best and last weights kept by macro F1."""

CHEXNET = Plan(
    CHEST_XRAY,
    Recipe(15, 16, learning_rate=1e-4, weight_decay=1e-5, augmentation=_RADIOGRAPHS, sensitivity=0.8),
    backbone="densenet121",
    objective=MultiLabel(),
    weights="imagenet",
    weighted=1,
)
"""All findings at once with a DenseNet-121, every layer trainable, 224 px and mirror images, as CheXNet (Rajpurkar et
al., arXiv 1711.05225, section 3). Unlike there: AdamW with a one-cycle schedule, slight rotations and shifts, and the
loss weighted by class, which the paper has for pneumonia alone. That loss teaches probabilities as among as many images
with a finding as without it: the operating point is chosen on the validation split, for a sensitivity of 0.8."""

BINARY = Plan(
    CHEST_XRAY_BINARY,
    Recipe(
        epochs=10,
        learning_rate=3e-4,
        weight_decay=1e-4,
        augmentation=_RADIOGRAPHS,
        sensitivity=0.9,
        frozen=("conv1", "bn1", "layer1"),
    ),
    backbone="resnet50",
    weights="imagenet",
    weighted=1,
)
"""Any finding or none, with a ResNet-50 whose first layers stay as they are; the operating point is chosen on the
validation split for a sensitivity of 0.9."""

PLANS = {
    "medic": (MEDIC, FINDINGS, SCREENING, DIGITS_PLAN, LESIONS),
    "published": (PUBLISHED,),
    "chexnet": (CHEXNET,),
    "binary": (BINARY,),
}
"""By name, one plan a task: ``medic`` is the usual one of each."""


def find_plan(task: Task, name: str | None = None) -> Plan:
    """Return the plan of that name for a task; the usual one, ``medic``, when None.

    The usual task of a data set stands for the set: ``binary`` for ``chest_xray`` gives the plan with its own task. For
    classes of a person's own it is the lesions' plan.

    Raises:
        MedicError: there is none of that name, or it is for another task; the message lists those there are.
    """
    if data_set_of(task) is OWN:
        sensitivity = LESIONS.recipe.sensitivity if task.thresholds else None
        own = replace(LESIONS, task=task, recipe=replace(LESIONS.recipe, sensitivity=sensitivity))
        tasks, plans = (task,), {"medic": [own] if task.kind != "multilabel" else []}
    else:
        tasks = data_set_of(task).tasks
        plans = {key: [plan for plan in some if plan.task in tasks] for key, some in PLANS.items()}
    found = plans.get(name or "medic", [])
    alike = [plan for plan in found if plan.task == task] or [plan for plan in found if plan.task.kind == task.kind]
    if alike:
        return replace(alike[0], task=task)
    if found and task == tasks[0]:
        return found[0]
    there = ", ".join(key for key, some in plans.items() if any(plan.task.kind == task.kind for plan in some)) or "none"
    raise MedicError(
        f"there is no recipe {name or 'medic'!r} for {task.name!r}, which is {task.kind}; there is: {there}"
    )
