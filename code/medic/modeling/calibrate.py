"""Calibration: whether a stated probability of 0.3 is right three times in ten, and how to make it so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from medic.modeling.metrics import interval, resampled, score
from medic.task import Prediction

NOISE = 0.01
"""Share of the images whose label is taken to be chance, in fitting: of so many, labels or pixels are often wrong."""
_TEMPERATURES = (0.05, 20.0)
"""The range that is searched. Beyond it a network is as good as certain, or says nothing."""


def fit_temperature(of_truth: Callable[[float], np.ndarray], classes: int) -> float:
    """Return the temperature by which to divide a network's raw outputs, so that they state the least log loss.

    Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2, made robust: one image in a hundred is
    taken to have a chance label (``NOISE``), or a single mislabelled or broken image would decide. A weak prior (the
    temperature's logarithm is normal with deviation 1, and weighs as one image) keeps it finite where all are right.

    Args:
        of_truth: gives the probability of each image's truth, float (N,), at a temperature.
        classes: how many there are.

    Returns:
        Above 0; more than 1 where the network is too certain.
    """

    def penalised(logarithm: float) -> float:
        probabilities = np.asarray(of_truth(float(np.exp(logarithm))), float)
        return -np.log((1 - NOISE) * probabilities + NOISE / classes).sum() + logarithm**2 / 2

    found = minimize_scalar(penalised, bounds=np.log(_TEMPERATURES), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def fit_scale_and_shift(raw: np.ndarray, present: np.ndarray, usual: float | None = None) -> tuple[float, float]:
    """Return scale and shift of one finding's raw outputs, so that their sigmoid states the least log loss.

    Platt, Advances in Large Margin Classifiers, 1999, with a weak prior in place of his changed targets, and robust as
    ``fit_temperature``: the scale's logarithm is normal with deviation 1, the shift with deviation 2 around its usual
    value. So a finding that few images have, or none, stays near what it was, and no scale turns a ranking round.

    Args:
        raw: float (N,) logits.
        present: int (N,), 1 where the finding is there.
        usual: the shift to expect of the way the loss was weighted (see ``weighted_shift``). None shifts nothing.

    Returns:
        ``scale`` above 0 and ``shift``: the calibrated logit is ``scale * raw + shift``.
    """
    raw, signs = np.asarray(raw, float), 2 * np.asarray(present, float) - 1

    def penalised(values: np.ndarray) -> tuple[float, np.ndarray]:
        scale, shift = np.exp(values[0]), 0.0 if usual is None else values[1]
        of_truth = expit(signs * (scale * raw + shift))
        noisy = (1 - NOISE) * of_truth + NOISE / 2
        slope = -signs * (1 - NOISE) * of_truth * (1 - of_truth) / noisy
        loss, gradient = -np.log(noisy).sum() + values[0] ** 2 / 2, [scale * (slope * raw).sum() + values[0]]
        if usual is not None:
            loss += (shift - usual) ** 2 / 8
            gradient.append(slope.sum() + (shift - usual) / 4)
        return loss, np.array(gradient)

    found = minimize(penalised, [0.0] if usual is None else [0.0, usual], jac=True, method="L-BFGS-B")
    return float(np.exp(found.x[0])), 0.0 if usual is None else float(found.x[1])


def weighted_shift(prevalence: float) -> float:
    """Return the shift of a logit that undoes a loss which weighs both sides of a finding the same.

    Args:
        prevalence: share of the training images that have the finding, 0..1; at either end nothing was weighted.
    """
    return float(np.log(prevalence / (1 - prevalence))) if 0 < prevalence < 1 else 0.0


def stated(truth: np.ndarray, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities that a prediction is judged by, and whether each came true: float and int, (N, K).

    All findings of a multilabel task, the second of two classes, and otherwise the most probable class (top-label
    calibration; Guo et al., 2017, section 2), which is one column.

    Args:
        truth: int (N,) codes, for multilabel tasks (N, C) of 0 and 1.
        prediction: of the N images.
    """
    probabilities = prediction.probabilities.astype(float)
    if prediction.task.kind == "multilabel":
        return probabilities, np.asarray(truth)
    if len(prediction.task.classes) == 2:
        return probabilities[:, 1:], np.asarray(truth)[:, None]
    return probabilities.max(axis=1)[:, None], (probabilities.argmax(axis=1) == truth)[:, None].astype(int)


def reliability(
    truth: np.ndarray, probabilities: np.ndarray, bins: int = 10, patients: np.ndarray | None = None
) -> pd.DataFrame:
    """Return stated probability against observed share, in bins that hold equally many predictions.

    Bins of equal width would leave most of them empty where findings are rare (Nixon et al., arXiv 1904.01685, section
    4.1, on adaptive bins). The pairs of all findings are taken together where there are several.

    Args:
        truth: int (N,) or (N, C), 1 where the finding is present (``stated`` gives both for any task).
        probabilities: float of the same shape, 0..1.
        bins: how many; equal probabilities stay in one bin, so that there may be fewer.
        patients: (N,), the patient of each image, for intervals.

    Returns:
        One row a bin: ``stated`` (mean probability), ``observed`` (share that have it), ``count``, and with patients
        ``low`` and ``high``, the 95 % bootstrap interval of the observed share.
    """
    said, present = np.ravel(probabilities).astype(float), np.ravel(truth).astype(float)
    of_bin = _bins(said, bins)
    table = pd.DataFrame({"stated": said, "observed": present, "bin": of_bin})
    grouped = table.groupby("bin")
    table = grouped[["stated", "observed"]].mean().assign(count=grouped.size()).reset_index(drop=True)
    if patients is None:
        return table
    inside = (of_bin.reshape(len(truth), -1, 1) == np.arange(len(table))).astype(float)
    having = (inside * present.reshape(len(truth), -1, 1)).sum(axis=1)

    def observed(having: np.ndarray, inside: np.ndarray, counts: np.ndarray) -> np.ndarray:
        counts = np.asarray(counts, float)
        with np.errstate(invalid="ignore"):  # a sample without an image of the bin has no share
            return (counts @ having) / (counts @ inside)

    drawn = resampled(observed, having, inside.sum(axis=1), patients)
    table["low"], table["high"] = np.apply_along_axis(interval, 0, drawn)
    return table


def brier_scores(truth: np.ndarray, prediction: Prediction, counts: np.ndarray) -> np.ndarray:
    """Return the mean squared distance of the probabilities from the truth (Brier, Mon. Weather Rev. 78, 1950).

    A metric for ``score``, ``resampled`` and ``compare.lead``. Over several findings it is the mean, over classes
    that exclude each other the sum, as Brier has it; for two classes half of that, which is the second's own.

    Args:
        truth: int (N,) codes, for multilabel tasks (N, C) of 0 and 1.
        prediction: of the N images.
        counts: (D, N), how often each image counts in each of D samples.

    Returns:
        float64 (D,), 0 best.
    """
    if several := prediction.task.kind != "multilabel":
        truth = np.eye(len(prediction.task.classes))[truth]
    squares = (prediction.probabilities.astype(float) - truth) ** 2
    of_image = squares.sum(axis=1) / (1 + (squares.shape[1] == 2)) if several else squares.mean(axis=1)
    return np.average(np.broadcast_to(of_image, np.shape(counts)), axis=1, weights=counts)


def calibration_errors(truth: np.ndarray, prediction: Prediction, counts: np.ndarray) -> np.ndarray:
    """Return the mean distance between stated probability and observed share over ten bins, weighted by their size.

    The expected calibration error (Naeini et al., AAAI 2015, p. 2903), here over bins that hold equally many
    predictions: those of ``reliability`` for all images, the same in every sample. What is judged is what ``stated``
    returns. A small set makes the error too large by chance alone. A metric; arguments and returns as ``brier_scores``.
    """
    said, present = stated(truth, prediction)
    bins = _bins(said, 10)
    # What an image adds to the distance in each bin; (N, bins), so that samples are one product of matrices.
    beyond = np.stack([((said - present) * (bins == one)).sum(axis=1) for one in range(bins.max() + 1)], axis=1)
    counts = np.asarray(counts, float)
    return np.abs(counts @ beyond).sum(axis=1) / (counts.sum(axis=1) * said.shape[1])


def log_losses(truth: np.ndarray, prediction: Prediction, counts: np.ndarray) -> np.ndarray:
    """Return the mean negative log probability of the truth, in nats; over several findings their mean.

    A metric; arguments and returns as ``brier_scores``.
    """
    probabilities = prediction.probabilities.astype(float)
    if prediction.task.kind == "multilabel":
        given = np.where(np.asarray(truth) == 1, probabilities, 1 - probabilities)
    else:
        given = probabilities[np.arange(len(probabilities)), truth][:, None]
    of_image = -np.log(np.maximum(given, np.finfo(np.float32).tiny)).mean(axis=1)
    return np.average(np.broadcast_to(of_image, np.shape(counts)), axis=1, weights=counts)


CALIBRATION = {"log_loss": log_losses, "brier": brier_scores, "calibration_error": calibration_errors}
"""The metrics of calibration by name; lower is better."""


def compare_calibration(
    truth: np.ndarray, predictions: dict[str, Prediction], patients: np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """Return the metrics of calibration of several predictions, such as those before and after, with intervals.

    Args:
        truth: int (N,) codes, for multilabel tasks (N, C) of 0 and 1.
        predictions: of the same N images, by name.
        patients: (N,), the patient of each image.
        seed: of the bootstrap, 2,000 draws of whole patients.

    Returns:
        One row a metric and prediction: ``value`` and its 95 % interval, ``low`` and ``high``.
    """
    rows = {
        (metric, name): (score(function, truth, one), *interval(resampled(function, truth, one, patients, seed=seed)))
        for metric, function in CALIBRATION.items()
        for name, one in predictions.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
    return table.set_axis(pd.MultiIndex.from_tuples(rows, names=["metric", "prediction"]))


def _bins(stated: np.ndarray, count: int) -> np.ndarray:
    """Return the bin of each probability, from 0: ``count`` of equal size, as far as ties allow."""
    edges = np.unique(np.quantile(stated, np.linspace(0, 1, count + 1)[1:-1]))
    return np.searchsorted(edges, stated, "right")
