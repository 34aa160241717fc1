"""Objectives: what the network's raw outputs mean for a task, the loss that teaches it, and the decoding."""

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from medic.data.records import class_weights, targets
from medic.errors import MedicError
from medic.files import to_json
from medic.task import Task

if TYPE_CHECKING:
    import pandas as pd

Scale = float | Tensor


class Objective:
    """Loss and decoding for one way of putting a task to a network; its subclasses are frozen dataclasses.

    Attributes:
        name: what ``OBJECTIVES`` has it by.
        kinds: the kinds of tasks that it is for.
    """

    name: str
    kinds: ClassVar[tuple[str, ...]]

    def outputs(self, task: Task) -> int:
        """Return how many raw outputs the network has for this task.

        Raises:
            MedicError: the objective is for tasks of another kind.
        """
        if task.kind not in self.kinds:
            raise MedicError(
                f"{self.name} needs a task that is {' or '.join(self.kinds)}, {task.name!r} is {task.kind}; use "
                f"{default_objective(task).name}"
            )
        return len(task.classes)

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss, a scalar, of raw outputs float32 (N, K) against int64 (N,) or, multilabel, (N, C)."""
        raise NotImplementedError

    def decode(self, raw: Tensor, task: Task, scale: Scale = 1.0, shift: Scale = 0.0) -> tuple[Tensor, ...]:
        """Return probabilities (N, C) and, for ordinal tasks, the continuous grade (N,) in 0..C-1: for the export.

        The most probable class is the decision; the grade is the probabilities' expectation, or the output itself.

        Args:
            raw: float (N, K), the network's outputs.
            task: what is predicted.
            scale: of the raw outputs, one for all or (K,): the inverse of a temperature, from calibration.
            shift: of the scaled outputs, likewise.
        """
        raise NotImplementedError

    def to_dict(self) -> dict:
        """Return the settings as plain values, for JSON."""
        return to_json(self)


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Softmax over the classes.

    Attributes:
        class_weights: one factor a class on its images' loss, against imbalance (see ``medic.data.records``).
        label_smoothing: share of the target spread over all classes, 0..1 (Szegedy et al., arXiv 1512.00567, sec. 7).
    """

    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    name: str = "cross_entropy"
    kinds: ClassVar = ("ordinal", "multiclass")

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted mean cross-entropy, in nats."""
        weights = None if self.class_weights is None else raw.new_tensor(self.class_weights)
        return F.cross_entropy(raw, labels, weight=weights, label_smoothing=self.label_smoothing)

    def decode(self, raw: Tensor, task: Task, scale: Scale = 1.0, shift: Scale = 0.0) -> tuple[Tensor, ...]:
        """Return the softmax; an ordinal task's grade is the expectation over the codes."""
        probabilities = torch.softmax(raw.float() * scale + shift, dim=1)
        if task.kind != "ordinal":
            return (probabilities,)
        codes = torch.arange(len(task.classes), dtype=probabilities.dtype, device=raw.device)
        return probabilities, (probabilities * codes).sum(dim=1)


@dataclass(frozen=True)
class Regression(Objective):
    """One output, the grade itself, for ordinal tasks; a wrong grade costs by its distance.

    Attributes:
        beta: where the smooth L1 loss turns from square to absolute, in grades (Girshick, arXiv 1504.08083, eq. 3).
    """

    beta: float = 1.0
    name: str = "regression"
    kinds: ClassVar = ("ordinal",)

    def outputs(self, task: Task) -> int:
        """Return 1: the continuous grade."""
        return min(super().outputs(task), 1)

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Return the mean smooth L1 distance, in grades."""
        return F.smooth_l1_loss(raw[:, 0], labels.to(raw.dtype), beta=self.beta)

    def decode(self, raw: Tensor, task: Task, scale: Scale = 1.0, shift: Scale = 0.0) -> tuple[Tensor, ...]:
        """Clip to the scale, for the grade; a grade is the less probable the farther its code is from it.

        Log probabilities fall with half the squared distance, as the loss grows, times ``scale``: a normal distribution
        on the codes, of variance ``1 / scale``. The most probable class is the rounded grade; halfway between two, it
        is the lower. Nothing is shifted.
        """
        grade = raw.float()[:, 0].clamp(0, len(task.classes) - 1)
        codes = torch.arange(len(task.classes), dtype=grade.dtype, device=grade.device)
        return torch.softmax(-(grade[:, None] - codes).square() / 2 * scale, dim=1), grade


@dataclass(frozen=True)
class Corn(Objective):
    """C-1 conditional questions, for ordinal tasks: given that the grade is above k-1, is it above k?

    Conditional ordinal regression (CORN; Shi, Cao & Raschka, arXiv 2111.08851, section 3). As each answer is a
    conditional probability, their products fall with k, and no class gets a negative probability, without any
    constraint on the weights of the last layer.
    """

    name: str = "corn"
    kinds: ClassVar = ("ordinal",)

    def outputs(self, task: Task) -> int:
        """Return C-1: one logit a question."""
        return super().outputs(task) - 1

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Return the mean binary cross-entropy, in nats, over all pairs of a question and an image it applies to.

        Question k is put only to images whose label is above k-1 (the conditional training sets of the paper).
        Question 0 is put to every image, so a batch is never without a pair, even where later sets are empty.
        """
        thresholds = torch.arange(raw.shape[1], device=raw.device)
        above = (labels[:, None] > thresholds).to(raw.dtype)
        asked = (labels[:, None] >= thresholds).to(raw.dtype)
        return (F.binary_cross_entropy_with_logits(raw, above, reduction="none") * asked).sum() / asked.sum()

    def decode(self, raw: Tensor, task: Task, scale: Scale = 1.0, shift: Scale = 0.0) -> tuple[Tensor, ...]:
        """Return differences of P(y > k), the products of the answers up to k, and their sum, which is the grade.

        The decision is the most probable class, as for all objectives here; the paper counts the P(y > k) above a half,
        the median, instead. The logits of the answers are scaled, which can move a decision.
        """
        # One product after the other: ONNX has no cumulative one.
        above = list(accumulate(torch.sigmoid(raw.float() * scale + shift).unbind(dim=1), torch.mul))
        bounds = torch.stack([torch.ones_like(above[0]), *above, torch.zeros_like(above[0])], dim=1)
        return bounds[:, :-1] - bounds[:, 1:], torch.stack(above, dim=1).sum(dim=1)


@dataclass(frozen=True)
class MultiLabel(Objective):
    """One sigmoid a class: each is present or not, whatever the others are.

    Attributes:
        prevalence: share of the training images that has each class, C numbers in 0..1. An image with the class then
            counts by the share of those without it and the other way round, so that the two sides of a rare class
            weigh the same in sum (Rajpurkar et al., arXiv 1711.05225, section 2.1). A class that no image has, or
            every one, counts fully. None counts every image alike.
        label_smoothing: how far the targets 0 and 1 are drawn towards a half, 0..1 (Szegedy et al., arXiv 1512.00567,
            section 7, for two classes).
    """

    prevalence: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    name: str = "multilabel"
    kinds: ClassVar = ("multilabel",)

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Return the mean binary cross-entropy, in nats, over images and classes; labels are int64 (N, C), 0 or 1."""
        present, weights = labels.to(raw.dtype), None
        wanted = present * (1 - self.label_smoothing) + self.label_smoothing / 2
        if self.prevalence is not None:
            share = raw.new_tensor(self.prevalence)
            weights = present * (1 - share) + (1 - present) * share
            weights = torch.where((share == 0) | (share == 1), torch.ones_like(weights), weights)
        return F.binary_cross_entropy_with_logits(raw, wanted, weight=weights)

    def decode(self, raw: Tensor, task: Task, scale: Scale = 1.0, shift: Scale = 0.0) -> tuple[Tensor, ...]:
        """Return the sigmoid; unless it is shifted, after a ``prevalence``, for as many with the class as without."""
        return (torch.sigmoid(raw.float() * scale + shift),)


OBJECTIVES = {one.name: one for one in (CrossEntropy, Regression, Corn, MultiLabel)}


def default_objective(task: Task) -> Objective:
    """Return the usual objective of a task's kind."""
    return MultiLabel() if task.kind == "multilabel" else CrossEntropy()


def objective_from_dict(values: dict) -> Objective:
    """Return the objective that ``to_dict`` wrote; raises a ``MedicError`` where none has that name."""
    name = values.get("name")
    if name not in OBJECTIVES:
        raise MedicError(f"no objective is called {name!r}; there is: {', '.join(OBJECTIVES)}")
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return OBJECTIVES[name](**settings)


def weighted(objective: Objective, records: "pd.DataFrame", task: Task) -> Objective:
    """Return the objective with weights against imbalance, counted on the training rows of the records."""
    trained = records[records["split"] == "train"]
    if isinstance(objective, MultiLabel):
        return replace(objective, prevalence=tuple(map(float, targets(trained, task).mean(axis=0))))
    if isinstance(objective, CrossEntropy):
        return replace(objective, class_weights=class_weights(trained["label"], task))
    raise MedicError(f"the objective {objective.name} has no class weights; take cross_entropy, or leave them away")
