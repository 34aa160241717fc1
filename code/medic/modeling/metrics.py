"""Metrics of decisions and rankings, for the images as they are or for thousands of bootstrap samples at once.

Every metric takes how often each image counts in each of D samples. scikit-learn has the same ones for a single sample;
2,000 samples of an area under the ROC curve take it a hundred times as long.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from scipy.stats import beta

from medic.errors import MedicError
from medic.task import Prediction, Task

Metric = Callable[[np.ndarray, Prediction, np.ndarray], np.ndarray]
"""Truth int (N,) or (N, C), prediction of the N images, and how often each counts (D, N), to the metric (D,)."""


def present(codes: np.ndarray, task: Task) -> np.ndarray:
    """Return whether each class is there, bool (N, C), of int (N,) codes, or of a multilabel task's (N, C)."""
    return np.asarray(codes) == 1 if task.kind == "multilabel" else np.eye(len(task.classes), dtype=bool)[codes]


def ratio(part: np.ndarray, whole: np.ndarray | float, counts: np.ndarray | None = None) -> np.ndarray:
    """Return what the images sum up to in each of D samples, over what another number of them sums up to.

    Args:
        part: bool or float, (N,) or (N, K), of each image.
        whole: of the same shape, or one number for all images; 1 gives the mean of ``part``.
        counts: (D, N), how often each image counts in each of D samples; once, in one sample, when None.

    Returns:
        float64 (D,) or (D, K); NaN for 0 of 0.
    """
    counts = np.ones((1, len(part))) if counts is None else np.asarray(counts, float)
    above, below = (counts @ np.broadcast_to(np.asarray(one, float), np.shape(part)) for one in (part, whole))
    return _divided(above, below)


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=np.asarray(below) > 0)


def f1_of_classes(truth: np.ndarray, decided: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the harmonic mean of precision and recall of each class, 0..1: (D, C).

    NaN for a class that occurs neither in the truth nor among the decisions, bool (N, C) each.
    """
    return ratio(2 * (truth & decided), truth * 1 + decided, counts)


def accuracy(truth: np.ndarray, said: Prediction, counts: np.ndarray) -> np.ndarray:
    """Return the share of right decisions, 0..1."""
    return ratio(_decided(said) == truth, 1, counts)


def macro_f1(truth: np.ndarray, said: Prediction, counts: np.ndarray) -> np.ndarray:
    """Return the mean of ``f1_of_classes``: without missing classes, but a missing label counts as 0.

    Both are scikit-learn's rules (for labels with ``zero_division=0``).
    """
    of_classes = f1_of_classes(present(truth, said.task), present(_decided(said), said.task), counts)
    return np.nanmean(np.nan_to_num(of_classes) if said.task.kind == "multilabel" else of_classes, axis=1)


def recall(truth: np.ndarray, said: Prediction, counts: np.ndarray, code: int = 1) -> np.ndarray:
    """Return the share of a class's images that is called so: of two classes, sensitivity for 1, specificity for 0."""
    asked = truth == code
    return ratio((_decided(said) == code) & asked, asked, counts)


def mean_grade_error(truth: np.ndarray, said: Prediction, counts: np.ndarray) -> np.ndarray:
    """Return the mean distance between the decided and the true grade, in grades; lower is better."""
    return ratio(np.abs(_decided(said) - truth), 1, counts)


def quadratic_weighted_kappa(truth: np.ndarray, said: Prediction, counts: np.ndarray) -> np.ndarray:
    """Return the agreement beyond chance on an ordered scale, 1 perfect, 0 chance; errors cost by squared distance.

    Cohen, Psychological Bulletin 70(4), 1968, p. 213. Without any spread to agree on (truth and decisions all in one
    class) it is 0.
    """
    decided = _decided(said)
    each = np.stack([truth, decided, truth**2 + decided**2, (truth - decided) ** 2], axis=1)
    mean_truth, mean_decided, squares, observed = ratio(each, 1, counts).T
    return 1 - np.nan_to_num(_divided(observed, squares - 2 * mean_truth * mean_decided), nan=1.0)


def _decided(said: Prediction) -> np.ndarray:
    refuse_nan(said.probabilities)
    return said.decided


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
    return _divided(area, hits[:, -1] * alarms[:, -1])


def average_precision(truth: np.ndarray, scores: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the mean precision over the images with the label, each at the threshold that just finds it.

    The area under the precision-recall curve in steps, without interpolation, as scikit-learn has it. A ranking by
    chance has the share of images with the label. Arguments, returns and errors are those of ``auroc``; NaN for a
    sample without the label.
    """
    hits, alarms = _called(truth, scores, counts)
    precisions = np.nan_to_num(_divided(hits, hits + alarms))[:, 1:]
    return _divided((np.diff(hits) * precisions).sum(axis=1), hits[:, -1])


def _called(truth: np.ndarray, scores: np.ndarray, counts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Count what is called at each threshold, from the highest: with the label and without, float (D, T + 1) each.

    The first column is a threshold above all scores; images of equal score are called together.
    """
    truth, scores = np.asarray(truth).astype(bool), np.asarray(scores)
    refuse_nan(scores)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    counts = np.ones((1, len(truth))) if counts is None else np.asarray(counts)
    running = (np.cumsum((counts * one)[:, order], axis=1, dtype=float)[:, last] for one in (truth, ~truth))
    hits, alarms = (np.pad(one, ((0, 0), (1, 0))) for one in running)
    return hits, alarms


def refuse_nan(scores: np.ndarray) -> None:
    """Raise a ``MedicError`` where a score is not a number: neither a decision nor a figure comes from it."""
    if np.isnan(scores).any():
        raise MedicError(f"{np.isnan(scores).sum()} of {scores.size} scores are not numbers; the training has diverged")


CHOOSABLE = ("accuracy", "macro_f1", "quadratic_weighted_kappa")
CHOOSABLE += ("average_precision", "auroc", "mean_average_precision", "mean_auroc")
"""The metrics by which an epoch can be chosen, as far as the task has them."""


def metrics_for(task: Task) -> dict[str, Metric]:
    """Return the metrics that suit a task, by name. The last is the one by which an epoch is chosen.

    Wherever "present or not" is asked (two classes, or several labels), it is the area under the ROC curve, which
    needs no threshold; for several labels its mean over those labels that some images have and some have not.
    """
    if task.kind == "multilabel":
        means = {f"mean_{area.__name__}": mean_over_labels(area) for area in (average_precision, auroc)}
        return {"macro_f1": macro_f1, **means}
    if task.kind == "ordinal":
        return {one.__name__: one for one in (mean_grade_error, accuracy, macro_f1, quadratic_weighted_kappa)}
    metrics = {"accuracy": accuracy, "macro_f1": macro_f1}
    if task.thresholds:
        metrics |= {"sensitivity": recall, "specificity": partial(recall, code=0)}
        metrics |= {area.__name__: mean_over_labels(area, [1]) for area in (average_precision, auroc)}
    return metrics


def mean_over_labels(area: Callable[..., np.ndarray], labels: Sequence[int] | None = None) -> Metric:
    """Return the metric that is the mean of an area, such as ``auroc``, over labels of a task.

    Args:
        area: ``auroc`` or ``average_precision``.
        labels: places in the task's classes, such as those that enough patients have; all when None. In each sample
            those count that some images have and some have not.
    """

    def metric(truth: np.ndarray, said: Prediction, counts: np.ndarray) -> np.ndarray:
        of_label = list(zip(present(truth, said.task).T, said.probabilities.T, strict=True))
        chosen = range(len(of_label)) if labels is None else labels
        areas = np.stack([area(*of_label[code], counts) for code in chosen])
        return _divided(np.nansum(areas, axis=0), (~np.isnan(areas)).sum(axis=0))

    return metric


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
    return np.concatenate([metric(truth, said, drawn[at : at + step][:, member]) for at in range(0, draws, step)])


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of bootstrap values; samples without one are left out, NaN if all are."""
    values = values[~np.isnan(values)]
    low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
    return float(low), float(high)


FEWEST_PATIENTS = 10
"""Patients of either kind that an interval takes: with fewer, nominal 95 % of AUROC held the truth in 16 to 77 %."""

_RESTS_ON = {"sensitivity": (1,), "specificity": (0,), "auroc": (1, 0), "average_precision": (1, 0)}


def too_few(name: str, truth: np.ndarray, patients: np.ndarray) -> str:
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
    name: str, truth: np.ndarray, decided: np.ndarray, patients: np.ndarray, draws: np.ndarray
) -> tuple[float, float, str]:
    """Return the 95 % interval of a metric from its bootstrap values, or NaN and the reason why there is none.

    There is none with ``too_few`` patients, or where all samples agree although the metric is no share. Of 12 right
    answers in 12, every sample is right, too, and percentiles would say 1 to 1. A share with fewer than five hits or
    misses has the exact binomial interval (Clopper & Pearson, Biometrika 26, 1934) of an effective number of images:
    what explains the variance of the samples, between that of images that tell as much as their patient and the number
    of images (Korn & Graubard, Survey Methodology 24(2), 1998).

    Args:
        name: of the metric in ``metrics_for``; ``accuracy`` for any share of images that are decided as in truth.
        truth: int (N,) or (N, C).
        decided: of the same shape, what was decided.
        patients: (N,) whose image it is.
        draws: (D,) the metric in samples, as ``resampled`` gives them.
    """
    few = too_few(name, truth, patients)
    if few:
        return np.nan, np.nan, f"no interval: {few}"
    low, high = interval(draws)
    if name in ("accuracy", "sensitivity", "specificity"):
        among = np.isin(truth, _RESTS_ON.get(name, truth))
        share, (_, images) = (decided == truth)[among].mean(), np.unique(patients[among], return_counts=True)
        fewest = images.sum() ** 2 / (images**2).sum()
        count = np.clip(share * (1 - share) / max(np.nanvar(draws), 1e-12), fewest, images.sum())
        right, wrong = share * count, (1 - share) * count
        if min(right, wrong) < 5:
            ends = beta.ppf([0.025, 0.975], [right, right + 1], [wrong + 1, wrong])
            low, high = (float(end) for end in np.where(np.isnan(ends), (0, 1), ends))
    return (low, high, "") if low < high else (np.nan, np.nan, "no interval: all samples of patients agree")
