"""The figures of merit are scikit-learn's, and the intervals know that two eyes belong to one person."""

import numpy as np
import pytest
from sklearn import metrics as reference

from medic.modeling import metrics
from medic.modeling.metrics import (
    accuracy,
    confusion_matrix,
    interval,
    macro_f1,
    mean_auroc_of,
    mean_grade_error,
    metrics_for,
    quadratic_weighted_kappa,
    resampled,
    score,
)
from medic.task import CHEST_XRAY, RETINOPATHY, Prediction, Task

LESION = Task("lesion", "multiclass", ("benign", "malignant"))


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


def outcome(seed: int, classes: tuple[int, ...] = (0, 1, 2, 3, 4), count: int = 150) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.choice(classes, count)
    decided = np.where(random.random(count) < 0.5, labels, random.choice(classes, count))
    return labels, decided


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [(0, 1, 2, 3, 4), (0, 2, 4), (1, 3)])
def test_every_figure_is_the_reference_implementations(seed, classes):
    labels, decided = outcome(seed, classes)
    confusion = confusion_matrix(labels, decided, 5)
    assert np.array_equal(confusion, reference.confusion_matrix(labels, decided, labels=range(5)))
    assert accuracy(confusion) == pytest.approx(reference.accuracy_score(labels, decided))
    assert macro_f1(confusion) == pytest.approx(reference.f1_score(labels, decided, average="macro"))
    assert mean_grade_error(confusion) == pytest.approx(reference.mean_absolute_error(labels, decided))
    assert quadratic_weighted_kappa(confusion) == pytest.approx(
        reference.cohen_kappa_score(labels, decided, weights="quadratic")
    )


def test_a_label_that_neither_occurs_nor_is_called_counts_as_zero_as_in_scikit_learn():
    task = Task("spots", "multilabel", ("round", "square"))
    truth, said = np.array([[1, 0], [0, 0]]), Prediction(task, np.array([[0.9, 0.1], [0.2, 0.1]], np.float32))
    expected = reference.f1_score(truth, said.decided, average="macro", zero_division=0)
    assert score(metrics_for(task)["macro_f1"], truth, said) == expected == 0.5


def test_a_class_decided_but_never_true_counts_in_macro_f1():
    labels, decided = np.array([0, 0, 1, 1]), np.array([0, 4, 1, 1])
    expected = reference.f1_score(labels, decided, average="macro")
    assert macro_f1(confusion_matrix(labels, decided, 5)) == pytest.approx(expected)


def test_kappa_of_one_constant_against_the_truth_is_zero_also_without_any_spread():
    labels = np.array([0, 1, 2, 3])
    assert quadratic_weighted_kappa(confusion_matrix(labels, np.zeros(4, int), 5)) == pytest.approx(0)
    same = confusion_matrix(np.zeros(4, int), np.zeros(4, int), 5)
    assert quadratic_weighted_kappa(same) == 0


def test_perfect_and_reversed_agreement_are_one_and_minus_one():
    labels = np.array([0, 4, 0, 4])
    assert quadratic_weighted_kappa(confusion_matrix(labels, labels, 5)) == pytest.approx(1)
    assert quadratic_weighted_kappa(confusion_matrix(labels, 4 - labels, 5)) == pytest.approx(-1)


@pytest.mark.parametrize("task", [RETINOPATHY, LESION, CHEST_XRAY], ids=lambda task: task.name)
def test_many_samples_at_once_give_what_each_gives_alone(task):
    truth, prediction = said(task, count=40)
    counts = np.random.default_rng(1).integers(0, 4, (6, 40))
    for name, metric in metrics_for(task).items():
        alone = [
            score(metric, np.repeat(truth, one, axis=0), prediction.rows(np.repeat(np.arange(40), one)))
            for one in counts
        ]
        assert metric(truth, prediction, counts) == pytest.approx(alone, nan_ok=True), name


def test_each_kind_of_task_has_its_decider_last():
    assert list(metrics_for(RETINOPATHY))[-1] == "quadratic_weighted_kappa"
    assert list(metrics_for(Task("lesion", "multiclass", ("a", "b", "c")))) == ["accuracy", "macro_f1"]
    assert list(metrics_for(LESION))[2:] == ["sensitivity", "specificity", "average_precision", "auroc"]
    assert list(metrics_for(CHEST_XRAY)) == ["macro_f1", "mean_average_precision", "mean_auroc"]


def test_the_figures_of_two_classes_are_scikit_learns():
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


def test_a_resample_keeps_every_group_whole():
    truth, prediction = said(RETINOPATHY, count=20)
    seen = []

    def watched(_truth: np.ndarray, _prediction: Prediction, counts: np.ndarray) -> np.ndarray:
        seen.append(counts)
        return counts.sum(axis=1)

    assert (resampled(watched, truth, prediction, np.repeat(list("abcdefghij"), 2), draws=200) == 20).all()
    counts = np.concatenate(seen)
    assert counts.shape == (200, 20)
    assert np.array_equal(counts[:, ::2], counts[:, 1::2])
    assert counts.max() > 1
    assert not counts.min()
    metric = metrics_for(RETINOPATHY)["accuracy"]
    one_group = resampled(metric, truth, prediction, np.zeros(20), draws=3)
    assert one_group == pytest.approx([score(metric, truth, prediction)] * 3)


def test_a_seed_gives_the_same_resamples_however_many_fit_in_memory(monkeypatch):
    truth, prediction = said(CHEST_XRAY, count=60)
    metric, groups = metrics_for(CHEST_XRAY)["mean_auroc"], np.arange(60) // 2
    one, other = (resampled(metric, truth, prediction, groups, draws=50, seed=4) for _ in range(2))
    assert np.array_equal(one, other, equal_nan=True)
    assert not np.array_equal(one, resampled(metric, truth, prediction, groups, draws=50, seed=5), equal_nan=True)
    monkeypatch.setattr(metrics, "_CELLS_AT_ONCE", 60 * 7)
    assert resampled(metric, truth, prediction, groups, draws=50, seed=4) == pytest.approx(one, nan_ok=True)


def test_the_interval_over_patients_is_wider_than_over_images_when_two_eyes_say_the_same():
    labels, decided = (np.repeat(values, 2) for values in outcome(0, count=100))
    prediction = Prediction(RETINOPATHY, np.eye(5, dtype=np.float32)[decided], decided.astype(np.float32))
    patients, images = np.repeat(np.arange(100), 2), np.arange(200)

    def width(groups: np.ndarray) -> float:
        low, high = interval(resampled(metrics_for(RETINOPATHY)["accuracy"], labels, prediction, groups))
        return high - low

    assert width(patients) / width(images) == pytest.approx(np.sqrt(2), rel=0.1)


def test_an_interval_leaves_out_what_cannot_be_told():
    values = np.arange(101.0)
    assert interval(values) == pytest.approx((2.5, 97.5))
    assert interval(np.concatenate([values, [np.nan] * 50])) == interval(values)
    assert np.isnan(interval(np.full(3, np.nan))).all()


def test_the_mean_area_of_some_labels_is_scikit_learns_for_those():
    truth, prediction = said(CHEST_XRAY, count=80)
    wanted = reference.roc_auc_score(truth[:, [2, 5]], prediction.probabilities[:, [2, 5]], average="macro")
    assert score(mean_auroc_of([2, 5]), truth, prediction) == pytest.approx(wanted)
    everything = score(mean_auroc_of(range(truth.shape[1])), truth, prediction)
    assert everything == score(metrics_for(CHEST_XRAY)["mean_auroc"], truth, prediction)
