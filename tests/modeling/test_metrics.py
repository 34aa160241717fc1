"""The figures of merit are scikit-learn's, and the intervals know that two eyes belong to one person."""

import numpy as np
import pytest
from sklearn import metrics as reference

from medic.modeling.metrics import (
    accuracy,
    confusion_matrix,
    macro_f1,
    mean_grade_error,
    metrics_for,
    quadratic_weighted_kappa,
    resampled_confusions,
)
from medic.task import RETINOPATHY, Task


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


def test_many_matrices_at_once_give_what_each_gives_alone():
    stack = np.stack([confusion_matrix(*outcome(seed), 5) for seed in range(6)])
    for metric in metrics_for(RETINOPATHY).values():
        assert metric(stack) == pytest.approx([float(metric(one)) for one in stack])


def test_grades_are_decided_by_kappa_and_classes_by_macro_f1():
    assert list(metrics_for(RETINOPATHY))[-1] == "quadratic_weighted_kappa"
    assert list(metrics_for(Task("lesion", "multiclass", ("a", "b")))) == ["accuracy", "macro_f1"]


def test_a_resample_keeps_every_group_whole():
    labels, decided = outcome(0, count=20)
    groups = np.repeat(np.arange(10), 2)
    draws = resampled_confusions(labels, decided, groups, 5, draws=200)
    assert draws.shape == (200, 5, 5)
    assert (draws.sum(axis=(1, 2)) == 20).all()
    one_group = resampled_confusions(labels, decided, np.zeros(20), 5, draws=3)
    assert all(np.array_equal(draw, confusion_matrix(labels, decided, 5)) for draw in one_group)


def test_a_seed_gives_the_same_resamples():
    labels, decided = outcome(0)
    groups = np.arange(150)
    one, other = (resampled_confusions(labels, decided, groups, 5, draws=50, seed=4) for _ in range(2))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, resampled_confusions(labels, decided, groups, 5, draws=50, seed=5))


def test_the_interval_over_patients_is_wider_than_over_images_when_two_eyes_say_the_same():
    labels, decided = (np.repeat(values, 2) for values in outcome(0, count=100))
    patients, images = np.repeat(np.arange(100), 2), np.arange(200)

    def width(groups: np.ndarray) -> float:
        low, high = np.percentile(accuracy(resampled_confusions(labels, decided, groups, 5)), [2.5, 97.5])
        return high - low

    assert width(patients) / width(images) == pytest.approx(np.sqrt(2), rel=0.1)
