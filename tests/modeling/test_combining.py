"""Ensembles and calibration over bootstrap samples: against their own definitions."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medic.errors import MedicError
from medic.modeling.calibrate import brier_scores, calibration_errors, reliability
from medic.modeling.compare import compare_evaluations
from medic.modeling.ensemble import disagreement, gain, gains, out_of_fold, together, why
from medic.modeling.evaluate import Evaluation
from medic.modeling.metrics import metrics_for, score
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


def test_averaging_takes_the_disagreement_off_the_brier_score():
    members = evaluations(4)
    truth = members[0].truth
    own = np.mean([brier_score(truth, one.prediction.probabilities) for one in members])
    averaged = brier_score(truth, together(members, "average").prediction.probabilities)
    assert own - averaged == pytest.approx(disagreement([one.prediction for one in members]), abs=1e-6)
    assert own > averaged


def test_members_that_agree_gain_nothing():
    (one,) = evaluations(1)
    assert disagreement([one.prediction] * 3) == pytest.approx(0, abs=1e-12)
    lead = gain([one, one, one], "mean_auroc")
    assert (lead.value, lead.low, lead.high) == pytest.approx((0, 0, 0))
    assert not lead.certain


def test_members_with_errors_of_their_own_gain_over_their_mean():
    members = evaluations(8)
    area = metrics_for(FINDINGS)["mean_auroc"]
    own = np.mean([score(area, one.truth, one.prediction) for one in members])
    averaged = score(area, members[0].truth, together(members, "average").prediction)
    lead = gain(members, "mean_auroc")
    assert lead.value == pytest.approx(averaged - own)
    assert lead.low < lead.value < lead.high
    assert lead.certain


def test_members_of_other_images_are_refused():
    one, other = evaluations(2)
    moved = replace(other, records=other.records.assign(image=other.records["image"] + "x"))
    with pytest.raises(MedicError, match="different images"):
        gain([one, moved], "mean_auroc")


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


def test_gains_put_an_ensemble_beside_its_members_and_one_network():
    single, *members = evaluations(5)
    row = gains({"four": members}, single, "mean_auroc").loc["four"]
    area = metrics_for(FINDINGS)["mean_auroc"]
    assert row["members"] == tuple(score(area, one.truth, one.prediction) for one in members)
    assert row["mean_member"] == pytest.approx(np.mean(row["members"]))
    assert row["over_member"].value == pytest.approx(row["average"] - row["mean_member"])
    assert row["over_single"].value == pytest.approx(row["average"] - score(area, single.truth, single.prediction))


def test_why_says_where_the_gain_comes_from():
    members = evaluations(4)
    row = why({"four": members}).loc["four"]
    assert row["brier_average"] == pytest.approx(row["brier_members"] - row["disagreement"], abs=1e-6)
    assert 0 < row["correlation"] < 1
    assert why({"twice": [members[0], members[0]]}).loc["twice", "correlation"] == pytest.approx(1)


def test_out_of_fold_judges_every_patient_once():
    (one,) = evaluations(1)
    halves = [
        replace(one, prediction=one.prediction.rows(rows), records=one.records.iloc[rows].reset_index(drop=True))
        for rows in (np.arange(COUNT // 2), np.arange(COUNT // 2, COUNT))
    ]
    whole = out_of_fold(halves, "all")
    assert list(whole.records["image"]) == list(one.records["image"])
    assert np.array_equal(whole.prediction.probabilities, one.prediction.probabilities)
    assert whole.table().equals(one.table())
    own = replace(halves[0], prediction=replace(halves[0].prediction, thresholds=(0.2, 0.2, 0.2)))
    assert out_of_fold([own, halves[1]], "all").prediction.thresholds is None  # no fold's holds for the others
    with pytest.raises(MedicError, match="in two of the evaluations"):
        out_of_fold([halves[0], halves[0]], "all")
    with pytest.raises(MedicError, match="nothing to put together"):
        out_of_fold([], "all")


def test_the_table_of_leads_takes_figures_of_ones_own():
    one, other = evaluations(2)
    compared = compare_evaluations({"one": one, "other": other})
    table = compared.leads(over="other", by={"mean AUROC": "mean_auroc", "Brier score": brier_scores})
    assert list(table.columns) == ["mean AUROC", "Brier score"]
    assert str(compared.lead("one", "other", brier_scores)) in table.loc["one", "Brier score"]


def test_the_figure_of_ensembles_shows_every_member_and_gain():
    single, *members = evaluations(5)
    table = gains({"four": members, "two": members[:2]}, single, "mean_auroc")
    values, ahead = evaluation_plots.ensembles(table, 0.61, "mean AUROC").axes
    assert sorted(values.lines[0].get_xdata()) == sorted((*table["members"]["four"], *table["members"]["two"]))
    assert sorted(values.lines[1].get_xdata()) == sorted(table["average"])
    shown = {bar.get_label(): list(bar.lines[0].get_xdata()) for bar in ahead.containers}
    assert shown == {
        "over the mean member": [lead.value for lead in table["over_member"]],
        "over one network alone": [lead.value for lead in table["over_single"]],
    }


def test_a_reliability_diagram_can_end_where_the_probabilities_do():
    (one,) = evaluations(1)
    table = reliability(one.truth, one.prediction.probabilities)
    drawn = evaluation_plots.reliability({"member": table}, limit=0.4)
    assert drawn.axes[0].get_xlim() == drawn.axes[0].get_ylim() == (0, 0.4)
