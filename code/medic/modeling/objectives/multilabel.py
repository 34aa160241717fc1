"""Objectives for findings that are each present or not: one sigmoid a finding, alone or down a tree of findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from medic.data.taxonomy import Taxonomy
from medic.errors import MedicError
from medic.modeling.objectives.one_class import Objective, Scale
from medic.task import Task


@dataclass(frozen=True)
class MultiLabel(Objective):
    """One sigmoid a class: each is present or not, whatever the others are.

    Attributes:
        prevalence: share of the training images that has each class, C numbers in 0..1. An image with the class then
            counts by the share of those without it and the other way round, so that the two sides of a rare class
            weigh the same in sum (Rajpurkar et al., arXiv 1711.05225, section 2.1). A class that no image has, or
            every one, has no two sides: its images count fully, or it would not be learned at all. None counts every
            image alike.
        label_smoothing: how far the targets 0 and 1 are drawn towards a half, 0..1 (Szegedy et al., arXiv 1512.00567,
            section 7, for two classes).

    Raises:
        MedicError: a prevalence or the smoothing lies outside 0..1.
    """

    prevalence: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    name: str = "multilabel"
    kinds: ClassVar = ("multilabel",)

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in (*(self.prevalence or ()), self.label_smoothing)):
            raise MedicError(
                f"the prevalences {self.prevalence} and the smoothing {self.label_smoothing} are shares; each is 0 to 1"
            )

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Return the mean binary cross-entropy, in nats, over images and classes; labels are int64 (N, C), 0 or 1."""
        present = labels.to(raw.dtype)
        wanted = present * (1 - self.label_smoothing) + self.label_smoothing / 2
        weights = None
        if self.prevalence is not None:
            share = raw.new_tensor(self.prevalence)
            weights = present * (1 - share) + (1 - present) * share
            weights = torch.where((share == 0) | (share == 1), torch.ones_like(weights), weights)
        return F.binary_cross_entropy_with_logits(raw, wanted, weight=weights)

    def decode(self, raw: Tensor, task: Task, scale: Scale = 1.0, shift: Scale = 0.0) -> tuple[Tensor, ...]:
        """Return the sigmoid; unless it is shifted, after a ``prevalence``, for as many with the class as without."""
        return (torch.sigmoid(raw.float() * scale + shift),)


@dataclass(frozen=True)
class Hierarchical(Objective):
    """Conditional questions down a tree of findings: given that the parent is there, is the child?

    Each node has an output of its own, taught with those images alone that have the node's parent (Chen et al., Deep
    hierarchical multi-label classification of chest X-ray images, MIDL 2019, PMLR 102, p. 109). A node's probability
    is the product along its path from the root: no child is more probable than its parent, and the class for "none
    of them" completes the root to 1.

    Attributes:
        classes: of the task, in its order.
        edges: each node and its parent, as in ``medic.data.taxonomy.Taxonomy``.
        none: the class that says that nothing of the tree is there, if the task has one.

    Raises:
        MedicError: no tree, or its leaves are not the classes.
    """

    classes: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    none: str | None = None
    name: str = "hierarchical"
    kinds: ClassVar = ("multilabel",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple(tuple(edge) for edge in self.edges))  # JSON has lists
        self.tree.descent(self.classes)

    @classmethod
    def over(cls, tree: Taxonomy, task: Task) -> Hierarchical:
        """Return the objective of a tree for a task."""
        return cls(task.classes, tree.edges, tree.none)

    @property
    def tree(self) -> Taxonomy:
        """The tree of findings."""
        return Taxonomy(self.edges, self.none)

    def outputs(self, task: Task) -> int:
        """Return how many nodes the tree has: one logit each."""
        if super().outputs(task) and task.classes != self.classes:
            raise MedicError(f"this tree is for other classes than those of {task.name!r}; build it for that task")
        return len(self.edges)

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Return the mean binary cross-entropy, in nats, over pairs of an image and a node whose parent it has."""
        present, asked = self.questions(labels, raw.dtype)
        return (F.binary_cross_entropy_with_logits(raw, present, reduction="none") * asked).sum() / asked.sum()

    def questions(self, labels: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Return whether each node is there, and whether it was asked: its parent is there; 0 or 1, (N, nodes) each."""
        below = torch.as_tensor(self.tree.descent(self.classes), dtype=dtype, device=labels.device)
        present = (labels.to(dtype) @ below.T > 0).to(dtype)
        everywhere = torch.ones_like(present[:, 0])
        return present, torch.stack([everywhere if up < 0 else present[:, up] for up in self.tree.parents], dim=1)

    def nodes(self, raw: Tensor, scale: Scale = 1.0, shift: Scale = 0.0) -> Tensor:
        """Return the probability of every node of the tree, (N, nodes), in the tree's order."""
        found: list[Tensor] = []
        conditionals = torch.sigmoid(raw.float() * scale + shift).unbind(dim=1)
        for conditional, up in zip(conditionals, self.tree.parents, strict=True):
            found.append(conditional if up < 0 else conditional * found[up])
        return torch.stack(found, dim=1)

    def decode(self, raw: Tensor, task: Task, scale: Scale = 1.0, shift: Scale = 0.0) -> tuple[Tensor, ...]:
        """Return the classes' own nodes; the class for "none of them" is 1 minus the root."""
        nodes = self.nodes(raw, scale, shift)
        places = {node: place for place, node in enumerate(self.tree.nodes)}
        columns = [1 - nodes[:, 0] if name == self.none else nodes[:, places[name]] for name in self.classes]
        return (torch.stack(columns, dim=1),)
