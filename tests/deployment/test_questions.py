"""Findings, findings or none, and any finding at all: bundled, compressed and served as grades are."""

import asyncio
import json

import numpy as np
import pytest
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

from medic.deployment.bundle.pipeline import calibration, package_run
from medic.deployment.bundle.predictor import open_session, run
from medic.deployment.client import Client
from medic.deployment.compress import quantize
from medic.deployment.targets import local
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
    int8 = open_session(quantize(bundle.folder / "model.onnx", tmp_path / "int8.onnx", calibration(prepared)[:32]))
    assert run(int8, trained.task, calibration(prepared)[:2]).thresholds == expected.thresholds == model.thresholds


@pytest.fixture(scope="module")
def url(bundle, tmp_path_factory):
    with local.deploy(bundle, tmp_path_factory.mktemp("space")) as deployment:
        yield deployment.url


@pytest.mark.servers
def test_a_client_of_the_open_protocol_can_decide_as_the_model_does(bundle, url):
    _, images, expected = bundle.golden()
    pixels = np.stack([bundle.predictor().pixels(image) for image in images])
    name = bundle.task.name

    async def call():
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
            given = InferInput("images", list(pixels.shape), "UINT8")
            given.set_data_from_numpy(pixels, binary_data=True)
            request = InferRequest(name, [given], parameters={"binary_data_output": True})
            return await client.infer(url, request, model_name=name)

    response = asyncio.run(call())
    assert "Not a medical device" in response.parameters["notice"]
    probabilities = response.outputs[0].as_numpy()
    if expected.thresholds is None:
        assert "thresholds" not in response.parameters
        return
    thresholds = json.loads(response.parameters["thresholds"])
    assert tuple(thresholds) == expected.thresholds
    if bundle.task.kind == "multilabel":
        assert np.array_equal(probabilities >= np.float32(thresholds), expected.decided)
    else:
        assert np.array_equal(probabilities[:, 1] >= np.float32(thresholds[0]), expected.decided)


@pytest.mark.servers
def test_a_service_answers_in_the_words_of_the_question(bundle, url):
    _, images, expected = bundle.golden()
    with Client(url) as client:
        answer, scored = client.answer(images[0]), client.score(images)
    assert np.array_equal(scored.decided, expected.decided)
    assert scored.thresholds == expected.thresholds
    if bundle.task.kind == "multilabel":
        present = zip(bundle.task.classes, expected.decided[0], strict=True)
        assert answer["classes"] == [name for name, there in present if there]
        assert list(answer.get("thresholds", {}).values()) == list(expected.thresholds or ())
    else:
        assert (answer["label"], answer["threshold"]) == (expected.decided[0], expected.thresholds[0])
