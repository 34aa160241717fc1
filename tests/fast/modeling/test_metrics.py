"""Metrics are scikit-learn's, for any number of times each image counts, and intervals know who belongs to whom."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from medic.errors import MedicError
from medic.modeling import metrics
from medic.modeling.metrics import (
    auroc,
    average_precision,
    interval,
    interval_of,
    metrics_for,
    ratio,
    resampled,
    score,
)
from medic.task import CHEST_XRAY, RETINOPATHY, Prediction, Task

LESION = Task("lesion", "multiclass", ("benign", "malignant"))
KINDS = Task("kinds", "multiclass", ("a", "b", "c"))
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


def expected(task: Task, truth: np.ndarray, prediction: Prediction) -> dict[str, float]:
    """Return scikit-learn's metrics, by name and in the order of ours."""
    decided, scores = prediction.decided, prediction.probabilities
    if task.kind == "multilabel":
        areas = {"mean_average_precision": reference.average_precision_score, "mean_auroc": reference.roc_auc_score}
        found = {"macro_f1": reference.f1_score(truth, decided, average="macro", zero_division=0)}
        return found | {name: area(truth, scores) for name, area in areas.items()}
    found = {"mean_grade_error": reference.mean_absolute_error(truth, decided)} if task.kind == "ordinal" else {}
    found["accuracy"] = reference.accuracy_score(truth, decided)
    found["macro_f1"] = reference.f1_score(truth, decided, average="macro")
    if task.kind == "ordinal":
        spread = len({*truth, *decided}) > 1  # scikit-learn divides 0 by 0; no agreement beyond chance is shown
        kappa = partial(reference.cohen_kappa_score, labels=range(len(task.classes)), weights="quadratic")
        found["quadratic_weighted_kappa"] = kappa(truth, decided) if spread else 0
    if task.thresholds:
        found["sensitivity"] = reference.recall_score(truth, decided)
        found["specificity"] = reference.recall_score(truth, decided, pos_label=0)
        found["average_precision"] = reference.average_precision_score(truth, scores[:, 1])
        found["auroc"] = reference.roc_auc_score(truth, scores[:, 1])
    return found


@settings(deadline=None)
@given(PAIRS)
def test_metrics_of_any_decisions_are_scikit_learns(pairs):
    labels, decided = np.array(pairs).T
    said = Prediction(RETINOPATHY, np.eye(5, dtype=np.float32)[decided], decided.astype(np.float32))
    found = {name: score(metric, labels, said) for name, metric in metrics_for(RETINOPATHY).items()}
    assert found == pytest.approx(expected(RETINOPATHY, labels, said), abs=1e-12)


@pytest.mark.parametrize("task", [RETINOPATHY, KINDS, LESION, CHEST_XRAY], ids=lambda task: task.name)
def test_each_kind_of_task_has_scikit_learns_metrics_and_many_samples_give_what_each_gives_alone(task):
    truth, prediction = said(task, count=80)
    found = {name: score(metric, truth, prediction) for name, metric in metrics_for(task).items()}
    wanted = expected(task, truth, prediction)
    assert (list(found), found) == (list(wanted), pytest.approx(wanted))
    counts = np.random.default_rng(1).integers(0, 4, (6, 80))
    for name, metric in metrics_for(task).items():
        rows = [np.repeat(np.arange(80), one) for one in counts]
        alone = [score(metric, truth[row], prediction.rows(row)) for row in rows]
        assert metric(truth, prediction, counts) == pytest.approx(alone, nan_ok=True), name


def test_resamples_keep_groups_whole_and_are_those_of_their_seed_however_many_fit_in_memory(monkeypatch):
    truth, groups = np.arange(20), np.repeat(list("abcdefghij"), 2)

    def drawn(seed: int) -> np.ndarray:
        return resampled(lambda _truth, _said, counts: counts, truth, truth, groups, draws=50, seed=seed)

    counts = drawn(4)
    assert (counts.sum(axis=1) == 20).all()
    assert np.array_equal(counts[:, ::2], counts[:, 1::2])
    assert counts.max() > 1
    assert not np.array_equal(counts, drawn(5))
    monkeypatch.setattr(metrics, "_CELLS_AT_ONCE", 20 * 7)
    assert np.array_equal(counts, drawn(4))


def test_the_interval_over_patients_is_wider_than_over_images_when_two_eyes_say_the_same():
    truth, prediction = said(RETINOPATHY, count=100)
    truth, prediction = np.repeat(truth, 2), prediction.rows(np.repeat(np.arange(100), 2))
    both = (resampled(metrics.accuracy, truth, prediction, groups) for groups in (np.arange(200) // 2, np.arange(200)))
    (low, high), (lower, higher) = map(interval, both)
    assert (high - low) / (higher - lower) == pytest.approx(np.sqrt(2), rel=0.1)


def test_an_interval_leaves_out_what_cannot_be_told():
    assert interval(np.concatenate([np.arange(101.0), [np.nan] * 50])) == pytest.approx((2.5, 97.5))
    assert np.isnan(interval(np.full(3, np.nan))).all()


def test_a_share_near_its_edge_has_an_interval_that_holds_the_truth():
    random, held = np.random.default_rng(0), []
    whose = np.repeat(np.arange(24), 2)
    for truth in (0.85, 0.95, 0.99):
        for _ in range(60):
            alike = np.repeat(random.random(24) < truth, 2)  # half of the patients have two images of one outcome
            hits = np.where(random.random(48) < 0.5, alike, random.random(48) < truth)
            draws = resampled(ratio, hits, 1, whose, draws=300)
            low, high, _ = interval_of("accuracy", hits, np.ones(48), whose, draws)
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
