"""Where a probability becomes a decision: operating points, prediction sets, and what is left to a person."""

import numpy as np
import pandas as pd

from medic.errors import MedicError
from medic.modeling.metrics import interval, present, ratio, resampled
from medic.task import Prediction


def threshold_for(truth: np.ndarray, scores: np.ndarray, sensitivity: float) -> float:
    """Return the highest threshold that still finds the wanted share of the images with the finding.

    Chosen on few images it is uncertain: with 20 positive images each is worth five points of sensitivity. On other
    images the sensitivity comes out higher or lower, which is for the test split to say.

    Args:
        truth: int (N,), 1 where the finding is present.
        scores: float (N,) probabilities.
        sensitivity: wanted share, above 0 and up to 1.

    Returns:
        A threshold midway between the score of the last image that has to be found and the next lower score; images at
        or above it are called positive. Exactly on a score the last digit would decide, which torch and onnxruntime
        compute differently.

    Raises:
        MedicError: no image has the finding.
    """
    scores = np.asarray(scores, float)
    positive = np.sort(scores[np.asarray(truth) == 1])[::-1]
    if not len(positive):
        raise MedicError("no image has the finding, so no threshold can be chosen on them; give images that have it")
    # A hair is taken off: 0.9 * 10 is 9.000000000000002 in binary, and nine images are enough.
    score = positive[max(int(np.ceil(sensitivity * len(positive) - 1e-9)), 1) - 1]
    return float(score + scores[scores < score].max(initial=0)) / 2


FEWEST = 20
"""Patients of a class from which on it gets a threshold of its own for prediction sets."""


def set_thresholds(
    truth: np.ndarray, prediction: Prediction, patients: np.ndarray, coverage: float = 0.9
) -> tuple[float, ...]:
    """Return the thresholds of prediction sets that hold the truth in a wanted share of new images.

    Split conformal prediction: a class is possible where its probability is at least what all but a few images of the
    calibration set gave to their truth (Sadinle, Lei & Wasserman, J. Am. Stat. Assoc. 114, 2019, p. 223, with the
    finite-sample quantile of Vovk et al., Algorithmic Learning in a Random World, 2005). A class that 20 patients or
    more have gets a threshold of its own, so that the share holds for this class by itself; the others share the one
    of all images. Of several findings, the share is that of the images with the finding that do not rule it out.

    Args:
        truth: int (N,) codes, for multilabel tasks (N, C) of 0 and 1.
        prediction: of the N images, calibrated; neither trained on nor those that the sets are judged on.
        patients: (N,), the patient of each image.
        coverage: wanted share, between 0 and 1.

    Returns:
        One threshold a class. It is 0, so that every set holds the class, where the images are too few to say more.

    Raises:
        MedicError: the share does not lie between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise MedicError(f"a coverage of {coverage} cannot be had; choose a share between 0 and 1, such as 0.9")
    probabilities, having = prediction.probabilities, present(truth, prediction.task)
    shared = _conformal(probabilities[having], coverage)
    return tuple(
        _conformal(probabilities[chosen, code], coverage)
        if len(np.unique(np.asarray(patients)[chosen])) >= FEWEST
        else shared
        for code, chosen in enumerate(having.T)
    )


def _conformal(of_truth: np.ndarray, coverage: float) -> float:
    """Return the threshold that all but ``(1 - coverage) * (n + 1)`` of the truth's probabilities (n,) reach."""
    # A hair is added: 0.1 * 10 must not come out below 1.
    place = int(np.floor((1 - coverage) * (len(of_truth) + 1) + 1e-9))
    return float(np.sort(of_truth)[place - 1]) if place else 0.0


def coverage_table(
    truth: np.ndarray, prediction: Prediction, patients: np.ndarray, by: np.ndarray | None = None, seed: int = 0
) -> pd.DataFrame:
    """Return how often prediction sets hold the truth, and how large they are.

    Args:
        truth: int (N,) codes, for multilabel tasks (N, C) of 0 and 1.
        prediction: of the N images, by a model with a referral rule.
        patients: (N,), the patient of each image.
        by: (N,), the slice of each image, such as its camera. None divides by class: of a multilabel task by finding,
            where images with the finding count.
        seed: of the bootstrap, 2,000 draws of whole patients.

    Returns:
        One row ``all`` and one a slice: ``images``, ``patients``, ``coverage`` with its 95 % interval (``low``,
        ``high``), ``size`` (classes in a set, on average). A class without an image has no row.

    Raises:
        MedicError: the prediction is of a model without a referral rule.
    """
    if prediction.referral is None:
        raise MedicError("this model has no prediction sets, because it is not calibrated; train or package it again")
    sets, having, patients, rows = prediction.sets, present(truth, prediction.task), np.asarray(patients), {}
    if by is None:
        alone = np.eye(having.shape[1], dtype=bool)
        parts = {name: having & one for name, one in zip(prediction.task.classes, alone, strict=True)}
    else:
        parts = {str(one): having & (np.asarray(by) == one)[:, None] for one in pd.unique(np.asarray(by))}
    for name, asked in {"all": having, **parts}.items():
        inside = asked.any(axis=1)
        if inside.any():
            held, questions, whose = (asked & sets)[inside].sum(axis=1), asked[inside].sum(axis=1), patients[inside]
            ends = interval(resampled(ratio, held, questions, whose, seed=seed))
            size = sets[inside].sum(axis=1).mean()
            rows[name] = (len(held), len(np.unique(whose)), held.sum() / questions.sum(), *ends, size)
    columns = ["images", "patients", "coverage", "low", "high", "size"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def risk_coverage(wrong: np.ndarray, confidences: np.ndarray) -> pd.DataFrame:
    """Return the error among the answers that are kept, when the least confident ones are left to a person.

    The risk-coverage curve (El-Yaniv & Wiener, J. Mach. Learn. Res. 11, 2010, p. 1605).

    Args:
        wrong: bool (N,), or a share in 0..1, how wrong each decision is.
        confidences: float (N,) of each decision (``medic.referral.confidence``).

    Returns:
        One row a threshold, from the highest: ``confidence`` (answers with at least that are kept), ``kept`` (their
        share), ``error`` (the mean of ``wrong`` among them).
    """
    order = np.argsort(-np.asarray(confidences), kind="stable")
    sure, errors = np.asarray(confidences)[order], np.cumsum(np.asarray(wrong, float)[order])
    last = np.append(np.flatnonzero(np.diff(sure)), len(sure) - 1)
    return pd.DataFrame({"confidence": sure[last], "kept": (last + 1) / len(sure), "error": errors[last] / (last + 1)})


def confidence_for(wrong: np.ndarray, confidences: np.ndarray, error: float) -> float:
    """Return the confidence from which on answers can be kept so that a wanted error is not exceeded.

    Of all such thresholds it is the lowest, which leaves the fewest answers to a person. On other images the error
    comes out higher or lower: choose it on the validation split and judge it on the test split.

    Args:
        wrong: bool (N,), whether each decision is wrong.
        confidences: float (N,) of each decision (``medic.referral.confidence``).
        error: wanted share of wrong decisions among those kept, 0..1.

    Returns:
        A threshold midway between two confidences, for ``Referral.confidence``; 0 where nothing has to be left.

    Raises:
        MedicError: not even the most confident answers are right that often.
    """
    table = risk_coverage(wrong, confidences)
    sure, reached = table["confidence"].to_numpy(), np.flatnonzero(table["error"] <= error)
    if not len(reached):
        lowest = table["error"].min()
        raise MedicError(f"an error of {error:g} cannot be had by referral, at best it is {lowest:.3f}; want less")
    return float(sure[reached[-1] :][:2].mean()) if reached[-1] + 1 < len(sure) else 0.0


def decision_curve(
    truth: np.ndarray, scores: np.ndarray, patients: np.ndarray, steps: np.ndarray | None = None, seed: int = 0
) -> pd.DataFrame:
    """Return what acting on an image from each probability on is worth, against acting on all and on none.

    The net benefit (Vickers & Elkin, Med. Decis. Making 26(6), 2006, p. 565) is the share of true positives, minus that
    of false ones times t / (1 - t): who acts from the probability t on takes 1 / t - 1 false alarms for one finding.
    Acting on none is worth 0.

    Args:
        truth: int (N,), 1 where the finding is present.
        scores: float (N,) probabilities, calibrated.
        patients: (N,) whose image it is.
        steps: thresholds above 0 and below 1; 0.01 to 0.99 when None.
        seed: of the bootstrap, 2,000 draws of whole patients.

    Returns:
        One row a threshold: ``threshold``, ``net_benefit`` with its 95 % interval ``low`` and ``high``, ``treat_all``,
        and ``gain``, how far the model is ahead of the better of all and none, with ``gain_low`` and ``gain_high``.
    """
    steps, has = np.arange(1, 100) / 100 if steps is None else np.asarray(steps), np.asarray(truth, float)[:, None]
    worth = has - (1 - has) * steps / (1 - steps)
    worth = np.concatenate([worth * (np.asarray(scores)[:, None] >= steps), worth], axis=1)
    (ours, everyone), drawn = np.split(worth.mean(axis=0), 2), resampled(ratio, worth, 1, patients, seed=seed)
    of_model, of_all = np.split(drawn, 2, axis=1)
    table = {"threshold": steps, "net_benefit": ours}
    table["low"], table["high"] = np.apply_along_axis(interval, 0, of_model)
    table |= {"treat_all": everyone, "gain": ours - np.maximum(everyone, 0)}
    table["gain_low"], table["gain_high"] = np.apply_along_axis(interval, 0, of_model - (everyone > 0) * of_all)
    return pd.DataFrame(table)
