"""Curves and the areas under them: how well a probability ranks the images, whatever the threshold."""

from __future__ import annotations

import numpy as np


def auroc(truth: np.ndarray, scores: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve: the probability that an image with the label scores above one without.

    Equal scores count half (Hanley & McNeil, Radiology 143(1), 1982, p. 29).

    Args:
        truth: int (N,), 1 where the label is present.
        scores: float (N,), higher for more probable.
        counts: (D, N), how often each image counts in each of D samples; once, in one sample, when None.

    Returns:
        float64 (D,) in 0..1; NaN for a sample that has only images with the label, or only without.
    """
    (found, present), (rejected, absent) = _lowest_first(truth, scores, counts)
    below = _before(absent)
    won = below[:, np.searchsorted(rejected, found, "left")] + below[:, np.searchsorted(rejected, found, "right")]
    pairs = present.sum(axis=1) * below[:, -1]
    return np.divide((present * won).sum(axis=1) / 2, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def average_precision(truth: np.ndarray, scores: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Mean precision over the images with the label, each at the threshold that just finds it.

    The area under the precision-recall curve in steps, without interpolation, as scikit-learn has it. A ranking by
    chance has the share of images with the label.

    Args and returns are those of ``auroc``; NaN for a sample without the label.
    """
    (found, present), (rejected, absent) = _lowest_first(truth, scores, counts)
    with_label, without = _before(present), _before(absent)
    total = with_label[:, -1]
    hits = total[:, None] - with_label[:, np.searchsorted(found, found, "left")]
    called = hits + without[:, -1:] - without[:, np.searchsorted(rejected, found, "left")]
    precision = np.divide(hits, called, out=np.zeros(called.shape), where=called > 0)
    return np.divide((present * precision).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)


GRID = np.linspace(0, 1, 101)
"""Where curves of bootstrap samples are compared: shares of images, on the horizontal axis."""


def roc_on_grid(truth: np.ndarray, scores: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """The ROC curve: the sensitivity that is reached with at most each share of false alarms in ``GRID``.

    Args are those of ``auroc``.

    Returns:
        float64 (D, 101) in 0..1; NaN for a sample that has only images with the label, or only without.
    """
    found, alarms = _called(truth, scores, counts)
    curves = np.full((len(found), len(GRID)), np.nan)
    for curve, hits, false in zip(curves, found, alarms, strict=True):
        if hits[-1] and false[-1]:
            curve[:] = hits[np.searchsorted(false / false[-1], GRID, "right") - 1] / hits[-1]
    return curves


def precision_on_grid(truth: np.ndarray, scores: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """The precision-recall curve: the precision where each sensitivity in ``GRID`` is just reached.

    Args are those of ``auroc``.

    Returns:
        float64 (D, 101) in 0..1; NaN for a sample without the label.
    """
    found, alarms = _called(truth, scores, counts)
    curves = np.full((len(found), len(GRID)), np.nan)
    for curve, hits, false in zip(curves, found, alarms, strict=True):
        if hits[-1]:
            # A sensitivity of 0 takes the first threshold that calls anything.
            at = np.maximum(np.searchsorted(hits / hits[-1], GRID, "left"), np.argmax(hits + false > 0))
            curve[:] = hits[at] / (hits + false)[at]
    return curves


def _called(truth: np.ndarray, scores: np.ndarray, counts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """How many images with the label are called, and how many without, at each threshold from the highest: (D, T + 1).

    The first column is a threshold above all scores; images of equal score are called together.
    """
    truth, scores = np.asarray(truth).astype(bool), np.asarray(scores)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1) + 1
    counts = np.ones((1, len(truth))) if counts is None else np.asarray(counts)
    with_label, without = (_before((counts * chosen)[:, order].astype(float)) for chosen in (truth, ~truth))
    columns = np.concatenate([[0], last])
    return with_label[:, columns], without[:, columns]


def _lowest_first(
    truth: np.ndarray, scores: np.ndarray, counts: np.ndarray | None
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The P images with the label, then the N - P without: their scores, rising, and their counts, float (D, P)."""
    truth, scores = np.asarray(truth).astype(bool), np.asarray(scores)
    order = np.argsort(scores, kind="stable")
    counts = np.ones((1, len(truth))) if counts is None else np.asarray(counts)
    places = order[truth[order]], order[~truth[order]]
    with_label, without = ((scores[place], counts[:, place].astype(float)) for place in places)
    return with_label, without


def _before(counts: np.ndarray) -> np.ndarray:
    """How many there are before each place and, last, in all: (D, P) to float (D, P + 1)."""
    running = np.zeros((len(counts), counts.shape[1] + 1))
    np.cumsum(counts, axis=1, out=running[:, 1:])
    return running
