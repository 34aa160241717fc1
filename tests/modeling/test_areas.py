"""Areas under curves are scikit-learn's, for the images as they are and for any number of times each counts."""

import numpy as np
import pytest
from sklearn import metrics as reference

from medic.modeling.areas import auroc, average_precision

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
