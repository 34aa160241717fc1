"""The model: pixels in, probabilities out, and back from its folder the same."""

import json
import shutil

import numpy as np
import pytest
import torch

from medic.data.images.preprocess import Preprocessing
from medic.errors import MedicError
from medic.modeling.backbones import IMAGENET_MEAN, IMAGENET_STD, AfterDropout, own_dropout
from medic.modeling.classifier import Classifier
from medic.modeling.objectives import Corn, CrossEntropy, Regression
from medic.task import RETINOPATHY, Task

LESION = Task("lesion", "multiclass", ("benign", "malignant"))


def small(task: Task = RETINOPATHY, seed: int = 0, **settings: object) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(task, "squeezenet1_1", image_size=64, preprocessing=Preprocessing(size=96), **settings).eval()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return small().save(tmp_path_factory.mktemp("model") / "best")


@pytest.mark.parametrize("objective", [CrossEntropy(), Regression(), Regression(cuts=(0.5, 1.0, 2.0, 3.0)), Corn()])
def test_an_ordinal_model_gives_probabilities_and_a_continuous_grade(objective, images):
    probabilities, grade = small(objective=objective)(torch.from_numpy(images))
    assert probabilities.shape == (3, 5)
    assert grade.shape == (3,)
    assert np.allclose(probabilities.detach().sum(dim=1), 1, atol=1e-5)


def test_a_model_without_order_gives_probabilities_alone(images):
    (probabilities,) = small(LESION)(torch.from_numpy(images))
    assert probabilities.shape == (3, 2)


def test_inputs_are_normalised_as_imagenets_networks_expect():
    grey = torch.full((1, 64, 64, 3), 128, dtype=torch.uint8)
    x = small().inputs(grey)
    assert x.shape == (1, 3, 64, 64)
    expected = [(128 / 255 - mean) / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    assert x[0, :, 10, 10].tolist() == pytest.approx(expected, abs=1e-5)


def test_channels_are_red_green_blue():
    red = torch.zeros((1, 64, 64, 3), dtype=torch.uint8)
    red[..., 0] = 255
    x = small().inputs(red)[0, :, 0, 0]
    assert x[0] > 2
    assert x[1] < 0
    assert x[2] < 0


def test_large_images_are_resized_with_antialiasing_inside_the_model():
    stripes = torch.zeros((1, 256, 256, 3), dtype=torch.uint8)
    stripes[:, ::2] = 255
    x = small().inputs(stripes)
    assert x.shape == (1, 3, 64, 64)
    assert float(x[:, 0, 4:-4].std()) < 0.05


def test_an_image_is_classified_alike_alone_and_in_a_batch(images):
    model = small()
    together = model.predict_pixels(images)
    alone = [model.predict_pixels(images[i : i + 1]).probabilities[0] for i in range(3)]
    assert np.allclose(together.probabilities, alone, atol=1e-5)


def test_a_model_comes_back_from_its_folder_the_same(images, tmp_path):
    model = small(objective=Regression(beta=0.5))
    loaded = Classifier.load(model.save(tmp_path / "model"), task=RETINOPATHY)
    assert loaded.to_dict() == model.to_dict()
    assert not loaded.training
    one, other = model.predict_pixels(images), loaded.predict_pixels(images)
    assert np.array_equal(one.probabilities, other.probabilities)
    assert np.array_equal(one.grade, other.grade)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]


def test_with_flips_an_image_and_its_mirror_image_get_the_same_answer(images):
    plain, flipping = small(), small(flips=True)
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    assert not np.allclose(plain.predict_pixels(images).probabilities, plain.predict_pixels(mirrored).probabilities)
    one, other = flipping.predict_pixels(images), flipping.predict_pixels(mirrored)
    assert np.allclose(one.probabilities, other.probabilities, atol=1e-5)
    with torch.inference_mode():
        raw = [plain.backbone(plain.inputs(torch.from_numpy(way))) for way in (images, mirrored)]
    expected = torch.softmax((raw[0] + raw[1]) / 2, dim=1)
    assert np.allclose(one.probabilities, expected, atol=1e-5)


def test_flips_cost_training_nothing(images):
    sizes = []
    model = small(flips=True)
    model.backbone.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    for training in (True, False):
        model.train(training)(torch.from_numpy(images))
    assert sizes == [3, 6]


def test_with_contrast_an_even_image_is_nought_whatever_its_colour():
    even = torch.full((1, 96, 96, 3), 40, dtype=torch.uint8)
    even[..., 0] = 200
    assert float(small(contrast=1.0).inputs(even).abs().max()) < 1e-4


def test_contrast_keeps_what_is_small_and_takes_away_what_is_wide():
    slope = (40 + 2 * torch.arange(64, dtype=torch.uint8))[None, None, :, None].repeat(1, 64, 1, 3)
    spot = slope.clone()
    spot[:, 32, 32] += 50
    model = small(contrast=2.0)
    inner = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    assert float(model.inputs(slope)[inner].abs().max()) < 1e-4
    # A point of 50 grey levels, less its own small share in the local average, times 2/50.
    assert 1.9 < float(model.inputs(spot)[0, 0, 32, 32]) < 2
    assert torch.allclose(2 * small(contrast=1.0).inputs(spot), model.inputs(spot), atol=1e-5)


@pytest.mark.parametrize("contrast", [0, -1.0, float("nan")])
def test_a_contrast_that_is_not_above_nought_is_refused(contrast):
    with pytest.raises(MedicError, match="is not above 0"):
        small(contrast=contrast)


def test_flips_and_contrast_come_back_from_the_folder_and_change_no_weight(images, tmp_path):
    model = small(flips=True, contrast=1.5)
    loaded = Classifier.load(model.save(tmp_path))
    assert (loaded.flips, loaded.contrast) == (True, 1.5)
    assert loaded.digest == model.digest == small().digest
    assert np.array_equal(loaded.predict_pixels(images).probabilities, model.predict_pixels(images).probabilities)


def test_a_model_saved_before_there_were_flips_and_contrast_has_neither(saved, tmp_path):
    settings = json.loads((saved / "model.json").read_text())
    del settings["flips"], settings["contrast"]
    loaded = Classifier.load(spoilt(saved, tmp_path / "model", "model.json", json.dumps(settings).encode()))
    assert (loaded.flips, loaded.contrast) == (False, None)


def test_a_regression_saved_before_there_were_cuts_rounds(tmp_path):
    small(objective=Regression()).save(tmp_path)
    settings = json.loads((tmp_path / "model.json").read_text())
    del settings["objective"]["cuts"]
    (tmp_path / "model.json").write_text(json.dumps(settings))
    assert Classifier.load(tmp_path).objective == Regression()


def test_class_weights_come_back_too(tmp_path):
    model = small(objective=CrossEntropy((1.0, 2.0, 3.0, 4.0, 5.0)))
    assert Classifier.load(model.save(tmp_path)).objective == model.objective


def test_a_checkpoint_for_another_task_is_refused_with_both_tasks(saved):
    with pytest.raises(
        MedicError, match=r"is for the task 'retinopathy' \(No DR, .*not for 'lesion' \(benign, malignant"
    ):
        Classifier.load(saved, task=LESION)


def test_the_same_task_with_its_classes_in_another_order_is_another_task(saved):
    turned = Task("retinopathy", "ordinal", tuple(reversed(RETINOPATHY.classes)))
    with pytest.raises(MedicError, match="is for the task"):
        Classifier.load(saved, task=turned)


def test_a_folder_without_a_model_says_so(tmp_path):
    with pytest.raises(MedicError, match=r"there is no checkpoint at .* \(no model.json\)"):
        Classifier.load(tmp_path)


def spoilt(saved, folder, file: str, content: bytes | None):
    shutil.copytree(saved, folder)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.json", None, "no checkpoint"),
        ("model.json", b"", r"model\.json is damaged"),
        ("model.json", b'{"task": ', r"model\.json is damaged"),
        ("model.json", b"{}", r"model\.json is damaged or of another version"),
        ("model.json", b"[]", r"model\.json is damaged or of another version"),
        ("model.json", b"\xff\xfe\x00", r"model\.json is damaged"),
        ("model.safetensors", None, "no weight file"),
        ("model.safetensors", b"", "is damaged"),
        ("model.safetensors", b"not weights at all", "is damaged"),
    ],
)
def test_a_missing_or_damaged_file_is_named(file, content, message, saved, tmp_path):
    with pytest.raises(MedicError, match=message):
        Classifier.load(spoilt(saved, tmp_path / "model", file, content))


def test_a_weight_file_cut_off_is_damaged(saved, tmp_path):
    half = (saved / "model.safetensors").read_bytes()[:-1000]
    with pytest.raises(MedicError, match="is damaged"):
        Classifier.load(spoilt(saved, tmp_path / "model", "model.safetensors", half))


def test_weights_of_another_network_are_refused(saved, tmp_path):
    settings = json.loads((saved / "model.json").read_text()) | {"backbone": "shufflenet_v2_x0_5"}
    folder = spoilt(saved, tmp_path / "model", "model.json", json.dumps(settings).encode())
    with pytest.raises(MedicError, match="do not fit a shufflenet_v2_x0_5"):
        Classifier.load(folder)


def test_a_saved_model_can_start_another_task_with_all_layers_but_the_last(saved):
    started = small(LESION, seed=5, weights=saved).backbone.state_dict()
    source = Classifier.load(saved).backbone.state_dict()
    fresh = small(LESION, seed=5).backbone.state_dict()
    assert started["classifier.1.weight"].shape[0] == 2
    assert torch.equal(started["classifier.1.weight"], fresh["classifier.1.weight"])
    others = [key for key in source if not key.startswith("classifier.1.")]
    assert all(torch.equal(started[key], source[key]) for key in others)


def test_a_start_from_another_networks_weights_is_refused(saved):
    with pytest.raises(MedicError, match="holds the weights of a squeezenet1_1, not of a shufflenet_v2_x0_5"):
        Classifier(RETINOPATHY, "shufflenet_v2_x0_5", weights=saved)


def test_a_start_from_nowhere_is_refused(tmp_path):
    with pytest.raises(MedicError, match="no checkpoint"):
        Classifier(RETINOPATHY, "squeezenet1_1", weights=tmp_path / "nothing")


@pytest.mark.parametrize("backbone", ["resnet18", "densenet121", "efficientnet_lite0"])
def test_dropout_before_the_last_layer_leaves_out_features_in_training_alone(backbone, images):
    def build(dropout: float | None) -> Classifier:
        torch.manual_seed(5)
        return Classifier(RETINOPATHY, backbone, image_size=64, dropout=dropout)

    plain, dropping = build(None), build(0.5)
    assert dropping.digest == plain.digest, "the same weights by the same names"
    shown = torch.from_numpy(images)
    assert torch.equal(dropping.eval()(shown)[0], plain.eval()(shown)[0])
    head = [layer for layer in dropping.modules() if hasattr(layer, "out_features")][-1]
    features = torch.ones(400, head.in_features)
    assert head.train()(features).std(dim=0).mean() > 0.1
    assert head.eval()(features).std(dim=0).mean() < 1e-5


@pytest.mark.parametrize(
    ("backbone", "layers"), [("alexnet", 2), ("vgg11", 2), ("efficientnet_b0", 1), ("googlenet", 1)]
)
def test_a_network_with_dropout_of_its_own_gets_no_second_one(backbone, layers):
    with torch.device("meta"):
        own, none, set_ = (Classifier(LESION, backbone, dropout=dropout) for dropout in (None, 0.0, 0.3))
    rates = [[m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] for model in (own, none, set_)]
    assert rates[1:] == [[0.0] * layers, [0.3] * layers]
    assert min(rates[0]) > 0, "as torchvision has it"
    assert not any(isinstance(m, AfterDropout) for m in set_.modules())
    assert own_dropout(backbone) == max(rates[0])


def test_dropout_is_saved_and_models_from_before_it_load_as_they_were(images, tmp_path):
    torch.manual_seed(0)
    model = Classifier(LESION, "resnet18", image_size=64, dropout=0.3)
    assert Classifier.load(model.save(tmp_path / "model")).dropout == 0.3
    settings = json.loads((tmp_path / "model" / "model.json").read_text())
    del settings["dropout"]
    (tmp_path / "model" / "model.json").write_text(json.dumps(settings))
    before = Classifier.load(tmp_path / "model")
    assert before.dropout is None
    assert np.array_equal(before.predict_pixels(images).probabilities, model.predict_pixels(images).probabilities)
    started = Classifier(LESION, "resnet18", image_size=64, dropout=0.5, weights=tmp_path / "model")
    assert torch.equal(started.backbone.conv1.weight, model.backbone.conv1.weight)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_that_is_no_share_is_refused(dropout):
    with pytest.raises(MedicError, match=f"a dropout of {dropout} is no share"):
        Classifier(LESION, "resnet18", dropout=dropout)
