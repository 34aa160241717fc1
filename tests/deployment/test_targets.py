"""Three clouds through their real clients, on stand-ins: the five verbs, what a dry run prints, what goes wrong."""

import importlib
import os
import re
from pathlib import Path

import kserve as kserve_sdk
import kubernetes.client
import numpy as np
import pytest

from medic.cli import app
from medic.deployment.targets import find_target
from medic.deployment.targets.recording import dry_run
from medic.errors import MedicError
from stand_in import StandIn, install

CLOUDS = ("watsonx", "azureml", "kserve")
EXPECTED = Path(__file__).parents[1] / "clouds" / "expected"


@pytest.fixture
def cloud(request, bundle, tmp_path, monkeypatch) -> StandIn:
    """The stand-in of the cloud that the test names, and an environment that points at it."""
    name = request.param
    stand_in = importlib.import_module(f"{name}_stand_in")
    quick = {"MEDIC_POLL_SECONDS": "0.01", "MEDIC_WAIT_SECONDS": "0.1"}
    for variable, value in {**stand_in.ENVIRONMENT, **quick}.items():
        monkeypatch.setenv(variable, value)
    if name == "azureml":
        monkeypatch.setattr(find_target(name), "DefaultAzureCredential", stand_in.Credential)
    if name == "kserve":
        (tmp_path / "claim").mkdir()
        monkeypatch.setenv("KUBECONFIG", stand_in.write_kubeconfig(tmp_path / "kubeconfig"))
        monkeypatch.setenv("MEDIC_KSERVE_STORAGE", "pvc://bundles/medic")
        monkeypatch.setenv("MEDIC_KSERVE_MOUNT", str(tmp_path / "claim"))
    made = getattr(stand_in, name)
    made = install(made() if name == "watsonx" else made(bundle), monkeypatch)
    made.target = find_target(name)
    return made


def of_each(*names: str):
    return pytest.mark.parametrize("cloud", names or CLOUDS, indirect=True)


@of_each()
def test_the_five_verbs(cloud, bundle, photographs):
    target, expected = cloud.target, bundle.predictor().predict(photographs[:3])
    stored = target.store(bundle, "demo")
    assert bundle.manifest.version in stored or stored in cloud.held.models
    with target.deploy(bundle, "demo", "eyes") as deployment:
        assert deployment.status() == "ready"
        assert str(deployment).startswith(f"deployment eyes of bundle {bundle.manifest.version} on ")
        (found,) = target.deployments("demo")
        assert (found.name, found.bundle, found.url) == ("eyes", bundle.manifest.version, deployment.url)
        for asked in (deployment, target.find("eyes", "demo")):  # the second as from another machine
            np.testing.assert_allclose(asked.score(photographs[:3]).probabilities, expected.probabilities, atol=1e-4)
    assert deployment.status() == "stopped"
    assert target.deployments("demo") == []
    with pytest.raises(MedicError, match=r"demo has no deployment 'eyes', there is: none; .*--space"):
        target.find("eyes", "demo")


@of_each()
def test_a_version_that_is_there_is_not_sent_again_and_goes_when_nothing_serves_it(cloud, bundle, tmp_path):
    def sent():
        return [call for call in cloud.calls if re.search("PUT .*(content|model.onnx)$|POST .*/models$", call)]

    cloud.target.store(bundle, "demo")
    once = sent()
    first, second = (cloud.target.deploy(bundle, "demo", name) for name in ("eyes", "more-eyes"))
    assert sent() == once
    gone = {
        "watsonx": lambda: cloud.held.models == {},
        "azureml": lambda: cloud.held.assets[f"models/medic-bundle/versions/{bundle.manifest.version}"][
            "properties"
        ].get("isArchived", False),
        "kserve": lambda: not list((tmp_path / "claim").rglob("model.onnx")),
    }[cloud.target.__name__.rpartition(".")[2]]
    first.delete(bundle=True)
    assert not gone()
    second.delete(bundle=True)
    assert gone()


@of_each()
def test_what_is_not_medics_is_neither_listed_nor_deleted(cloud, bundle):
    cloud.target.deploy(bundle, "demo", "eyes")
    held = cloud.held
    for things in (getattr(held, name, {}) for name in ("deployments", "endpoints", "services")):
        for one in things.values():
            one.get("entity", {}).pop("custom", None)
            one.pop("tags", None)
            one["metadata"].pop("labels", None) if "metadata" in one else None
    assert cloud.target.deployments("demo") == []


FAILED = {"state": "failed", "failure": {"errors": [{"message": "The runtime ran out of memory."}]}}
BLOCKED = {"modelStatus": {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": {"message": "no such claim"}}}


@pytest.mark.parametrize(
    ("cloud", "state", "said", "then"),
    [
        (
            "watsonx",
            {"state": FAILED},
            "failed there .*ran out of memory.*medic delete eyes --target watsonx",
            "crashed",
        ),
        ("watsonx", {"state": {"state": "initializing"}}, r"not ready in 0\.1 seconds \(initializing\)", "starting"),
        ("azureml", {"state": "Failed"}, "failed there .*medic delete eyes --target azureml", "crashed"),
        ("kserve", {"status": BLOCKED}, "failed there .no such claim.*medic delete eyes --target kserve", "crashed"),
        ("kserve", {"status": {}}, r"not ready in 0\.1 seconds", "starting"),
    ],
    indirect=["cloud"],
)
def test_a_deployment_that_fails_is_found_by_its_name_and_removed(cloud, bundle, state, said, then):
    vars(cloud.held).update(state)
    with pytest.raises(MedicError, match=said):
        cloud.target.deploy(bundle, "demo", "eyes")
    found = cloud.target.find("eyes", "demo")
    assert found.status() == then
    found.delete(bundle=True)
    assert cloud.target.deployments("demo") == []


CUT = ConnectionError("the connection was cut")


@pytest.mark.parametrize(
    ("cloud", "call", "answer", "said"),
    [
        ("watsonx", "POST /identity/token", (400, {"errorMessage": "no such key"}), "no such key.*WATSONX_APIKEY"),
        ("watsonx", "GET /v2/spaces", (403, {"message": "no"}), "Editor role"),
        ("watsonx", "GET /v2/spaces", (200, {"resources": []}), "demo.*the space's name"),
        ("watsonx", "POST /ml/v4/deployments", (429, {"message": "used up"}), "used up.*delete what is no longer"),
        ("watsonx", "PUT .*/content", CUT, "not stored .*connection was cut"),
        (
            "azureml",
            "GET .*/onlineEndpoints",
            (403, {"error": {"code": "x", "message": "no"}}),
            "AzureML Data Scientist",
        ),
        (
            "azureml",
            "PUT .*/deployments/.*",
            (429, {"error": {"code": "x", "message": "quota"}}),
            "quota.*smaller size",
        ),
        ("azureml", "PUT /files/.*", (403, b""), "not stored"),
        ("kserve", "POST .*/inferenceservices", (403, {"message": "forbidden"}), "forbidden.*right to use secrets"),
        ("kserve", "POST .*/inferenceservices", (409, {"message": "exists"}), "exists.*choose another name"),
        ("kserve", "POST .*/secrets", (401, {"message": "who"}), "who.*renew the credentials"),
        ("kserve", "POST .*/inferenceservices", CUT, "connection was cut.*check KUBECONFIG"),
    ],
    indirect=["cloud"],
)
def test_a_refusal_becomes_one_sentence_with_its_remedy(cloud, bundle, call, answer, said, monkeypatch):
    monkeypatch.setenv("AZURE_CORE_RETRY_TOTAL", "0")
    cloud.fail(call, answer)
    with pytest.raises(MedicError, match=rf"(?s)^{cloud.target.__name__.rpartition('.')[2]}: .*{said}") as caught:
        cloud.target.deploy(bundle, "demo", "eyes")
    assert "of-nobody" not in str(caught.value), "no key is repeated"


@pytest.mark.parametrize(
    ("cloud", "variable", "value", "said"),
    [
        ("watsonx", "WATSONX_URL", "http://127.0.0.1", "WATSONX_URL is no https address"),
        ("watsonx", "WATSONX_URL", "https://eve:hush@cpd.example", "WATSONX_URL is no https address"),
        ("watsonx", "WATSONX_APIKEY", "", "set WATSONX_APIKEY"),
        ("watsonx", "WX_CLIENT_VERIFY_REQUESTS", "/no/such.pem", "No such file"),
        ("azureml", "AZURE_RESOURCE_GROUP", "", "set AZURE_RESOURCE_GROUP"),
        ("kserve", "MEDIC_KSERVE_IMAGE", "", "MEDIC_KSERVE_IMAGE is not set"),
        ("kserve", "MEDIC_KSERVE_STORAGE", "bucket", "such as pvc://CLAIM/medic"),
        ("kserve", "MEDIC_KSERVE_MOUNT", "", "copy .* to pvc://bundles/medic/demo/bundles/.*MEDIC_KSERVE_UPLOADED"),
        ("kserve", "KUBECONFIG", "/no/such/file", "check KUBECONFIG"),
    ],
    indirect=["cloud"],
)
def test_a_setting_that_is_missing_or_wrong_is_named(cloud, bundle, monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    with pytest.raises(MedicError, match=said) as caught:
        cloud.target.deploy(bundle, "demo", "eyes")
    assert "hush" not in str(caught.value)
    assert cloud.calls == []


@of_each()
def test_a_name_that_is_taken_or_none_is_refused(cloud, bundle):
    cloud.target.deploy(bundle, "demo", "eyes")
    with pytest.raises(MedicError, match=r"eyes.*choose another name"):
        cloud.target.deploy(bundle, "demo", "eyes")
    with pytest.raises(MedicError, match="is no name"):
        cloud.target.deploy(bundle, "demo", "../eyes")


@of_each()
def test_an_image_that_is_none_is_refused_by_name(cloud, bundle, tmp_path):
    (tmp_path / "notes.jpeg").write_text("no image")
    deployment = cloud.target.deploy(bundle, "demo", "eyes")
    for images, said in (
        ([tmp_path / "notes.jpeg"], "notes.jpeg"),
        ([], "no image"),
        ([tmp_path / "no.jpeg"], "no.jpeg"),
    ):
        with pytest.raises(MedicError, match=said):
            deployment.score(images)


def variable_parts(text: str, bundle) -> str:
    """The text without what differs from one bundle or release to another: digests, sizes, versions of packages."""
    text = text.replace(bundle.manifest.digest, "DIGEST").replace(bundle.manifest.version, "VERSION")
    text = re.sub(r"<[\d,]+ bytes>", "<N bytes>", text)
    text = re.sub(r"(medic-serving:|version: )[0-9a-f]{12}\b", r"\1HASH", text)
    text = re.sub(r"(?m)^ +(medic|golden)/.*\n", "", text)
    return re.sub(r"==\S+", "==X", text)


@pytest.mark.parametrize("name", CLOUDS)
def test_a_dry_run_prints_every_call_and_file_without_an_account(bundle, photographs, capsys, monkeypatch, name):
    for variable in os.environ:
        if re.match("WATSONX|AZURE|MEDIC_|KUBE", variable):
            monkeypatch.delenv(variable)
    secrets = ("WATSONX_APIKEY", "AZURE_CLIENT_SECRET", "MEDIC_KSERVE_TOKEN")
    for variable in secrets:
        monkeypatch.setenv(variable, "a-secret-of-somebody")
    install(StandIn([]), monkeypatch)  # whatever is asked fails
    target = find_target(name)
    with dry_run():
        deployment = target.deploy(bundle, "demo", "eyes")
        target.find("eyes", "demo").delete(bundle=True)
        deployment.score(photographs[:1])
    printed = variable_parts(capsys.readouterr().out, bundle)
    assert "a-secret-of-somebody" not in printed
    assert printed == (EXPECTED / f"{name}.txt").read_text(), f"if this is meant, write it to {EXPECTED / name}.txt"


def test_the_command_line_has_it_too(bundle, capsys):
    app(["deploy", str(bundle.folder), "--target", "kserve", "--name", "eyes", "--dry-run"], standalone_mode=False)
    assert "kind: InferenceService" in capsys.readouterr().out
    app(["delete", "eyes", "--target", "azureml", "--bundle", "--dry-run"], standalone_mode=False)
    assert "client.online_endpoints.begin_delete('eyes')" in capsys.readouterr().out


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
    known = [(field, one) for field, one in value.items() if field in names]
    return found + [
        more
        for field, one in known
        for more in unknown_fields(one, model.openapi_types[names[field]], f"{path}.{field}")
    ]


def test_the_real_models_know_every_field_of_the_manifest(bundle):
    manifest = find_target("kserve").manifest(bundle, "demo", "eyes", "registry.example/medic:1", "pvc://a/b")
    assert unknown_fields(manifest, "V1beta1InferenceService") == []
    manifest["spec"]["predictor"]["containers"][0]["securityContext"]["runAsNonroot"] = True
    assert unknown_fields(manifest, "V1beta1InferenceService") == [
        ".spec.predictor.containers.securityContext.runAsNonroot"
    ]
