"""Calibration over bootstrap samples: against its own definitions."""

import numpy as np
import pandas as pd
import pytest

from medic.modeling.calibrate import brier_scores, calibration_errors, reliability
from medic.modeling.compare import compare_evaluations
from medic.modeling.evaluate import Evaluation
from medic.modeling.metrics import score
from medic.plots import evaluation as evaluation_plots
from medic.task import Prediction, Task

FINDINGS = Task("findings", "multilabel", ("a", "b", "c"))
COUNT = 60


def brier_score(truth: np.ndarray, probabilities: np.ndarray) -> float:
    return float(np.mean((probabilities - truth) ** 2))


def expected_calibration_error(truth: np.ndarray, probabilities: np.ndarray) -> float:
    table = reliability(truth, probabilities)
    return float(np.average((table["stated"] - table["observed"]).abs(), weights=table["count"]))


def evaluations(count: int, noise: float = 0.3) -> list[Evaluation]:
    """Members that know the same truth, each with errors of its own; two images a patient."""
    random = np.random.default_rng(5)
    truth = (random.random((COUNT, 3)) < 0.3).astype(int)
    records = pd.DataFrame(truth, columns=list(FINDINGS.classes)).assign(
        image=[f"{i}.png" for i in range(COUNT)],
        patient=[str(i // 2) for i in range(COUNT)],
        label=truth.any(axis=1).astype(int),
    )
    said = [np.clip(0.3 + 0.2 * truth + noise * random.standard_normal(truth.shape), 0, 1) for _ in range(count)]
    return [
        Evaluation(f"member {i}", Prediction(FINDINGS, one.astype(np.float32)), records, np.zeros(3, int))
        for i, one in enumerate(said)
    ]


@pytest.mark.parametrize(
    ("resampled", "plain"), [(brier_scores, brier_score), (calibration_errors, expected_calibration_error)]
)
def test_every_image_once_is_the_plain_figure(resampled, plain):
    (one,) = evaluations(1)
    expected = plain(one.truth, one.prediction.probabilities)
    assert score(resampled, one.truth, one.prediction) == pytest.approx(expected)


@pytest.mark.parametrize("resampled", [brier_scores, calibration_errors])
def test_an_image_that_counts_twice_is_the_image_repeated(resampled):
    (one,) = evaluations(1)
    # Each image twice leaves the bins where they are, so that both ways are the same figure.
    doubled = one.prediction.rows(np.repeat(np.arange(COUNT), 2))
    counts = np.full((3, COUNT), 2.0)
    repeated = resampled(np.repeat(one.truth, 2, axis=0), doubled, np.ones((1, 2 * COUNT)))
    assert resampled(one.truth, one.prediction, counts) == pytest.approx(np.repeat(repeated, 3))


def test_a_sample_without_the_faulty_image_has_a_lower_brier_score():
    (one,) = evaluations(1)
    worst = ((one.prediction.probabilities - one.truth) ** 2).mean(axis=1).argmax()
    counts = np.ones((2, COUNT))
    counts[1, worst] = 0
    whole, without = brier_scores(one.truth, one.prediction, counts)
    assert without == pytest.approx(
        brier_score(np.delete(one.truth, worst, 0), np.delete(one.prediction.probabilities, worst, 0))
    )
    assert without < whole


def test_any_function_of_a_metrics_form_can_be_compared_by():
    one, other = evaluations(2)
    lead = compare_evaluations({"one": one, "other": other}).lead("one", "other", brier_scores)
    scores = [brier_score(each.truth, each.prediction.probabilities) for each in (one, other)]
    assert lead.value == pytest.approx(scores[0] - scores[1])
    assert lead.low < lead.value < lead.high


def test_the_table_of_leads_takes_figures_of_ones_own():
    one, other = evaluations(2)
    compared = compare_evaluations({"one": one, "other": other})
    table = compared.leads(over="other", by={"mean AUROC": "mean_auroc", "Brier score": brier_scores})
    assert list(table.columns) == ["mean AUROC", "Brier score"]
    assert str(compared.lead("one", "other", brier_scores)) in table.loc["one", "Brier score"]


def test_a_reliability_diagram_can_end_where_the_probabilities_do():
    (one,) = evaluations(1)
    table = reliability(one.truth, one.prediction.probabilities)
    drawn = evaluation_plots.reliability({"member": table}, limit=0.4)
    assert drawn.axes[0].get_xlim() == drawn.axes[0].get_ylim() == (0, 0.4)
