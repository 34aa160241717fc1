"""A frozen network with a linear head on its features is a run like any other."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from medic.data.records import targets
from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.modeling.evaluate import evaluate
from medic.modeling.features import _platt, featurise, fit_head, last_layer
from medic.modeling.objectives import Corn, CrossEntropy, MultiLabel, Regression, weighted
from medic.modeling.report import write_report
from medic.task import CHEST_XRAY, CHEST_XRAY_BINARY, RETINOPATHY


def network(prepared, task=CHEST_XRAY_BINARY, objective=None, name="efficientnet_lite0", size=32, **settings):
    torch.manual_seed(3)
    weights = "imagenet" if name == "efficientnet_lite0" else None
    return Classifier(task, name, objective, prepared.preprocessing, size, weights, **settings)


@pytest.fixture(scope="module")
def run(chest_prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads") / "svm"
    return fit_head(network(chest_prepared), chest_prepared, folder, head="svm", sensitivity=0.9)


@pytest.mark.parametrize("flips", [False, True])
def test_features_are_what_the_last_layer_is_given(flips, chest_prepared):
    model = network(chest_prepared, flips=flips)
    for kept in (False, True):
        found = featurise(model, chest_prepared, "validation")
        rows = chest_prepared.split("validation")
        assert (found.shape, found.dtype) == ((len(rows), 1280), np.float32), f"kept: {kept}"
        pixels = np.stack([chest_prepared.pixels(file) for file in rows["file"][:3]])
        with torch.inference_mode():
            raw = model.raw(model.inputs(torch.from_numpy(pixels)))
            assert torch.allclose(raw, last_layer(model)(torch.from_numpy(found[:3])), atol=1e-5), f"kept: {kept}"


def test_features_are_computed_once_for_all_heads(chest_prepared, monkeypatch):
    before = featurise(network(chest_prepared), chest_prepared, "validation")
    monkeypatch.setattr(Classifier, "raw", None)
    other = network(chest_prepared, objective=CrossEntropy((1.0, 2.0)))
    torch.nn.init.zeros_(last_layer(other).weight)
    assert np.array_equal(featurise(other, chest_prepared, "validation"), before)
    torch.nn.init.zeros_(next(other.backbone.parameters()))
    with pytest.raises(TypeError):
        featurise(other, chest_prepared, "validation")


def probabilities(model, prepared, split="test") -> np.ndarray:
    pixels = np.stack([prepared.pixels(file) for file in prepared.split(split)["file"]])
    return model.predict_pixels(pixels).probabilities


@pytest.mark.parametrize(
    ("kind", "balanced"), [("ordinal", False), ("ordinal", True), ("multilabel", False), ("multilabel", True)]
)
def test_a_logistic_head_says_what_scikit_learn_says(kind, balanced, tiny_prepared, chest_prepared, tmp_path):
    prepared, task = (tiny_prepared, RETINOPATHY) if kind == "ordinal" else (chest_prepared, CHEST_XRAY)
    objective = CrossEntropy() if kind == "ordinal" else MultiLabel()
    model = network(prepared, task, weighted(objective, prepared.records, task) if balanced else objective)
    learned = fit_head(model, prepared, tmp_path / "run")
    truth, cost = targets(prepared.split("train"), task), learned.history["cost"][0]
    found = probabilities(learned.model(), prepared)
    for code, labels in enumerate(truth.T if kind == "multilabel" else [truth]):
        if len(set(labels)) > 1:
            share = labels.mean()
            weights = {0: share, 1: 1 - share} if kind == "multilabel" else "balanced"
            logistic = LogisticRegression(C=cost, class_weight=weights if balanced else None, tol=1e-6, max_iter=9999)
            theirs = make_pipeline(StandardScaler(), logistic).fit(
                featurise(model, prepared, "train").astype(float), labels
            )
            expected = theirs.predict_proba(featurise(model, prepared, "test"))
            ours = found[:, [code]] if kind == "multilabel" else found
            assert np.abs(ours - expected[:, -ours.shape[1] :]).max() < 2e-3


def test_a_linear_svm_ranks_the_images_as_scikit_learns_does(run, chest_prepared):
    model, rows = network(chest_prepared), chest_prepared.split("train")
    theirs = make_pipeline(StandardScaler(), LinearSVC(C=run.history["cost"][0], intercept_scaling=100))
    theirs.fit(featurise(model, chest_prepared, "train"), rows["label"])
    decided = theirs.decision_function(featurise(model, chest_prepared, "test"))
    odds = np.diff(np.log(probabilities(run.model(), chest_prepared)), axis=1)[:, 0]
    assert np.corrcoef(decided, odds)[0, 1] > 0.999


@pytest.mark.parametrize(
    ("name", "objective", "width"),
    [
        ("efficientnet_lite0", Regression(), 1280),
        ("efficientnet_lite0", Corn(), 1280),
        ("timm/vit_small_patch14_dinov2.lvd142m", CrossEntropy(), 384),
        ("timm/vit_small_patch16_dinov3", CrossEntropy(), 384),
    ],
)
def test_a_head_learns_any_objective_for_grades_on_any_network(name, objective, width, tiny_prepared, tmp_path):
    """Of foundation networks with random weights, what is tested is the way from their features to an answer."""
    model = network(tiny_prepared, RETINOPATHY, objective, name, size=28 if "14" in name else 32)
    learned = fit_head(model, tiny_prepared, tmp_path / "run").model()
    rows = tiny_prepared.split("train")
    assert featurise(learned, tiny_prepared, "train").shape == (len(rows), width)
    said = learned.predict_pixels(np.stack([tiny_prepared.pixels(file) for file in rows["file"]]))
    assert said.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert "timm" in name or np.corrcoef(said.grade, rows["label"])[0, 1] > 0.5


def test_the_run_is_evaluated_and_reported_like_any_other(run, chest_prepared, tmp_path):
    before, after = network(chest_prepared).backbone.state_dict(), run.model().backbone.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    evaluation = evaluate(run, "test")
    assert evaluation.prediction.thresholds is not None
    assert 0 <= evaluation.table().loc["auroc", "value"] <= 1
    report = write_report(run, evaluation, tmp_path / "report.md").read_text()
    assert "its last layer is a linear support vector machine on the features" in report
    assert "epochs, batches of" not in report


def test_a_finished_head_is_not_learned_twice_and_other_settings_want_another_folder(run, chest_prepared):
    stamp = (run.folder / "run.json").stat().st_mtime_ns
    again = network(chest_prepared)
    torch.nn.init.zeros_(last_layer(again).weight)
    fit_head(again, chest_prepared, run.folder, head="svm", sensitivity=0.9)
    assert (run.folder / "run.json").stat().st_mtime_ns == stamp
    with pytest.raises(MedicError, match=r"holds a training with other settings \(recipe.sensitivity 0.9 there"):
        fit_head(network(chest_prepared), chest_prepared, run.folder, head="svm")


@pytest.mark.parametrize(
    ("task", "name", "objective", "head", "message"),
    [
        (CHEST_XRAY, "resnet18", None, "svm", "no head 'svm' for the objective multilabel"),
        (RETINOPATHY, "resnet18", Regression(), "svm", "no head 'svm' for the objective regression"),
        (CHEST_XRAY_BINARY, "resnet18", None, "forest", "no head 'forest'"),
        (CHEST_XRAY_BINARY, "squeezenet1_1", None, "logistic", "ends in a convolution"),
    ],
)
def test_a_head_that_cannot_be_is_refused(task, name, objective, head, message, chest_prepared, tmp_path):
    with pytest.raises(MedicError, match=message):
        fit_head(network(chest_prepared, task, objective, name), chest_prepared, tmp_path / "run", head)
    assert not (tmp_path / "run").exists()


def test_an_svm_of_few_patients_keeps_the_ranking_of_its_margins(chest_prepared):
    """Held-out answers that run against the truth make its probabilities even, not wrong the other way round."""
    truth = torch.arange(20) % 2
    margin = (0.5 - truth.double())[:, None] * torch.tensor([-1.0, 1.0]) + torch.linspace(0, 1, 20)[:, None]
    loss = CrossEntropy().loss
    slope, shift = _platt(loss, margin, truth)
    assert 0 < float(slope) < 0.3
    assert float(loss(margin * slope + shift, truth)) == pytest.approx(math.log(2), abs=0.1)
    assert float(_platt(loss, -margin * 3, truth)[0]) > 1


def test_one_process_learns_a_last_layer_and_an_svm_needs_two_patients_a_class(chest_prepared, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        with pytest.raises(MedicError, match=r"one process learns .* without torchrun"):
            fit_head(network(chest_prepared), chest_prepared, tmp_path / "run")
    records = chest_prepared.records
    rare = records["split"].eq("train") & records["label"].eq(1)
    few = replace(chest_prepared, records=records[~rare | (records["patient"] == records.loc[rare, "patient"].iloc[0])])
    with pytest.raises(MedicError, match="an SVM two a class, not 1"):
        fit_head(network(chest_prepared), few, tmp_path / "run", "svm")
    assert fit_head(network(chest_prepared), few, tmp_path / "run").finished
