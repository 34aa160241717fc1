"""Comparison: how far models or scores are apart on the same patients, and how certainly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medic.errors import MedicError
from medic.modeling.evaluate import Evaluation
from medic.modeling.metrics import Metric, auroc, interval, metric_named, resampled, score


@dataclass(frozen=True)
class Lead:
    """How far one model is ahead of another, with the 95 % interval of the difference.

    Attributes:
        value: the difference of the two metrics; above 0 the first is better, or worse where less is better.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def lead(first: Evaluation, second: Evaluation, metric: str | Metric) -> Lead:
    """Return how far ``first`` is ahead of ``second``, from bootstrap samples in which both get the same patients.

    Two intervals that overlap do not show that two models are equal: both rise and fall with how hard the drawn
    patients are. The difference on the same patients is free of that (Efron & Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 13, for intervals by percentiles).

    Args:
        first: of the one model.
        second: of the other, on the same images in the same order.
        metric: one of the task by name, or any function that ``metrics_for`` could return.

    Raises:
        MedicError: the images differ.
    """
    pair = (first, second)
    if list(first.records["image"]) != list(second.records["image"]):
        raise MedicError(
            f"{second.title!r} was evaluated on other images than {first.title!r}; use one split of one set"
        )
    chosen = metric_named(metric, first.task)
    values = [score(chosen, one.truth, one.prediction) for one in pair]
    draws = [resampled(chosen, one.truth, one.prediction, one.records["patient"]) for one in pair]
    return Lead(values[0] - values[1], *interval(draws[0] - draws[1]))


def compare_rankings(
    truth: np.ndarray, scores: Mapping[str, np.ndarray], patients: np.ndarray, over: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """Compare scores for one question by their areas under the ROC curve, in samples of the same patients.

    Args:
        truth: int (N,), 1 where the answer is yes.
        scores: by name, float (N,) each, higher for more probable; they need not be probabilities.
        patients: (N,) whose image it is; the bootstrap draws patients.
        over: the name that the others are compared with; None compares none.
        seed: of the bootstrap.

    Returns:
        One row a name: ``auroc``, its 95 % interval ``low`` and ``high``, and ``lead`` over ``over`` where it is given.
    """
    if over is not None and over not in scores:
        raise MedicError(f"there are no scores called {over!r} to compare with, only {', '.join(scores)}")
    areas = {name: float(auroc(truth, said)[0]) for name, said in scores.items()}
    draws = {name: resampled(auroc, truth, said, patients, seed=seed) for name, said in scores.items()}
    rows = {name: (area, *interval(draws[name])) for name, area in areas.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["auroc", "low", "high"])
    if over is not None:
        table["lead"] = [Lead(areas[name] - areas[over], *interval(draws[name] - draws[over])) for name in areas]
    return table
