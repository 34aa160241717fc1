"""Calibration: whether a stated probability of 0.3 is right three times in ten."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medic.task import Prediction


def reliability(truth: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """Return stated probability against observed share, in bins that hold equally many predictions.

    Bins of equal width would leave most of them empty where findings are rare (Nixon et al., arXiv 1904.01685, section
    4.1, on adaptive bins). The pairs of all findings are taken together where there are several.

    Args:
        truth: int (N,) or (N, C), 1 where the finding is present.
        probabilities: float of the same shape, 0..1.
        bins: how many; equal probabilities stay in one bin, so that there may be fewer.

    Returns:
        One row a bin: ``stated`` (mean probability), ``observed`` (share that have it), ``count``.
    """
    stated, present = np.ravel(probabilities).astype(float), np.ravel(truth).astype(float)
    table = pd.DataFrame({"stated": stated, "observed": present, "bin": _bins(stated, bins)})
    grouped = table.groupby("bin")
    return grouped[["stated", "observed"]].mean().assign(count=grouped.size()).reset_index(drop=True)


def brier_scores(truth: np.ndarray, prediction: Prediction, counts: np.ndarray) -> np.ndarray:
    """Return the mean squared distance of a multilabel prediction from the truth (Brier, Mon. Weather Rev. 78, 1950).

    A metric for ``score``, ``resampled`` and ``Comparison.lead``.

    Args:
        truth: int (N, C), 0 or 1.
        prediction: of the N images.
        counts: (D, N), how often each image counts in each of D samples.

    Returns:
        float64 (D,), 0 best.
    """
    of_image = ((prediction.probabilities.astype(float) - truth) ** 2).mean(axis=1)
    return np.average(np.broadcast_to(of_image, np.shape(counts)), axis=1, weights=counts)


def calibration_errors(truth: np.ndarray, prediction: Prediction, counts: np.ndarray) -> np.ndarray:
    """Return the mean distance between stated probability and observed share over ten bins, weighted by their size.

    Naeini et al., AAAI 2015, p. 2903. The bins are those of ``reliability`` for all images, the same in every sample.
    A small set makes the error too large by chance alone. A metric; arguments and returns as ``brier_scores``.
    """
    stated = prediction.probabilities.astype(float)
    bins = _bins(stated, 10)
    # What an image adds to the distance in each bin; (N, bins), so that samples are one product of matrices.
    beyond = np.stack([((stated - truth) * (bins == one)).sum(axis=1) for one in range(bins.max() + 1)], axis=1)
    counts = np.asarray(counts, float)
    return np.abs(counts @ beyond).sum(axis=1) / (counts.sum(axis=1) * stated.shape[1])


def _bins(stated: np.ndarray, count: int) -> np.ndarray:
    """Return the bin of each probability, from 0: ``count`` of equal size, as far as ties allow."""
    edges = np.unique(np.quantile(stated, np.linspace(0, 1, count + 1)[1:-1]))
    return np.searchsorted(edges, stated, "right")
