"""Objectives: what the network's raw outputs mean for a task, the loss that teaches it, and the decoding."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from medic.errors import MedicError
from medic.task import Task


class Objective(Protocol):
    """Loss and decoding for one way of putting a task to a network."""

    name: str

    def outputs(self, task: Task) -> int:
        """How many raw outputs the network has for this task."""

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Mean loss, a scalar, of raw outputs float32 (N, outputs) against labels int64 (N,)."""

    def decode(self, raw: Tensor, task: Task) -> tuple[Tensor, ...]:
        """Probabilities (N, C) and, for ordinal tasks, the continuous grade (N,) in 0..C-1. Part of the export."""

    def to_dict(self) -> dict:
        """Plain values, for JSON."""


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax over the classes.

    Attributes:
        class_weights: one factor a class on its images' loss, against imbalance (see ``medic.data.balance``).
        label_smoothing: share of the target spread over all classes, 0..1 (Szegedy et al., arXiv 1512.00567, sec. 7).
    """

    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    name: str = "cross_entropy"

    def outputs(self, task: Task) -> int:
        """One logit a class."""
        return len(task.classes)

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Weighted mean cross-entropy, in nats."""
        weights = None if self.class_weights is None else raw.new_tensor(self.class_weights)
        return F.cross_entropy(raw, labels, weight=weights, label_smoothing=self.label_smoothing)

    def decode(self, raw: Tensor, task: Task) -> tuple[Tensor, ...]:
        """Softmax; an ordinal task's continuous grade is the expectation over the codes."""
        probabilities = torch.softmax(raw.float(), dim=1)
        if task.kind != "ordinal":
            return (probabilities,)
        codes = torch.arange(len(task.classes), dtype=probabilities.dtype, device=raw.device)
        return probabilities, (probabilities * codes).sum(dim=1)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        weights = None if self.class_weights is None else list(self.class_weights)
        return asdict(self) | {"class_weights": weights}


@dataclass(frozen=True)
class Regression:
    """One output, the grade itself, for ordinal tasks; a wrong grade costs by its distance.

    Attributes:
        beta: where the smooth L1 loss turns from square to absolute, in grades (Girshick, arXiv 1504.08083, eq. 3).
    """

    beta: float = 1.0
    name: str = "regression"

    def outputs(self, task: Task) -> int:
        """One: the continuous grade."""
        if task.kind != "ordinal":
            raise MedicError(
                f"regression needs an ordinal task, {task.name!r} is {task.kind}; use the cross_entropy objective"
            )
        return 1

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Mean smooth L1 distance, in grades."""
        return F.smooth_l1_loss(raw[:, 0], labels.to(raw.dtype), beta=self.beta)

    def decode(self, raw: Tensor, task: Task) -> tuple[Tensor, ...]:
        """Clip to the scale; the two nearest grades share the probability by their distance.

        The most probable grade is thus the rounded one. These are shares, not calibrated probabilities.
        """
        top = len(task.classes) - 1
        grade = raw.float()[:, 0].clamp(0, top)
        codes = torch.arange(top + 1, dtype=grade.dtype, device=raw.device)
        return (1 - (grade[:, None] - codes[None, :]).abs()).clamp(min=0), grade

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)


OBJECTIVES: dict[str, type] = {"cross_entropy": CrossEntropy, "regression": Regression}


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
