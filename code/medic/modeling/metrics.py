"""Metrics of decisions and rankings, for the images as they are or for thousands of bootstrap samples at once.

Every metric takes how often each image counts in each of D samples. scikit-learn has the same ones for a single sample;
2,000 samples of an area under the ROC curve take it a hundred times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import beta

from medic.errors import MedicError
from medic.task import Prediction, Task


def confusion_matrix(
    truth: np.ndarray, decided: np.ndarray, classes: int, counts: np.ndarray | None = None
) -> np.ndarray:
    """Count how often class ``i`` was called class ``j``, for each label of a multilabel task by itself.

    Args:
        truth: int (N,) codes, or (N, L) of 0 and 1.
        decided: int, of the same shape.
        classes: C, how many codes there are; 2 for labels.
        counts: (D, N), how often each image counts in each of D samples; once, without the axis D, when None.

    Returns:
        int64 (C, C) or (L, C, C), float64 (D, C, C) or (D, L, C, C) with counts; rows are the truth.
    """
    cells = (np.asarray(truth) * classes + decided)[..., None] == np.arange(classes**2)
    counted = cells.sum(axis=0) if counts is None else np.tensordot(np.asarray(counts, float), cells, axes=1)
    return counted.reshape(*counted.shape[:-1], classes, classes)


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Return the share of correct decisions, 0..1; ``confusion`` is (..., C, C), rows the truth."""
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1))


def f1_of_classes(confusion: np.ndarray) -> np.ndarray:
    """Return the harmonic mean of precision and recall of each class, 0..1: (..., C).

    NaN for a class that occurs neither in the truth nor among the decisions.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _share(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Return the mean of ``f1_of_classes``, without the missing ones, as scikit-learn has it."""
    return np.nanmean(f1_of_classes(confusion), axis=-1)


def quadratic_weighted_kappa(confusion: np.ndarray) -> np.ndarray:
    """Return the agreement beyond chance on an ordered scale, 1 perfect, 0 chance; errors cost by squared distance.

    Cohen, Psychological Bulletin 70(4), 1968, p. 213. Without any spread to agree on (truth and decisions all in one
    class) it is 0.
    """
    codes = np.arange(confusion.shape[-1])
    weights = (codes[:, None] - codes[None, :]) ** 2
    total = confusion.sum(axis=(-2, -1), keepdims=True)
    chance = confusion.sum(axis=-1)[..., :, None] * confusion.sum(axis=-2)[..., None, :] / total
    observed = (weights * confusion).sum(axis=(-2, -1))
    expected = (weights * chance).sum(axis=(-2, -1))
    return 1 - np.nan_to_num(_share(observed, expected), nan=1.0)


def mean_grade_error(confusion: np.ndarray) -> np.ndarray:
    """Return the mean distance between the decided and the true grade, in grades; lower is better."""
    codes = np.arange(confusion.shape[-1])
    distance = np.abs(codes[:, None] - codes[None, :])
    return (distance * confusion).sum(axis=(-2, -1)) / confusion.sum(axis=(-2, -1))


def recall_of_classes(confusion: np.ndarray) -> np.ndarray:
    """Return the share of each class's images that is called so, 0..1: (..., C); NaN for a class without any.

    Of two classes, the second's is the sensitivity and the first's the specificity.
    """
    return _share(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def auroc(truth: np.ndarray, scores: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the area under the ROC curve: how often an image with the label scores above one without.

    Equal scores count half (Hanley & McNeil, Radiology 143(1), 1982, p. 29).

    Args:
        truth: int (N,), 1 where the label is present.
        scores: float (N,), higher for more probable.
        counts: (D, N), how often each image counts in each of D samples; once, in one sample, when None.

    Returns:
        float64 (D,) in 0..1; NaN for a sample that has only images with the label, or only without.

    Raises:
        MedicError: a score is not a number.
    """
    hits, alarms = _called(truth, scores, counts)
    area = (np.diff(alarms) * (hits[:, 1:] + hits[:, :-1])).sum(axis=1) / 2
    return _share(area, hits[:, -1] * alarms[:, -1])


def average_precision(truth: np.ndarray, scores: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the mean precision over the images with the label, each at the threshold that just finds it.

    The area under the precision-recall curve in steps, without interpolation, as scikit-learn has it. A ranking by
    chance has the share of images with the label. Arguments, returns and errors are those of ``auroc``; NaN for a
    sample without the label.
    """
    hits, alarms = _called(truth, scores, counts)
    precisions = np.nan_to_num(_share(hits, hits + alarms))[:, 1:]
    return _share((np.diff(hits) * precisions).sum(axis=1), hits[:, -1])


def _called(truth: np.ndarray, scores: np.ndarray, counts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Count what is called at each threshold, from the highest: with the label and without, float (D, T + 1) each.

    The first column is a threshold above all scores; images of equal score are called together.
    """
    truth, scores = np.asarray(truth).astype(bool), np.asarray(scores)
    refuse_nan(scores)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    counts = np.ones((1, len(truth))) if counts is None else np.asarray(counts)
    both = []
    for chosen in (truth, ~truth):
        running = np.cumsum((counts * chosen)[:, order], axis=1, dtype=float)[:, last]
        both.append(np.pad(running, ((0, 0), (1, 0))))
    return both[0], both[1]


def refuse_nan(scores: np.ndarray) -> None:
    """Raise a ``MedicError`` where a score is not a number: neither a decision nor a figure comes from it."""
    if np.isnan(scores).any():
        raise MedicError(f"{np.isnan(scores).sum()} of {scores.size} scores are not numbers; the training has diverged")


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


CHOOSABLE = ("accuracy", "macro_f1", "quadratic_weighted_kappa")
CHOOSABLE += ("average_precision", "auroc", "mean_average_precision", "mean_auroc")
"""The metrics by which an epoch can be chosen, as far as the task has them."""

Metric = Callable[[np.ndarray, Prediction, np.ndarray], np.ndarray]
"""Truth int (N,) or (N, C), prediction of the N images, and how often each counts (D, N), to the metric (D,)."""


def metrics_for(task: Task) -> dict[str, Metric]:
    """Return the metrics that suit a task, by name. The last is the one by which an epoch is chosen.

    Wherever "present or not" is asked (two classes, or several labels), it is the area under the ROC curve, which
    needs no threshold; for several labels its mean over those labels that some images have and some have not. Their
    macro F1 is the mean over all labels, and one that neither occurs nor is called counts in it as 0, which is
    scikit-learn's rule (``zero_division=0``).
    """
    if task.kind == "multilabel":
        return {
            "macro_f1": _of_confusion(lambda tables: np.nan_to_num(f1_of_classes(tables)[..., 1]).mean(axis=-1)),
            "mean_average_precision": mean_over_labels(average_precision),
            "mean_auroc": mean_over_labels(auroc),
        }
    metrics: dict[str, Metric] = {"accuracy": _of_confusion(accuracy), "macro_f1": _of_confusion(macro_f1)}
    if task.kind == "ordinal":
        return {
            "mean_grade_error": _of_confusion(mean_grade_error),
            **metrics,
            "quadratic_weighted_kappa": _of_confusion(quadratic_weighted_kappa),
        }
    if len(task.classes) == 2:
        for code, name in ((1, "sensitivity"), (0, "specificity")):
            metrics[name] = _of_confusion(lambda table, code=code: recall_of_classes(table)[..., code])
        for area in (average_precision, auroc):
            metrics[area.__name__] = lambda truth, said, counts, area=area: area(
                truth, said.probabilities[:, 1], counts
            )
    return metrics


def _of_confusion(function: Callable[[np.ndarray], np.ndarray]) -> Metric:
    def metric(truth: np.ndarray, said: Prediction, counts: np.ndarray) -> np.ndarray:
        refuse_nan(said.probabilities)
        codes = 2 if said.task.kind == "multilabel" else len(said.task.classes)
        return function(confusion_matrix(truth, said.decided, codes, counts))

    return metric


def mean_over_labels(area: Callable[..., np.ndarray], labels: Sequence[int] | None = None) -> Metric:
    """Return the metric that is the mean of an area, such as ``auroc``, over the labels of a multilabel task.

    Args:
        area: ``auroc`` or ``average_precision``.
        labels: places in the task's classes, such as those that enough patients have; all when None. In each sample
            those count that some images have and some have not.
    """

    def metric(truth: np.ndarray, prediction: Prediction, counts: np.ndarray) -> np.ndarray:
        codes = range(truth.shape[1]) if labels is None else labels
        areas = np.stack([area(truth[:, code], prediction.probabilities[:, code], counts) for code in codes])
        return _share(np.nansum(areas, axis=0), (~np.isnan(areas)).sum(axis=0))

    return metric


def metric_named(metric: str | Metric, task: Task) -> Metric:
    """Return a metric of the task by its name in ``metrics_for``; a function is taken as it is."""
    return metric if callable(metric) else metrics_for(task)[metric]


def score(metric: Metric, truth: np.ndarray, prediction: Prediction) -> float:
    """Return the metric with every image counting once."""
    return float(metric(truth, prediction, np.ones((1, len(truth))))[0])


_CELLS_AT_ONCE = 4_000_000
"""Of how many images times samples the counts are held in memory together."""


def resampled(
    metric: Callable[..., np.ndarray],
    truth: np.ndarray,
    said: Prediction | np.ndarray,
    groups: np.ndarray,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> np.ndarray:
    """Return a metric over bootstrap samples that draw whole groups (patients), not single images.

    Two eyes of one person are no two independent observations: drawing images would make the interval too narrow
    (cluster bootstrap; Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). The same groups
    and seed give the same samples, so that differences between two models are paired.

    Args:
        metric: one of ``metrics_for``, or ``auroc`` or ``average_precision``.
        truth: int (N,) or (N, C).
        said: what the metric judges of the N images: a prediction, for an area scores (N,).
        groups: (N,) the patient of each image.
        draws: number of bootstrap samples.
        seed: of the draws.

    Returns:
        float64 (draws,); NaN where a sample has nothing that the metric is about.
    """
    _, member = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    count = member.max() + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    step = max(1, _CELLS_AT_ONCE // len(member))
    parts = [metric(truth, said, drawn[at : at + step][:, member]) for at in range(0, draws, step)]
    return np.concatenate(parts)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of bootstrap values; samples without one are left out, NaN if all are."""
    values = values[~np.isnan(values)]
    low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
    return float(low), float(high)


FEWEST_PATIENTS = 10
"""Patients of either kind that an interval takes: with fewer, nominal 95 % of AUROC held the truth in 16 to 77 %."""

_RESTS_ON = {"sensitivity": (1,), "specificity": (0,), "auroc": (1, 0), "average_precision": (1, 0)}


def too_few(name: str | Metric, truth: np.ndarray, patients: np.ndarray) -> str:
    """Say why there are too few patients for an interval of a metric; empty where there are enough.

    Arguments as ``interval_of``. Areas take ten patients with the finding and ten without, sensitivity and specificity
    ten of their kind, means of areas one label with ten of both; anything else ten patients.
    """
    labels = truth.T if truth.ndim == 2 and name in ("mean_auroc", "mean_average_precision") else [truth]
    kinds = (1, 0) if len(labels) > 1 else _RESTS_ON.get(name, ())
    of_label = [[one == kind for kind in kinds] or [np.ones(len(one), bool)] for one in labels]
    fewest = max(min(len(np.unique(patients[side])) for side in sides) for sides in of_label)
    return f"it rests on {fewest} patients, fewer than {FEWEST_PATIENTS}" if fewest < FEWEST_PATIENTS else ""


def interval_of(
    name: str | Metric, truth: np.ndarray, decided: np.ndarray, patients: np.ndarray, draws: np.ndarray
) -> tuple[float, float, str]:
    """Return the 95 % interval of a metric from its bootstrap values, or NaN and the reason why there is none.

    There is none with ``too_few`` patients, or where all samples agree although the metric is no share.

    Args:
        name: of the metric in ``metrics_for``; of a function only all patients are counted.
        truth: int (N,) or (N, C).
        decided: of the same shape, what was decided.
        patients: (N,) whose image it is.
        draws: (D,) the metric in samples, as ``resampled`` gives them.
    """
    few = too_few(name, truth, patients)
    if few:
        return np.nan, np.nan, f"no interval: {few}"
    if name in ("accuracy", "sensitivity", "specificity"):
        among = np.isin(truth, _RESTS_ON.get(name, truth))
        return *share_interval((decided == truth)[among], patients[among], draws), ""
    low, high = interval(draws)
    return (low, high, "") if low < high else (np.nan, np.nan, "no interval: all samples of patients agree")


def share_interval(hits: np.ndarray, patients: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of a share: percentiles of its bootstrap values, exact where it is near 0 or 1.

    Of 12 right answers in 12, every sample is right, and percentiles would say 1 to 1. With fewer than five hits or
    misses, the exact binomial interval (Clopper & Pearson, Biometrika 26, 1934) of an effective number of images takes
    their place: what explains the variance of the samples, between that of images that tell as much as their patient
    and the number of images (Korn & Graubard, Survey Methodology 24(2), 1998). NaN below ten patients.

    Args:
        hits: bool (n,), of the images of which it is the share.
        patients: (n,) whose image it is.
        draws: (D,) the share in samples of patients.
    """
    _, images = np.unique(np.asarray(patients).astype(str), return_counts=True)
    if len(images) < FEWEST_PATIENTS:
        return np.nan, np.nan
    share, alike = hits.mean(), images.sum() ** 2 / (images**2).sum()
    count = np.clip(share * (1 - share) / max(np.nanvar(draws), 1e-12), alike, images.sum())
    right, wrong = share * count, (1 - share) * count
    if min(right, wrong) >= 5:
        return interval(draws)
    ends = beta.ppf([0.025, 0.975], [right, right + 1], [wrong + 1, wrong])
    return (0.0 if right == 0 else float(ends[0])), (1.0 if wrong == 0 else float(ends[1]))
