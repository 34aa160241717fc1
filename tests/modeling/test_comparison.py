"""Comparison: the same images for all, intervals by patient, and no lead where there is only chance."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from medic.errors import MedicError
from medic.modeling.backbones import parameters_megabytes, published_accuracy
from medic.modeling.compare import Comparison, compare, compare_evaluations, measured
from medic.modeling.evaluate import Evaluation, evaluate
from medic.modeling.thresholds import with_cut_points, with_other_eye
from medic.task import RETINOPATHY, Prediction, Task

LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4, 0, 0, 1, 1, 2, 2])


def graded(grades: np.ndarray, **settings: object) -> Evaluation:
    """An evaluation of continuous grades, rounded; two eyes a patient."""
    grades = np.asarray(grades, np.float32).clip(0, 4)
    probabilities = np.eye(5, dtype=np.float32)[np.rint(grades).astype(int)]
    count = len(grades)
    records = pd.DataFrame(
        {
            "image": [f"{i}.jpeg" for i in range(count)],
            "patient": [str(i // 2) for i in range(count)],
            "eye": ["left", "right"] * (count // 2),
            "label": np.resize(LABELS, count),
        }
    )
    return Evaluation("drawn", Prediction(RETINOPATHY, probabilities, grades), records, majority=0, **settings)


def test_a_row_holds_figures_intervals_and_costs(run):
    comparison = compare({"small": run, "again": run})
    row, figures = comparison.table.loc["small"], evaluate(run, "validation").table()
    for metric in ("macro_f1", "quadratic_weighted_kappa"):
        ends = [row[metric], row[f"{metric}_low"], row[f"{metric}_high"]]
        assert ends == pytest.approx(figures.loc[metric, ["value", "low", "high"]].to_list())
    assert row["accuracy"] == figures.loc["accuracy", "value"]
    assert row["megabytes"] == parameters_megabytes(run.model())
    assert row["imagenet_accuracy"] == published_accuracy("mobilenet_v3_small")
    assert row["minutes_per_epoch"] == run.history["seconds"].median() / 60
    assert row["images_per_second"] > 0
    assert row["training_seconds"] == run.about["seconds"]


def test_the_last_epoch_can_be_compared_too(run):
    last = compare({"small": run}, "validation", "last").evaluations["small"]
    expected = evaluate(run, "validation", "last").prediction.probabilities
    assert np.array_equal(last.prediction.probabilities, expected)


def test_it_shows_itself_and_says_synthetic(run):
    comparison = compare({"small": run})
    assert "synthetic" in str(comparison)
    assert "synthetic" in comparison._repr_html_()
    assert " to " in comparison.presented().loc["small", "macro F1"]
    axes = comparison.plot().axes
    assert len(axes) == 2
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["small"]


def test_evaluations_of_other_images_are_not_compared():
    other = graded(LABELS)
    other = dataclasses.replace(other, records=other.records.assign(image=other.records["image"][::-1].to_list()))
    with pytest.raises(MedicError, match="other images"):
        compare_evaluations({"one": graded(LABELS), "two": other})
    with pytest.raises(MedicError, match="nothing to compare"):
        compare_evaluations({})


def test_a_lead_is_certain_only_where_its_interval_leaves_zero_out():
    good, bad = graded(LABELS), graded(np.zeros(len(LABELS)))
    comparison = compare_evaluations({"bad": bad, "good": good, "same": good})
    assert comparison.ranked() == ["good", "same", "bad"]
    lead = comparison.lead("good", "bad")
    assert lead.certain
    assert lead.value == pytest.approx(1 - 2 * 6 / 26 / 5)
    assert comparison.lead("bad", "good").high < 0
    same = comparison.lead("good", "same")
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert not same.certain


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("good",), "good reaches macro F1 1.00"),
        (("good", "bad"), "good is ahead of all others, macro F1 1.00"),
        (("good", "same"), "good: macro F1 1.00, first by no more than chance"),
        (("bad", "good", "same"), "good: macro F1 1.00; 1 of 2 within chance"),
    ],
)
def test_the_finding_says_who_leads_and_whether_by_chance(names, said):
    models = {"good": graded(LABELS), "same": graded(LABELS), "bad": graded(np.zeros(len(LABELS)))}
    assert compare_evaluations({name: models[name] for name in names}).finding() == said


def questioned(kind: str, scores: list[float]) -> Evaluation:
    """An evaluation of ten people, half of whom have what is asked for, as one of two classes or as one of two labels.

    All is called from 0.5 on.
    """
    truth, scores = np.arange(10) % 2, np.array(scores, np.float32)
    task = Task("spots", kind, ("round", "square"))
    records = pd.DataFrame({"image": [f"{i}.png" for i in range(10)], "patient": range(10), "label": truth})
    if kind == "multilabel":
        probabilities, majority = np.stack([scores, scores], axis=1), np.zeros(2, int)
        records = records.assign(round=truth, square=truth)
    else:
        probabilities, majority = np.stack([1 - scores, scores], axis=1), 0
    return Evaluation("drawn", Prediction(task, probabilities), records, majority=majority)


@pytest.mark.parametrize(("kind", "figure"), [("multiclass", "auroc"), ("multilabel", "mean_auroc")])
def test_where_presence_is_asked_the_area_decides_unless_another_figure_is_named(kind, figure):
    ranks = questioned(kind, [0.1, 0.4] * 5)  # in perfect order, and nobody is called
    calls = questioned(kind, [0.2, 0.9] * 4 + [0.95, 0.9])  # one who has nothing is the most suspicious
    comparison = compare_evaluations({"calls": calls, "ranks": ranks})
    assert comparison.decider == figure
    assert comparison.ranked() == comparison.ranked(figure) == ["ranks", "calls"]
    assert comparison.ranked("macro_f1") == ["calls", "ranks"]
    assert comparison.lead("ranks", "calls") == comparison.lead("ranks", "calls", figure)
    assert comparison.lead("ranks", "calls").value == pytest.approx(0.2)
    assert list(comparison.leads().index) == ["calls"]
    assert comparison.finding() == comparison.finding(figure)
    assert "AUROC 1.00" in comparison.finding()


def test_grades_are_ranked_by_macro_f1_unless_another_figure_is_named():
    comparison = compare_evaluations({"good": graded(LABELS)})
    assert comparison.decider == "macro_f1"


def test_cut_points_on_the_same_images_are_no_worse_than_rounding_and_flatter():
    random = np.random.default_rng(0)
    truth = np.resize(LABELS, 200)
    shy = graded(truth * 0.4 + 0.8 + random.normal(0, 0.3, 200))
    same, honest = (with_cut_points(shy, "macro_f1", same_images=flag) for flag in (True, False))
    rounded, flattered, judged = (e.table().loc["macro_f1", "value"] for e in (shy, same, honest))
    assert rounded < judged <= flattered
    assert np.array_equal(honest.prediction.grade, shy.prediction.grade)


def test_judged_on_the_other_half_no_patient_decides_about_itself():
    """Whatever one half's labels are, they never touch that half's decisions."""
    random = np.random.default_rng(1)
    evaluation = graded(random.uniform(0, 4, 40))
    decided = with_cut_points(evaluation, "quadratic_weighted_kappa").prediction.decided
    for patient in evaluation.records["patient"].unique()[:5]:
        own = (evaluation.records["patient"] == patient).to_numpy()
        # Its labels exchanged: other labels, and the same worst grade, so that the halves stay as they are.
        labels = evaluation.records["label"].to_numpy().copy()
        labels[own] = labels[own][::-1]
        again = dataclasses.replace(evaluation, records=evaluation.records.assign(label=labels))
        again = with_cut_points(again, "quadratic_weighted_kappa")
        assert np.array_equal(again.prediction.decided[own], decided[own])


def test_the_other_eye_helps_where_one_eye_is_noisy():
    random = np.random.default_rng(2)
    truth = np.resize(LABELS, 400)
    noisy = graded(truth + random.normal(0, 1.0, 400))
    both = with_other_eye(noisy)
    assert both.table().loc["mean_grade_error", "value"] < noisy.table().loc["mean_grade_error", "value"]
    assert len(both.prediction) == 400


def test_of_models_that_cannot_be_told_apart_the_smallest_is_taken_and_of_equally_small_ones_the_best():
    right, nearly = graded(LABELS), graded(np.where(np.arange(20) == 4, 2, LABELS))
    useless = graded(np.zeros(20))
    judged = {"large": right, "small": nearly, "small too": right, "tiny": useless}
    costs = pd.DataFrame({"megabytes": [100.0, 10.0, 10.0, 1.0]}, index=list(judged))
    comparison = Comparison(judged, costs)
    assert comparison.lead("large", "tiny").certain
    assert not comparison.lead("large", "small").certain
    assert comparison.cheapest_as_good() == "small too"
    with pytest.raises(MedicError, match="what each model costs is not known"):
        compare_evaluations(judged).cheapest_as_good()


def test_a_comparison_needs_no_costs():
    comparison = compare_evaluations({"one": graded(LABELS, synthetic=True)})
    assert isinstance(comparison, Comparison)
    assert "megabytes" not in comparison.table
    assert "MB" not in comparison.presented()


def test_leads_are_taken_over_one_model_in_every_figure():
    good, bad = graded(LABELS), graded(np.zeros(len(LABELS)))
    leads = compare_evaluations({"good": good, "bad": bad}).leads(over="bad")
    assert list(leads.index) == ["good"]
    assert leads.loc["good", "macro F1"].endswith("more than chance")
    assert leads.loc["good", "mean grade error"].startswith("-"), "an error: lower is better"
    assert list(compare_evaluations({"good": good, "bad": bad}).leads().index) == ["bad"]


def test_a_benchmarks_results_are_shown_with_their_spread(tmp_path):
    path = tmp_path / "recipes.csv"
    path.write_text(
        "benchmark,method,metric,value,low,high,ratio,target,reached\n"
        "recipes,published,macro_f1,0.25,0.2,0.3,,,\nrecipes,medic,macro_f1,0.5,0.4,0.6,,,\n"
        "recipes,medic,cpu_minutes,10,,,,,\n"
    )
    table = measured(path)
    assert list(table.columns) == ["published", "medic"]
    assert table.loc["macro_f1"].to_list() == ["0.25 (0.20 to 0.30)", "0.50 (0.40 to 0.60)"]
    assert table.loc["cpu_minutes"].to_list() == ["", "10.00"]


@pytest.mark.parametrize(("content", "said"), [(None, "no results"), ("a,b\n1,2\n", "no benchmark's result")])
def test_results_that_are_not_there_are_an_error(tmp_path, content, said):
    path = tmp_path / "recipes.csv"
    if content:
        path.write_text(content)
    with pytest.raises(MedicError, match=said):
        measured(path)
