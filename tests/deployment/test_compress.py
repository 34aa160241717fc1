"""int8 is kept when its decisions are the same, and only then."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from onnx.numpy_helper import from_array, to_array

from medic.deployment import compress as compress_module
from medic.deployment.bundle.predictor import open_session, run
from medic.deployment.compress import AcceptanceCriteria, Examples, compress, quantize
from medic.deployment.export import export
from medic.errors import MedicError
from medic.modeling.objectives import CrossEntropy
from medic.task import RETINOPATHY

OPEN = AcceptanceCriteria(agreement=0.0, loss=3.0, sensitivity=1.0)


@pytest.fixture(scope="module", params=["resnet18", "efficientnet_lite0"])
def graph(request, taught, pixels, labels, tmp_path_factory):
    """A network that knows the images it was taught."""
    model = taught(request.param, CrossEntropy(), pixels[:40], labels[:40])
    return export(model, tmp_path_factory.mktemp(request.param) / "model.onnx", pixels[:4]).path


@pytest.fixture(scope="module")
def quantized(graph, pixels):
    return quantize(graph, graph.with_name("int8.onnx"), pixels[:40])


@pytest.fixture(scope="module")
def examples(pixels, labels):
    return Examples(pixels[40:], labels[40:], np.arange(40) // 2)


def test_the_int8_graph_is_small_decides_alike_and_can_be_read_by_old_runtimes(graph, quantized, pixels):
    assert quantized.stat().st_size < 0.3 * graph.stat().st_size
    before, after = (run(open_session(path), RETINOPATHY, pixels) for path in (graph, quantized))
    assert (before.decided == after.decided).mean() >= 0.9
    loaded = onnx.load(quantized)
    assert loaded.ir_version == 9
    assert [opset.domain for opset in loaded.opset_import] == [""]


def test_no_product_of_the_int8_graph_can_saturate_on_a_processor_without_vnni(quantized):
    """There, two products of 8 bits are added in 16: 2 x 255 x 64 fits, and 2 x 255 x 127 would not."""
    graph = onnx.load(quantized).graph
    constants = {one.name: to_array(one) for one in graph.initializer}
    sources = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    read = [sources.get(node.input[1]) for node in graph.node if node.op_type == "Conv" and node.input[0] in sources]
    weights = [constants[name] for name in read if name]
    assert len(weights) >= 19
    assert all(weight.dtype == np.int8 and np.abs(weight.astype(int)).max() <= 64 for weight in weights)


def test_first_and_last_layers_stay_float_and_what_is_within_does_not(graph, quantized, tmp_path):
    """What onnxruntime runs in the end: one change to int8, and none of the activations."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(quantized, options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    layers = [node for node in onnx.load(graph).graph.node if node.op_type == "Conv"]
    kept = 1 if len(layers) < 30 else 12
    assert found["QLinearConv"] == len(layers) - 1 - kept, "all but the first ones and the map"
    assert found["Gemm"] == 1
    assert found["QuantizeLinear"] <= 2, "none between the integer layers"


def test_a_compressed_model_that_passes_is_kept_and_said_to_be(graph, pixels, examples, tmp_path):
    kept = compress(graph, tmp_path / "kept.onnx", pixels[:40], examples, RETINOPATHY, OPEN)
    assert (kept.precision, kept.path) == ("int8", tmp_path / "kept.onnx")
    assert kept.path.is_file()
    assert list(kept.table.index) == ["fp32", "int8"]
    assert (kept.table["ms an image"] > 0).all()
    assert kept.table.loc["fp32", ["agreement", "low", "high"]].tolist() == [1, 0, 0]
    assert list(kept.sensitivities["images"]) == [8] * 5
    assert f"{OPEN}. On 40 images it passed; int8 is kept" in str(kept)
    refused = compress(graph, kept.path, pixels[:40], examples, RETINOPATHY, replace(OPEN, agreement=1.01))
    assert (refused.path, refused.precision) == (graph, "fp32")
    assert "less than 101%; fp32 stays" in str(refused)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_int8_model_fails_the_gate(graph, pixels, examples, tmp_path, monkeypatch):
    def damaged(*arguments):
        loaded = onnx.load(quantize(*arguments))
        for tensor in loaded.graph.initializer:
            if "scale" in tensor.name and tensor.dims:
                tensor.CopyFrom(from_array(np.roll(to_array(tensor), 7) * 3, tensor.name))
        onnx.save(loaded, arguments[1])
        return arguments[1]

    monkeypatch.setattr(compress_module, "quantize", damaged)
    reasons = " ".join(compress(graph, tmp_path / "int8.onnx", pixels[:40], examples, RETINOPATHY).reasons)
    assert "of the decisions are the same" in reasons
    assert "quadratic_weighted_kappa reaches" in reasons


@pytest.mark.parametrize(
    ("agreement", "low", "images", "lost", "reasons"),
    [
        (0.98, -0.03, 20, -0.1, []),
        (0.97, 0.0, 20, 0.0, ["97.0% of the decisions are the same, less than 98%"]),
        (0.99, np.nan, 20, 0.0, ["the interval of the difference in kappa reaches nan"]),
        (0.99, -0.01, 20, -0.2, ["the sensitivity for Mild falls by 0.20"]),
        (0.99, -0.01, 19, -0.2, []),
    ],
)
def test_the_gate_asks_for_decisions_metric_and_every_class(agreement, low, images, lost, reasons):
    classes = pd.DataFrame({"images": [images], "difference": [lost]}, index=["Mild"])
    row = {"agreement": agreement, "low": low}
    assert list(compress_module._reasons(AcceptanceCriteria(), row, classes, "kappa")) == reasons


@pytest.mark.parametrize("calibration", [np.zeros((0, 96, 96, 3), np.uint8), np.zeros((2, 10, 10, 3), np.uint8)])
def test_calibration_needs_prepared_images(graph, tmp_path, calibration):
    with pytest.raises(MedicError, match=r"uint8 \(N, 96, 96, 3\)"):
        quantize(graph, tmp_path / "int8.onnx", calibration)
    assert list(tmp_path.iterdir()) == []
