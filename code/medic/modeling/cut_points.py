"""Cut points: where a continuous output turns from one grade to the next, chosen on validation instead of rounding."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.modeling.metrics import HIGHER_IS_BETTER, confusion_matrix, macro_f1
from medic.task import Task

METRICS = {name: HIGHER_IS_BETTER[name] for name in ("macro_f1", "quadratic_weighted_kappa")}
"""For what cut points can be fitted."""

MOST_PLACES = 2000
"""Places between grades that are tried; of more, as many are taken at equal distances in rank."""


def fit_cut_points(grades: np.ndarray, labels: np.ndarray, task: Task, metric: str = "macro_f1") -> tuple[float, ...]:
    """Find the cut points with the best figure on the given images, which should be the validation split's.

    A useful cut lies midway between two neighbouring grades: others decide the same. Over these places the best set of
    cuts is found exactly: macro F1 is a mean over the classes, each a function of its own two cuts, and is maximised by
    dynamic programming. Kappa is one minus a ratio of two such sums; the ratio is minimised by solving, again by
    dynamic programming, for numerator minus ratio times denominator until the ratio no longer falls (Dinkelbach,
    Management Science 13(7), 1967, p. 492). So is macro F1 where a class does not occur, as then the number of classes
    in the mean depends on the decisions. Rounding is kept when nothing is better.

    Args:
        grades: float (N,), continuous grades as the model gives them; clipped to 0..C-1.
        labels: int (N,), true codes.
        task: an ordinal task.
        metric: a name in ``METRICS``.

    Returns:
        C-1 cuts in increasing order, between 0 and C-1; a grade on a cut belongs below it.

    Raises:
        MedicError: the task is not ordinal, the metric is unknown, or grades and labels do not go together.
    """
    if task.kind != "ordinal":
        raise MedicError(f"cut points divide the grades of an ordinal task, {task.name!r} is {task.kind}")
    if metric not in METRICS:
        raise MedicError(f"cut points cannot be fitted for {metric!r}; there is: {', '.join(METRICS)}")
    grades, labels = np.asarray(grades, np.float32), np.asarray(labels)
    if grades.ndim != 1 or grades.shape != labels.shape or not len(grades) or not np.isfinite(grades).all():
        raise MedicError(
            f"cut points need one finite grade for every label, got grades {grades.shape} and labels {labels.shape}; "
            "give the grades of a prediction and the labels of its records"
        )
    top = len(task.classes) - 1
    grades = grades.clip(0, top)
    if np.isin(labels, range(top + 1), invert=True).any():
        raise MedicError(
            f"a label lies outside the task {task.name!r}, whose codes are 0 to {top}; correct the records"
        )
    search = _best_for_f1 if metric == "macro_f1" else _best_for_kappa
    levels, counts = _count(grades, labels, top + 1)
    rounding = tuple(code + 0.5 for code in range(top))
    fitted = _cuts(levels, search(counts, _places(levels, top)), top)
    achieved = [METRICS[metric](confusion_matrix(labels, decide(grades, cuts), top + 1)) for cuts in (rounding, fitted)]
    return fitted if achieved[1] > achieved[0] else rounding


def decide(grades: np.ndarray, cuts: tuple[float, ...]) -> np.ndarray:
    """The class code, int64 (N,), of continuous grades (N,): how many cuts lie below it."""
    return np.searchsorted(np.asarray(cuts, np.float32), np.asarray(grades, np.float32), side="left")


def with_cut_points(model: Classifier, grades: np.ndarray, labels: np.ndarray, metric: str = "macro_f1") -> Classifier:
    """A copy of a model that decides by cut points fitted on the given images.

    Args:
        model: a classifier for an ordinal task; it is left as it is.
        grades: float (N,), its continuous grades on the validation split.
        labels: int (N,), the true codes.
        metric: a name in ``METRICS``.

    Raises:
        MedicError: as ``fit_cut_points``.
    """
    cuts = fit_cut_points(grades, labels, model.task, metric)
    cut = copy.deepcopy(model)
    cut.objective = replace(model.objective, cuts=cuts)
    return cut


def _count(grades: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct grades (M,), ascending, and how many images of each class lie below place 0..M, int64 (M + 1, C)."""
    levels, member = np.unique(grades, return_inverse=True)
    counts = np.zeros((len(levels) + 1, classes), np.int64)
    np.add.at(counts, (member + 1, labels), 1)
    return levels, counts.cumsum(axis=0)


def _places(levels: np.ndarray, top: int) -> np.ndarray:
    """Where cuts may be: place ``i`` has ``i`` distinct grades below it. Beyond an end of the scale there is none."""
    places = np.arange(levels[0] <= 0, len(levels) + (levels[-1] < top))
    if len(places) > MOST_PLACES:
        places = places[np.linspace(0, len(places) - 1, MOST_PLACES).round().astype(int)]
    return places


def _best_for_f1(counts: np.ndarray, places: np.ndarray) -> list[int]:
    """The places of the cuts with the highest macro F1."""
    ends = np.concatenate([[0], places, [len(counts) - 1]])
    below, true = counts[ends], counts[-1]
    everything, classes = below.sum(axis=1), len(true)

    def f1(code: int, start: slice, stop: slice) -> np.ndarray:
        hits = below[stop, code] - below[start, code][:, None]
        both = everything[stop] - everything[start][:, None] + true[code]
        values = np.divide(2 * hits, both, out=np.zeros(hits.shape), where=both > 0)
        # Macro F1 leaves out a class that neither occurs nor is decided; deciding it costs its share of the mean.
        return values if true[code] else values - mean * (both > 0)

    inner, last, mean, cuts = slice(1, len(ends) - 1), slice(len(ends) - 1, None), 0.0, None
    forwards = np.tri(len(places), dtype=bool).T  # a class cannot end before it starts; one that ends there is empty
    while True:
        best, chosen = f1(0, slice(0, 1), inner)[0], []
        for code in range(1, classes - 1):
            ending = np.where(forwards, best[:, None] + f1(code, inner, inner), -np.inf)
            chosen.append(ending.argmax(axis=0))
            best = ending.max(axis=0)
        found = _trace(chosen, int((best + f1(classes - 1, inner, last)[:, 0]).argmax()), places)
        now = float(macro_f1(_confusion(counts, found)))
        if cuts is not None and now <= mean:
            return cuts
        mean, cuts = now, found
        if true.all():  # as many terms in every mean: the first answer is the best
            return cuts


def _best_for_kappa(counts: np.ndarray, places: np.ndarray) -> list[int]:
    """The places of the cuts with the highest quadratic weighted kappa."""
    classes = counts.shape[1]
    codes = np.arange(classes)
    squares = (codes[:, None] - codes[None, :]) ** 2
    true = counts[-1]
    expected = true @ squares / true.sum()  # of one image, by the class that is decided for it
    observed = counts @ squares  # of all images below a place, were each class decided for them
    chance = counts.sum(axis=1)[:, None] * expected[None, :]

    def ratio_of(cuts: list[int]) -> float:
        bounds = [0, *cuts, len(counts) - 1]
        inside = [np.diff(each[bounds], axis=0).diagonal().sum() for each in (observed, chance)]
        return float(inside[0] / inside[1])

    ratio, cuts = np.inf, [int(places[np.abs(places - share).argmin()]) for share in _shares(counts)]
    if not (expected > 0).all():  # one class only: there is nothing to agree on
        return cuts
    while (now := ratio_of(cuts)) < ratio:
        ratio = now
        cost = (observed - ratio * chance)[places]
        best, chosen = cost[:, 0], []
        for code in range(1, classes - 1):
            start = best - cost[:, code]
            lowest = np.minimum.accumulate(start)
            fresh = np.concatenate([[True], start[1:] < lowest[:-1]])
            chosen.append(np.maximum.accumulate(np.where(fresh, np.arange(len(start)), 0)))
            best = lowest + cost[:, code]
        cuts = _trace(chosen, int((best - cost[:, -1]).argmin()), places)
    return cuts


def _shares(counts: np.ndarray) -> np.ndarray:
    """Places that give every class as many images as it has: where the search for kappa starts."""
    return np.searchsorted(counts.sum(axis=1), counts[-1].cumsum()[:-1])


def _confusion(counts: np.ndarray, cuts: list[int]) -> np.ndarray:
    """The confusion matrix (C, C), rows the truth, of deciding by cuts at these places."""
    return np.diff(counts[[0, *cuts, len(counts) - 1]], axis=0).T


def _trace(chosen: list[np.ndarray], last: int, places: np.ndarray) -> list[int]:
    """Follow the choices back from the last cut to the first."""
    steps = [last]
    for step in reversed(chosen):
        steps.append(int(step[steps[-1]]))
    return [int(places[step]) for step in reversed(steps)]


def _cuts(levels: np.ndarray, places: list[int], top: int) -> tuple[float, ...]:
    """Numbers for places: midway between the grades on both sides; several in one gap share it evenly."""
    edges = np.concatenate([[0], levels, [top]]).astype(np.float32)
    cuts = []
    for number, place in enumerate(places):
        low, high = edges[place], edges[place + 1]
        share = (places[:number].count(place) + 1) / (places.count(place) + 1)
        cut = np.float32(low + (float(high) - float(low)) * share)
        # Between neighbouring float32 numbers there is none; the lower one divides them, being below its cut.
        cuts.append(float(cut if cut < high else low))
    return tuple(cuts)
