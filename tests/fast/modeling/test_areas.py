"""Areas under curves are scikit-learn's, for the images as they are and for any number of times each counts."""

import numpy as np
import pytest
from sklearn import metrics as reference

from medic.modeling.metrics.ranking import GRID, auroc, average_precision, precision_on_grid, roc_on_grid

AREAS = [(auroc, reference.roc_auc_score), (average_precision, reference.average_precision_score)]


def ranked(seed: int, values: int | None, count: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Truths and float32 scores that know something of them; with few ``values`` most scores are tied."""
    random = np.random.default_rng(seed)
    truth = (random.random(count) < 0.3).astype(int)
    scores = 0.5 * random.random(count) + 0.4 * truth
    return truth, (scores if values is None else np.round(scores * values) / values).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("values", [None, 50, 5, 1])
@pytest.mark.parametrize(("area", "expected"), AREAS)
def test_an_area_is_the_reference_implementations_with_ties_too(seed, values, area, expected):
    truth, scores = ranked(seed, values)
    assert area(truth, scores) == pytest.approx([expected(truth, scores)], abs=1e-12)


@pytest.mark.parametrize("values", [None, 5])
@pytest.mark.parametrize(("area", "expected"), AREAS)
def test_counting_an_image_several_times_is_a_sample_weight(values, area, expected):
    truth, scores = ranked(0, values)
    counts = np.random.default_rng(3).integers(0, 4, (12, len(truth)))
    weighted = [expected(truth, scores, sample_weight=one) for one in counts]
    assert area(truth, scores, counts) == pytest.approx(weighted, abs=1e-12)
    repeated = [expected(np.repeat(truth, one), np.repeat(scores, one)) for one in counts]
    assert area(truth, scores, counts) == pytest.approx(repeated, abs=1e-12)


def test_the_order_of_the_images_does_not_matter():
    truth, scores = ranked(1, 5)
    order = np.random.default_rng(0).permutation(len(truth))
    for area, _ in AREAS:
        assert area(truth[order], scores[order]) == pytest.approx(area(truth, scores))


def test_perfect_reversed_and_constant_rankings():
    truth = np.array([0, 0, 1, 1])
    assert auroc(truth, np.array([0.1, 0.2, 0.8, 0.9])) == [1]
    assert auroc(truth, np.array([0.9, 0.8, 0.2, 0.1])) == [0]
    assert auroc(truth, np.full(4, 0.3)) == [0.5]
    assert average_precision(truth, np.array([0.1, 0.2, 0.8, 0.9])) == [1]
    assert average_precision(truth, np.full(4, 0.3)) == [0.5]


def test_what_cannot_be_told_is_no_number():
    scores = np.array([0.2, 0.7])
    assert np.isnan(auroc(np.array([1, 1]), scores)).all()
    assert np.isnan(auroc(np.array([0, 0]), scores)).all()
    assert np.isnan(average_precision(np.array([0, 0]), scores)).all()
    assert average_precision(np.array([1, 1]), scores) == [1]
    without = np.array([[1, 1], [0, 2], [2, 0]])
    assert np.isnan(auroc(np.array([0, 1]), scores, without)).tolist() == [False, True, True]
    assert np.isnan(average_precision(np.array([0, 1]), scores, without)).tolist() == [False, False, True]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("values", [None, 50, 5, 1])
def test_curves_on_a_grid_are_those_of_the_reference_implementation(seed, values):
    truth, scores = ranked(seed, values)
    alarms, found, _ = reference.roc_curve(truth, scores, drop_intermediate=False)
    (roc,) = roc_on_grid(truth, scores)
    assert roc == pytest.approx([found[alarms <= share + 1e-12].max() for share in GRID])
    precision, recall, _ = reference.precision_recall_curve(truth, scores)
    precision, recall = precision[-2::-1], recall[-2::-1]  # from the highest threshold, without the point it invents
    (precise,) = precision_on_grid(truth, scores)
    assert precise == pytest.approx([precision[np.argmax(recall >= share - 1e-12)] for share in GRID])


def test_an_image_that_counts_twice_is_two_images_on_the_grid_too():
    truth, scores = ranked(1, 20, count=30)
    counts = np.random.default_rng(2).integers(0, 3, 30)
    for curve in (roc_on_grid, precision_on_grid):
        twice = curve(np.repeat(truth, counts), np.repeat(scores, counts))
        assert curve(truth, scores, counts[None]) == pytest.approx(twice)


def test_a_sample_without_the_label_has_no_curve():
    scores = np.linspace(0, 1, 4)
    assert np.isnan(roc_on_grid(np.zeros(4), scores)).all()
    assert np.isnan(roc_on_grid(np.ones(4), scores)).all()
    assert np.isnan(precision_on_grid(np.zeros(4), scores)).all()
    assert (precision_on_grid(np.ones(4), scores) == 1).all()
