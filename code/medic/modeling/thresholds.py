"""The operating point: from which probability on a finding is said to be present."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from medic.data.split import split_by_patient
from medic.errors import MedicError
from medic.modeling.both_eyes import combine_eyes, fit_weight
from medic.modeling.cut_points import decide, fit_cut_points
from medic.modeling.evaluate import Evaluation
from medic.task import Prediction

_HUNDREDTH = 0.01
"""Of a logit: how far below a score its threshold lies, at most half way to the next lower score."""


def threshold_for(truth: np.ndarray, scores: np.ndarray, sensitivity: float) -> float:
    """The highest threshold that still finds the wanted share of the images with the finding.

    Chosen on few images it is uncertain: with 20 positive images each is worth five points of sensitivity. On other
    images the sensitivity comes out higher or lower, which is for the test split to say.

    Args:
        truth: int (N,), 1 where the finding is present.
        scores: float (N,) probabilities.
        sensitivity: wanted share, above 0 and up to 1.

    Returns:
        A threshold just below the score of the last image that has to be found; images at or above it are called
        positive. Exactly on that score it would depend on the seventh digit, which torch and onnxruntime compute
        differently, whether that image is found.

    Raises:
        MedicError: no image has the finding.
    """
    positive = np.sort(np.asarray(scores)[np.asarray(truth) == 1])[::-1]
    if not len(positive):
        raise MedicError("no image has the finding, so no threshold can be chosen on them; give images that have it")
    # A hair is taken off: 0.9 * 10 is 9.000000000000002 in binary, and nine images are enough.
    needed = int(np.ceil(sensitivity * len(positive) - 1e-9))
    score = float(positive[max(needed, 1) - 1])
    below = np.asarray(scores)[np.asarray(scores) < score]
    gap = score - float(below.max()) if len(below) else score
    digits = 8 * float(np.spacing(np.float32(score)))  # at the ends of the scale a hundredth of a logit is less
    return score - min(gap / 2, max(_HUNDREDTH * score * (1 - score), digits))


def thresholds_for(truth: np.ndarray, prediction: Prediction, sensitivity: float) -> tuple[float, ...]:
    """The operating point of a model for a wanted sensitivity, class by class.

    Args:
        truth: int (N,) codes of a task with two classes, or int (N, C) of a multilabel one.
        prediction: of the N images, which are the validation split's and not the test split's.
        sensitivity: wanted share of each class's images, above 0 and up to 1.

    Returns:
        One threshold a class as ``Prediction.thresholds`` has them. A class of a multilabel task that no image has
        stays at 0.5.
    """
    if prediction.task.kind != "multilabel":
        return (threshold_for(truth, prediction.probabilities[:, 1], sensitivity),)
    return tuple(
        threshold_for(truth[:, code], prediction.probabilities[:, code], sensitivity) if truth[:, code].any() else 0.5
        for code in range(truth.shape[1])
    )


def operating_points(truth: np.ndarray, scores: np.ndarray, thresholds: list[float]) -> pd.DataFrame:
    """What thresholds do: one row each.

    Args:
        truth: int (N,), 1 where the finding is present.
        scores: float (N,) probabilities.
        thresholds: to be looked at.

    Returns:
        ``sensitivity``, ``specificity``, ``positive_predictive_value``, ``negative_predictive_value`` (shares, missing
        where nothing is divided) and ``called`` (share of all images called positive), by ``threshold``.
    """
    truth = np.asarray(truth).astype(bool)
    rows = []
    for threshold in thresholds:
        called = np.asarray(scores) >= threshold
        hits, correct_rejections = (called & truth).sum(), (~called & ~truth).sum()
        counts = {
            "sensitivity": (hits, truth.sum()),
            "specificity": (correct_rejections, (~truth).sum()),
            "positive_predictive_value": (hits, called.sum()),
            "negative_predictive_value": (correct_rejections, (~called).sum()),
        }
        shares = {name: part / whole if whole else np.nan for name, (part, whole) in counts.items()}
        rows.append({"threshold": threshold, **shares, "called": called.mean()})
    return pd.DataFrame(rows).set_index("threshold")


def predictive_values(
    sensitivity: float, specificity: float, shares: Sequence[float], people: int = 1000
) -> pd.DataFrame:
    """What an operating point means where another share of the people has the finding, by Bayes' rule.

    Sensitivity and specificity are taken to stay as they are, which they do as far as the people with the finding
    have it as plainly, and those without it are as healthy.

    Args:
        sensitivity: share of those with the finding that are called positive.
        specificity: share of those without it that are not.
        shares: of the people that have the finding (the prevalence), 0 to 1.
        people: how many the counts are for.

    Returns:
        One row a share: ``found``, ``missed``, ``false_alarms`` and ``left_in_peace`` (people, not rounded), and
        ``positive_predictive_value`` and ``negative_predictive_value`` (shares, missing where nobody is called, or
        nobody is not).
    """
    share = pd.Index(shares, name="share", dtype=float)
    table = pd.DataFrame(index=share)
    table["found"], table["missed"] = people * share * sensitivity, people * share * (1 - sensitivity)
    table["false_alarms"] = people * (1 - share) * (1 - specificity)
    table["left_in_peace"] = people * (1 - share) * specificity
    called, not_called = table["found"] + table["false_alarms"], table["left_in_peace"] + table["missed"]
    table["positive_predictive_value"] = table["found"] / called.where(called > 0)
    table["negative_predictive_value"] = table["left_in_peace"] / not_called.where(not_called > 0)
    return table


def with_cut_points(evaluation: Evaluation, metric: str, *, same_images: bool = False, seed: int = 0) -> Evaluation:
    """The evaluation of the same grades, decided by cut points instead of by rounding.

    Args:
        evaluation: of an ordinal task.
        metric: what the cut points are fitted for: ``macro_f1`` or ``quadratic_weighted_kappa``.
        same_images: fit on the very images that are judged, which flatters; otherwise the patients are dealt into two
            halves, and each half is decided by the cut points of the other.
        seed: of the halves.
    """

    def decided(fitting: Evaluation, judged: Evaluation) -> Prediction:
        labels = fitting.records["label"].to_numpy()
        cuts = fit_cut_points(fitting.prediction.grade, labels, fitting.task, metric)
        codes = decide(judged.prediction.grade, cuts)
        certain = np.eye(len(judged.task.classes), dtype=np.float32)[codes]
        return replace(judged.prediction, probabilities=certain)

    return _fitted(evaluation, decided, same_images, seed)


def with_other_eye(
    evaluation: Evaluation,
    metric: str = "quadratic_weighted_kappa",
    *,
    same_images: bool = False,
    seed: int = 0,
) -> Evaluation:
    """The evaluation of predictions into which those of the patient's other eye are mixed, by a fitted weight.

    Arguments as for ``with_cut_points``; the records need the column ``eye``.
    """

    def mixed(fitting: Evaluation, judged: Evaluation) -> Prediction:
        weight = fit_weight(fitting.prediction, fitting.records, metric)
        return combine_eyes(judged.prediction, judged.records, weight)

    return _fitted(evaluation, mixed, same_images, seed)


def _fitted(
    evaluation: Evaluation, predict: Callable[[Evaluation, Evaluation], Prediction], same_images: bool, seed: int
) -> Evaluation:
    """Fit something and judge it: on the same images, or with the two halves of the patients in exchanged roles."""
    if same_images:
        return replace(evaluation, prediction=predict(evaluation, evaluation))
    halves = split_by_patient(evaluation.records.assign(split="train"), validation=0.5, seed=seed)["split"].to_numpy()
    probabilities = evaluation.prediction.probabilities.copy()
    grade = None if evaluation.prediction.grade is None else evaluation.prediction.grade.copy()
    for half in ("train", "validation"):
        judged = halves == half
        found = predict(_part(evaluation, ~judged), _part(evaluation, judged))
        probabilities[judged] = found.probabilities
        if grade is not None:
            grade[judged] = found.grade
    return replace(evaluation, prediction=replace(evaluation.prediction, probabilities=probabilities, grade=grade))


def _part(evaluation: Evaluation, chosen: np.ndarray) -> Evaluation:
    return replace(
        evaluation,
        prediction=evaluation.prediction.rows(chosen),
        records=evaluation.records[chosen].reset_index(drop=True),
    )
