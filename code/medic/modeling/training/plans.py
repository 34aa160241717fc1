"""Whole plans by name: the network and how to train it, as measured here and as published."""

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
        backbone, image_size, objective, weights, flips, dropout: as ``Classifier`` takes them.
        weighted: how far the loss is weighted against imbalance, as counted on the training images: 0 not at all, 1 so
            that every class counts the same, 0.5 by the square root of that.
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
        """Return the model to train on a prepared set; call ``torch.manual_seed`` first.

        Args:
            prepared: whose training images weigh the loss.
            weights: instead of the plan's own: ``"none"`` (random), ``"imagenet"`` or a saved model's folder.
        """
        objective, start = self.objective, self.weights if weights is None else weights
        if self.weighted:
            objective = weighted(objective, prepared.records, self.task)
        if self.weighted and isinstance(objective, CrossEntropy):
            objective = replace(objective, class_weights=tuple(w**self.weighted for w in objective.class_weights))
        start = None if start == "none" else start
        built = {"weights": start, "flips": self.flips, "dropout": self.dropout}
        return Classifier(self.task, self.backbone, objective, prepared.preprocessing, self.image_size, **built)

    def train(
        self,
        prepared: Prepared,
        folder: str | Path,
        weights: str | Path | None = None,
        each_epoch: Callable[[dict[str, float]], None] | None = None,
    ) -> Run:
        """Build the model with the recipe's seed and train it, as ``medic train`` does: ``classifier``, ``fit``."""
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
"""Ours for retinopathy. A retina has no upright, so any rotation keeps its grade."""

_LESIONS = replace(_FINE, augmentation=_COLOURED, sensitivity=0.9)
LESIONS = replace(MEDIC, task=SKIN_LESION, recipe=_LESIONS, image_size=224, weighted=1, flips=True)
"""The same for skin lesions, and with their own classes for a person's own photographs. Colour is a sign, so it is
varied little."""

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
    Recipe(30, 18, augmentation=PublishedAugmentation(), schedule="steps", amsgrad=True, choose_by="macro_f1"),
    backbone="efficientnet_v2_m",
    image_size=380,
    objective=Regression(),
    weights="imagenet",
)
"""The recipe as it was published for retinopathy."""

CHEXNET = Plan(
    CHEST_XRAY,
    Recipe(15, 16, learning_rate=1e-4, weight_decay=1e-5, augmentation=_RADIOGRAPHS, sensitivity=0.8),
    backbone="densenet121",
    objective=MultiLabel(),
    weights="imagenet",
    weighted=1,
)
"""All findings at once as CheXNet has them (Rajpurkar et al., arXiv 1711.05225, section 3). Unlike there: AdamW with a
one-cycle schedule, slight rotations and shifts, and a weighted loss, which the paper has for pneumonia alone."""

BINARY = Plan(
    CHEST_XRAY_BINARY,
    Recipe(
        10, 32, 3e-4, weight_decay=1e-4, augmentation=_RADIOGRAPHS, sensitivity=0.9, frozen=("conv1", "bn1", "layer1")
    ),
    backbone="resnet50",
    weights="imagenet",
    weighted=1,
)
"""Any finding or none, with a ResNet-50 whose first layers stay as they are."""

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
    data_set, name = data_set_of(task), name or "medic"
    if data_set is OWN:
        recipe = LESIONS.recipe if task.thresholds else replace(LESIONS.recipe, sensitivity=None)
        plans = {"medic": [replace(LESIONS, task=task, recipe=recipe)] if task.kind != "multilabel" else []}
    else:
        plans = {key: [plan for plan in some if plan.task in data_set.tasks] for key, some in PLANS.items()}
    # That with the task itself first, then one of its kind.
    for plan in sorted(plans.get(name, []), key=lambda plan: (plan.task != task, plan.task.kind != task.kind)):
        if plan.task.kind == task.kind:
            return replace(plan, task=task)
        if task == data_set.tasks[0]:
            return plan
    there = ", ".join(key for key, some in plans.items() if any(plan.task.kind == task.kind for plan in some)) or "none"
    raise MedicError(f"there is no recipe {name!r} for {task.name!r}, which is {task.kind}; there is: {there}")
