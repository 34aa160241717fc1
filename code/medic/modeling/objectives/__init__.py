"""Objectives: what the network's raw outputs mean for a task, the loss that teaches it, and the decoding."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from medic.data.records import class_weights, targets
from medic.data.taxonomy import read_taxonomy
from medic.errors import MedicError
from medic.modeling.objectives.multilabel import Hierarchical, MultiLabel
from medic.modeling.objectives.one_class import Corn, CrossEntropy, Objective, Regression
from medic.task import Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OBJECTIVES", "Corn", "CrossEntropy", "Hierarchical", "MultiLabel", "Objective", "Regression"]
__all__ += ["default_objective", "objective_from_dict", "objective_named", "weighted"]

OBJECTIVES = {one.name: one for one in (CrossEntropy, Regression, Corn, MultiLabel, Hierarchical)}


def default_objective(task: Task) -> Objective:
    """Return the usual objective of a task's kind."""
    return MultiLabel() if task.kind == "multilabel" else CrossEntropy()


def objective_named(name: str, task: Task) -> Objective:
    """Return the objective of that name with its defaults; the hierarchical one over the tree of the library.

    Raises:
        MedicError: no objective has that name.
    """
    return Hierarchical.over(read_taxonomy(), task) if name == "hierarchical" else objective_from_dict({"name": name})


def objective_from_dict(values: dict) -> Objective:
    """Return the objective that ``to_dict`` wrote, or the default one of a bare ``{"name": ...}``.

    Raises:
        MedicError: no objective has that name.
    """
    name = values.get("name")
    if name not in OBJECTIVES:
        raise MedicError(f"no objective is called {name!r}; there is: {', '.join(OBJECTIVES)}")
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    if settings.get("cuts", ()) is None:  # of earlier versions; given ones are refused as unknown
        del settings["cuts"]
    return OBJECTIVES[name](**settings)


def weighted(objective: Objective, records: pd.DataFrame, task: Task) -> Objective:
    """Return the objective with weights against imbalance, counted on the training rows of the records.

    Raises:
        MedicError: the objective has no weights.
    """
    trained = records[records["split"] == "train"]
    if isinstance(objective, MultiLabel):
        return replace(objective, prevalence=tuple(map(float, targets(trained, task).mean(axis=0))))
    if isinstance(objective, CrossEntropy):
        return replace(objective, class_weights=class_weights(trained["label"], task))
    raise MedicError(f"the objective {objective.name} has no class weights; take cross_entropy, or leave them away")
