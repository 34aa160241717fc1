"""Where a probability becomes a decision: operating points of a finding, and cut points between grades."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from medic.data.split import split_by_patient
from medic.errors import MedicError
from medic.modeling.both_eyes import combine_eyes, fit_weight
from medic.modeling.metrics import HIGHER_IS_BETTER
from medic.task import Prediction, Task

if TYPE_CHECKING:
    from medic.modeling.evaluate import Evaluation

METRICS = ("macro_f1", "quadratic_weighted_kappa")
"""For what cut points can be fitted."""

MOST_PLACES = 1000
"""Places between grades that are tried; of more, as many are taken at equal distances in rank."""


def threshold_for(truth: np.ndarray, scores: np.ndarray, sensitivity: float) -> float:
    """Return the highest threshold that still finds the wanted share of the images with the finding.

    Chosen on few images it is uncertain: with 20 positive images each is worth five points of sensitivity. On other
    images the sensitivity comes out higher or lower, which is for the test split to say.

    Args:
        truth: int (N,), 1 where the finding is present.
        scores: float (N,) probabilities.
        sensitivity: wanted share, above 0 and up to 1.

    Returns:
        A threshold midway between the score of the last image that has to be found and the next lower score; images at
        or above it are called positive. Exactly on a score the last digit would decide, which torch and onnxruntime
        compute differently.

    Raises:
        MedicError: no image has the finding.
    """
    scores = np.asarray(scores, float)
    positive = np.sort(scores[np.asarray(truth) == 1])[::-1]
    if not len(positive):
        raise MedicError("no image has the finding, so no threshold can be chosen on them; give images that have it")
    # A hair is taken off: 0.9 * 10 is 9.000000000000002 in binary, and nine images are enough.
    needed = int(np.ceil(sensitivity * len(positive) - 1e-9))
    score = positive[max(needed, 1) - 1]
    return float(score + scores[scores < score].max(initial=0)) / 2


def thresholds_for(truth: np.ndarray, prediction: Prediction, sensitivity: float) -> tuple[float, ...]:
    """Return the operating point of a model for a wanted sensitivity, class by class.

    Args:
        truth: int (N,) codes of a task with two classes, or int (N, C) of a multilabel one.
        prediction: of the N images, which are the validation split's and not the test split's.
        sensitivity: wanted share of each class's images, above 0 and up to 1.

    Returns:
        One threshold a class as ``Prediction.thresholds`` has them. A class of a multilabel task that no image has
        stays at 0.5.
    """
    if prediction.task.kind != "multilabel":
        return (threshold_for(truth, prediction.probabilities[:, 1], sensitivity),)
    pairs = zip(truth.T, prediction.probabilities.T, strict=True)
    return tuple(threshold_for(present, scores, sensitivity) if present.any() else 0.5 for present, scores in pairs)


def operating_points(truth: np.ndarray, scores: np.ndarray, thresholds: Sequence[float]) -> pd.DataFrame:
    """Return what thresholds do, one row each.

    Args:
        truth: int (N,), 1 where the finding is present.
        scores: float (N,) probabilities.
        thresholds: to be looked at.

    Returns:
        ``sensitivity``, ``specificity``, ``positive_predictive_value``, ``negative_predictive_value`` (shares, missing
        where nothing is divided) and ``called`` (share of all images called positive), by ``threshold``.
    """
    truth, at = np.asarray(truth).astype(bool), pd.Index(thresholds, name="threshold", dtype=float)
    called = np.asarray(scores) >= at.to_numpy()[:, None]
    with np.errstate(invalid="ignore"):
        shares = {
            "sensitivity": (called & truth).sum(axis=1) / truth.sum(),
            "specificity": (~called & ~truth).sum(axis=1) / (~truth).sum(),
            "positive_predictive_value": (called & truth).sum(axis=1) / called.sum(axis=1),
            "negative_predictive_value": (~called & ~truth).sum(axis=1) / (~called).sum(axis=1),
            "called": called.mean(axis=1),
        }
    return pd.DataFrame(shares, index=at)


def predictive_values(
    sensitivity: float, specificity: float, shares: Sequence[float], people: int = 1000
) -> pd.DataFrame:
    """Return what an operating point means where another share of the people has the finding, by Bayes' rule.

    Sensitivity and specificity are taken to stay as they are, which they do as far as the people with the finding
    have it as plainly, and those without it are as healthy.

    Args:
        sensitivity: share of those with the finding that are called positive.
        specificity: share of those without it that are not.
        shares: of the people that have the finding (the prevalence), 0 to 1.
        people: how many the counts are for.

    Returns:
        One row a share: ``found``, ``missed``, ``false_alarms`` and ``left_in_peace`` (people, not rounded), and
        ``positive_predictive_value`` and ``negative_predictive_value`` (shares, missing where nobody is called, or
        nobody is not).
    """
    share = pd.Index(shares, name="share", dtype=float)
    table = pd.DataFrame(index=share)
    table["found"], table["missed"] = people * share * sensitivity, people * share * (1 - sensitivity)
    table["false_alarms"] = people * (1 - share) * (1 - specificity)
    table["left_in_peace"] = people * (1 - share) * specificity
    called, not_called = table["found"] + table["false_alarms"], table["left_in_peace"] + table["missed"]
    table["positive_predictive_value"] = table["found"] / called.where(called > 0)
    table["negative_predictive_value"] = table["left_in_peace"] / not_called.where(not_called > 0)
    return table


def fit_cut_points(grades: np.ndarray, labels: np.ndarray, task: Task, metric: str = "macro_f1") -> tuple[float, ...]:
    """Return cut points between the grades that score well on the given images, which should be validation's.

    Only places midway between two neighbouring grades are tried: others decide the same. One cut after the other moves
    to its best place while the others stay, until none moves; from rounding, and from the cuts that give each class as
    many images as it has. Rounding is kept when nothing is better.

    Args:
        grades: float (N,), continuous grades as the model gives them; clipped to 0..C-1.
        labels: int (N,), true codes.
        task: an ordinal task.
        metric: a name in ``METRICS``.

    Returns:
        C-1 cuts in order, between 0 and C-1; a grade on a cut belongs below it.

    Raises:
        MedicError: the task is not ordinal, the metric is unknown, or grades and labels do not go together.
    """
    if task.kind != "ordinal":
        raise MedicError(f"cut points divide the grades of an ordinal task, {task.name!r} is {task.kind}")
    if metric not in METRICS:
        raise MedicError(f"cut points cannot be fitted for {metric!r}; there is: {', '.join(METRICS)}")
    grades, labels, top = np.asarray(grades, np.float32), np.asarray(labels), len(task.classes) - 1
    if grades.ndim != 1 or grades.shape != labels.shape or not len(grades) or not np.isfinite(grades).all():
        raise MedicError(
            f"cut points need one finite grade for every label, got grades {grades.shape} and labels {labels.shape}; "
            "give the grades of a prediction and the labels of its records"
        )
    if np.isin(labels, range(top + 1), invert=True).any():
        raise MedicError(f"a label lies outside the task {task.name!r}, whose codes are 0 to {top}; correct it")
    grades = grades.clip(0, top)
    order = np.argsort(grades)
    levels = np.unique(np.append(grades, np.float32([0, top])))
    middle = (levels[1:] + levels[:-1]) / 2
    places = np.where(middle < levels[1:], middle, levels[:-1])  # no float32 number lies between two neighbours
    places = places[np.unique(np.linspace(0, len(places) - 1, MOST_PLACES).round().astype(int))]
    below = np.pad(np.eye(top + 1)[labels[order]].cumsum(axis=0), ((1, 0), (0, 0)))  # images of each class, by rank

    def judge(cuts: np.ndarray) -> np.ndarray:
        ranks = np.searchsorted(grades[order], cuts, side="right")
        edges = np.pad(ranks, ((0, 0), (1, 1)), constant_values=((0, 0), (0, len(grades))))
        return HIGHER_IS_BETTER[metric](np.diff(below[edges], axis=1).swapaxes(1, 2))

    def climb(cuts: np.ndarray) -> tuple[float, np.ndarray]:
        value, before = judge(cuts[None])[0], -np.inf
        while value > before:
            before = value
            for moved in range(top):
                bounds = np.concatenate([[0], cuts, [top]])[[moved, moved + 2]]
                free = places[(places >= bounds[0]) & (places <= bounds[1])]
                tried = np.concatenate([cuts[None], np.repeat(cuts[None], len(free), axis=0)])
                tried[1:, moved] = free
                values = judge(tried)
                best = int(np.argmax(values > values.max() - 1e-12))
                cuts, value = tried[best], values[best]
        return value, cuts

    rounding = np.arange(top, dtype=np.float32) + np.float32(0.5)
    by_share = np.quantile(grades, below[-1].cumsum()[:-1] / len(grades))
    nearest = places[np.abs(places[:, None] - by_share).argmin(axis=0)]
    _, cuts = max((climb(start) for start in (rounding, nearest)), key=lambda found: found[0])
    return tuple(float(cut) for cut in cuts)


def decide(grades: np.ndarray, cuts: tuple[float, ...]) -> np.ndarray:
    """Return the class code, int64 (N,), of continuous grades (N,): how many cuts lie below it."""
    return np.searchsorted(np.asarray(cuts, np.float32), np.asarray(grades, np.float32), side="left")


def with_cut_points(evaluation: Evaluation, metric: str, *, same_images: bool = False, seed: int = 0) -> Evaluation:
    """Return the evaluation of the same grades, decided by cut points instead of by rounding.

    Args:
        evaluation: of an ordinal task.
        metric: what the cut points are fitted for: ``macro_f1`` or ``quadratic_weighted_kappa``.
        same_images: fit on the very images that are judged, which flatters; otherwise the patients are dealt into two
            halves, and each half is decided by the cut points of the other.
        seed: of the halves.
    """

    def decided(fitting: Evaluation, judged: Evaluation) -> Prediction:
        labels = fitting.records["label"].to_numpy()
        cuts = fit_cut_points(fitting.prediction.grade, labels, fitting.task, metric)
        codes = decide(judged.prediction.grade, cuts)
        certain = np.eye(len(judged.task.classes), dtype=np.float32)[codes]
        return replace(judged.prediction, probabilities=certain)

    return _fitted(evaluation, decided, same_images, seed)


def with_other_eye(
    evaluation: Evaluation,
    metric: str = "quadratic_weighted_kappa",
    *,
    same_images: bool = False,
    seed: int = 0,
) -> Evaluation:
    """The evaluation of predictions into which those of the patient's other eye are mixed, by a fitted weight.

    Arguments as for ``with_cut_points``; the records need the column ``eye``.
    """

    def mixed(fitting: Evaluation, judged: Evaluation) -> Prediction:
        weight = fit_weight(fitting.prediction, fitting.records, metric)
        return combine_eyes(judged.prediction, judged.records, weight)

    return _fitted(evaluation, mixed, same_images, seed)


def _fitted(
    evaluation: Evaluation, predict: Callable[[Evaluation, Evaluation], Prediction], same_images: bool, seed: int
) -> Evaluation:
    """Fit something and judge it: on the same images, or with the two halves of the patients in exchanged roles."""
    if same_images:
        return replace(evaluation, prediction=predict(evaluation, evaluation))
    halves = split_by_patient(evaluation.records.assign(split="train"), validation=0.5, seed=seed)["split"].to_numpy()
    probabilities = evaluation.prediction.probabilities.copy()
    grade = None if evaluation.prediction.grade is None else evaluation.prediction.grade.copy()
    for half in ("train", "validation"):
        judged = halves == half
        found = predict(_part(evaluation, ~judged), _part(evaluation, judged))
        probabilities[judged] = found.probabilities
        if grade is not None:
            grade[judged] = found.grade
    return replace(evaluation, prediction=replace(evaluation.prediction, probabilities=probabilities, grade=grade))


def _part(evaluation: Evaluation, chosen: np.ndarray) -> Evaluation:
    return replace(
        evaluation,
        prediction=evaluation.prediction.rows(chosen),
        records=evaluation.records[chosen].reset_index(drop=True),
    )
