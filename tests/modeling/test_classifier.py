"""The model: pixels in, probabilities out, and back from its folder the same."""

import json
import shutil

import numpy as np
import pytest
import torch

from medic.data.images.preprocess import Preprocessing
from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.modeling.objectives import Corn, CrossEntropy, MultiLabel, Regression
from medic.task import RETINOPATHY, Task

EGG = Task("egg", "multilabel", ("Crack", "Dent"))
LESION = Task("lesion", "multiclass", ("benign", "malignant"))


def small(task: Task = RETINOPATHY, seed: int = 0, backbone: str = "squeezenet1_1", **settings: object) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(task, backbone, image_size=64, preprocessing=Preprocessing(size=96), **settings).eval()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return small().save(tmp_path_factory.mktemp("model") / "best")


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("squeezenet1_1", (2.249, -2.036, -1.804)),  # by ImageNet's mean and deviation, red first
        ("efficientnet_lite0", (1, -1, -1)),
        ("timm/test_resnet", (1, -1, -1)),
    ],
)
def test_pixels_are_resized_and_normalised_as_the_network_was_trained(backbone, expected):
    x = small(backbone=backbone).inputs(torch.tensor((255, 0, 0), dtype=torch.uint8).expand(1, 96, 96, 3))
    assert x.shape == (1, 3, 64, 64)
    assert x[0, :, 10, 10].tolist() == pytest.approx(expected, abs=1e-3)


def test_large_images_are_resized_with_antialiasing():
    stripes = torch.zeros((1, 256, 256, 3), dtype=torch.uint8)
    stripes[:, ::2] = 255
    assert float(small().inputs(stripes)[:, 0, 4:-4].std()) < 0.05


def test_a_network_that_has_diverged_gives_no_answer(images):
    model = small()
    next(model.backbone.parameters()).data[:] = float("nan")
    with pytest.raises(MedicError, match="15 of 15 scores are not numbers; the training has diverged"):
        model.predict_pixels(images)


def test_with_flips_an_image_and_its_mirror_image_get_the_same_answer(images):
    plain, flipping = small(), small(flips=True)
    one, other = (flipping.predict_pixels(way).probabilities for way in (images, images[:, :, ::-1].copy()))
    assert np.allclose(one, other, atol=1e-5)
    with torch.inference_mode():
        raw = [plain.backbone(plain.inputs(torch.from_numpy(way.copy()))) for way in (images, images[:, :, ::-1])]
    assert np.allclose(one, torch.softmax((raw[0] + raw[1]) / 2, dim=1), atol=1e-5)
    sizes = []
    flipping.backbone.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    flipping.train()(torch.from_numpy(images))
    assert sizes == [3], "in training nothing is mirrored"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"objective": Regression(beta=0.5)},
        {"objective": CrossEntropy((1.0, 2.0, 3.0, 4.0, 5.0)), "flips": True},
        {"objective": Corn(), "dropout": 0.3},
        {"task": EGG, "objective": MultiLabel((0.1, 0.2), 0.1)},
        {"task": LESION, "backbone": "efficientnet_lite0", "weights": "imagenet"},
        {"backbone": "timm/test_vit"},
    ],
)
def test_a_model_comes_back_from_its_folder_the_same(settings, images, tmp_path):
    model = small(**settings)
    model.thresholds = (0.3,) if model.task == LESION else None
    loaded = Classifier.load(model.save(tmp_path / "model"), task=model.task)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]
    assert (loaded.to_dict(), loaded.digest, loaded.training) == (model.to_dict(), model.digest, False)
    one, other = model.predict_pixels(images), loaded.predict_pixels(images)
    assert np.array_equal(one.probabilities, other.probabilities)
    assert model.task == EGG or np.allclose(one.probabilities.sum(axis=1), 1, atol=1e-5)
    assert (one.grade is None) == (model.task != RETINOPATHY)
    assert np.array_equal(one.grade, other.grade)
    alone = [model.predict_pixels(images[i : i + 1]).probabilities[0] for i in range(3)]
    assert np.allclose(one.probabilities, alone, atol=1e-5)


def spoilt(saved, folder, file: str, content: bytes | None):
    shutil.copytree(saved, folder)
    (folder / file).unlink() if content is None else (folder / file).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.json", None, r"no checkpoint at .* \(no model\.json\)"),
        ("model.json", b'{"task": ', "is damaged"),
        ("model.json", b"{}", "is damaged or of another version"),
        ("model.json", b"[]", "is damaged or of another version"),
        ("model.json", b"\xff\xfe\x00", "is damaged"),
        ("model.safetensors", None, r"no checkpoint at .* \(no model\.safetensors\)"),
        ("model.safetensors", b"", "is damaged"),
        ("model.safetensors", "half", "is damaged"),
    ],
)
def test_a_missing_or_damaged_file_is_named(file, content, message, saved, tmp_path):
    content = (saved / file).read_bytes()[:-1000] if content == "half" else content
    with pytest.raises(MedicError, match=message):
        Classifier.load(spoilt(saved, tmp_path / "model", file, content))


def test_a_model_of_another_task_or_network_is_refused(saved, tmp_path):
    for other in (LESION, Task("retinopathy", "ordinal", tuple(reversed(RETINOPATHY.classes)))):
        with pytest.raises(MedicError, match=r"is for the task 'retinopathy' \(No DR, .*not for"):
            Classifier.load(saved, task=other)
    settings = json.loads((saved / "model.json").read_text()) | {"backbone": "shufflenet_v2_x0_5"}
    with pytest.raises(MedicError, match="do not fit a shufflenet_v2_x0_5"):
        Classifier.load(spoilt(saved, tmp_path / "model", "model.json", json.dumps(settings).encode()))
    with pytest.raises(MedicError, match="holds the weights of a squeezenet1_1, not of a shufflenet_v2_x0_5"):
        small(backbone="shufflenet_v2_x0_5", weights=saved)
    with pytest.raises(MedicError, match="no checkpoint"):
        small(weights=tmp_path / "nothing")


def test_a_saved_model_can_start_another_task_with_all_layers_but_the_last(saved):
    started, fresh = (small(LESION, 5, weights=weights).backbone.state_dict() for weights in (saved, None))
    source = Classifier.load(saved).backbone.state_dict()
    for key, value in started.items():
        assert torch.equal(value, fresh[key] if key.startswith("classifier.1.") else source[key])
