"""Evaluation: from the original bytes, with intervals and a baseline, never on people it was trained on."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from medic.errors import MedicError
from medic.modeling.evaluate import Evaluation, evaluate
from medic.modeling.report import write_page, write_report
from medic.modeling.training.run import Run
from medic.plots.evaluation import curves
from medic.task import CHEST_XRAY, CHEST_XRAY_BINARY, CHEST_XRAY_OR_NONE, FINDINGS, RETINOPATHY, Prediction, Task

METRICS = ["mean_grade_error", "accuracy", "macro_f1", "quadratic_weighted_kappa"]


@pytest.fixture(scope="module")
def evaluation(run) -> Evaluation:
    return evaluate(run)


def drawn(labels: list[int], rows: list[list[float]], task: Task = RETINOPATHY) -> Evaluation:
    """An evaluation of made-up predictions, two images a patient."""
    probabilities = np.array(rows, np.float32)
    grade = probabilities @ np.arange(len(task.classes)) if task.kind == "ordinal" else None
    names = [f"{i}.jpeg" for i in range(len(labels))]
    records = pd.DataFrame({"image": names, "patient": np.arange(len(labels)) // 2, "label": labels})
    return Evaluation("drawn", Prediction(task, probabilities, grade), records, majority=0)


def test_the_split_is_evaluated_from_the_original_bytes(run, evaluation):
    rows = run.records.query("split == 'test'")
    assert list(evaluation.records["image"]) == list(rows["image"])
    model, store = run.model(), run.prepared.store
    expected = model.predict_pixels(np.stack([model.preprocessing.pixels(store.read(name)) for name in rows["image"]]))
    assert np.allclose(evaluation.prediction.probabilities, expected.probabilities, atol=1e-6)
    assert np.allclose(evaluation.prediction.grade, expected.grade, atol=1e-5)


def test_the_metrics_come_with_intervals_beside_the_baseline_and_by_class_they_are_scikit_learns(run, evaluation):
    truth, decided, table = evaluation.records["label"], evaluation.prediction.decided, evaluation.table()
    assert list(table.index) == METRICS
    assert table.loc["accuracy", "value"] == pytest.approx((truth == decided).mean())
    told = table[table["note"] == ""]  # kappa may have none: all samples of a constant answer agree
    assert {"mean_grade_error", "accuracy", "macro_f1"} <= set(told.index)
    assert told["value"].between(told["low"], told["high"]).all()
    assert (told["low"] < told["high"]).all()
    assert evaluation.majority == run.records.query("split == 'train'")["label"].mode()[0]
    assert table.loc["accuracy", "baseline"] == pytest.approx((truth == evaluation.majority).mean())
    assert np.array_equal(evaluation.confusion, reference.confusion_matrix(truth, decided, labels=range(5)))
    asked = {"average": None, "labels": range(5), "zero_division": np.nan}
    expected = reference.precision_recall_fscore_support(truth, decided, **asked)
    table = evaluation.by_class()
    for name, values in zip(["precision", "sensitivity", "f1", "images"], expected, strict=True):
        assert table[name].to_numpy() == pytest.approx(values, nan_ok=True)
    for name in ("precision", "sensitivity", "specificity"):
        known = table[table[f"{name}_low"].notna()]
        assert known[name].between(known[f"{name}_low"], known[f"{name}_high"]).all()
    patients = [evaluation.records.loc[truth == code, "patient"].nunique() for code in range(5)]
    assert table["sensitivity_low"].notna().tolist() == [count >= 10 for count in patients]


def test_each_label_has_scikit_learns_metrics_at_its_own_threshold():
    random = np.random.default_rng(2)
    truth = (random.random((90, 14)) < 0.2).astype(int)
    truth[:, 13] = 0  # nobody has it
    scores = (0.6 * random.random((90, 14)) + 0.3 * truth).astype(np.float32)
    thresholds = tuple(np.linspace(0.2, 0.6, 14))
    records = pd.DataFrame(truth, columns=list(CHEST_XRAY.classes)).assign(image=range(90), patient=np.arange(90) // 3)
    prediction = Prediction(CHEST_XRAY, scores, thresholds=thresholds)
    evaluation = Evaluation("ninety images", prediction, records.assign(label=1), np.zeros(14, int))
    table = evaluation.by_class()
    for code, name in enumerate(CHEST_XRAY.classes[:13]):
        row, present, called = table.loc[name], truth[:, code], prediction.decided[:, code]
        expected = {
            "auroc": reference.roc_auc_score(present, scores[:, code]),
            "average_precision": reference.average_precision_score(present, scores[:, code]),
            "specificity": reference.recall_score(present, called, pos_label=0),
            "threshold": thresholds[code],
            "patients": records.loc[present == 1, "patient"].nunique(),
        }
        assert row[list(expected)].to_dict() == pytest.approx(expected, nan_ok=True)
        assert row["low"] <= row["auroc"] <= row["high"]
    assert table.loc["Hernia", ["auroc", "low", "high", "average_precision", "sensitivity"]].isna().all()
    assert len(curves(evaluation.questions).axes[1].get_legend().get_texts()) == 13


@pytest.mark.parametrize(
    ("task", "images", "errors"),
    [
        (RETINOPATHY, ["1.jpeg", "4.jpeg", "3.jpeg", "2.jpeg"], [4, 2, 1, 1]),
        (Task("kind", "multiclass", tuple("abcde")), ["3.jpeg", "1.jpeg", "4.jpeg", "2.jpeg"], [1, 1, 1, 1]),
    ],
)
def test_the_worst_are_furthest_from_the_truth_then_surest_of_the_wrong(task, images, errors):
    rows = [
        [0.9, 0.1, 0.0, 0.0, 0.0],  # right
        [0.8, 0.0, 0.0, 0.0, 0.2],  # four grades off
        [0.0, 0.6, 0.4, 0.0, 0.0],  # one off
        [0.0, 0.9, 0.1, 0.0, 0.0],  # one off, and surer
        [0.0, 0.2, 0.0, 0.8, 0.0],  # two off
        [0.0, 0.0, 0.0, 1.0, 0.0],  # right
    ]
    worst = drawn([0, 4, 2, 2, 1, 3], rows, task).worst()
    assert list(worst["image"]) == images
    assert list(worst["error"]) == errors


def test_what_cannot_be_judged_is_refused(run, tmp_path):
    with pytest.raises(MedicError, match="no images in the split 'holdout'"):
        evaluate(run, split="holdout")
    folder = shutil.copytree(run.folder, tmp_path / "elsewhere" / "run")
    with pytest.raises(MedicError, match="no complete prepared set"):
        evaluate(Run.load(folder))
    records = run.records.copy()
    patient = records.loc[records["split"] == "test", "patient"].iloc[0]
    records.loc[records.index[records["split"] == "train"][0], "patient"] = patient
    records.to_csv(folder / "records.csv", index=False)
    with pytest.raises(MedicError, match="1 patients have images in more than one of train, test"):
        evaluate(Run.load(folder))


def test_what_is_saved_holds_all_metrics_every_prediction_and_what_could_not_be_read(run, evaluation, tmp_path):
    def saved(one: Evaluation) -> dict:
        text = (one.save(tmp_path) / "evaluation.json").read_text()
        return json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))

    for labels in ([0, 0, 0, 0], [3, 3, 3, 3]):
        saved(drawn(labels, [[1.0, 0, 0, 0, 0]] * 4))
    values = saved(evaluation)
    assert list(values["figures"]) == METRICS
    assert values["figures"]["accuracy"] == pytest.approx(evaluation.table().loc["accuracy"].to_dict(), abs=1e-4)
    assert (values["images"], values["unreadable_images"], values["synthetic"]) == (len(evaluation.records), 1, True)
    assert values["confusion_matrix"] == evaluation.confusion.tolist()
    predictions = pd.read_csv(tmp_path / "predictions.csv")
    assert list(predictions["image"]) == list(evaluation.records["image"])
    assert (predictions["truth"] == evaluation.records["label"]).all()
    assert (predictions["grade"] == evaluation.prediction.decided).all()
    assert list(evaluation.failed["image"]) == list(run.prepared.skipped.query("split == 'test'")["image"])
    assert "1 images could not be read" in str(evaluation)
    assert "(synthetic images)" in str(evaluation)


@pytest.mark.parametrize(
    ("task", "objective", "operating_point"),
    [
        (CHEST_XRAY, "multilabel; loss weighted by prevalence", "the thresholds in the table by class on, chosen on"),
        (CHEST_XRAY_OR_NONE, "multilabel\n", None),
        (CHEST_XRAY_BINARY, "cross_entropy; loss weighted against imbalance, by class: ", "a probability of 0."),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_report_says_how_the_loss_was_weighted_and_from_where_on_a_finding_is_present(
    task, objective, operating_point, chest_runs, tmp_path
):
    run = chest_runs[task.name]
    text = write_report(run, evaluate(run), tmp_path / "report.md").read_text()
    assert f"- objective: {objective}" in text
    assert "(crop: square, grey)" in text
    assert (f"- operating point: present from {operating_point}" in text) == (operating_point is not None)


def test_the_report_fills_two_checklists_with_what_the_run_says_and_names_the_rest(run, evaluation, tmp_path):
    text = write_report(run, evaluation, tmp_path / "report.md").read_text()
    assert "(crop: fundus)" in text
    assert "**The images are synthetic" in text
    assert "; targets smoothed" not in text
    assert f"| accuracy | {evaluation.table().loc['accuracy', 'value']:.3g}" in text
    lines = [line.split("|") for line in text.split("## TRIPOD+AI")[1].splitlines()]
    rows = {(cells[1].strip(), cells[2].strip()): cells[3] for cells in lines if len(cells) == 5}
    assert len(rows) == 52 + 44 + 2  # and what stands above the columns
    assert "*only a person can say: committee" in rows["17", "Ethical approval and consent"]
    assert "no patient is in two splits" in rows["12a", "Analysis: use and partition of the data"]
    value = f"accuracy {evaluation.table().loc['accuracy', 'value']:.3f} ("
    assert value in rows["37", "Performance and its uncertainty"]
    assert all(cell.strip() for cell in rows.values())
    assert "&#39;" not in text


@pytest.mark.parametrize("task", ["retinopathy", "chest_xray", "chest_xray_binary"])
def test_the_page_shows_figures_slices_and_images_and_asks_the_network_for_nothing(
    task, run, chest_runs, evaluation, tmp_path
):
    run = run if task == "retinopathy" else chest_runs[task]
    evaluation = evaluation if task == "retinopathy" else evaluate(run)
    table = write_page(run, evaluation, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    parts = re.findall(r"<h2 id=\"(\w+)\">", text)
    drawn = {"retinopathy": ["confusion"], "chest_xray": ["curves"], "chest_xray_binary": ["confusion", "curves"]}[task]
    assert [part for part in parts if part in ("confusion", "curves")] == drawn
    assert {"figures", "calibration", "referral", "slices", "worst"} <= set(parts)
    assert "synthetic images: nothing here says anything about patients" in text
    assert f"{evaluation.table()['value'].iloc[0]:.3f}" in text
    assert "brightness" in set(table["column"])
    assert not set(FINDINGS) & set(table["column"])
    assert text.count("data:image/jpeg") == len(evaluation.worst())
    addresses = set(re.findall(r"(?:src|href|url)[=(]\"?([a-z]+:[^\"> ]{6})", text))
    assert {address for address in addresses if not address.startswith("data:")} == set()
    assert "prefers-color-scheme: dark" in text
