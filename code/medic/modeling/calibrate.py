"""Calibration: whether a stated probability of 0.3 is right three times in ten, and how to make it so."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from medic.modeling.metrics import interval, present, ratio, resampled, score
from medic.task import Prediction

NOISE = 0.01
"""Share of the images whose label is taken to be chance, in fitting: of so many, labels or pixels are often wrong."""


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
        return _noisy_loss(of_truth(float(np.exp(logarithm))), classes) + logarithm**2 / 2

    # Below 0.05 a network is as good as certain, beyond 20 it says nothing.
    found = minimize_scalar(penalised, bounds=np.log([0.05, 20]), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def fit_scale_and_shift(raw: np.ndarray, present: np.ndarray, usual: float | None = None) -> tuple[float, float]:
    """Return scale and shift of one finding's raw outputs, so that their sigmoid states the least log loss.

    Platt, Advances in Large Margin Classifiers, 1999, with a weak prior in place of his changed targets, and robust as
    ``fit_temperature``: the scale's logarithm is normal with deviation 1, the shift with deviation 2 around its usual
    value. So a finding that few images have, or none, stays near what it was, and no scale turns a ranking round.

    Args:
        raw: float (N,) logits.
        present: int (N,), 1 where the finding is there.
        usual: the shift to expect, such as the one that undoes the weights of a loss. None shifts nothing.

    Returns:
        ``scale`` above 0 and ``shift``: the calibrated logit is ``scale * raw + shift``.
    """
    raw, signs, expected = np.asarray(raw, float), 2 * np.asarray(present, float) - 1, usual or 0.0

    def penalised(values: np.ndarray) -> float:
        logarithm, shift = values if usual is not None else (*values, 0.0)
        of_truth = expit(signs * (np.exp(logarithm) * raw + shift))
        return _noisy_loss(of_truth, 2) + logarithm**2 / 2 + (shift - expected) ** 2 / 8

    found = minimize(penalised, [0.0] if usual is None else [0.0, usual], method="L-BFGS-B").x
    return float(np.exp(found[0])), 0.0 if usual is None else float(found[1])


def _noisy_loss(of_truth: np.ndarray, classes: int) -> float:
    return -np.log((1 - NOISE) * np.asarray(of_truth, float) + NOISE / classes).sum()


def reliability(truth: np.ndarray, prediction: Prediction, patients: np.ndarray) -> pd.DataFrame:
    """Return stated probability against observed share, in ten bins that hold equally many predictions.

    Bins of equal width would leave most of them empty where findings are rare (Nixon et al., arXiv 1904.01685, section
    4.1, on adaptive bins). What is stated are all findings of a multilabel task together, the second of two classes,
    and otherwise the most probable class (top-label calibration; Guo et al., 2017, section 2).

    Args:
        truth: int (N,) codes, for multilabel tasks (N, C) of 0 and 1.
        prediction: of the N images.
        patients: (N,), the patient of each image.

    Returns:
        One row a bin, fewer where equal probabilities stay in one: ``stated`` (mean probability), ``observed`` (share
        that came true), ``count``, and ``low`` and ``high``, the 95 % bootstrap interval of the observed share.
    """
    stated, came_true = _stated(truth, prediction)
    of_bin = _bins(stated)
    grouped = pd.DataFrame({"stated": stated.ravel(), "observed": came_true.ravel()}).groupby(of_bin.ravel())
    table = grouped.mean().assign(count=grouped.size())
    inside = of_bin[:, :, None] == table.index.to_numpy()
    drawn = resampled(ratio, (inside & came_true[:, :, None]).sum(axis=1), inside.sum(axis=1), patients)
    table["low"], table["high"] = np.apply_along_axis(interval, 0, drawn)
    return table


def brier_scores(truth: np.ndarray, prediction: Prediction, counts: np.ndarray) -> np.ndarray:
    """Return the mean squared distance of the probabilities from the truth (Brier, Mon. Weather Rev. 78, 1950).

    Over several findings it is the mean, over classes that exclude each other the sum, as Brier has it; for two
    classes half of that, which is the second's own. A ``medic.modeling.metrics.Metric``; 0 is best.
    """
    squares = (prediction.probabilities.astype(float) - present(truth, prediction.task)) ** 2
    return ratio(squares.mean(axis=1) if prediction.task.thresholds else squares.sum(axis=1), 1, counts)


def calibration_errors(truth: np.ndarray, prediction: Prediction, counts: np.ndarray) -> np.ndarray:
    """Return the mean distance between stated probability and observed share over ten bins, weighted by their size.

    The expected calibration error (Naeini et al., AAAI 2015, p. 2903), here over bins that hold equally many
    predictions: those of ``reliability`` for all images, the same in every sample. A small set makes the error too
    large by chance alone. A ``medic.modeling.metrics.Metric``.
    """
    stated, came_true = _stated(truth, prediction)
    bins = _bins(stated)
    # What an image adds to the distance in each bin; (N, bins), so that samples are one product of matrices.
    beyond = np.stack([((stated - came_true) * (bins == one)).sum(axis=1) for one in range(bins.max() + 1)], axis=1)
    return np.abs(ratio(beyond, stated.shape[1], counts)).sum(axis=1)


def log_losses(truth: np.ndarray, prediction: Prediction, counts: np.ndarray) -> np.ndarray:
    """Return the mean negative log probability of the truth, in nats; over several findings their mean.

    A ``medic.modeling.metrics.Metric``.
    """
    probabilities, having = prediction.probabilities.astype(float), present(truth, prediction.task)
    if prediction.task.kind == "multilabel":
        given = np.where(having, probabilities, 1 - probabilities)
    else:
        given = probabilities[having][:, None]
    return ratio(-np.log(np.maximum(given, np.finfo(np.float32).tiny)).mean(axis=1), 1, counts)


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


def _stated(truth: np.ndarray, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities that a prediction is judged by, and whether each came true: float and bool, (N, K)."""
    probabilities, having = prediction.probabilities.astype(float), present(truth, prediction.task)
    if prediction.task.thresholds:
        return probabilities[:, -prediction.task.thresholds :], having[:, -prediction.task.thresholds :]
    said = probabilities.argmax(axis=1)[:, None]
    return np.take_along_axis(probabilities, said, axis=1), np.take_along_axis(having, said, axis=1)


def _bins(stated: np.ndarray) -> np.ndarray:
    """Return the bin of each probability, from 0: ten of equal size, as far as ties allow."""
    edges = np.unique(np.quantile(stated, np.linspace(0, 1, 11)[1:-1]))
    return np.searchsorted(edges, stated, "right")
