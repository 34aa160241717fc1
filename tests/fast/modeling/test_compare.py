"""Comparison: the same images for all, intervals by patient, and no lead where there is only chance."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from medic.errors import MedicError
from medic.modeling.compare import compare_rankings, lead
from medic.modeling.evaluate import Evaluation
from medic.modeling.metrics import auroc, interval, resampled
from medic.task import RETINOPATHY, Prediction

LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4, 0, 0, 1, 1, 2, 2])


def graded(grades: np.ndarray, **settings: object) -> Evaluation:
    """An evaluation of continuous grades, rounded; two eyes a patient."""
    grades = np.asarray(grades, np.float32).clip(0, 4)
    probabilities = np.eye(5, dtype=np.float32)[np.rint(grades).astype(int)]
    count = np.arange(len(grades))
    records = pd.DataFrame({"image": count.astype(str), "patient": (count // 2).astype(str), "label": LABELS})
    return Evaluation("drawn", Prediction(RETINOPATHY, probabilities, grades), records, majority=0, **settings)


GOOD, BAD = graded(LABELS), graded(np.zeros(len(LABELS)))


def test_only_evaluations_of_the_same_images_are_compared():
    with pytest.raises(MedicError, match="other images"):
        lead(GOOD, dataclasses.replace(GOOD, records=GOOD.records.iloc[::-1]), "accuracy")


def test_a_lead_is_certain_only_where_its_interval_leaves_zero_out():
    ahead, same = lead(GOOD, BAD, "macro_f1"), lead(GOOD, GOOD, "macro_f1")
    assert ahead.certain
    assert ahead.value == pytest.approx(1 - 2 * 6 / 26 / 5)
    assert lead(BAD, GOOD, "macro_f1").high < 0
    assert (same.value, same.low, same.high, same.certain) == (0, 0, 0, False)


def test_scores_are_compared_on_the_same_patients():
    random, patients = np.random.default_rng(3), np.arange(60) // 2
    truth = (random.random(60) < 0.4).astype(int)
    scores = {"good": random.normal(truth, 1), "poor": random.normal(size=60)}
    table = compare_rankings(truth, scores, patients, over="poor")
    one, two = (resampled(auroc, truth, values, patients) for values in scores.values())
    lead = table.loc["good", "lead"]
    assert (lead.low, lead.high) == interval(one - two)
    assert table.loc["good", ["low", "high"]].tolist() == list(interval(one))
    assert str(table.loc["poor", "lead"]) == "+0.000 (+0.000 to +0.000)"
    assert "lead" not in compare_rankings(truth, scores, patients)
    with pytest.raises(MedicError, match=r"no scores called 'best'.*good"):
        compare_rankings(truth, scores, patients, over="best")
