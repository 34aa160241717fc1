"""What is fitted on validation and judged there without having seen the answers."""

import dataclasses

import numpy as np
import pandas as pd

from medic.modeling.evaluate import Evaluation
from medic.modeling.thresholds import with_cut_points, with_other_eye
from medic.task import RETINOPATHY, Prediction

LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4, 0, 0, 1, 1, 2, 2])


def graded(grades: np.ndarray, **settings: object) -> Evaluation:
    """An evaluation of continuous grades, rounded; two eyes a patient."""
    grades = np.asarray(grades, np.float32).clip(0, 4)
    probabilities = np.eye(5, dtype=np.float32)[np.rint(grades).astype(int)]
    count = len(grades)
    records = pd.DataFrame(
        {
            "image": [f"{i}.jpeg" for i in range(count)],
            "patient": [str(i // 2) for i in range(count)],
            "eye": ["left", "right"] * (count // 2),
            "label": np.resize(LABELS, count),
        }
    )
    return Evaluation("drawn", Prediction(RETINOPATHY, probabilities, grades), records, majority=0, **settings)


def test_cut_points_on_the_same_images_are_no_worse_than_rounding_and_flatter():
    random = np.random.default_rng(0)
    truth = np.resize(LABELS, 200)
    shy = graded(truth * 0.4 + 0.8 + random.normal(0, 0.3, 200))
    same, honest = (with_cut_points(shy, "macro_f1", same_images=flag) for flag in (True, False))
    rounded, flattered, judged = (e.table().loc["macro_f1", "value"] for e in (shy, same, honest))
    assert rounded < judged <= flattered
    assert np.array_equal(honest.prediction.grade, shy.prediction.grade)


def test_judged_on_the_other_half_no_patient_decides_about_itself():
    """Whatever one half's labels are, they never touch that half's decisions."""
    random = np.random.default_rng(1)
    evaluation = graded(random.uniform(0, 4, 40))
    decided = with_cut_points(evaluation, "quadratic_weighted_kappa").prediction.decided
    for patient in evaluation.records["patient"].unique()[:5]:
        own = (evaluation.records["patient"] == patient).to_numpy()
        # Its labels exchanged: other labels, and the same worst grade, so that the halves stay as they are.
        labels = evaluation.records["label"].to_numpy().copy()
        labels[own] = labels[own][::-1]
        again = dataclasses.replace(evaluation, records=evaluation.records.assign(label=labels))
        again = with_cut_points(again, "quadratic_weighted_kappa")
        assert np.array_equal(again.prediction.decided[own], decided[own])


def test_the_other_eye_helps_where_one_eye_is_noisy():
    random = np.random.default_rng(2)
    truth = np.resize(LABELS, 400)
    noisy = graded(truth + random.normal(0, 1.0, 400))
    both = with_other_eye(noisy)
    assert both.table().loc["mean_grade_error", "value"] < noisy.table().loc["mean_grade_error", "value"]
    assert len(both.prediction) == 400
