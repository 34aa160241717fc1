"""Comparison: the same images for all, intervals by patient, and no lead where there is only chance."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from medic.errors import MedicError
from medic.modeling.compare import Comparison, compare_evaluations, compare_rankings
from medic.modeling.evaluate import Evaluation
from medic.modeling.metrics import auroc, interval, resampled
from medic.task import RETINOPATHY, Prediction, Task

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
    other = dataclasses.replace(GOOD, records=GOOD.records.iloc[::-1])
    with pytest.raises(MedicError, match="other images"):
        compare_evaluations({"one": GOOD, "two": other})
    with pytest.raises(MedicError, match="nothing to compare"):
        compare_evaluations({})


def test_a_lead_is_certain_only_where_its_interval_leaves_zero_out():
    comparison = compare_evaluations({"bad": BAD, "good": GOOD, "same": GOOD})
    assert comparison.decider == "macro_f1"
    assert comparison.ranked() == comparison.ranked("mean_grade_error") == ["good", "same", "bad"]
    lead = comparison.lead("good", "bad")
    assert lead.certain
    assert lead.value == pytest.approx(1 - 2 * 6 / 26 / 5)
    assert comparison.lead("bad", "good").high < 0
    same = comparison.lead("good", "same")
    assert (same.value, same.low, same.high, same.certain) == (0, 0, 0, False)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("good",), "good reaches macro f1 1.00"),
        (("good", "bad"), "good is ahead of all others, macro f1 1.00"),
        (("good", "same"), "good: macro f1 1.00, first by no more than chance"),
        (("bad", "good", "same"), "good: macro f1 1.00; 1 of 2 within chance"),
    ],
)
def test_the_finding_says_who_leads_and_whether_by_chance(names, said):
    models = {"good": GOOD, "same": GOOD, "bad": BAD}
    assert compare_evaluations({name: models[name] for name in names}).finding() == said


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_where_presence_is_asked_the_area_decides_unless_another_metric_is_named(kind):
    truth = np.arange(10) % 2
    records = pd.DataFrame({"image": range(10), "patient": range(10), "label": truth, "round": truth, "square": truth})

    def asked(scores: list[float]) -> Evaluation:
        probabilities = np.stack([scores if kind == "multilabel" else 1 - np.array(scores), scores], axis=1)
        prediction = Prediction(Task("spots", kind, ("round", "square")), probabilities.astype(np.float32))
        return Evaluation("drawn", prediction, records, np.zeros(2, int) if kind == "multilabel" else 0)

    ranks = asked([0.1, 0.4] * 5)  # in perfect order, and nobody is called
    calls = asked([0.2, 0.9] * 4 + [0.95, 0.9])  # one who has nothing is the most suspicious
    comparison = compare_evaluations({"calls": calls, "ranks": ranks})
    assert comparison.ranked() == ["ranks", "calls"]
    assert comparison.ranked("macro_f1") == ["calls", "ranks"]
    assert comparison.lead("ranks", "calls").value == pytest.approx(0.2)
    assert "auroc 1.00" in comparison.finding()


def test_it_shows_metrics_intervals_and_costs_and_says_synthetic():
    models = {"one": graded(LABELS, synthetic=True), "two": BAD}
    comparison = Comparison(models, pd.DataFrame({"megabytes": [10.0, 1.0]}, index=list(models)))
    row, expected = comparison.table.loc["two"], BAD.table().loc["macro_f1"]
    assert row[["macro_f1", "macro_f1_low", "macro_f1_high"]].tolist() == expected[["value", "low", "high"]].tolist()
    assert row["megabytes"] == 1
    assert "synthetic" in str(comparison)


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
