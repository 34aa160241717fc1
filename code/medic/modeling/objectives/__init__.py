"""Objectives: what the network's raw outputs mean for a task, the loss that teaches it, and the decoding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from medic.data.records import class_weights, targets
from medic.data.taxonomy import read_taxonomy
from medic.errors import MedicError
from medic.files import to_json
from medic.modeling.objectives.multilabel import Hierarchical, MultiLabel
from medic.modeling.objectives.ordinal import (
    Corn,
    Regression,
    check_number,
    check_order,
    check_ordinal,
    decided,
)
from medic.task import Task

if TYPE_CHECKING:
    import pandas as pd


class Objective(Protocol):
    """Loss and decoding for one way of putting a task to a network."""

    name: str

    def outputs(self, task: Task) -> int:
        """How many raw outputs the network has for this task."""

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Mean loss, a scalar, of raw outputs float32 (N, outputs) against labels int64 (N,) or, multilabel, (N, C)."""

    def decode(self, raw: Tensor, task: Task) -> tuple[Tensor, ...]:
        """Probabilities (N, C) and, for ordinal tasks, the continuous grade (N,) in 0..C-1. Part of the export."""

    def to_dict(self) -> dict:
        """Plain values, for JSON."""


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax over the classes.

    Attributes:
        class_weights: one factor a class on its images' loss, against imbalance (see ``medic.data.records``).
        label_smoothing: share of the target spread over all classes, 0..1 (Szegedy et al., arXiv 1512.00567, sec. 7).
        cuts: for ordinal tasks, as in ``Regression``, on the expected grade; None decides for the most probable class.

    Raises:
        MedicError: the cuts decrease, or lie off the scale.
    """

    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    cuts: tuple[float, ...] | None = None
    name: str = "cross_entropy"

    def __post_init__(self) -> None:
        check_order(self.cuts)

    def outputs(self, task: Task) -> int:
        """One logit a class."""
        if task.kind == "multilabel":
            raise MedicError(f"{self.name} chooses one class an image, {task.name!r} has several; use multilabel")
        if self.cuts is not None:
            check_ordinal(task, f"{self.name} with cut points")
            check_number(self.cuts, task)
        return len(task.classes)

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Weighted mean cross-entropy, in nats."""
        weights = None if self.class_weights is None else raw.new_tensor(self.class_weights)
        return F.cross_entropy(raw, labels, weight=weights, label_smoothing=self.label_smoothing)

    def decode(self, raw: Tensor, task: Task) -> tuple[Tensor, ...]:
        """Softmax; an ordinal task's grade is the expectation over the codes; cuts, where given, decide it."""
        probabilities = torch.softmax(raw.float(), dim=1)
        if task.kind != "ordinal":
            return (probabilities,)
        codes = torch.arange(len(task.classes), dtype=probabilities.dtype, device=raw.device)
        return decided(probabilities, (probabilities * codes).sum(dim=1), self.cuts)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return to_json(self)


def default_objective(task: Task) -> Objective:
    """The usual objective of a task's kind."""
    return MultiLabel() if task.kind == "multilabel" else CrossEntropy()


def weighted(objective: Objective, records: pd.DataFrame, task: Task) -> Objective:
    """The objective with weights against imbalance, counted on the training rows of the records.

    Raises:
        MedicError: the objective has no weights.
    """
    trained = records[records["split"] == "train"]
    if isinstance(objective, MultiLabel):
        return replace(objective, prevalence=tuple(map(float, targets(trained, task).mean(axis=0))))
    if isinstance(objective, CrossEntropy):
        return replace(objective, class_weights=class_weights(trained["label"], task))
    raise MedicError(f"the objective {objective.name} has no class weights; draw the images balanced instead")


__all__ = [
    "OBJECTIVES",
    "Corn",
    "CrossEntropy",
    "Hierarchical",
    "MultiLabel",
    "Objective",
    "Regression",
    "default_objective",
    "objective_from_dict",
    "objective_named",
    "weighted",
]

OBJECTIVES: dict[str, type] = {
    "cross_entropy": CrossEntropy,
    "regression": Regression,
    "corn": Corn,
    "multilabel": MultiLabel,
    "hierarchical": Hierarchical,
}


def objective_named(name: str, task: Task) -> Objective:
    """The objective of that name with its defaults; the hierarchical one over the tree that comes with the library.

    Raises:
        MedicError: no objective has that name.
    """
    if name == "hierarchical":
        return Hierarchical.over(read_taxonomy(), task)
    return objective_from_dict({"name": name})


def objective_from_dict(values: dict) -> Objective:
    """The objective that ``to_dict`` wrote, or the default one of a bare ``{"name": ...}``.

    Raises:
        MedicError: no objective has that name.
    """
    name = values.get("name")
    if name not in OBJECTIVES:
        raise MedicError(f"no objective is called {name!r}; there is: {', '.join(OBJECTIVES)}")
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return OBJECTIVES[name](**settings)
