"""A heatmap says where an answer comes from: its map averages to the raw output, and is hottest where a spot is."""

import json

import cv2
import numpy as np
import onnx
import pytest
import torch

from medic.data.images.preprocess import Preprocessing
from medic.deployment.bundle import About, Bundle, package
from medic.deployment.bundle.heatmap import HIGHER, evidence_weights, heatmap
from medic.deployment.bundle.predictor import open_session
from medic.deployment.compress import quantize
from medic.deployment.export import WithActivation, export, has_activation
from medic.files import sha256
from medic.modeling.classifier import Classifier
from medic.modeling.objectives import Corn, CrossEntropy, MultiLabel, Regression
from medic.task import Prediction, Task

DIGITS = Task("three_digits", "multiclass", ("one", "two", "three"))
SPOTS = Task("spots", "multiclass", ("plain", "spotted"))
FINDINGS = Task("findings", "multilabel", ("nodule", "mass", "fracture", "none"))
SIDE = 224
ABOUT = About("Drawn discs.", True)


def made(backbone: str, size: int = 64, **options: object) -> Classifier:
    """A network of random weights whose batch normalisation knows its inputs, so that its features are alive."""
    torch.manual_seed(1)
    model = Classifier(DIGITS, backbone, None, Preprocessing(size=size, crop="square"), image_size=size, **options)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        model.train()(noise(8, size))
    return model.eval()


def noise(count: int, size: int) -> torch.Tensor:
    """Images uint8 (count, size, size, 3) that are unlike each other and unlike from place to place."""
    rng = np.random.default_rng(5)
    coarse = [cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (size, size)) for _ in range(count)]
    return torch.from_numpy(np.stack(coarse))


def last_bias(model: Classifier) -> torch.Tensor | float:
    """Of the last linear layer; a network that ends in a convolution has it in its map already."""
    linear = [layer for layer in model.backbone.modules() if isinstance(layer, torch.nn.Linear)]
    return linear[-1].bias if linear else 0.0


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize(
    "backbone",
    ["resnet18", "densenet121", "shufflenet_v2_x0_5", "efficientnet_lite0", "regnet_y_400mf", "squeezenet1_0"],
)
@torch.inference_mode()
def test_the_map_averaged_over_the_places_plus_the_bias_is_the_raw_output(backbone, flips):
    model = made(backbone, flips=flips)
    assert has_activation(model)
    images = noise(3, 64)
    *_, activation = WithActivation(model)(images)
    raw = model.raw(model.inputs(images))
    assert activation.shape[:2] == raw.shape
    assert activation.shape[2] >= 2
    assert activation.std(dim=(2, 3)).max() > 1e-3, "a map without places would prove nothing"
    torch.testing.assert_close(activation.mean(dim=(2, 3)) + last_bias(model), raw, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "size"),
    [("alexnet", 64), ("vgg11", 32), ("mobilenet_v3_small", 64), ("vit_b_32", 64), ("convnext_tiny", 64)],
)
def test_a_network_that_ends_otherwise_has_no_map(backbone, size):
    model = Classifier(DIGITS, backbone, None, Preprocessing(size=size, crop="square"), image_size=size)
    assert not has_activation(model.eval())


def test_without_a_map_graph_bundle_and_answers_are_as_they_were(photographs, tmp_path):
    torch.manual_seed(1)
    preprocessing = Preprocessing(size=32, crop="square")
    model = Classifier(DIGITS, "mobilenet_v3_small", None, preprocessing, image_size=32)
    exported = export(model, tmp_path / "model.onnx")
    assert [value.name for value in onnx.load(exported.path).graph.output] == ["probabilities"]
    bundle = package(exported.path, tmp_path / "made", [("a.jpeg", photographs[0])], ABOUT, archive=False)
    assert bundle.manifest.values["heatmap"] is None
    assert "heatmap" not in (bundle.folder / "MODEL_CARD.md").read_text()
    explanation = bundle.predictor().explain(photographs[0])
    assert (explanation.heatmap, explanation.of) == (None, None)
    assert explanation.pixels.shape == (32, 32, 3)
    assert explanation.prediction.probabilities.shape == (1, 3)


def watchful() -> Classifier:
    """A ResNet-18 set by hand: its first channel is how far the light is above a level, the last layer adds it up."""
    torch.manual_seed(1)
    model = Classifier(SPOTS, "resnet18", None, Preprocessing(size=SIDE), image_size=SIDE, flips=True).eval()
    network = model.backbone
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.zero_()
        network.conv1.weight[0] = 1 / network.conv1.weight[0].numel()
        network.bn1.bias[0] = -1
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            for block in stage:
                if block.downsample is not None:  # elsewhere the shortcut carries the channel on
                    block.conv1.weight[0, 0] = 1 / 9
                    block.conv2.weight[0, 0, 1, 1] = 1
        network.fc.weight.zero_()
        network.fc.weight[1, 0] = 500
        network.fc.bias.copy_(torch.tensor([1.0, -1.0]))
    return model


CENTRE, RADIUS = (190, 140), 125
PLACES = [(150, 90), (230, 90), (190, 140), (130, 160), (250, 180), (190, 220)]


def eye(spot: tuple[int, int] | None) -> bytes:
    """A dim disc on black, off the frame's middle, with one bright spot or none; synthetic."""
    photograph = np.zeros((300, 420, 3), np.uint8)
    cv2.circle(photograph, CENTRE, RADIUS, (40, 60, 80), -1)
    if spot is not None:
        cv2.circle(photograph, spot, 12, (250, 250, 250), -1)
    return cv2.imencode(".png", photograph)[1].tobytes()


@pytest.fixture(scope="module")
def watching(tmp_path_factory):
    """A bundle of the network that looks for light, its model and its pixels."""
    model, folder = watchful(), tmp_path_factory.mktemp("watching")
    photographs = [eye(spot) for spot in [None, *PLACES]]
    pixels = np.stack([model.preprocessing.pixels(data) for data in photographs])
    graph = export(model, folder / "model.onnx", pixels).path
    return package(graph, folder / "made", [("a.png", photographs[1])], ABOUT), model, pixels


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_heatmap_is_hottest_where_the_spot_is(precision, watching, tmp_path):
    bundle, _, pixels = watching
    predictor = bundle.predictor()
    if precision == "int8":
        predictor.session = open_session(quantize(bundle.folder / "model.onnx", tmp_path / "int8.onnx", pixels))
    for spot in PLACES:
        explanation = predictor.explain(eye(spot))
        assert explanation.of == "spotted"
        assert explanation.heatmap.shape == (7, 7)
        assert explanation.heatmap.dtype == np.float32
        assert (explanation.heatmap.min(), explanation.heatmap.max()) == (0, 1)
        row, column = np.unravel_index(explanation.heatmap.argmax(), (7, 7))
        # Of the square around the disc, which is what the crop leaves.
        expected = [(at - middle + RADIUS) / (2 * RADIUS) for at, middle in zip(spot, CENTRE, strict=True)]
        found = [(column + 0.5) / 7, (row + 0.5) / 7]
        assert np.abs(np.subtract(found, expected)).max() <= 1 / 7, spot
        x, y = (int(share * SIDE) for share in expected)
        assert explanation.pixels[y, x].min() > 240, "the pixels returned are those under the heatmap"
    plain = predictor.explain(eye(None))
    assert plain.of == "plain"
    assert plain.heatmap.max() == 0, "nothing that argues for it is anywhere"


def test_an_explanation_has_the_same_answer_and_the_bundle_says_what_it_is(bundle, photographs):
    predictor = bundle.predictor()
    explanation = predictor.explain(photographs[4])
    np.testing.assert_allclose(
        explanation.prediction.probabilities, predictor.predict([photographs[4]]).probabilities, atol=1e-6
    )
    assert explanation.of == HIGHER, "a regression argues for no single grade"
    assert explanation.heatmap.max() == 1
    assert np.array_equal(explanation.pixels, predictor.pixels(photographs[4]))


def test_a_bundle_of_an_older_medic_explains_without_a_heatmap(copied, photographs):
    graph = onnx.load(copied / "model.onnx")
    del graph.graph.output[-1]
    onnx.save(graph, copied / "model.onnx")
    manifest = json.loads((copied / "manifest.json").read_text())
    del manifest["heatmap"]
    manifest["files"]["model.onnx"] = sha256(copied / "model.onnx")
    (copied / "manifest.json").write_text(json.dumps(manifest))
    older = Bundle.load(copied)
    older.verify()
    explanation = older.predictor().explain(photographs[4])
    assert (explanation.heatmap, explanation.of) == (None, None)
    assert explanation.prediction.grade is not None


def test_a_heatmap_runs_from_0_to_1_and_is_all_0_where_nothing_argues_for_it():
    activation = np.float32([[[1, -2], [4, 0]], [[0, 3], [2, 1]]])
    np.testing.assert_array_equal(heatmap(activation, np.float32([1, 0])), [[0.25, 0], [1, 0]])
    np.testing.assert_array_equal(heatmap(activation, np.float32([1, -1])), [[0.5, 0], [1, 0]])
    assert not heatmap(-np.abs(activation), np.float32([1, 1])).any()


GRADES = Task("grades", "ordinal", ("none", "mild", "severe"))


@pytest.mark.parametrize(
    ("objective", "task", "probabilities", "thresholds", "weights", "argued"),
    [
        (CrossEntropy(), DIGITS, [0.1, 0.7, 0.2], None, [0, 1, 0], "two"),
        (CrossEntropy(), SPOTS, [0.8, 0.2], None, [1, -1], "plain"),
        (CrossEntropy(), GRADES, [0.2, 0.2, 0.6], None, [0, 0, 1], "severe"),
        (Regression(), GRADES, [0.0, 0.8, 0.2], None, [1], HIGHER),
        (Corn(), GRADES, [0.6, 0.3, 0.1], None, [1, 0], HIGHER),
        (Corn(), GRADES, [0.2, 0.6, 0.2], None, [1, 0], "mild"),
        (Corn(), GRADES, [0.1, 0.2, 0.7], None, [1, 1], "severe"),
        (MultiLabel(), FINDINGS, [0.3, 0.6, 0.05, 0.1], None, [0, 1, 0, 0], "mass"),
        (MultiLabel(), FINDINGS, [0.3, 0.6, 0.05, 0.1], (0.2, 0.5, 0.01, 0.9), [0, 0, 1, 0], "fracture"),
    ],
)
def test_what_the_map_argues_for_follows_from_the_objective(
    objective, task, probabilities, thresholds, weights, argued
):
    grade = np.float32([np.argmax(probabilities)]) if task.kind == "ordinal" else None
    prediction = Prediction(task, np.float32([probabilities]), grade, thresholds)
    found, said = evidence_weights(json.loads(json.dumps(objective.to_dict())), prediction)
    assert (found.dtype, found.tolist(), said) == (np.float32, weights, argued)
    assert len(found) == objective.outputs(task)


@pytest.mark.parametrize(
    ("objective", "task"),
    [(CrossEntropy(), DIGITS), (CrossEntropy(), SPOTS), (Corn(), GRADES), (MultiLabel(), FINDINGS)],
)
def test_a_step_towards_what_is_argued_for_makes_it_more_probable(objective, task):
    """The signs, checked against the decoding itself: raw outputs moved along the weights raise the class."""
    torch.manual_seed(0)
    for raw in torch.randn(8, 1, objective.outputs(task)):
        before, *grade = objective.decode(raw, task)
        prediction = Prediction(task, before.numpy(), grade[0].numpy() if grade else None)
        weights, argued = evidence_weights(json.loads(json.dumps(objective.to_dict())), prediction)
        after, *_ = objective.decode(raw + 0.01 * torch.from_numpy(weights), task)
        reach = [1 if argued == HIGHER else task.classes.index(argued)]
        if task.kind == "ordinal":  # of grades a map argues for at least that one
            reach = list(range(reach[0], len(task.classes)))
        assert after[0, reach].sum() > before[0, reach].sum(), argued
