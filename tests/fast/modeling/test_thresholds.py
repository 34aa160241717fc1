"""An operating point finds the share that was wanted and no more, and cut points are never worse than rounding."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medic.errors import MedicError
from medic.modeling.metrics import HIGHER_IS_BETTER, confusion_matrix
from medic.modeling.thresholds import METRICS, decide, fit_cut_points, operating_points, threshold_for, thresholds_for
from medic.task import CHEST_XRAY_BINARY, RETINOPATHY, Prediction, Task

TWO = Task("two findings", "multilabel", ("Effusion", "Mass"))
STAGES = Task("stages", "ordinal", ("none", "some", "much"))
SCORED = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=40)


@given(SCORED.filter(lambda rows: any(present for present, _ in rows)), st.integers(1, 100))
def test_the_wanted_share_is_found_and_a_higher_threshold_would_miss_it(rows, wanted):
    truth, scores = np.array(rows).T
    scores = (scores / 20).astype(np.float32)
    threshold = threshold_for(truth, scores, wanted / 100)
    positive = scores[truth == 1]
    assert (positive >= threshold).mean() >= wanted / 100 - 1e-12
    last_found = positive[positive >= threshold].min()
    assert (positive > last_found).mean() < wanted / 100
    assert not ((scores >= threshold) & (scores < last_found)).any()  # nothing is called that need not be


@pytest.mark.parametrize(
    ("truth", "scores", "wanted", "threshold"),
    [
        ([0, 1, 1], [0.3, 0.5, 0.9], 1.0, 0.4),  # midway, so that no last digit decides
        ([1] * 10, np.arange(1, 11) / 10, 0.9, 0.15),  # nine of ten are nine, whatever binary fractions make of it
        ([0, 1], [0.5, 1.0], 1.0, 0.75),
        ([0, 1], [0.0, 0.0], 1.0, 0.0),
        ([1, 1], [0.4, 0.4], 0.5, 0.2),
    ],
)
def test_a_threshold_lies_midway_between_two_scores(truth, scores, wanted, threshold):
    assert threshold_for(np.array(truth), np.array(scores), wanted) == pytest.approx(threshold)


def test_two_classes_have_one_threshold_and_labels_have_one_each():
    truth, scores = np.array([0, 1, 1]), np.array([0.3, 0.5, 0.9], np.float32)
    binary = Prediction(CHEST_XRAY_BINARY, np.stack([1 - scores, scores], axis=1))
    assert thresholds_for(truth, binary, 0.9) == (threshold_for(truth, scores, 0.9),)
    none = np.stack([truth, np.zeros_like(truth)], axis=1)
    several = Prediction(TWO, np.stack([scores, scores], axis=1))
    assert thresholds_for(none, several, 0.9) == (threshold_for(truth, scores, 0.9), 0.5)
    with pytest.raises(MedicError, match="no image has the finding"):
        threshold_for(np.zeros(3, int), np.zeros(3), 0.9)


def test_what_thresholds_do_is_counted():
    table = operating_points(np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.4, 0.6, 0.2, 0.1]), [0.3, 0.5, 0.95])
    assert table.columns.tolist()[:3] == ["sensitivity", "specificity", "positive_predictive_value"]
    expected = [[1, 2 / 3, 2 / 3, 1, 0.6], [0.5, 2 / 3, 0.5, 2 / 3, 0.4], [0, 1, np.nan, 0.6, 0]]
    assert table.to_numpy() == pytest.approx(np.array(expected), nan_ok=True)


def value(metric: str, grades: np.ndarray, labels: np.ndarray, cuts: tuple[float, ...]) -> float:
    """The metric when a grade belongs to the class whose number is that of the cuts below it."""
    decided = [sum(grade > np.float32(cut) for cut in cuts) for grade in grades]
    return float(HIGHER_IS_BETTER[metric](confusion_matrix(labels, np.array(decided), len(cuts) + 1)))


def drawn(seed: int, classes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    return (labels * 0.7 + random.normal(0.3, 0.8, count)).clip(0, classes - 1).astype(np.float32), labels


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("grades", "labels", "cuts"),
    [
        ([0.0, 0.25, 0.5, 0.75, 1.25, 1.25], [0, 0, 1, 1, 2, 2], (0.375, 1.0)),  # rounding never says "much"
        ([0.1, 0.9, 2.0], [0, 1, 2], (0.5, 1.5)),  # rounding is perfect and kept
        ([-3.0, 0.25, 0.5, 9.0], [0, 0, 1, 2], (0.375, 1.5)),  # clipped to the scale
        ([0.5, 0.5], [1, 2], (0.25, 1.5)),
    ],
)
def test_cut_points_by_hand(metric, grades, labels, cuts):
    found = fit_cut_points(np.array(grades), np.array(labels), STAGES, metric)
    assert value(metric, np.clip(grades, 0, 2), np.array(labels), found) == pytest.approx(
        value(metric, np.clip(grades, 0, 2), np.array(labels), cuts)
    )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(8))
def test_no_other_cuts_between_the_grades_are_better(metric, seed):
    grades, labels = drawn(seed, 3, count=30)
    levels = np.unique(np.concatenate([[0], grades, [2]]))
    others = itertools.combinations_with_replacement((levels[1:] + levels[:-1]) / 2, 2)
    fitted = value(metric, grades, labels, fit_cut_points(grades, labels, STAGES, metric))
    assert fitted >= max(value(metric, grades, labels, cuts) for cuts in others) - 1e-9


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("count", [1, 2, 10, 100, 5000])
def test_cuts_lie_in_order_on_the_scale_and_are_never_worse_than_rounding(metric, count):
    grades, labels = drawn(count, 5, count)
    cuts = fit_cut_points(grades, labels, RETINOPATHY, metric)
    assert 0 <= cuts[0] <= cuts[1] <= cuts[2] <= cuts[3] <= 4
    assert value(metric, grades, labels, cuts) >= value(metric, grades, labels, (0.5, 1.5, 2.5, 3.5))


def test_neighbouring_float32_grades_are_told_apart():
    low = np.float32(1.7)
    grades = np.array([low, np.nextafter(low, np.float32(2)), 2])
    assert decide(grades, fit_cut_points(grades, np.array([0, 1, 2]), STAGES)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("grades", "labels", "task", "metric", "message"),
    [
        ([1.0], [1], Task("lesion", "multiclass", ("a", "b")), "macro_f1", "'lesion' is multiclass"),
        ([1.0], [1], STAGES, "accuracy", "there is: macro_f1, quadratic_weighted_kappa"),
        ([1.0, 2.0], [1], STAGES, "macro_f1", "one finite grade for every label"),
        ([float("nan")], [1], STAGES, "macro_f1", "one finite grade for every label"),
        ([1.0], [3], STAGES, "macro_f1", "a label lies outside the task 'stages'"),
    ],
)
def test_what_cannot_be_fitted_is_refused(grades, labels, task, metric, message):
    with pytest.raises(MedicError, match=message):
        fit_cut_points(np.array(grades), np.array(labels), task, metric)
