"""Areas under curves: how well a probability ranks the images, whatever the threshold."""

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
    present, absent = _by_score(truth, scores, counts)
    below = np.cumsum(absent, axis=1) - absent
    pairs = present.sum(axis=1) * absent.sum(axis=1)
    won = (present * (below + absent / 2)).sum(axis=1)
    return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def average_precision(truth: np.ndarray, scores: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Mean precision over the images with the label, each at the threshold that just finds it.

    The area under the precision-recall curve in steps, without interpolation, as scikit-learn has it. A ranking by
    chance has the share of images with the label.

    Args and returns are those of ``auroc``; NaN for a sample without the label.
    """
    present, absent = (part[:, ::-1] for part in _by_score(truth, scores, counts))
    found = np.cumsum(present, axis=1)
    called = found + np.cumsum(absent, axis=1)
    precision = np.divide(found, called, out=np.zeros(called.shape), where=called > 0)
    total = present.sum(axis=1)
    return np.divide((present * precision).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)


def _by_score(truth: np.ndarray, scores: np.ndarray, counts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """How many images with and without the label have each of the U scores, lowest first: float (D, U) twice."""
    truth = np.asarray(truth).astype(bool)
    counts = np.ones((1, len(truth))) if counts is None else np.asarray(counts, float)
    order = np.argsort(scores, kind="stable")
    ordered = np.asarray(scores)[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sorted_counts = counts[:, order]
    present = sorted_counts * truth[order]
    return np.add.reduceat(present, starts, axis=1), np.add.reduceat(sorted_counts - present, starts, axis=1)
