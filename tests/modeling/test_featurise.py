"""A frozen network with a linear support vector machine on top is a run like any other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.modeling.evaluate import evaluate
from medic.modeling.features import LinearSVM, featurise, fit_svm, last_layer
from medic.modeling.objectives import CrossEntropy, Regression
from medic.modeling.report import write_report
from medic.modeling.training.run import Run, difference
from medic.task import CHEST_XRAY, CHEST_XRAY_BINARY, RETINOPATHY

SVM = LinearSVM(costs=(1e-4, 1e-3), folds=3, sensitivity=0.9)


def network(prepared, task=CHEST_XRAY_BINARY, name="resnet18", objective=None):
    torch.manual_seed(3)
    return Classifier(task, name, objective, prepared.preprocessing, image_size=32)


@pytest.fixture(scope="module")
def run(chest_prepared, tmp_path_factory):
    return fit_svm(network(chest_prepared), chest_prepared, tmp_path_factory.mktemp("svm") / "run", SVM)


def test_features_are_what_the_last_layer_is_given(chest_prepared):
    model = network(chest_prepared)
    found = featurise(model, chest_prepared, "validation")
    rows = chest_prepared.split("validation")
    assert found.shape == (len(rows), 512)
    assert found.dtype == np.float32
    pixels = np.stack([chest_prepared.pixels(file) for file in rows["file"][:3]])
    with torch.inference_mode():
        raw = model.raw(model.inputs(torch.from_numpy(pixels)))
        assert torch.allclose(raw, last_layer(model)(torch.from_numpy(found[:3])), atol=1e-5)


def test_no_layer_but_the_last_changes(run, chest_prepared):
    before, after = network(chest_prepared).backbone.state_dict(), run.model().backbone.state_dict()
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    assert changed == ["fc.weight", "fc.bias"]


def spelled_out(model, prepared, cost: float, folds: int) -> np.ndarray:
    """The probabilities of the test split by scikit-learn alone: standardising, SVM and Platt scaling one by one."""
    rows = prepared.split("train")
    features, labels = featurise(model, prepared, "train"), rows["label"].to_numpy()
    machine = make_pipeline(StandardScaler(), LinearSVC(C=cost, class_weight="balanced", max_iter=20_000))
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    held_out = cross_val_predict(
        machine, features, labels, groups=rows["patient"], cv=parts, method="decision_function"
    )
    platt = LogisticRegression(max_iter=1000).fit(held_out.reshape(len(labels), -1), labels)
    decision = machine.fit(features, labels).decision_function(featurise(model, prepared, "test"))
    return platt.predict_proba(decision.reshape(len(decision), -1))


def of_the_test_split(model, prepared) -> np.ndarray:
    pixels = np.stack([prepared.pixels(file) for file in prepared.split("test")["file"]])
    return model.predict_pixels(pixels).probabilities


def test_the_last_layer_says_what_its_parts_say_one_after_the_other(run, chest_prepared):
    expected = spelled_out(network(chest_prepared), chest_prepared, run.history["cost"][0], SVM.folds)
    assert np.abs(of_the_test_split(run.model(), chest_prepared) - expected).max() < 1e-4


def test_so_it_does_for_several_classes(tiny_prepared, tmp_path):
    model = network(tiny_prepared, RETINOPATHY, objective=CrossEntropy())
    expected = spelled_out(model, tiny_prepared, 1e-3, 2)
    learned = fit_svm(model, tiny_prepared, tmp_path / "run", LinearSVM(costs=(1e-3,), folds=2)).model()
    assert expected.shape[1] == 5
    assert np.abs(of_the_test_split(learned, tiny_prepared) - expected).max() < 1e-4


def test_the_run_is_evaluated_and_reported_like_any_other(run, tmp_path):
    evaluation = evaluate(run, "test")
    assert evaluation.prediction.thresholds is not None
    assert 0 <= evaluation.table().loc["auroc", "value"] <= 1
    report = write_report(run, evaluation, tmp_path / "report.md").read_text()
    assert "a linear support vector machine on the features" in report
    assert "epochs, batches of" not in report


def test_it_is_not_learned_twice_and_other_settings_want_another_folder(run, chest_prepared):
    stamp = (run.folder / "run.json").stat().st_mtime_ns
    again = fit_svm(network(chest_prepared), chest_prepared, run.folder, SVM)
    assert isinstance(again, Run)
    assert (run.folder / "run.json").stat().st_mtime_ns == stamp
    with pytest.raises(MedicError, match=r"holds a run with other settings \(recipe\.folds 3 there, 2 here\)"):
        fit_svm(network(chest_prepared), chest_prepared, run.folder, replace(SVM, folds=2))


def test_what_a_run_of_another_kind_has_alone_is_named():
    alike = {"model": {}, "start": "", "data": "", "watch": []}
    assert (
        difference(alike | {"recipe": {"method": "svm"}}, alike | {"recipe": {}})
        == "recipe.method svm there, None here"
    )


@pytest.mark.parametrize(
    ("task", "name", "objective", "message"),
    [
        (CHEST_XRAY, "resnet18", None, "chooses one of several classes"),
        (RETINOPATHY, "resnet18", Regression(), "chooses one of several classes"),
        (CHEST_XRAY_BINARY, "squeezenet1_1", None, "ends in a convolution"),
    ],
)
def test_what_it_cannot_be_is_refused(task, name, objective, message, chest_prepared, tmp_path):
    with pytest.raises(MedicError, match=message):
        fit_svm(network(chest_prepared, task, name, objective), chest_prepared, tmp_path / "run", SVM)
    assert not (tmp_path / "run").exists()


def test_a_class_with_one_patient_is_named(chest_prepared, tmp_path):
    records = chest_prepared.records
    rare = records["split"].eq("train") & records["label"].eq(1)
    few = replace(chest_prepared, records=records[~rare | (records["patient"] == records.loc[rare, "patient"].iloc[0])])
    with pytest.raises(MedicError, match="the class Finding has 1 training patients"):
        fit_svm(network(chest_prepared), few, tmp_path / "run", SVM)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(MedicError, match="one or more costs above 0"):
        LinearSVM(costs=())
