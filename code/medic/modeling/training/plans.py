"""Whole plans by name: the network and how to train it, as published and as measured here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from medic.data.prepare import Prepared
from medic.data.readers import OWN, data_set_of
from medic.errors import MedicError
from medic.modeling.augment import Augmentation
from medic.modeling.augment.published import PublishedAugmentation
from medic.modeling.classifier import Classifier
from medic.modeling.objectives import CrossEntropy, MultiLabel, Objective, Regression, weighted
from medic.modeling.training.fit import fit
from medic.modeling.training.pretrain import Pretraining, pretrain_on_generated
from medic.modeling.training.recipe import Recipe
from medic.modeling.training.run import Run
from medic.task import CHEST_XRAY, CHEST_XRAY_BINARY, DIGITS, RETINOPATHY, SKIN_LESION, Task


@dataclass(frozen=True)
class Plan:
    """A network and how to train it.

    Attributes:
        task: what is predicted.
        backbone: a torchvision classification network's name.
        image_size: side of the network's input in pixels.
        objective: loss and decoding.
        contrast: of the local-average subtraction inside the model; None normalises by ImageNet's constants.
        flips: average over both mirror images when predicting.
        recipe: all other settings of the training.
        pretraining: how to pretrain on generated images, for those who ask for it.
        weighted: weigh the loss against imbalance, as counted on the training images; not where the recipe draws them
            balanced, which does the same.
        dropout: as ``Classifier`` takes it; None is the network's own.
    """

    task: Task
    backbone: str
    image_size: int
    objective: Objective
    contrast: float | None
    flips: bool
    recipe: Recipe
    pretraining: Pretraining = field(default_factory=Pretraining)
    weighted: bool = False
    dropout: float | None = None

    def pretrained(self, folder: str | Path, workers: int = 0) -> Path:
        """Weights to start from, of this network trained on synthetic images: made in ``folder`` unless there.

        A report of a result that started from them says so.

        Args:
            folder: where the images and the run go; under ``torchrun``, on storage that all machines share.
            workers: processes that load images.
        """
        pretraining = replace(self.pretraining, recipe=replace(self.pretraining.recipe, workers=workers))
        run = pretrain_on_generated(
            self.backbone,
            folder,
            self.image_size,
            line=data_set_of(self.task),
            contrast=self.contrast,
            pretraining=pretraining,
        )
        return run.folder / "last"

    def classifier(self, prepared: Prepared, weights: str | Path | None = None) -> Classifier:
        """The model to train; call ``torch.manual_seed`` first.

        Args:
            prepared: the set it is going to be trained on.
            weights: as ``Classifier`` takes them.
        """
        weighs = self.weighted and not self.recipe.balanced
        return Classifier(
            self.task,
            self.backbone,
            weighted(self.objective, prepared.records, self.task) if weighs else self.objective,
            prepared.preprocessing,
            self.image_size,
            weights,
            self.flips,
            self.contrast,
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
            weights: as ``Classifier`` takes them.
            each_epoch: as ``fit`` takes it.
        """
        torch.manual_seed(self.recipe.seed)
        return fit(self.classifier(prepared, weights), prepared, folder, self.recipe, each_epoch=each_epoch)


PUBLISHED = Plan(
    task=RETINOPATHY,
    backbone="efficientnet_v2_m",
    image_size=380,
    objective=Regression(),
    contrast=None,
    flips=False,
    recipe=Recipe(
        epochs=30,
        batch_size=18,
        learning_rate=1e-3,
        weight_decay=1e-2,
        augmentation=PublishedAugmentation(),
        schedule="steps",
        amsgrad=True,
        choose_by="macro_f1",
    ),
)
"""The recipe as it was published for retinopathy: smooth L1 loss on one output, AdamW with AMSGrad, a tenth of the
learning rate every ten epochs, heavy augmentation, best and last weights kept by macro F1."""

MEDIC = Plan(
    task=RETINOPATHY,
    backbone="resnet18",
    image_size=224,
    objective=CrossEntropy(cuts=(0.5, 1.5, 2.5, 3.5)),
    contrast=4.0,
    flips=False,
    recipe=Recipe(
        epochs=24,
        batch_size=16,
        learning_rate=6e-4,
        weight_decay=0.05,
        augmentation=Augmentation(rotate=180),
        choose_by="last",
    ),
    pretraining=Pretraining(
        patients=700, recipe=Recipe(epochs=4, batch_size=16, augmentation=Augmentation(rotate=30, brightness=0.2))
    ),
)
"""Ours, for eight minutes of one processor core. Local contrast and the pretraining are what counts: in three-fold
cross-validation over the training patients, 140 CPU-seconds a training, kappa was 0.27 with neither, 0.53 with contrast
and 0.62 with both. CORN, regression, drawing rare grades more often, averaged weights and mirror images were within
chance of plain cross-entropy there, so the simplest is taken. The grade is the rounded expectation, which had 0.64
instead of 0.62; cut points fitted on 29 patients, as many as validation has, were no better than that.
``benchmarks/recipes.py --choices`` measures such variants."""

CHEXNET = Plan(
    task=CHEST_XRAY,
    backbone="densenet121",
    image_size=224,
    objective=MultiLabel(),
    contrast=None,
    flips=False,
    recipe=Recipe(
        epochs=15,
        batch_size=16,
        learning_rate=1e-4,
        weight_decay=1e-5,
        augmentation=Augmentation(rotate=5, scale=0.05, shift=0.02, colour=0),
        sensitivity=0.8,
    ),
    weighted=True,
)
"""All findings at once with a DenseNet-121, every layer trainable, 224 px and mirror images, as CheXNet (Rajpurkar et
al., arXiv 1711.05225, section 3). Unlike there: AdamW with a one-cycle schedule instead of Adam and a tenth whenever
validation stalls, slight rotations and shifts, and the loss weighted by class, which the paper has for pneumonia alone.
That loss teaches probabilities as among as many images with a finding as without it, so that from 0.5 on each finding
is called in far more images than have it: the operating point is chosen on the validation split instead, for a
sensitivity of 0.8 in each finding. ``--weights imagenet`` starts where it started."""

BINARY = Plan(
    task=CHEST_XRAY_BINARY,
    backbone="resnet50",
    image_size=224,
    objective=CrossEntropy(),
    contrast=None,
    flips=False,
    recipe=Recipe(
        epochs=10,
        batch_size=32,
        learning_rate=3e-4,
        weight_decay=1e-4,
        augmentation=Augmentation(rotate=5, scale=0.05, shift=0.02, colour=0),
        sensitivity=0.9,
        frozen=("conv1", "bn1", "layer1"),
    ),
    weighted=True,
)
"""Any finding or none, with a ResNet-50 whose first layers stay as they are; the operating point is chosen on the
validation split for a sensitivity of 0.9. Freezing makes sense for weights that have seen images (``imagenet``,
``generated``)."""

DIGITS_PLAN = Plan(
    task=DIGITS,
    backbone="resnet18",
    image_size=32,
    objective=CrossEntropy(),
    contrast=None,
    flips=False,
    recipe=Recipe(
        epochs=5,
        batch_size=64,
        augmentation=Augmentation(flip=False, rotate=10, brightness=0, contrast=0, colour=0),
    ),
)
"""Digits with a network of today, for whoever wants them exported, bundled and served like all else."""

LESIONS = Plan(
    task=SKIN_LESION,
    backbone="resnet18",
    image_size=224,
    objective=CrossEntropy(),
    contrast=None,
    flips=True,
    recipe=Recipe(
        epochs=20,
        batch_size=16,
        learning_rate=3e-4,
        weight_decay=1e-2,
        augmentation=Augmentation(rotate=180, scale=0.1, shift=0.04, brightness=0.15, contrast=0.15, colour=0.05),
        sensitivity=0.9,
    ),
    weighted=True,
)
"""Skin lesions, and with their own classes a person's own photographs: a ResNet-18 for transfer learning (``--weights
imagenet``). A lesion has no upright, so any rotation keeps its label; colour is a sign, so it is varied little. For two
classes the operating point is chosen on the validation split for a sensitivity of 0.9."""

RECIPES = {
    "medic": MEDIC,
    "published": PUBLISHED,
    "chexnet": CHEXNET,
    "binary": BINARY,
    "digits": DIGITS_PLAN,
    "lesions": LESIONS,
}


def _own_plan(task: Task, name: str | None) -> Plan:
    """The plan for classes of a person's own: that of the lesions, without what two classes alone can have."""
    if name not in (None, "lesions"):
        raise MedicError(f"the recipe {name!r} is none for images of your own; there is: lesions")
    if task.kind == "multilabel":
        raise MedicError(
            f"there is no recipe for {task.name!r}, which has several classes an image; write a Plan for it"
        )
    sensitivity = LESIONS.recipe.sensitivity if task.thresholds else None
    return replace(LESIONS, task=task, recipe=replace(LESIONS.recipe, sensitivity=sensitivity))


def find_plan(task: Task, name: str | None = None) -> Plan:
    """The plan of that name for a task, or the usual one for the task.

    The usual task of a line stands for the line: ``binary`` for ``chest_xray`` gives the plan with its own task.

    Raises:
        MedicError: there is none of that name, or it is for another task; the message lists those there are.
    """
    line = data_set_of(task)
    if line is OWN:
        return _own_plan(task, name)
    plans = {key: plan for key, plan in RECIPES.items() if plan.task in line.tasks}
    if name is None:
        exact = [key for key, plan in plans.items() if plan.task == task]
        same_kind = [key for key, plan in plans.items() if plan.task.kind == task.kind]
        name = (exact or same_kind)[0]
    if name not in RECIPES:
        raise MedicError(f"no recipe is called {name!r}; for {task.name} there is: {', '.join(plans)}")
    if name not in plans:
        raise MedicError(
            f"the recipe {name!r} is for {RECIPES[name].task.name}, not for {task.name}; for that there is: "
            f"{', '.join(plans)}"
        )
    plan = plans[name]
    if task in (plan.task, line.tasks[0]):
        return plan
    if task.kind != plan.task.kind:
        raise MedicError(
            f"the recipe {name!r} answers {plan.task.name!r} ({plan.task.kind}), not {task.name!r} ({task.kind}); give "
            f"the task {plan.task.name!r}, or no recipe"
        )
    return replace(plan, task=task)
