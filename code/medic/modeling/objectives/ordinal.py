"""Objectives for ordered grades: a distance to learn, or a row of thresholds to pass; and what cut points decide."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from medic.errors import MedicError
from medic.files import to_json
from medic.task import Task

_HAIR = 1e-6
"""No less than the spacing of float32 numbers up to 16, so no sum below loses it; far below what a grade can mean."""
_NARROWEST = 0.25
"""Grades; segments between cuts are stretched to one grade, and none more than four times."""


@dataclass(frozen=True)
class Regression:
    """One output, the grade itself, for ordinal tasks; a wrong grade costs by its distance.

    Attributes:
        beta: where the smooth L1 loss turns from square to absolute, in grades (Girshick, arXiv 1504.08083, eq. 3).
        cuts: C-1 thresholds between the grades on the continuous grade, in order, each in 0..C-1; None rounds. See
            ``interpolate_probabilities`` and ``medic.modeling.cut_points``.

    Raises:
        MedicError: the cuts decrease, or lie off the scale.
    """

    beta: float = 1.0
    cuts: tuple[float, ...] | None = None
    name: str = "regression"

    def __post_init__(self) -> None:
        check_order(self.cuts)

    def outputs(self, task: Task) -> int:
        """One: the continuous grade."""
        check_ordinal(task, self.name)
        check_number(self.cuts, task)
        return 1

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Mean smooth L1 distance, in grades."""
        return F.smooth_l1_loss(raw[:, 0], labels.to(raw.dtype), beta=self.beta)

    def decode(self, raw: Tensor, task: Task) -> tuple[Tensor, ...]:
        """Clip to the scale; ``interpolate_probabilities`` gives the probabilities, by rounding or by the cuts."""
        grade = raw.float()[:, 0].clamp(0, len(task.classes) - 1)
        return interpolate_probabilities(grade, len(task.classes), self.cuts), grade

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return to_json(self)


@dataclass(frozen=True)
class Corn:
    """C-1 conditional questions, for ordinal tasks: given that the grade is above k-1, is it above k?

    Conditional ordinal regression (CORN; Shi, Cao & Raschka, arXiv 2111.08851, section 3). As each answer is a
    conditional probability, their products fall with k, and no class gets a negative probability, without any
    constraint on the weights of the last layer.

    Attributes:
        cuts: as in ``Regression``, on the expected grade; None decides for the most probable class.

    Raises:
        MedicError: the cuts decrease, or lie off the scale.
    """

    cuts: tuple[float, ...] | None = None
    name: str = "corn"

    def __post_init__(self) -> None:
        check_order(self.cuts)

    def outputs(self, task: Task) -> int:
        """One logit a threshold: C-1."""
        check_ordinal(task, self.name)
        check_number(self.cuts, task)
        return len(task.classes) - 1

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Mean binary cross-entropy, in nats, over all pairs of a question and an image that it applies to.

        Question k is put only to images whose label is above k-1 (the conditional training sets of the paper).
        Question 0 is put to every image, so a batch is never without a pair, even where later sets are empty.
        """
        thresholds = torch.arange(raw.shape[1], device=raw.device)
        above = (labels[:, None] > thresholds).to(raw.dtype)
        asked = (labels[:, None] >= thresholds).to(raw.dtype)
        return (F.binary_cross_entropy_with_logits(raw, above, reduction="none") * asked).sum() / asked.sum()

    def decode(self, raw: Tensor, task: Task) -> tuple[Tensor, ...]:
        """P(y > k) is the product of the answers up to k; class probabilities are the differences.

        The continuous grade is the expectation, the sum of P(y > k). The decision is the most probable class, as for
        all objectives here; the paper counts the P(y > k) above a half, the median, instead.
        """
        # One product after the other: ONNX has no cumulative one.
        above = list(accumulate(torch.sigmoid(raw.float()).unbind(dim=1), torch.mul))
        bounds = torch.stack([torch.ones_like(above[0]), *above, torch.zeros_like(above[0])], dim=1)
        return decided(bounds[:, :-1] - bounds[:, 1:], torch.stack(above, dim=1).sum(dim=1), self.cuts)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return to_json(self)


def interpolate_probabilities(grade: Tensor, classes: int, cuts: tuple[float, ...] | None) -> Tensor:
    """Probabilities for a continuous grade: the two nearest grades share them by their distance.

    Without cuts the most probable grade is the rounded one. With cuts the distance is measured after a monotone,
    piecewise linear map that sends the cuts to 0.5, 1.5, ... and the ends of the scale to themselves, so that the most
    probable grade is the one between whose cuts the grade lies. A grade exactly on a cut belongs to the lower class,
    and a class between two equal cuts is never decided. These are shares, not calibrated probabilities.

    Args:
        grade: float32 (N,) in 0..C-1.
        classes: C.
        cuts: C-1 cuts, or None.

    Returns:
        float32 (N, C), rows sum to 1.
    """
    codes = torch.arange(classes, dtype=grade.dtype, device=grade.device)
    mapped = grade if cuts is None else _mapped(grade, cuts)
    return (1 - (mapped[:, None] - codes[None, :]).abs()).clamp(min=0)


def _mapped(grade: Tensor, values: tuple[float, ...]) -> Tensor:
    """Grades (N,) in 0..C-1 to the scale on which rounding decides as the cuts do."""
    cuts = grade.new_tensor(values)
    # The outer segments go on as far beyond the ends as the outer cuts lie within: then every segment is one grade
    # wide on the mapped scale, and the ends stay where they are.
    first = -cuts[:1].clamp(min=_HAIR)
    edges = torch.cat([first, cuts, 2 * len(values) - cuts[-1:]])
    decided = (grade[:, None] > cuts[None, :]).sum(dim=1)
    low, high = edges[decided], edges[decided + 1]
    # Between cuts that lie close together the map is no steeper than this, or rounding errors of the grade would show.
    width = (high - low).clamp(min=_NARROWEST)
    # However close above its cut a grade lies, its share must stay the larger one after rounding to float32.
    offset = ((grade - (low + high) / 2) / width).clamp(_HAIR - 0.5, 0.5)
    return (decided + offset).clamp(0, len(values))


def decided(probabilities: Tensor, grade: Tensor, cuts: tuple[float, ...] | None) -> tuple[Tensor, Tensor]:
    """Probabilities, with cuts those of ``interpolate_probabilities``, and the grade."""
    return probabilities if cuts is None else interpolate_probabilities(grade, probabilities.shape[1], cuts), grade


def check_order(cuts: tuple[float, ...] | None) -> None:
    """Refuse cuts that decrease or lie off the scale."""
    if cuts is None:
        return
    falling = any(low > high for low, high in pairwise(cuts))
    if falling or not all(0 <= cut <= len(cuts) for cut in cuts):
        raise MedicError(
            f"the cuts {cuts} do not divide the grades 0 to {len(cuts)}; "
            "give one cut between every two grades, in increasing order"
        )


def check_number(cuts: tuple[float, ...] | None, task: Task) -> None:
    """Refuse cuts made for another number of grades."""
    if cuts is not None and len(cuts) != len(task.classes) - 1:
        raise MedicError(
            f"the task {task.name!r} has {len(task.classes)} grades and needs {len(task.classes) - 1} cuts, "
            f"got {len(cuts)}; fit them for this task"
        )


def check_ordinal(task: Task, name: str) -> None:
    """Refuse a task without ordered grades."""
    if task.kind != "ordinal":
        usual = "multilabel" if task.kind == "multilabel" else "cross_entropy"
        raise MedicError(f"{name} needs an ordinal task, {task.name!r} is {task.kind}; use the {usual} objective")
