"""What is fitted after the training holds on the validation images as a service reads them, and travels to it."""

import time
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared, prepare
from medic.data.stores import FolderStore, open_store
from medic.deployment.bundle import Bundle
from medic.deployment.bundle.pipeline import package_run, pixels_of
from medic.deployment.bundle.predictor import open_session, run
from medic.deployment.compress import quantize
from medic.modeling.calibrate import log_losses
from medic.modeling.classifier import Classifier
from medic.modeling.evaluate import evaluate
from medic.modeling.features import fit_head
from medic.modeling.metrics import score
from medic.modeling.objectives import Corn, CrossEntropy, MultiLabel, Regression, weighted
from medic.modeling.training.decide import calibrate
from medic.modeling.training.run import Run
from medic.predict import predict
from medic.predict.batch import predict_to
from medic.task import CHEST_XRAY, RETINOPATHY, SKIN_LESION, Prediction, Task


@pytest.fixture(scope="module")
def lesions(tmp_path_factory) -> Prepared:
    """150 drawn spots of 75 patients, JPEG as cameras write it; malignant ones are larger on average."""
    folder, random = tmp_path_factory.mktemp("spots"), np.random.default_rng(0)
    rows = []
    for number in range(150):
        label = int(random.random() < 0.3)
        image = random.normal(170, 8, (90, 110, 3))
        radius = int(np.clip(random.normal(15 + 8 * label, 4), 4, 40))
        cv2.circle(image, (55, 45), radius, (40, 70, 110), -1)
        name = f"{number}.jpg"
        cv2.imwrite(str(folder / name), np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 80])
        split = ("train", "validation", "test")[number // 2 % 3]
        rows.append({"image": name, "patient": str(number // 2), "label": label, "split": split})
    preprocessing = Preprocessing(size=64, crop="square")
    return prepare(pd.DataFrame(rows), open_store(folder), tmp_path_factory.mktemp("set") / "spots", preprocessing)


@pytest.fixture(scope="module")
def trained(lesions: Prepared, tmp_path_factory) -> Run:
    torch.manual_seed(0)
    objective = weighted(CrossEntropy(), lesions.records, SKIN_LESION)
    model = Classifier(SKIN_LESION, "efficientnet_lite0", objective, lesions.preprocessing, 64, "imagenet")
    return fit_head(model, lesions, tmp_path_factory.mktemp("runs") / "spots", sensitivity=0.9)


@pytest.fixture(scope="module")
def bundle(trained: Run, tmp_path_factory) -> Bundle:
    return package_run(trained, evaluate(trained), tmp_path_factory.mktemp("bundles") / "spots")[0]


def test_the_wanted_sensitivity_is_reached_on_the_validation_images_through_the_bundle(trained, bundle):
    prepared, rows = trained.prepared, trained.prepared.split("validation")
    by_bundle, by_model = (
        predict(model, prepared.store, list(rows["image"])).prediction
        for model in (bundle.predictor(), trained.model())
    )
    found = by_bundle.decided[rows["label"] == 1].mean()
    assert 0.9 <= found < 0.9 + 1 / (rows["label"] == 1).sum()
    assert np.array_equal(by_bundle.decided, by_model.decided)
    assert np.array_equal(by_bundle.why, by_model.why)
    for name in ("probabilities", "distance", "brightness", "sharpness"):
        assert getattr(by_bundle, name) == pytest.approx(getattr(by_model, name), rel=1e-4, abs=1e-4)
    assert by_bundle.sets[np.arange(len(rows)), rows["label"]].mean() >= 0.9
    for word, share in (("dark", 0.05), ("bright", 0.05), ("blurred", 0.05), ("unlike", 0.05)):
        assert (by_bundle.why == word).mean() <= share


def test_answers_and_truths_keep_together_whichever_images_are_read_first(trained, lesions, tmp_path, monkeypatch):
    slow = [*lesions.split("validation")["image"][:3]]
    read = FolderStore.read

    def late(store, name):
        time.sleep(0.5 * (name in slow))
        return read(store, name)

    monkeypatch.setattr(FolderStore, "read", late)
    monkeypatch.setattr("medic.modeling.training.decide.BATCH", 8)
    torch.manual_seed(0)
    objective = weighted(CrossEntropy(), lesions.records, SKIN_LESION)
    model = Classifier(SKIN_LESION, "efficientnet_lite0", objective, lesions.preprocessing, 64, "imagenet")
    other, first = fit_head(model, lesions, tmp_path / "spots", sensitivity=0.9).model(), trained.model()
    assert other.thresholds == pytest.approx(first.thresholds, abs=1e-4)
    assert (other.scale, other.shift) == (pytest.approx(first.scale, rel=1e-3), pytest.approx(first.shift, rel=1e-3))


def test_a_weighted_loss_is_taken_out_of_the_probabilities(trained):
    model, rows = trained.model(), trained.prepared.split("validation")
    assert min(model.shift) < 0, "malignant ones are rarer than the weighted loss had them"
    said = predict(model, trained.prepared.store, list(rows["image"])).prediction
    assert said.probabilities[:, 1].mean() == pytest.approx(rows["label"].mean(), abs=0.05)
    model.scale = None
    own = predict(model, trained.prepared.store, list(rows["image"])).prediction
    off, still_off = (abs(one.probabilities[:, 1].mean() - rows["label"].mean()) for one in (own, said))
    assert off > still_off


def test_images_of_another_kind_are_far_and_left_to_a_person(trained, tmp_path):
    random = np.random.default_rng(1)
    for number in range(20):
        page = np.full((90, 110, 3), 245, np.uint8)
        for line in range(10, 90, 12):
            cv2.putText(page, "".join(random.choice([*"abcdefghij "], 18)), (3, line), 0, 0.35, (20, 20, 20), 1)
        cv2.imwrite(str(tmp_path / f"page{number}.png"), page)
        cv2.imwrite(str(tmp_path / f"noise{number}.png"), random.integers(0, 256, (90, 110, 3), dtype=np.uint8))
    rows, model = trained.prepared.split("test"), trained.model()
    own = predict(model, trained.prepared.store, list(rows["image"])).prediction
    store = FolderStore(tmp_path)
    other = predict(model, store, store.images()).prediction
    far = np.r_[np.zeros(len(own)), np.ones(len(other))]
    assert roc_auc_score(far, np.r_[own.distance, other.distance]) >= 0.95
    assert (np.isin(other.why, ["unlike", "bright", "dark", "blurred"])).mean() >= 0.95
    assert (own.why == "unlike").mean() <= 0.1


def test_the_table_of_many_images_says_what_is_possible_and_who_is_asked(trained, bundle, tmp_path):
    store, names = trained.prepared.store, list(trained.prepared.split("test")["image"])
    predict_to(bundle.predictor(), store, names, tmp_path / "result.csv")
    table = pd.read_csv(tmp_path / "result.csv", keep_default_na=False)
    expected = predict(bundle.predictor(), store, names).to_frame()
    assert table[["set", "refer", "why", "calibration"]].equals(expected[["set", "refer", "why", "calibration"]])
    assert set(table["calibration"]) == {"calibrated on 25 patients of the validation split"}
    assert bundle.manifest.calibration in (bundle.folder / "MODEL_CARD.md").read_text()
    answer = bundle.predictor().answers(bundle.predictor().predict([store.read(names[0])]))[0]
    assert (answer["why"], answer["refer"]) == (table["why"][0], bool(table["refer"][0]))
    assert "|".join(answer["set"]) == table["set"][0]


def test_a_compressed_graph_keeps_rule_and_distance(trained, bundle, tmp_path):
    pixels = pixels_of(trained.prepared, "train")
    int8 = open_session(quantize(bundle.folder / "model.onnx", tmp_path / "int8.onnx", pixels))
    pixels = pixels[:16]
    small, whole = run(int8, SKIN_LESION, pixels), bundle.predictor().predict_pixels(pixels)
    assert replace(small.referral, distance=None) == replace(whole.referral, distance=None)
    assert (small.why == "unlike").mean() <= 0.1, "rounding alone makes no image unlike"
    noise = np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8)
    assert (run(int8, SKIN_LESION, noise).distance > small.referral.distance).all()


def test_a_model_and_its_copies_are_fitted_once_and_come_back_as_they_were(trained, tmp_path):
    best, last = trained.model("best"), trained.model("last")
    assert best.to_dict() == last.to_dict()
    again = Classifier.load(best.save(tmp_path / "again"))
    assert again.to_dict() == best.to_dict()
    assert torch.equal(again.distance.axes, best.distance.axes)
    torch.manual_seed(0)
    new = Classifier(SKIN_LESION, "efficientnet_lite0", None, best.preprocessing, 64, weights=tmp_path / "again")
    assert (new.scale, new.distance, new.referral) == (None, None, None)


@pytest.mark.parametrize(
    ("task", "objective"),
    [
        (RETINOPATHY, CrossEntropy()),
        (RETINOPATHY, CrossEntropy((0.5, 2.0, 1.0, 3.0, 3.0))),
        (RETINOPATHY, Corn()),
        (RETINOPATHY, Regression()),
        (SKIN_LESION, CrossEntropy()),
        (SKIN_LESION, CrossEntropy((0.6, 3.0))),
        (CHEST_XRAY, MultiLabel()),
        (CHEST_XRAY, MultiLabel((0.1,) * 14)),
    ],
    ids=lambda one: one.name,
)
def test_each_objective_states_a_lower_log_loss_when_calibrated(task: Task, objective):
    random = torch.Generator().manual_seed(0)
    model = Classifier(task, "timm/test_vit", objective, image_size=160)
    raw = 2 * torch.randn(300, objective.outputs(task), generator=random)
    raw = raw + 2 if isinstance(objective, Regression) else raw
    answers = [answer.numpy() for answer in objective.decode(raw / 3, task)]
    drawn = np.random.default_rng(0).random((300, 1))
    truth = (answers[0].cumsum(axis=1) < drawn).sum(axis=1).clip(max=answers[0].shape[1] - 1)
    if task.kind == "multilabel":
        truth = (answers[0] > np.random.default_rng(1).random(answers[0].shape)).astype(int)
    own = Prediction(task, *(answer.numpy() for answer in objective.decode(raw, task)))
    calibrate(model, raw, truth)
    calibrated = Prediction(task, *(answer.numpy() for answer in model.decode(raw)))
    assert score(log_losses, truth, calibrated) < score(log_losses, truth, own)
    assert min(model.scale) > 0
    weighs = getattr(objective, "prevalence", None) or (task == SKIN_LESION and objective.class_weights)
    assert any(model.shift) == bool(weighs)
    if not isinstance(objective, Corn) and task == RETINOPATHY:
        assert np.array_equal(own.decided, calibrated.decided)
