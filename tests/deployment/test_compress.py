"""int8 is kept when its decisions are the same, and only then."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from medic.deployment.bundle.predictor import open_session, run
from medic.deployment.compress import _normalise_in_one, compress, quantize
from medic.deployment.compress.acceptance import AcceptanceCriteria, Examples, compare
from medic.deployment.export import export
from medic.errors import MedicError
from medic.modeling.objectives import CrossEntropy
from medic.task import RETINOPATHY

OPEN = AcceptanceCriteria(agreement=0.0, loss=3.0, sensitivity=1.0)


@pytest.fixture(scope="module")
def easy(taught, pixels, labels, tmp_path_factory):
    """A network wide enough that int8 hardly moves it, on images it knows."""
    model = taught("resnet18", CrossEntropy(), pixels[:40], labels[:40])
    return export(model, tmp_path_factory.mktemp("easy") / "model.onnx", pixels[:4]).path


@pytest.fixture(scope="module")
def examples(pixels, labels):
    return Examples(pixels[40:], labels[40:], np.arange(40) // 2)


@pytest.fixture(scope="module")
def quantized(easy, pixels):
    return quantize(easy, easy.with_name("int8.onnx"), [pixels[:20], pixels[20:40]])


@pytest.fixture(scope="module")
def kept(easy, pixels, examples):
    return compress(easy, easy.with_name("kept.onnx"), [pixels[:40]], examples, RETINOPATHY, OPEN)


def test_the_int8_graph_is_a_quarter_of_the_size_and_decides_alike(easy, quantized, examples):
    assert quantized.stat().st_size < 0.27 * easy.stat().st_size
    before, after = (run(open_session(path), RETINOPATHY, examples.images) for path in (easy, quantized))
    assert (before.decided == after.decided).mean() >= 0.9


def test_no_product_of_the_int8_graph_can_saturate_on_a_processor_without_vnni(quantized):
    """There, two products of 8 bits are added in 16: 2 x 255 x 64 fits, and 2 x 255 x 127 would not."""
    graph = onnx.load(quantized).graph
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    weights = [
        constants[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants and constants[node.input[0]].ndim == 4
    ]
    assert len(weights) == 20
    assert all(weight.dtype == np.int8 and np.abs(weight.astype(int)).max() <= 64 for weight in weights)


def test_what_surrounds_the_network_stays_float(quantized):
    graph = onnx.load(quantized)
    assert graph.ir_version == 9
    assert [opset.domain for opset in graph.opset_import] == [""]
    quantised = {output for node in graph.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    fed = {
        node.op_type: sum(name in quantised for name in node.input)
        for node in graph.graph.node
        if node.op_type in ("Resize", "BatchNormalization", "Gemm", "Softmax", "Conv")
        and "class_activation" not in node.output
    }
    assert fed.pop("Conv") >= 2
    assert fed == {"Resize": 0, "BatchNormalization": 0, "Gemm": 0, "Softmax": 0}


def test_nothing_between_the_integer_layers_goes_through_float(quantized, tmp_path):
    """What onnxruntime runs in the end: one change to int8 before the first layer, and none of the activations."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(quantized, options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    assert found["QLinearConv"] == 20
    assert found["QuantizeLinear"] == 1
    assert found["Relu"] <= 1
    assert found["Sub"] == found["Div"] == 0


def test_normalising_in_one_operation_changes_no_pixel(easy, pixels):
    graph = onnx.load(easy)
    merged = _normalise_in_one(onnx.load(easy))
    assert len(merged.graph.node) == len(graph.graph.node) - 1
    before, after = (
        onnxruntime.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"images": pixels[:4]}
        )
        for one in (graph, merged)
    )
    np.testing.assert_allclose(after[0], before[0], atol=1e-5)


def test_a_compressed_model_that_passes_is_kept_and_said_to_be(kept):
    assert kept.precision == "int8"
    assert kept.path.name == "kept.onnx"
    assert kept.path.is_file()
    assert "is kept" in str(kept)
    assert kept._repr_html_().count("<table") == 2


def test_one_that_cannot_pass_is_not_kept_and_fp32_stays(easy, pixels, examples, tmp_path):
    older = tmp_path / "int8.onnx"
    older.write_bytes(b"from an older run")
    impossible = AcceptanceCriteria(agreement=1.01)
    refused = compress(easy, older, [pixels[:40]], examples, RETINOPATHY, impossible)
    assert (refused.path, refused.precision) == (easy, "fp32")
    assert "less than 101%" in str(refused)
    assert "fp32 stays" in refused._repr_html_()
    assert list(tmp_path.iterdir()) == []


def test_the_table_has_size_speed_agreement_and_an_interval(kept):
    comparison = kept.comparison
    table = comparison.table
    assert list(table.index) == ["fp32", "fp16", "int8"]
    assert (table["ms an image"] > 0).all()
    assert (table["low"] <= table["high"]).all()
    assert table.loc["fp16", "share of fp32"] == pytest.approx(0.5, abs=0.02)
    assert table.loc["fp32", ["agreement", "low", "high"]].tolist() == [1, 0, 0]
    assert list(comparison.sensitivities["images"]) == [8] * 5
    assert f"{OPEN}. On 40 images it passed." in str(comparison)


def test_a_damaged_int8_model_fails_the_gate(easy, quantized, examples, tmp_path):
    graph = onnx.load(quantized)
    scales = [tensor for tensor in graph.graph.initializer if "scale" in tensor.name and tensor.dims]
    for tensor in scales:
        values = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.roll(values, 7) * 3, tensor.name))
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(graph.SerializeToString())
    comparison = compare(easy, damaged, examples, RETINOPATHY)
    assert not comparison.passed
    assert any("of the decisions are the same" in reason for reason in comparison.reasons)
    assert any("quadratic_weighted_kappa" in reason for reason in comparison.reasons)


@pytest.mark.parametrize(
    ("calibration", "message"),
    [([], "no calibration image"), ([np.zeros((2, 10, 10, 3), np.uint8)], r"uint8 \(N, 96, 96, 3\)")],
)
def test_calibration_needs_prepared_images(easy, tmp_path, calibration, message):
    with pytest.raises(MedicError, match=message):
        quantize(easy, tmp_path / "int8.onnx", calibration)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_judged_is_an_error(easy, examples):
    with pytest.raises(MedicError, match="as many of each"):
        compare(easy, easy, Examples(examples.images, examples.labels[:3]), RETINOPATHY)
    with pytest.raises(MedicError, match=r"outside 0\.\.4"):
        compare(easy, easy, Examples(examples.images, examples.labels + 1), RETINOPATHY)
