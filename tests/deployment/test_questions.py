"""Findings, findings or none, and any finding at all: bundled, compressed and served as grades are."""

import asyncio
import base64
import json

import numpy as np
import pytest
from kserve import InferInput, InferRequest

from medic.deployment.bundle.pipeline import package_run, pixels_of
from medic.deployment.bundle.predictor import open_session, run
from medic.deployment.client import prediction_of
from medic.deployment.compress import quantize
from medic.deployment.service.app import Service
from medic.deployment.service.open_inference import Protocol
from medic.deployment.service.server import ServerConfig
from medic.modeling.evaluate import evaluate
from medic.predict import predict
from medic.task import CHEST_XRAY, CHEST_XRAY_BINARY, CHEST_XRAY_OR_NONE


@pytest.fixture(scope="module", params=[CHEST_XRAY, CHEST_XRAY_OR_NONE, CHEST_XRAY_BINARY], ids=lambda task: task.name)
def trained(request, chest_runs):
    return chest_runs[request.param.name]


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / trained.task.name
    return package_run(trained, evaluate(trained), folder)[0]


def test_a_bundle_decides_as_the_model_whose_operating_point_it_has(trained, bundle, tmp_path):
    model, prepared = trained.model(), trained.prepared
    assert (model.thresholds is None) == (trained.task == CHEST_XRAY_OR_NONE)
    names = list(prepared.split("test")["image"])
    said = [predict(one, prepared.store, names) for one in (model, bundle.predictor())]
    assert said[0].prediction.thresholds == said[1].prediction.thresholds == model.thresholds
    np.testing.assert_allclose(said[0].prediction.probabilities, said[1].prediction.probabilities, atol=1e-4)
    assert np.array_equal(said[0].prediction.decided, said[1].prediction.decided)
    assert list(said[0].to_frame().columns) == list(said[1].to_frame().columns)
    _, images, expected = bundle.golden()
    assert np.array_equal(expected.decided, bundle.predictor().predict(images).decided)
    pixels = pixels_of(prepared, "train", 32)
    int8 = open_session(quantize(bundle.folder / "model.onnx", tmp_path / "int8.onnx", pixels))
    assert run(int8, trained.task, pixels[:2]).thresholds == expected.thresholds == model.thresholds


def test_answers_say_all_that_a_client_needs_to_decide_alike(bundle):
    _, images, expected = bundle.golden()
    service = Service(bundle.predictor(), ServerConfig())
    _, answers = service.predict(images)
    scored = prediction_of(answers)
    assert (scored.task.kind, scored.thresholds) == (bundle.task.kind, expected.thresholds)
    assert np.array_equal(scored.decided, expected.decided)
    if bundle.task.kind == "multilabel":
        present = zip(bundle.task.classes, expected.decided[0], strict=True)
        assert answers[0]["classes"] == [name for name, there in present if there]
    else:
        assert answers[0]["label"] == expected.decided[0]
    files = InferInput("image", [len(images)], "BYTES", [base64.b64encode(data).decode() for data in images])
    response = asyncio.run(Protocol(service).infer(InferRequest(bundle.task.name, [files])))
    assert "Not a medical device" in response.parameters["notice"]
    assert json.loads(response.parameters.get("thresholds", "null")) == (expected.thresholds and [*expected.thresholds])
