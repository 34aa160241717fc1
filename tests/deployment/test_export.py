"""The exported graph answers as torch does, whatever the batch, and old runtimes can read it."""

import numpy as np
import onnx
import pytest
import torch

from medic.data.images.preprocess import Preprocessing
from medic.deployment import export as export_module
from medic.deployment.bundle.predictor import open_session, run
from medic.deployment.export import export
from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.modeling.objectives import Corn, CrossEntropy, Regression
from medic.task import RETINOPATHY


@pytest.mark.parametrize(
    ("backbone", "objective", "options"),
    [
        ("resnet18", CrossEntropy(), {"dropout": 0.5}),
        ("shufflenet_v2_x0_5", Corn(), {"flips": True}),
        ("efficientnet_lite0", Regression(), {}),
        ("efficientnet_lite0", Regression(), {"flips": True}),
    ],
)
def test_the_graph_agrees_with_torch_at_every_batch_size(backbone, objective, options, pixels, tmp_path):
    torch.manual_seed(1)
    model = Classifier(RETINOPATHY, backbone, objective, Preprocessing(size=96), image_size=64, **options)
    if isinstance(objective, Regression):  # a grade in the middle of the scale, where clipping hides nothing
        list(model.backbone.modules())[-1].bias.data.fill_(2.3)
    exported = export(model, tmp_path / "model.onnx", pixels[:4])
    assert model.training, "the model is left as it was"
    model.eval()
    assert set(exported.parity) == {1, 4}
    assert max(exported.parity.values()) <= 1e-4
    assert "Dropout" not in [node.op_type for node in onnx.load(exported.path).graph.node]
    session = open_session(exported.path)
    for count in (1, 3, 7):
        expected, actual = model.predict_pixels(pixels[:count]), run(session, RETINOPATHY, pixels[:count])
        np.testing.assert_allclose(actual.probabilities, expected.probabilities, atol=1e-4)
        np.testing.assert_allclose(actual.grade, expected.grade, atol=1e-4)
        assert np.array_equal(actual.decided, expected.decided)


def test_the_file_is_for_old_runtimes_and_says_nothing_of_this_machine(exported):
    graph = onnx.load(exported.path)
    assert graph.ir_version == 9
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 18)]
    assert [value.name for value in graph.graph.input] == ["images"]
    assert [value.name for value in graph.graph.output] == ["probabilities", "grade", "class_activation"]
    assert not any(tensor.external_data for tensor in graph.graph.initializer)
    assert b"site-packages" not in exported.path.read_bytes()


@pytest.mark.parametrize("harmed", ["Gemm", "Conv"])  # the last layer; the layer that gives the map
def test_a_graph_that_differs_from_torch_is_never_written(harmed, classifier, exported, pixels, tmp_path, monkeypatch):
    wrong = onnx.load(exported.path)
    node = [node for node in wrong.graph.node if node.op_type == harmed][-1]
    changed = next(tensor for tensor in wrong.graph.initializer if tensor.name == node.input[-1])
    values = onnx.numpy_helper.to_array(changed)
    changed.CopyFrom(onnx.numpy_helper.from_array(1.01 * values + np.float32(0.01), changed.name))
    monkeypatch.setattr(export_module, "finish", lambda *_: wrong)
    with pytest.raises(MedicError, match="differs from torch"):
        export(classifier, tmp_path / "model.onnx", pixels[:4])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_damaged_graph_is_a_clear_error(tmp_path):
    with pytest.raises(MedicError, match="there is no graph"):
        open_session(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("not a graph")
    with pytest.raises(MedicError, match="cannot load"):
        open_session(tmp_path / "text.onnx")
