"""Figures of merit, for the images as they are or for thousands of bootstrap samples of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from medic.modeling.metrics.ranking import auroc, average_precision
from medic.task import Prediction, Task


def confusion_matrix(labels: np.ndarray, decided: np.ndarray, classes: int) -> np.ndarray:
    """Count how often class ``i`` was called class ``j``.

    Args:
        labels: int (N,) true codes.
        decided: int (N,) decided codes.
        classes: how many classes there are.

    Returns:
        int64 (C, C), rows are the truth.
    """
    return np.bincount(np.asarray(labels) * classes + decided, minlength=classes**2).reshape(classes, classes)


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share of correct decisions, 0..1; ``confusion`` is (..., C, C), rows the truth."""
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1))


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean over the classes of the harmonic mean of precision and recall, 0..1.

    A class that occurs neither in the truth nor among the decisions is left out, as scikit-learn does.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    occurring = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    scores = np.divide(2 * hits, occurring, out=np.zeros(hits.shape), where=occurring > 0)
    return scores.sum(axis=-1) / (occurring > 0).sum(axis=-1)


def quadratic_weighted_kappa(confusion: np.ndarray) -> np.ndarray:
    """Agreement beyond chance on an ordered scale, 1 perfect, 0 chance; errors cost by their squared distance.

    Cohen, Psychological Bulletin 70(4), 1968, p. 213. Without any spread to agree on (truth and decisions all in one
    class) it is 0.
    """
    codes = np.arange(confusion.shape[-1])
    weights = (codes[:, None] - codes[None, :]) ** 2
    total = confusion.sum(axis=(-2, -1), keepdims=True)
    chance = confusion.sum(axis=-1)[..., :, None] * confusion.sum(axis=-2)[..., None, :] / total
    observed = (weights * confusion).sum(axis=(-2, -1))
    expected = (weights * chance).sum(axis=(-2, -1))
    return np.where(expected > 0, 1 - observed / np.where(expected > 0, expected, 1), 0.0)


def mean_grade_error(confusion: np.ndarray) -> np.ndarray:
    """Mean distance between the decided and the true grade, in grades; lower is better."""
    codes = np.arange(confusion.shape[-1])
    distance = np.abs(codes[:, None] - codes[None, :])
    return (distance * confusion).sum(axis=(-2, -1)) / confusion.sum(axis=(-2, -1))


def sensitivity(confusion: np.ndarray) -> np.ndarray:
    """Share of the images with class 1 that are called so, 0..1; ``confusion`` is (..., 2, 2). NaN without any."""
    return _share(confusion[..., 1, 1], confusion[..., 1, :].sum(axis=-1))


def specificity(confusion: np.ndarray) -> np.ndarray:
    """Share of the images with class 0 that are called so, 0..1; ``confusion`` is (..., 2, 2). NaN without any."""
    return _share(confusion[..., 0, 0], confusion[..., 0, :].sum(axis=-1))


def precision(confusion: np.ndarray) -> np.ndarray:
    """Share of the images called class 1 that are, 0..1; ``confusion`` is (..., 2, 2). NaN without any."""
    return _share(confusion[..., 1, 1], confusion[..., :, 1].sum(axis=-1))


def f1(confusion: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and sensitivity for class 1, 0..1; 0 where it neither occurs nor is called."""
    called_or_true = confusion[..., 1, :].sum(axis=-1) + confusion[..., :, 1].sum(axis=-1)
    return np.nan_to_num(_share(2 * confusion[..., 1, 1], called_or_true))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


HIGHER_IS_BETTER = {"accuracy": accuracy, "macro_f1": macro_f1, "quadratic_weighted_kappa": quadratic_weighted_kappa}
"""Figures by which thresholds between grades can be fitted: functions of confusion matrices (..., C, C)."""

Metric = Callable[[np.ndarray, Prediction, np.ndarray], np.ndarray]
"""Truth int (N,) or (N, C), prediction of the N images, and how often each counts (D, N), to the figure (D,)."""


def metrics_for(task: Task) -> dict[str, Metric]:
    """The figures that suit a task, by name. The last is the decider: the one by which an epoch is chosen.

    Wherever "present or not" is asked (two classes, or several labels), it is the area under the ROC curve, which
    needs no threshold; for several labels its mean over those labels that some images have and some have not. Their
    macro F1 is the mean over all labels, and one that neither occurs nor is called counts in it as 0, which is
    scikit-learn's rule (``zero_division=0``).
    """
    if task.kind == "multilabel":
        return {
            "macro_f1": _of_labels(lambda confusions: f1(confusions).mean(axis=-1)),
            "mean_average_precision": _mean_over_labels(average_precision),
            "mean_auroc": _mean_over_labels(auroc),
        }
    figures: dict[str, Metric] = {"accuracy": _of_confusion(accuracy), "macro_f1": _of_confusion(macro_f1)}
    if task.kind == "ordinal":
        return {
            "mean_grade_error": _of_confusion(mean_grade_error),
            **figures,
            "quadratic_weighted_kappa": _of_confusion(quadratic_weighted_kappa),
        }
    if len(task.classes) == 2:
        figures |= {
            "sensitivity": _of_confusion(sensitivity),
            "specificity": _of_confusion(specificity),
            "average_precision": _of_the_second(average_precision),
            "auroc": _of_the_second(auroc),
        }
    return figures


CHOOSABLE = (*HIGHER_IS_BETTER, "average_precision", "auroc", "mean_average_precision", "mean_auroc")
"""The figures by which an epoch can be chosen, as far as the task has them."""


def mean_auroc_of(labels: Sequence[int]) -> Metric:
    """The mean area under the ROC curve of some labels of a multilabel task, such as those that enough patients have.

    Args:
        labels: places in the task's classes; in each draw of the patients those count that some images have and some
            have not.
    """
    return _mean_over_labels(auroc, labels)


def metric_named(metric: str | Metric, task: Task) -> Metric:
    """A figure of the task by its name in ``metrics_for``; a function is taken as it is."""
    return metric if callable(metric) else metrics_for(task)[metric]


def score(metric: Metric, truth: np.ndarray, prediction: Prediction) -> float:
    """Return the metric with every image counting once."""
    return float(metric(truth, prediction, np.ones((1, len(truth))))[0])


def resampled(
    metric: Callable[..., np.ndarray],
    truth: np.ndarray,
    said: Prediction | np.ndarray,
    groups: np.ndarray,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> np.ndarray:
    """A figure over bootstrap samples that draw whole groups (patients), not single images.

    Two eyes of one person are no two independent observations: drawing images would make the interval too narrow
    (cluster bootstrap; Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). The same groups
    and seed give the same samples, so that differences between two models are paired.

    Args:
        metric: one of ``metrics_for``, or an area of ``medic.modeling.metrics.ranking``.
        truth: int (N,) or (N, C).
        said: what the metric judges of the N images: a prediction, for an area scores (N,).
        groups: (N,) the patient of each image.
        draws: number of bootstrap samples.
        seed: of the draws.

    Returns:
        float64 (draws,); NaN where a sample has nothing that the figure is about.
    """
    _, member = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    count = member.max() + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    step = max(1, _CELLS_AT_ONCE // len(member))
    parts = [metric(truth, said, drawn[at : at + step][:, member]) for at in range(0, draws, step)]
    return np.concatenate(parts)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap values; samples without a value are left out, NaN if all are."""
    values = values[~np.isnan(values)]
    low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
    return float(low), float(high)


_CELLS_AT_ONCE = 4_000_000
"""Of how many images times samples the counts are held in memory together."""


def label_confusions(truth: np.ndarray, decided: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """For each label of a multilabel task its 2 x 2 confusion matrix.

    Args:
        truth: int (N, C), 0 or 1.
        decided: int (N, C), 0 or 1.
        counts: (D, N), how often each image counts; once when None.

    Returns:
        (C, 2, 2), or (D, C, 2, 2) with counts; rows are the truth.
    """
    cells = np.asarray(truth) * 2 + decided
    weights = np.ones((1, len(cells))) if counts is None else np.asarray(counts, float)
    each = np.stack([weights @ (cells == code) for code in range(4)], axis=-1)
    confusions = each.reshape(*each.shape[:-1], 2, 2)
    return confusions[0].astype(np.int64) if counts is None else confusions


def _of_confusion(function: Callable[[np.ndarray], np.ndarray]) -> Metric:
    def metric(truth: np.ndarray, prediction: Prediction, counts: np.ndarray) -> np.ndarray:
        classes = len(prediction.task.classes)
        cells = np.asarray(truth) * classes + prediction.decided
        confusions = np.asarray(counts, float) @ np.eye(classes**2)[cells]
        return function(confusions.reshape(-1, classes, classes))

    return metric


def shares_of_hits(along: int) -> Metric:
    """Of each class the share that is right: of those called so (``along`` -2, precision) or of those that are (-1).

    Returns:
        A metric that gives (D, C); NaN where there is nothing to take a share of.
    """
    return _of_confusion(
        lambda confusions: _share(np.diagonal(confusions, axis1=-2, axis2=-1), confusions.sum(axis=along))
    )


def _of_labels(function: Callable[[np.ndarray], np.ndarray]) -> Metric:
    return lambda truth, prediction, counts: function(label_confusions(truth, prediction.decided, counts))


def _of_the_second(area: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> Metric:
    return lambda truth, prediction, counts: area(truth, prediction.probabilities[:, 1], counts)


def _mean_over_labels(
    area: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], labels: Sequence[int] | None = None
) -> Metric:
    def metric(truth: np.ndarray, prediction: Prediction, counts: np.ndarray) -> np.ndarray:
        codes = range(truth.shape[1]) if labels is None else labels
        areas = np.stack([area(truth[:, code], prediction.probabilities[:, code], counts) for code in codes])
        known = (~np.isnan(areas)).sum(axis=0)
        return _share(np.nansum(areas, axis=0), known)

    return metric
