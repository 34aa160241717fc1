"""Evaluation: from the original bytes, with intervals and a baseline, and never on people it was trained on."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from medic.errors import MedicError
from medic.modeling.evaluate import Evaluation, evaluate
from medic.modeling.metrics import GRID, precision_on_grid, roc_on_grid
from medic.modeling.training.run import Run
from medic.task import CHEST_XRAY, RETINOPATHY, Prediction, Task

FIGURES = ["mean_grade_error", "accuracy", "macro_f1", "quadratic_weighted_kappa"]


@pytest.fixture(scope="module")
def evaluation(run) -> Evaluation:
    return evaluate(run)


def drawn(labels: list[int], rows: list[list[float]], **settings: object) -> Evaluation:
    """An evaluation of made-up predictions, two images a patient."""
    probabilities = np.array(rows, np.float32)
    prediction = Prediction(RETINOPATHY, probabilities, (probabilities * np.arange(5)).sum(axis=1))
    count = len(labels)
    records = pd.DataFrame(
        {
            "image": [f"{i}.jpeg" for i in range(count)],
            "patient": [str(i // 2) for i in range(count)],
            "label": labels,
        }
    )
    return Evaluation("drawn", prediction, records, majority=0, **settings)


def test_the_split_is_evaluated_from_the_original_bytes(run, evaluation):
    rows = run.records.query("split == 'test'")
    assert list(evaluation.records["image"]) == list(rows["image"])
    model, store = run.model(), run.prepared.store
    pixels = np.stack([model.preprocessing.pixels(store.read(name)) for name in rows["image"]])
    expected = model.predict_pixels(pixels)
    assert np.allclose(evaluation.prediction.probabilities, expected.probabilities, atol=1e-6)
    assert np.allclose(evaluation.prediction.grade, expected.grade, atol=1e-5)


def test_the_figures_are_scikit_learns(evaluation):
    truth, decided = evaluation.records["label"], evaluation.prediction.decided
    table = evaluation.table()
    assert list(table.index) == FIGURES
    assert table["value"].to_list() == pytest.approx(
        [
            reference.mean_absolute_error(truth, decided),
            reference.accuracy_score(truth, decided),
            reference.f1_score(truth, decided, average="macro"),
            reference.cohen_kappa_score(truth, decided, weights="quadratic"),
        ]
    )
    assert np.array_equal(evaluation.confusion, reference.confusion_matrix(truth, decided, labels=range(5)))


def test_each_interval_contains_its_value_and_stays_in_range(evaluation):
    table = evaluation.table()
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert (table["low"] < table["high"]).any()
    assert table.loc[["accuracy", "macro_f1"], "low"].ge(0).all()
    assert table.loc[["accuracy", "macro_f1"], "high"].le(1).all()


def test_the_baseline_always_says_what_was_most_frequent_in_training(run, evaluation):
    train, test = (run.records.query(f"split == '{split}'")["label"] for split in ("train", "test"))
    assert evaluation.majority == train.value_counts().idxmax()
    baseline = evaluation.table()["baseline"]
    assert baseline["accuracy"] == pytest.approx((test == evaluation.majority).mean())
    assert baseline["quadratic_weighted_kappa"] == 0


def test_sensitivity_and_precision_by_class_are_scikit_learns(evaluation):
    truth, decided = evaluation.records["label"], evaluation.prediction.decided
    table = evaluation.by_class()
    assert list(table.index) == list(RETINOPATHY.classes)
    assert table["images"].sum() == len(truth)
    recall = reference.recall_score(truth, decided, average=None, labels=range(5), zero_division=np.nan)
    assert table["sensitivity"].to_numpy() == pytest.approx(recall, nan_ok=True)
    precise = reference.precision_score(truth, decided, average=None, labels=range(5), zero_division=np.nan)
    assert table["precision"].to_numpy() == pytest.approx(precise, nan_ok=True)
    for name in ("precision", "sensitivity"):
        known = table[table[name].notna()]
        assert (known[f"{name}_low"] <= known[name]).all()
        assert (known[name] <= known[f"{name}_high"]).all()


def test_a_single_pair_of_curves_lies_within_its_bands(chest_runs):
    evaluation = evaluate(chest_runs["chest_xray_binary"], "test")
    roc, precise = evaluation.plot_curves().axes
    for axes, curve in ((roc, roc_on_grid), (precise, precision_on_grid)):
        (band,) = axes.collections
        corners = band.get_paths()[0].vertices
        ends = [corners[np.isclose(corners[:, 0], share), 1] for share in GRID]
        (points,) = curve(evaluation.truth, evaluation.prediction.probabilities[:, 1])
        within = [low.min() - 1e-9 <= point <= low.max() + 1e-9 for low, point in zip(ends, points, strict=True)]
        assert np.mean(within) > 0.9
        assert np.mean([end.max() - end.min() for end in ends]) > 0.05
    several = evaluate(chest_runs["chest_xray"], "test").plot_curves()
    assert not several.axes[0].collections


def test_what_is_said_of_each_label_and_of_all_is_scikit_learns():
    random = np.random.default_rng(2)
    truth = (random.random((90, 14)) < 0.2).astype(int)
    truth[:, 13] = 0  # nobody has it
    scores = (0.6 * random.random((90, 14)) + 0.3 * truth).astype(np.float32)
    thresholds = tuple(np.linspace(0.2, 0.6, 14))
    records = pd.DataFrame(truth, columns=list(CHEST_XRAY.classes))
    records = records.assign(image=[f"{n}.png" for n in range(90)], patient=[str(n // 3) for n in range(90)], label=1)
    prediction = Prediction(CHEST_XRAY, scores, thresholds=thresholds)
    evaluation = Evaluation("ninety images", prediction, records, np.zeros(14, int))
    table, decided = evaluation.by_class(), scores >= np.array(thresholds, np.float32)
    for code, name in enumerate(CHEST_XRAY.classes[:13]):
        row, present, called = table.loc[name], truth[:, code], decided[:, code]
        assert row["auroc"] == pytest.approx(reference.roc_auc_score(present, scores[:, code]))
        assert row["low"] <= row["auroc"] <= row["high"]
        assert row["average_precision"] == pytest.approx(reference.average_precision_score(present, scores[:, code]))
        assert row["sensitivity"] == pytest.approx(reference.recall_score(present, called))
        assert row["specificity"] == pytest.approx(reference.recall_score(present, called, pos_label=0))
        right = reference.precision_score(present, called, zero_division=np.nan)
        assert row["precision"] == pytest.approx(right, nan_ok=True)
        assert row["f1"] == pytest.approx(reference.f1_score(present, called, zero_division=0))
        assert row["threshold"] == thresholds[code]
        assert row["images"] == present.sum()
        assert row["patients"] == records.loc[present == 1, "patient"].nunique()
    nobody = table.loc["Hernia"]
    assert nobody[["auroc", "low", "high", "average_precision", "sensitivity"]].isna().all()
    assert nobody[["images", "patients"]].tolist() == [0, 0]

    value = evaluation.table()["value"]
    assert value["macro_f1"] == pytest.approx(reference.f1_score(truth, decided, average="macro", zero_division=0))
    assert value["mean_auroc"] == pytest.approx(reference.roc_auc_score(truth[:, :13], scores[:, :13]))
    precision = reference.average_precision_score(truth[:, :13], scores[:, :13])
    assert value["mean_average_precision"] == pytest.approx(precision)


def test_patients_of_the_split_who_were_trained_on_are_refused(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    records = run.records.copy()
    tested = records.index[records["split"] == "test"]
    patient = records["patient"][tested[0]]
    records.loc[records.index[records["split"] == "train"][0], "patient"] = patient
    records.to_csv(folder / "records.csv", index=False)
    with pytest.raises(
        MedicError, match=f"1 patients of the split 'test' were trained on .*{patient}.*split by patient"
    ):
        evaluate(Run.load(folder))


def test_a_split_that_the_run_does_not_have_is_refused(run):
    with pytest.raises(MedicError, match="no images in the split 'holdout'"):
        evaluate(run, split="holdout")


def test_a_prepared_set_that_is_gone_is_told(run, tmp_path):
    folder = tmp_path / "elsewhere" / "run"
    shutil.copytree(run.folder, folder)
    with pytest.raises(MedicError, match="no complete prepared set"):
        evaluate(Run.load(folder))


def test_unreadable_images_are_counted_and_in_no_figure(run, evaluation):
    skipped = run.prepared.skipped.query("split == 'test'")
    assert len(skipped) == 1
    assert list(evaluation.failed["image"]) == list(skipped["image"])
    assert evaluation.failed["reason"].iloc[0] == "unsupported"
    assert not set(evaluation.failed["image"]) & set(evaluation.records["image"])
    assert "1 images could not be read" in str(evaluation)


def test_figures_from_generated_photographs_say_so_wherever_they_show(evaluation):
    assert evaluation.synthetic
    assert "(synthetic images)" in str(evaluation)
    assert "(synthetic images)" in evaluation._repr_html_()
    assert evaluation.to_dict()["synthetic"] is True
    assert "synthetic" not in str(drawn([0, 1], [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]]))
    texts = [text.get_text() for axes in evaluation.plot_confusion().axes for text in (axes.title, *axes.texts)]
    figure = evaluation.plot_confusion()
    texts += [text.get_text() for text in figure.texts] + [figure.get_suptitle()]
    assert any("synthetic" in text for text in texts)


def test_the_worst_are_furthest_from_the_truth_then_surest_of_the_wrong():
    evaluation = drawn(
        [0, 4, 2, 2, 1, 3],
        [
            [0.9, 0.1, 0.0, 0.0, 0.0],  # right
            [0.8, 0.0, 0.0, 0.0, 0.2],  # four grades off
            [0.0, 0.6, 0.4, 0.0, 0.0],  # one off
            [0.0, 0.9, 0.1, 0.0, 0.0],  # one off, and surer
            [0.0, 0.2, 0.0, 0.8, 0.0],  # two off
            [0.0, 0.0, 0.0, 1.0, 0.0],  # right
        ],
    )
    worst = evaluation.worst()
    assert list(worst["image"]) == ["1.jpeg", "4.jpeg", "3.jpeg", "2.jpeg"]
    assert list(worst["error"]) == [4, 2, 1, 1]
    assert list(worst["p_truth"]) == pytest.approx([0.2, 0.2, 0.1, 0.4])
    assert list(evaluation.worst(2)["decided"]) == [0, 3]


def test_without_order_every_mistake_counts_the_same():
    task = Task("lesion", "multiclass", ("a", "b", "c"))
    rows = np.array([[0.1, 0.0, 0.9], [0.3, 0.7, 0.0], [0, 1, 0]], np.float32)
    records = pd.DataFrame({"image": ["x", "y", "z"], "patient": ["1", "2", "3"], "label": [0, 0, 1]})
    worst = Evaluation("drawn", Prediction(task, rows), records, majority=0).worst()
    assert list(worst["image"]) == ["x", "y"]
    assert list(worst["error"]) == [1, 1]


def strict(text: str) -> dict:
    return json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


def test_what_is_saved_holds_all_figures_and_is_strict_json(evaluation, tmp_path):
    evaluation.save(tmp_path)
    values = strict((tmp_path / "evaluation.json").read_text())
    assert list(values["figures"]) == FIGURES
    assert set(values["figures"]["accuracy"]) == {"value", "low", "high", "baseline"}
    assert values["images"] == len(evaluation.records)
    assert values["unreadable_images"] == 1
    assert np.sum(values["confusion_matrix"]) == values["images"]
    predictions = pd.read_csv(tmp_path / "predictions.csv")
    assert list(predictions["image"]) == list(evaluation.records["image"])
    assert (predictions["truth"] == evaluation.records["label"]).all()
    assert (predictions["grade"] == evaluation.prediction.decided).all()


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [3, 3, 3, 3], [0, 1, 0, 0]])
def test_splits_without_spread_still_save_as_strict_json(labels, tmp_path):
    always_none = [[1.0, 0.0, 0.0, 0.0, 0.0]] * 4
    drawn(labels, always_none).save(tmp_path)
    strict((tmp_path / "evaluation.json").read_text())


def test_the_same_evaluation_gives_the_same_intervals(run, evaluation):
    assert evaluate(run).table().equals(evaluation.table())
