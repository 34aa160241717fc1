"""Ensembles: averaged probabilities, and what they gain."""

from dataclasses import replace

import numpy as np
import pytest

from medic.errors import MedicError
from medic.modeling.metrics import metrics_for, score
from medic.predict import average
from medic.task import RETINOPATHY, Prediction, Task

TWO = Task("two findings", "multilabel", ("Effusion", "Mass"))


def test_probabilities_and_grades_are_averaged_and_the_operating_point_is_not():
    rows = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], np.float32)
    one = Prediction(RETINOPATHY, rows, np.array([0, 1], np.float32))
    other = Prediction(RETINOPATHY, rows[::-1], np.array([1, 2], np.float32))
    mean = average([one, other])
    assert mean.probabilities.tolist() == [[0.5, 0.5, 0, 0, 0]] * 2
    assert (mean.grade.tolist(), mean.probabilities.dtype) == ([0.5, 1.5], np.float32)


def test_models_with_errors_of_their_own_gain_by_being_averaged():
    random, area = np.random.default_rng(0), metrics_for(TWO)["mean_auroc"]
    truth = (random.random((120, 2)) < 0.4).astype(int)
    said = [1 / (1 + np.exp(-(2 * truth - 1 + random.normal(0, 1.2, truth.shape)))) for _ in range(5)]
    members = [Prediction(TWO, one.astype(np.float32), thresholds=(0.1, 0.9)) for one in said]
    assert average(members).thresholds is None
    assert score(area, truth, average(members)) > max(score(area, truth, one) for one in members)


def test_what_cannot_be_averaged_is_refused():
    one = Prediction(TWO, np.full((4, 2), 0.5, np.float32))
    with pytest.raises(MedicError, match="nothing to average"):
        average([])
    for other in (one.rows(np.arange(3)), replace(one, task=Task("other", "multilabel", TWO.classes))):
        with pytest.raises(MedicError, match="predictions of one task for the same images"):
            average([one, other])
