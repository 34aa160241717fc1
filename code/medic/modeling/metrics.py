"""Figures of merit, all from the confusion matrix, for one matrix or for thousands of resampled ones at once."""

from __future__ import annotations

import numpy as np

from medic.task import Task


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


HIGHER_IS_BETTER = {"accuracy": accuracy, "macro_f1": macro_f1, "quadratic_weighted_kappa": quadratic_weighted_kappa}
"""The figures by which something can be chosen or fitted: functions of confusion matrices (..., C, C)."""


def metrics_for(task: Task) -> dict:
    """The figures that suit a task, by name: functions of confusion matrices (..., C, C). The last is the decider."""
    figures = {"accuracy": accuracy, "macro_f1": macro_f1}
    if task.kind == "ordinal":
        figures = {
            "mean_grade_error": mean_grade_error,
            **figures,
            "quadratic_weighted_kappa": quadratic_weighted_kappa,
        }
    return figures


def resampled_confusions(
    labels: np.ndarray, decided: np.ndarray, groups: np.ndarray, classes: int, *, draws: int = 2000, seed: int = 0
) -> np.ndarray:
    """Confusion matrices of bootstrap samples that draw whole groups (patients), not single images.

    Two eyes of one person are no two independent observations: drawing images would make the interval too narrow
    (cluster bootstrap; Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).

    Args:
        labels: int (N,) true codes.
        decided: int (N,) decided codes.
        groups: (N,) the patient of each image.
        classes: how many classes there are.
        draws: number of bootstrap samples.
        seed: of the draws.

    Returns:
        int64 (draws, C, C).
    """
    _, member = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    count = member.max() + 1
    cells = np.zeros((count, classes**2), np.int64)
    np.add.at(cells, (member, np.asarray(labels) * classes + decided), 1)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    return (drawn @ cells).reshape(draws, classes, classes)
