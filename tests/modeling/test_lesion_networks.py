"""The six networks of 02_modeling/08_classify_skin_lesions: forwards, backwards and out as a graph."""

import numpy as np
import pytest
import torch

from medic.data.images.preprocess import Preprocessing
from medic.deployment.export import export
from medic.modeling.classifier import Classifier
from medic.task import SKIN_LESION

NETWORKS = ("alexnet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_learns_and_is_exported(name, tmp_path):
    torch.manual_seed(0)
    model = Classifier(SKIN_LESION, name, preprocessing=Preprocessing(size=64, crop="square"), image_size=64)
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    raw = model.train().raw(model.inputs(images))
    assert raw.shape == (2, 2)
    model.objective.loss(raw, torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())
    probabilities = model.predict_pixels(images.numpy()).probabilities
    exported = export(model, tmp_path / "graph.onnx")
    assert exported.parity[1] < 1e-4
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
