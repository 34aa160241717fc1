"""Ensembles: averaged probabilities, the gain with its interval, and folds that keep patients whole."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medic.errors import MedicError
from medic.modeling.ensemble import gain, together
from medic.modeling.evaluate import Evaluation
from medic.modeling.metrics import metrics_for, score
from medic.predict import average
from medic.task import RETINOPATHY, Prediction, Task

TWO = Task("two findings", "multilabel", ("Effusion", "Mass"))


@pytest.fixture(scope="module")
def members() -> list[Evaluation]:
    """Five models of one skill whose errors have nothing to do with each other; two images a patient."""
    random = np.random.default_rng(0)
    truth = (random.random((120, 2)) < 0.4).astype(int)
    records = pd.DataFrame(truth, columns=list(TWO.classes)).assign(
        image=[f"{n}.png" for n in range(120)], patient=[str(n // 2) for n in range(120)], label=truth.max(axis=1)
    )
    said = [1 / (1 + np.exp(-(2 * truth - 1 + random.normal(0, 1.2, truth.shape)))) for _ in range(5)]
    return [
        Evaluation(str(n), Prediction(TWO, one.astype(np.float32)), records, majority=np.zeros(2, int))
        for n, one in enumerate(said)
    ]


def test_probabilities_and_grades_are_averaged_and_the_operating_point_is_not(members):
    rows = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], np.float32)
    one = Prediction(RETINOPATHY, rows, np.array([0, 1], np.float32))
    other = Prediction(RETINOPATHY, rows[::-1], np.array([1, 2], np.float32))
    mean = average([one, other])
    assert mean.probabilities.tolist() == [[0.5, 0.5, 0, 0, 0]] * 2
    assert mean.grade.tolist() == [0.5, 1.5]
    assert mean.probabilities.dtype == np.float32
    assert average([replace(each.prediction, thresholds=(0.1, 0.9)) for each in members]).thresholds is None


def test_what_cannot_be_averaged_is_refused(members):
    one = members[0].prediction
    with pytest.raises(MedicError, match="nothing to average"):
        average([])
    for other in (one.rows(np.arange(3)), replace(one, task=Task("other", "multilabel", TWO.classes))):
        with pytest.raises(MedicError, match="predictions of one task for the same images"):
            average([one, other])
    turned = replace(members[1], records=members[1].records.iloc[::-1].reset_index(drop=True))
    with pytest.raises(MedicError, match="evaluations are of different images"):
        together([members[0], turned], "mixed")


def test_models_with_errors_of_their_own_gain_by_being_averaged_beyond_chance(members):
    area = metrics_for(TWO)["mean_auroc"]
    own = [score(area, one.truth, one.prediction) for one in members]
    whole = together(members, "all five")
    gained = gain(members, area)
    assert gained.value == pytest.approx(score(area, whole.truth, whole.prediction) - np.mean(own))
    assert 0 < gained.low < gained.value < gained.high
    alone = gain([members[0]] * 3, area)
    assert (alone.value, alone.low, alone.high) == pytest.approx((0, 0, 0))
