"""Comparison: several models on the same images, with what each costs, and how far apart they can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from medic.errors import MedicError
from medic.modeling.backbones import parameters_megabytes, published
from medic.modeling.evaluate import Evaluation, evaluate
from medic.modeling.metrics import Metric, auroc, interval, metric_named, metrics_for, resampled, score
from medic.modeling.training.run import Run


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


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Several evaluations of the same images.

    Attributes:
        evaluations: by name, all of the same images in the same order.
        costs: one row a name: what it took, where that is known.

    Raises:
        MedicError: there is none, or they are not of the same images.
    """

    evaluations: Mapping[str, Evaluation]
    costs: pd.DataFrame

    def __post_init__(self) -> None:
        if not self.evaluations:
            raise MedicError("there is nothing to compare; give at least one evaluation")
        for name, other in self.evaluations.items():
            if list(self._one.records["image"]) != list(other.records["image"]):
                raise MedicError(f"{name!r} was evaluated on other images than the first; use one split of one set")

    @property
    def _one(self) -> Evaluation:
        """Any of them, for what they all share."""
        return next(iter(self.evaluations.values()))

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a model: its metrics, each with its interval (``..._low``, ``..._high``), and its costs."""
        rows = {}
        for name, evaluation in self.evaluations.items():
            rows[name] = {
                f"{metric}{end}": row[column]
                for metric, row in evaluation.table().iterrows()
                for end, column in (("", "value"), ("_low", "low"), ("_high", "high"))
            }
        return pd.DataFrame.from_dict(rows, orient="index").join(self.costs)

    @property
    def decider(self) -> str:
        """The metric that is meant where none is named.

        Macro F1; where "present or not" is asked, the (mean) area under the ROC curve, which needs no threshold.
        """
        task = self._one.task
        return list(metrics_for(task))[-1] if task.thresholds else "macro_f1"

    def ranked(self, metric: str | None = None) -> list[str]:
        """Return the names, best first, by a metric of the table; by ``decider`` when None."""
        metric = metric or self.decider
        return list(self.table[metric].sort_values(ascending=metric == "mean_grade_error", kind="stable").index)

    def lead(self, first: str, second: str, metric: str | Metric | None = None) -> Lead:
        """Return how far ``first`` is ahead of ``second``, from bootstrap samples in which both get the same patients.

        ``metric`` is one of the task by name, or any function that ``metrics_for`` could return; ``decider`` when None.

        Two intervals that overlap do not show that two models are equal: both rise and fall with how hard the drawn
        patients are. The difference on the same patients is free of that (Efron & Tibshirani, An Introduction to the
        Bootstrap, 1993, chapter 13, for intervals by percentiles).
        """
        chosen = metric_named(metric or self.decider, self._one.task)
        pair = [self.evaluations[name] for name in (first, second)]
        values = [score(chosen, one.truth, one.prediction) for one in pair]
        draws = [resampled(chosen, one.truth, one.prediction, one.records["patient"]) for one in pair]
        return Lead(values[0] - values[1], *interval(draws[0] - draws[1]))

    def finding(self, metric: str | None = None) -> str:
        """Return who is ahead in a metric (``decider`` when None), and whether by more than chance, as a title."""
        metric = metric or self.decider
        first, *others = self.ranked(metric)
        value = f"{metric.replace('_', ' ')} {self.table.loc[first, metric]:.2f}"
        within = sum(not self.lead(first, other, metric).certain for other in others)
        if not others:
            return f"{first} reaches {value}"
        if within == 0:
            return f"{first} is ahead of all others, {value}"
        if within == len(others):
            return f"{first}: {value}, first by no more than chance"
        return f"{first}: {value}; {within} of {len(others)} within chance"

    def __repr__(self) -> str:
        drawn = " (synthetic images)" if self._one.synthetic else ""
        return f"{len(self._one.records)} images of {self._one.patients} patients{drawn}\n{self.table.round(3).T}"


def compare(runs: Mapping[str, Run], split: str = "validation", which: str = "best") -> Comparison:
    """Evaluate runs on one split, and put what each costs beside it.

    The costs: ``megabytes`` (the network's weights at four bytes a number), ``imagenet_accuracy`` (top 1 in per cent,
    as published: what the architecture can do, not what these weights did), ``images_per_second`` (training alone) and
    ``minutes_per_epoch`` (with validation and writing), both medians over the run's history, and ``training_seconds``.

    Args:
        runs: by the names that the table is to show.
        split: ``validation`` as long as anything is still to be chosen.
        which: ``best`` (the epoch that validation chose, which flatters it on that split) or ``last``.

    Raises:
        MedicError: as ``evaluate``.
    """
    costs = {}
    for name, run in runs.items():
        model = run.model(which)
        costs[name] = {
            "megabytes": parameters_megabytes(model),
            "imagenet_accuracy": published(model.backbone_name).accuracy,
            "images_per_second": run.history["images_per_second"].median(),
            "minutes_per_epoch": run.history["seconds"].median() / 60,
            "training_seconds": run.about["seconds"],
        }
    evaluations = {name: evaluate(run, split, which) for name, run in runs.items()}
    return Comparison(evaluations, pd.DataFrame.from_dict(costs, orient="index"))


def compare_evaluations(evaluations: Mapping[str, Evaluation]) -> Comparison:
    """Put evaluations side by side whose cost is not in question, such as one network's with several ways to decide."""
    return Comparison(evaluations, pd.DataFrame(index=pd.Index(list(evaluations))))


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
