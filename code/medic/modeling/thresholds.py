"""Where a probability becomes a decision: operating points, prediction sets, and what is left to a person."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medic.errors import MedicError
from medic.modeling.metrics import interval, resampled
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


def thresholds_for(
    truth: np.ndarray, prediction: Prediction, sensitivity: float, otherwise: tuple[float, ...] | None = None
) -> tuple[float, ...]:
    """Return the operating point of a model for a wanted sensitivity, class by class.

    Args:
        truth: int (N,) codes of a task with two classes, or int (N, C) of a multilabel one.
        prediction: of the N images, which are the validation split's and not the test split's.
        sensitivity: wanted share of each class's images, above 0 and up to 1.
        otherwise: one threshold a class of a multilabel task, for those that no image has; 0.5 when None.

    Returns:
        One threshold a class as ``Prediction.thresholds`` has them.
    """
    if prediction.task.kind != "multilabel":
        return (threshold_for(truth, prediction.probabilities[:, 1], sensitivity),)
    of_class = zip(truth.T, prediction.probabilities.T, otherwise or [0.5] * truth.shape[1], strict=True)
    return tuple(threshold_for(*one, sensitivity) if one[0].any() else other for *one, other in of_class)


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
    probabilities, several = prediction.probabilities, prediction.task.kind == "multilabel"
    having = np.asarray(truth) == 1 if several else np.eye(len(prediction.task.classes), dtype=bool)[truth]
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
        ``high``), ``size`` (classes in a set, on average). A row without an image has no coverage.

    Raises:
        MedicError: the prediction is of a model without a referral rule.
    """
    if prediction.referral is None:
        raise MedicError("this model has no prediction sets, because it is not calibrated; train or package it again")
    task, sets, patients = prediction.task, prediction.sets, np.asarray(patients)
    having = np.asarray(truth) == 1 if task.kind == "multilabel" else np.eye(len(task.classes), dtype=bool)[truth]
    slices = {"all": having}
    if by is None:
        slices |= {name: having & (np.arange(len(task.classes)) == code) for code, name in enumerate(task.classes)}
    else:
        slices |= {str(one): having & (np.asarray(by) == one)[:, None] for one in pd.unique(np.asarray(by))}

    def covered(held: np.ndarray, asked: np.ndarray, counts: np.ndarray) -> np.ndarray:
        counts = np.asarray(counts, float)
        return np.divide(counts @ held, counts @ asked, out=np.full(len(counts), np.nan), where=counts @ asked > 0)

    rows = {}
    for name, asked in slices.items():
        inside, questions = asked.any(axis=1), asked.sum(axis=1)
        of_image = patients[inside]
        held, asked_of = (asked & sets).sum(axis=1)[inside], questions[inside]
        drawn = resampled(covered, held, asked_of, of_image, seed=seed) if inside.any() else np.full(1, np.nan)
        size = sets[inside].sum(axis=1).mean() if inside.any() else np.nan
        share = held.sum() / asked_of.sum() if inside.any() else np.nan
        rows[name] = (inside.sum(), len(np.unique(of_image)), share, *interval(drawn), size)
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["images", "patients", "coverage", "low", "high", "size"]
    )


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
    reached = table[table["error"] <= error]
    if reached.empty:
        lowest = table["error"].min()
        raise MedicError(f"an error of {error:g} cannot be had by referral, at best it is {lowest:.3f}; want less")
    sure = reached["confidence"].iloc[-1]
    below = np.asarray(confidences)[np.asarray(confidences) < sure]
    return float(sure + below.max()) / 2 if len(below) else 0.0


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
    steps, present = np.arange(1, 100) / 100 if steps is None else np.asarray(steps), np.asarray(truth, float)[:, None]
    worth = present - (1 - present) * steps / (1 - steps)
    worth = np.concatenate([worth * (np.asarray(scores)[:, None] >= steps), worth], axis=1)

    def net_benefit(_truth: np.ndarray, worth: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return np.asarray(counts, float) @ worth / np.sum(counts, axis=1, keepdims=True)

    (ours, everyone), drawn = np.split(worth.mean(axis=0), 2), resampled(net_benefit, truth, worth, patients, seed=seed)
    of_model, of_all = np.split(drawn, 2, axis=1)
    table = {"threshold": steps, "net_benefit": ours}
    table["low"], table["high"] = np.apply_along_axis(interval, 0, of_model)
    table |= {"treat_all": everyone, "gain": ours - np.maximum(everyone, 0)}
    table["gain_low"], table["gain_high"] = np.apply_along_axis(interval, 0, of_model - (everyone > 0) * of_all)
    return pd.DataFrame(table)
