"""What is fitted on validation, judged on validation without having seen the answers: two halves, exchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from medic.data.split import split_by_patient
from medic.modeling.both_eyes import combine_eyes, fit_weight
from medic.modeling.cut_points import decide, fit_cut_points
from medic.modeling.evaluate import Evaluation
from medic.task import Prediction


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
