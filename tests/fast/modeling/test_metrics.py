"""Metrics are scikit-learn's, for any number of times each image counts, and intervals know who belongs to whom."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from medic.errors import MedicError
from medic.modeling import metrics
from medic.modeling.metrics import (
    accuracy,
    auroc,
    average_precision,
    confusion_matrix,
    interval,
    interval_of,
    macro_f1,
    mean_grade_error,
    mean_over_labels,
    metrics_for,
    quadratic_weighted_kappa,
    resampled,
    score,
    share_interval,
)
from medic.task import CHEST_XRAY, RETINOPATHY, Prediction, Task

LESION = Task("lesion", "multiclass", ("benign", "malignant"))
PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=40)
RANKED = st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 3)), min_size=2, max_size=40)
AREAS = [(auroc, reference.roc_auc_score), (average_precision, reference.average_precision_score)]


def said(task: Task, count: int, seed: int = 0) -> tuple[np.ndarray, Prediction]:
    """Truths and made-up predictions that know a little of them."""
    random = np.random.default_rng(seed)
    classes = len(task.classes)
    if task.kind == "multilabel":
        truth = (random.random((count, classes)) < 0.2).astype(int)
        return truth, Prediction(task, (0.6 * random.random((count, classes)) + 0.3 * truth).astype(np.float32))
    truth = random.integers(0, classes, count)
    scores = random.random((count, classes)) + 0.4 * np.eye(classes)[truth]
    probabilities = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    grade = probabilities @ np.arange(classes, dtype=np.float32) if task.kind == "ordinal" else None
    return truth, Prediction(task, probabilities, grade)


@settings(deadline=None)
@given(PAIRS)
def test_metrics_of_decisions_are_scikit_learns(pairs):
    labels, decided = np.array(pairs).T
    confusion = confusion_matrix(labels, decided, 5)
    assert np.array_equal(confusion, reference.confusion_matrix(labels, decided, labels=range(5)))
    assert accuracy(confusion) == pytest.approx(reference.accuracy_score(labels, decided))
    assert macro_f1(confusion) == pytest.approx(reference.f1_score(labels, decided, average="macro"))
    assert mean_grade_error(confusion) == pytest.approx(reference.mean_absolute_error(labels, decided))
    if len(set(labels) | set(decided)) > 1:  # where scikit-learn divides 0 by 0, no agreement beyond chance is shown
        kappa = reference.cohen_kappa_score(labels, decided, labels=range(5), weights="quadratic")
        assert quadratic_weighted_kappa(confusion) == pytest.approx(kappa, abs=1e-12)
    else:
        assert quadratic_weighted_kappa(confusion) == 0


@pytest.mark.parametrize(("area", "expected"), AREAS)
@settings(deadline=None)
@given(RANKED)
def test_areas_are_scikit_learns_with_ties_and_with_weights(area, expected, rows):
    truth, scores, counts = np.array(rows).T
    for weights in (None, counts[None]):
        present, absent = ((np.ones(len(rows)) if weights is None else counts)[truth == one].sum() for one in (1, 0))
        (found,) = area(truth, scores, weights)
        if present and (absent or area is average_precision):
            drawn = None if weights is None else counts
            assert found == pytest.approx(expected(truth, scores, sample_weight=drawn), abs=1e-12)
        else:
            assert np.isnan(found)


def test_a_score_that_is_no_number_has_no_area():
    with pytest.raises(MedicError, match="1 of 2 scores are not numbers"):
        auroc(np.array([0, 1]), np.array([0.2, np.nan]))
    diverged = Prediction(LESION, np.full((2, 2), np.nan, np.float32))
    for metric in metrics_for(LESION).values():
        with pytest.raises(MedicError, match="are not numbers; the training has diverged"):
            score(metric, np.array([0, 1]), diverged)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (RETINOPATHY, ["mean_grade_error", "accuracy", "macro_f1", "quadratic_weighted_kappa"]),
        (Task("lesion", "multiclass", ("a", "b", "c")), ["accuracy", "macro_f1"]),
        (LESION, ["accuracy", "macro_f1", "sensitivity", "specificity", "average_precision", "auroc"]),
        (CHEST_XRAY, ["macro_f1", "mean_average_precision", "mean_auroc"]),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_each_kind_of_task_has_its_metrics_and_many_samples_give_what_each_gives_alone(task, expected):
    truth, prediction = said(task, count=40)
    counts = np.random.default_rng(1).integers(0, 4, (6, 40))
    assert list(metrics_for(task)) == expected
    for name, metric in metrics_for(task).items():
        rows = [np.repeat(np.arange(40), one) for one in counts]
        alone = [score(metric, truth[row], prediction.rows(row)) for row in rows]
        assert metric(truth, prediction, counts) == pytest.approx(alone, nan_ok=True), name


def test_metrics_of_two_classes_and_of_labels_are_scikit_learns():
    truth, prediction = said(LESION, count=80)
    decided, scores = prediction.decided, prediction.probabilities[:, 1]
    expected = {
        "accuracy": reference.accuracy_score(truth, decided),
        "macro_f1": reference.f1_score(truth, decided, average="macro"),
        "sensitivity": reference.recall_score(truth, decided),
        "specificity": reference.recall_score(truth, decided, pos_label=0),
        "average_precision": reference.average_precision_score(truth, scores),
        "auroc": reference.roc_auc_score(truth, scores),
    }
    assert {n: score(m, truth, prediction) for n, m in metrics_for(LESION).items()} == pytest.approx(expected)
    truth, prediction = said(CHEST_XRAY, count=80)
    truth[:, 3] = 0  # a label that does not occur counts as 0 in macro F1, and in no mean area
    known = [code for code in range(14) if code != 3]
    expected = {
        "macro_f1": reference.f1_score(truth, prediction.decided, average="macro", zero_division=0),
        "mean_average_precision": reference.average_precision_score(
            truth[:, known], prediction.probabilities[:, known]
        ),
        "mean_auroc": reference.roc_auc_score(truth[:, known], prediction.probabilities[:, known]),
    }
    assert {n: score(m, truth, prediction) for n, m in metrics_for(CHEST_XRAY).items()} == pytest.approx(expected)
    two = reference.roc_auc_score(truth[:, [2, 5]], prediction.probabilities[:, [2, 5]])
    assert score(mean_over_labels(auroc, [2, 5]), truth, prediction) == pytest.approx(two)


def test_a_resample_keeps_every_group_whole():
    truth, prediction = said(RETINOPATHY, count=20)
    counts = resampled(lambda _truth, _said, drawn: drawn, truth, prediction, np.repeat(list("abcdefghij"), 2))
    assert (counts.sum(axis=1) == 20).all()
    assert np.array_equal(counts[:, ::2], counts[:, 1::2])
    assert counts.max() > 1


def test_a_seed_gives_the_same_resamples_however_many_fit_in_memory(monkeypatch):
    truth, prediction = said(CHEST_XRAY, count=60)
    metric, groups = metrics_for(CHEST_XRAY)["mean_auroc"], np.arange(60) // 2
    one = resampled(metric, truth, prediction, groups, draws=50, seed=4)
    assert not np.array_equal(one, resampled(metric, truth, prediction, groups, draws=50, seed=5), equal_nan=True)
    monkeypatch.setattr(metrics, "_CELLS_AT_ONCE", 60 * 7)
    assert resampled(metric, truth, prediction, groups, draws=50, seed=4) == pytest.approx(one, nan_ok=True)


def test_the_interval_over_patients_is_wider_than_over_images_when_two_eyes_say_the_same():
    truth, prediction = said(RETINOPATHY, count=100)
    truth, prediction = np.repeat(truth, 2), prediction.rows(np.repeat(np.arange(100), 2))

    def width(groups: np.ndarray) -> float:
        low, high = interval(resampled(metrics_for(RETINOPATHY)["accuracy"], truth, prediction, groups))
        return high - low

    assert width(np.arange(200) // 2) / width(np.arange(200)) == pytest.approx(np.sqrt(2), rel=0.1)


def test_an_interval_leaves_out_what_cannot_be_told():
    values = np.arange(101.0)
    assert interval(np.concatenate([values, [np.nan] * 50])) == pytest.approx((2.5, 97.5))
    assert np.isnan(interval(np.full(3, np.nan))).all()


def test_a_share_near_its_edge_has_an_interval_that_holds_the_truth():
    random, held = np.random.default_rng(0), []
    whose = np.repeat(np.arange(24), 2)

    def share(_truth: np.ndarray, hits: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return counts @ hits / counts.sum(axis=1)

    for truth in (0.85, 0.95, 0.99):
        for _ in range(60):
            alike = np.repeat(random.random(24) < truth, 2)  # half of the patients have two images of one outcome
            hits = np.where(random.random(48) < 0.5, alike, random.random(48) < truth)
            draws = resampled(
                lambda _truth, hits, counts: counts @ hits / counts.sum(axis=1), hits, hits, whose, draws=300
            )
            low, high = share_interval(hits, whose, draws)
            held.append(low <= truth <= high)
    assert np.mean(held) >= 0.9


@pytest.mark.parametrize(
    ("truth", "right", "each", "expected"),
    [
        ("accuracy", 12, 1, (0.735, 1)),  # 12 of 12: Clopper and Pearson
        ("accuracy", 24, 2, (0.735, 1)),  # two images of each of 12 patients tell no more than one
        ("accuracy", 9, 1, "it rests on 9 patients, fewer than 10"),
        ("quadratic_weighted_kappa", 12, 1, "all samples of patients agree"),
    ],
)
def test_what_is_all_right_is_not_certain(truth, right, each, expected):
    labels = np.arange(right) % 2
    low, high, note = interval_of(truth, labels, labels, np.arange(right) // each, np.ones(100))
    assert note == (f"no interval: {expected}" if isinstance(expected, str) else "")
    assert note or (low, high) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("positive", "told"), [(1, False), (9, False), (10, True), (31, False)])
def test_an_area_has_an_interval_from_ten_patients_of_either_kind_on(positive, told):
    truth = (np.arange(40) < positive).astype(int)
    scores = np.random.default_rng(1).random(40)
    low, high, note = interval_of("auroc", truth, truth, np.arange(40), resampled(auroc, truth, scores, np.arange(40)))
    assert (low < high, note == "") == (told, told)
