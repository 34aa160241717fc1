"""Three clouds through their real clients, on stand-ins: the five verbs, what a dry run prints, what goes wrong."""

import copy
import importlib
import os
import re
from pathlib import Path

import kserve as kserve_sdk
import kubernetes.client
import numpy as np
import pytest

from medic.cli import app
from medic.deployment.bundle import Bundle, package
from medic.deployment.export import export
from medic.deployment.targets import Target
from medic.deployment.targets.recording import dry_run
from medic.errors import MedicError
from medic.referral import Referral
from stand_in import StandIn, install

CLOUDS = ("watsonx", "azureml", "kserve")
EXPECTED = Path(__file__).parents[1] / "clouds" / "expected"


def module(name: str):
    return importlib.import_module(f"medic.deployment.targets.{name}")


@pytest.fixture(scope="module")
def bundle(classifier, pixels, photographs, about, tmp_path_factory) -> Bundle:
    """A bundle that leaves answers to a person."""
    model, folder = copy.deepcopy(classifier), tmp_path_factory.mktemp("referring")
    model.referral = Referral(60, "validation", (0.3,) * 5)
    graph = export(model, folder / "model.onnx", pixels[:4]).path
    return package(graph, folder / "discs", [("0_left.jpeg", photographs[0])], about, archive=False)


@pytest.fixture
def cloud(request, bundle, tmp_path, monkeypatch) -> StandIn:
    """The stand-in of the cloud that the test names, and an environment that points at it."""
    name = request.param
    stand_in = importlib.import_module(f"{name}_stand_in")
    monkeypatch.setattr(Target, "poll_seconds", 0.01)
    for variable, value in {**stand_in.ENVIRONMENT, "MEDIC_WAIT_SECONDS": "0.1"}.items():
        monkeypatch.setenv(variable, value)
    if name == "azureml":
        monkeypatch.setattr(module(name), "DefaultAzureCredential", stand_in.Credential)
    if name == "kserve":
        (tmp_path / "kubeconfig").write_text(stand_in.KUBECONFIG)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        monkeypatch.setenv("MEDIC_KSERVE_MOUNT", str(tmp_path / "claim"))
    made = install(getattr(stand_in, name)(bundle), monkeypatch)
    made.name, made.target = name, module(name)
    return made


of_each = pytest.mark.parametrize("cloud", CLOUDS, indirect=True)


@of_each
def test_the_five_verbs(cloud, bundle, photographs, tmp_path):
    target, version = cloud.target, bundle.manifest.version
    expected = bundle.predictor().predict(photographs[:10])
    stored = target.store(bundle, "demo")
    assert version in stored or stored in cloud.held.models
    with target.deploy(bundle.folder, "demo", "eyes") as deployment:
        assert deployment.status() == "ready"
        assert str(deployment).startswith(f"deployment eyes of bundle {version} at http")
        (found,) = target.deployments("demo")
        assert (found.name, found.bundle, found.url) == ("eyes", version, deployment.url)
        scored = target.find("eyes", "demo").score(photographs[:10])  # as from another machine
        np.testing.assert_allclose(scored.probabilities, expected.probabilities, atol=1e-4)
        assert (scored.task, scored.thresholds) == (bundle.task, expected.thresholds)
        with deployment.service() as service:
            answers = [service.answer(image) for image in photographs[:10]]
        assert [answer["why"] for answer in answers] == list(expected.why)
        assert {answer["refer"] for answer in answers} == {True, False}
        assert [answer["set"] for answer in answers] == [
            list(np.array(bundle.task.classes)[row]) for row in expected.sets
        ]
        (tmp_path / "notes.jpeg").write_text("no image")
        for images, said in ([], "no image"), ([tmp_path / "notes.jpeg"], "notes"), ([tmp_path / "no.jpeg"], "no.jpeg"):
            with pytest.raises(MedicError, match=said):
                deployment.score(images)
        with pytest.raises(MedicError, match=r"choose another name|it already exists"):
            target.deploy(bundle, "demo", "eyes")
    assert deployment.status() == "stopped"
    with pytest.raises(MedicError, match=r"demo has no deployment 'eyes'; there is: none; .*--space"):
        target.find("eyes", "demo")
    with pytest.raises(MedicError, match="is no name"):
        target.deploy(bundle, "demo", "../eyes")


@of_each
def test_a_version_that_is_there_is_not_sent_again_and_goes_when_nothing_serves_it(cloud, bundle, tmp_path):
    def sent():
        return [call for call in cloud.calls if re.search("PUT .*(content|model.onnx)$|POST .*/models$", call)]

    def gone():
        if cloud.name == "azureml":
            model = cloud.held.assets[f"models/medic-bundle/versions/{bundle.manifest.version}"]
            return model["properties"].get("isArchived", False)
        return not (cloud.held.models if cloud.name == "watsonx" else list((tmp_path / "claim").rglob("model.onnx")))

    cloud.target.store(bundle, "demo")
    once = sent()
    first, second = (cloud.target.deploy(bundle, "demo", name) for name in ("eyes", "more-eyes"))
    assert sent() == once
    first.delete(bundle=True)
    assert not gone()
    second.delete(bundle=True)
    assert gone()


@of_each
def test_what_is_not_medics_is_not_listed(cloud, bundle):
    cloud.target.deploy(bundle, "demo", "eyes")
    for things in (getattr(cloud.held, name, {}) for name in ("deployments", "endpoints", "services")):
        for one in things.values():
            one.get("entity", {}).pop("custom", None)
            one.pop("tags", None)
            one.get("metadata", {}).pop("labels", None)
    assert cloud.target.deployments("demo") == []


FAILED = {"state": "failed", "failure": {"errors": [{"message": "The runtime ran out of memory."}]}}
BLOCKED = {"modelStatus": {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": {"message": "no such claim"}}}


@pytest.mark.parametrize(
    ("cloud", "state", "said"),
    [
        ("watsonx", {"state": FAILED}, "crashed .*ran out of memory.*medic delete eyes --target watsonx"),
        ("watsonx", {"state": {"state": "initializing"}}, "starting .*initializing"),
        ("azureml", {"state": "Failed"}, "crashed .*medic delete eyes --target azureml"),
        ("kserve", {"status": BLOCKED}, "crashed .no such claim.*medic delete eyes --target kserve"),
        ("kserve", {"status": {}}, "starting"),
    ],
    indirect=["cloud"],
)
def test_a_deployment_that_fails_is_found_by_its_name_and_removed(cloud, bundle, state, said):
    vars(cloud.held).update(state)
    with pytest.raises(MedicError, match=said):
        cloud.target.deploy(bundle, "demo", "eyes")
    found = cloud.target.find("eyes", "demo")
    assert found.status() == said.split()[0]
    found.delete(bundle=True)
    assert cloud.target.deployments("demo") == []


CUT = ConnectionError("the connection was cut")


@pytest.mark.parametrize(
    ("cloud", "call", "answer", "said"),
    [
        ("watsonx", "POST /identity/token", (400, {"errorMessage": "no such key"}), "no such key"),
        ("watsonx", "GET /v2/spaces", (200, {"resources": []}), "demo"),
        ("watsonx", "POST /ml/v4/deployments", (429, {"message": "used up"}), "used up"),
        ("watsonx", "PUT .*/content", CUT, "connection was cut"),
        ("azureml", "PUT .*/deployments/.*", (429, {"error": {"code": "x", "message": "no quota"}}), "no quota"),
        ("azureml", "PUT /files/.*", (403, None), "deploy failed"),
        ("kserve", "POST .*/inferenceservices", (403, {"message": "forbidden"}), "forbidden"),
        ("kserve", "POST .*/secrets", (401, {"message": "who"}), "who"),
        ("kserve", "POST .*/inferenceservices", CUT, "connection was cut"),
    ],
    indirect=["cloud"],
)
def test_a_refusal_becomes_one_sentence(cloud, bundle, call, answer, said):
    cloud.fail(call, answer)
    with pytest.raises(MedicError, match=rf"(?s)^{cloud.name}: .*{said}.*docs/deploy") as caught:
        cloud.target.deploy(bundle, "demo", "eyes")
    assert "of-nobody" not in str(caught.value), "no key is repeated"
    if "/deployments/" in call:
        assert cloud.target.find("eyes", "demo").status() == "crashed", "half-made"


@pytest.mark.parametrize(
    ("cloud", "variable", "value", "said"),
    [
        ("watsonx", "WATSONX_URL", "http://127.0.0.1", "set WATSONX_URL to yours, such as https"),
        ("watsonx", "WATSONX_URL", "https://eve:hush@cpd.example", "set WATSONX_URL"),
        ("watsonx", "WATSONX_APIKEY", "", "set WATSONX_APIKEY"),
        ("watsonx", "WX_CLIENT_VERIFY_REQUESTS", "/no/such.pem", "No such file"),
        ("azureml", "AZURE_RESOURCE_GROUP", "", "set AZURE_RESOURCE_GROUP"),
        ("kserve", "MEDIC_KSERVE_IMAGE", "", "set MEDIC_KSERVE_IMAGE"),
        ("kserve", "MEDIC_KSERVE_STORAGE", "bucket", "such as pvc://CLAIM/medic"),
        ("kserve", "KUBECONFIG", "/no/such/file", "Invalid kube-config"),
    ],
    indirect=["cloud"],
)
def test_a_setting_that_is_missing_or_wrong_is_named(cloud, bundle, monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    with pytest.raises(MedicError, match=said) as caught:
        cloud.target.deploy(bundle, "demo", "eyes")
    assert "hush" not in str(caught.value)
    assert cloud.calls == []


@pytest.mark.parametrize("cloud", ["kserve"], indirect=True)
def test_storage_that_is_not_mounted_is_named_with_what_to_copy(cloud, bundle, monkeypatch, capsys):
    monkeypatch.delenv("MEDIC_KSERVE_MOUNT")
    cloud.target.store(bundle, "demo")
    assert f"to pvc://bundles/medic/demo/bundles/{bundle.manifest.version}" in capsys.readouterr().err


VARIABLE = {
    r"<[\d,]+ bytes>": "<N bytes>",
    r"tmp\w+/": "tmp/",
    "==.*": "==X",
    "[0-9a-f]{64}": "HASH",
    r"(?m)^ +discs/(medic|golden)/.*\n": "",
}
"""What differs from one release to another."""


@pytest.mark.parametrize("name", CLOUDS)
def test_a_dry_run_prints_every_call_and_file_without_an_account(bundle, photographs, capsys, monkeypatch, name):
    for variable in os.environ:
        if re.match("WATSONX|AZURE|MEDIC_|KUBE", variable):
            monkeypatch.delenv(variable)
    for variable in ("WATSONX_APIKEY", "AZURE_CLIENT_SECRET", "MEDIC_KSERVE_TOKEN"):
        monkeypatch.setenv(variable, "a-secret-of-somebody")
    install(StandIn([]), monkeypatch)  # whatever is asked fails
    with dry_run():
        module(name).deploy(bundle, "demo", "eyes")
        module(name).find("eyes", "demo").delete(bundle=True)
        module(name).find("eyes", "demo").score(photographs[:1])
    printed = capsys.readouterr().out
    assert "a-secret-of-somebody" not in printed
    printed = printed.replace(bundle.manifest.digest, "DIGEST").replace(bundle.manifest.version, "VERSION")
    for pattern, instead in VARIABLE.items():
        printed = re.sub(pattern, instead, printed)
    assert printed == (EXPECTED / f"{name}.txt").read_text(), f"if this is meant, write it to {EXPECTED / name}.txt"


def test_the_command_line_has_it_too(bundle, capsys):
    app(["deploy", str(bundle.folder), "--target", "kserve", "--name", "eyes", "--dry-run"], standalone_mode=False)
    assert "kind: InferenceService" in capsys.readouterr().out
    app(["delete", "eyes", "--target", "azureml", "--bundle", "--dry-run"], standalone_mode=False)
    assert "MLClient.online_endpoints.begin_delete('eyes')" in capsys.readouterr().out
    app(["score", "eyes", "eye.jpeg", "--target", "kserve", "--dry-run"], standalone_mode=False)
    assert "Client.answer(" in capsys.readouterr().out


def unknown_fields(value, kind: str, path: str = "") -> list[str]:
    """The fields of a manifest that the models of KServe's SDK and of the Kubernetes client do not know."""
    kind = kind.replace("K8sIoApiAppsV1", "V1")
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        return [field for one in value for field in unknown_fields(one, inner[1], path)]
    model = getattr(kserve_sdk, kind, None) or getattr(kubernetes.client, kind, None)
    if model is None or not isinstance(value, dict):
        return []
    names = {field: name for name, field in model.attribute_map.items()}
    found = [f"{path}.{field}" for field in value if field not in names]
    inside = [(f"{path}.{field}", value[field], model.openapi_types[names[field]]) for field in value if field in names]
    return found + [more for where, one, its_kind in inside for more in unknown_fields(one, its_kind, where)]


def test_the_real_models_know_every_field_of_the_manifest(bundle):
    manifest = module("kserve").manifest(bundle, "demo", "eyes", "registry.example/medic:1", "pvc://a/b")
    assert unknown_fields(manifest, "V1beta1InferenceService") == []
    container = manifest["spec"]["predictor"]["containers"][0]
    container["securityContext"]["runAsNonroot"] = True
    wrong = ".spec.predictor.containers.securityContext.runAsNonroot"
    assert unknown_fields(manifest, "V1beta1InferenceService") == [wrong]
