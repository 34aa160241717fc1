"""Azure Machine Learning: its real client does what the five verbs say, and no failure leaves anything forgotten."""

import base64
import json
import os
import re
import ssl
import subprocess
import sys

import certifi
import cv2
import httpx
import numpy as np
import pytest
import yaml
from azure.ai.ml import load_environment, load_online_deployment, load_online_endpoint
from azure.storage.blob._shared.policies import StorageRetryPolicy

from medic.deployment.client import prediction_of
from medic.deployment.stubs.azureml import CONTAINER, SCOPE, WORKSPACE, azureml_stub
from medic.deployment.stubs.inference_server import inference_server
from medic.deployment.stubs.server import CUT, Reply, Stub
from medic.deployment.targets import azureml
from medic.deployment.targets.azureml.files import Settings
from medic.deployment.targets.journal import DeploymentJournal, Thing
from medic.errors import MedicError
from medic.sample.chest_set import dicom
from medic.task import CHEST_XRAY_BINARY

ENDPOINT = f"{SCOPE}/onlineEndpoints/eyes"
DEPLOYMENT = f"{ENDPOINT}/deployments/[^/]+"
MODEL = f"{SCOPE}/models/discs/versions/[^/]+"
ENVIRONMENT = f"{SCOPE}/environments/medic-serving/versions/[^/]+"
BLOB = rf"/storage\.blob\.core\.windows\.net/{CONTAINER}/.*"
AGAIN = {"x-ms-retry-after-ms": "5"}


@pytest.fixture
def azure(monkeypatch, tmp_path):
    with azureml_stub() as stub:
        monkeypatch.setenv("MEDIC_JOURNALS", str(tmp_path / "journals"))
        for name, value in stub.environment.items():
            monkeypatch.setenv(name, value)
        yield stub


def writes(stub, since=0):
    """What was asked for that changes something, but for the single files: method and the path within the workspace."""
    return [
        f"{call.method} {call.path.removeprefix(SCOPE)}"
        for call in stub.calls[since:]
        if call.path.startswith(SCOPE) and call.method in ("PUT", "POST", "DELETE") and "/datastores/" not in call.path
    ]


def clean_up(name):
    """The command that messages give."""
    return f"MEDIC_JOURNALS={os.environ['MEDIC_JOURNALS']} medic delete {name} --target azureml --space {WORKSPACE}"


def error(status, code, message):
    return Reply(status, {"error": {"code": code, "message": message}}, AGAIN)


@pytest.mark.servers
def test_a_bundle_goes_through_all_five_verbs_and_answers_as_it_does_at_home(azure, bundle, photographs, tmp_path):
    version = bundle.manifest.version
    with azureml.deploy(bundle, name="eyes") as deployment:
        assert deployment.status() == "ready"
        assert deployment.url == f"{azure.url}/score/eyes"
        assert azureml.find("eyes", WORKSPACE).bundle == azureml.deployments()[0].bundle == version
        images = [*photographs[:2], bundle.folder / "golden" / "03.jpeg"]
        prediction = deployment.score(images)
        expected = bundle.predictor(1).predict(photographs[:3])
        np.testing.assert_allclose(prediction.probabilities, expected.probabilities, atol=1e-4)
        np.testing.assert_allclose(prediction.grade, expected.grade, atol=1e-4)
        with pytest.raises(
            MedicError, match=r"an image of 4 bytes: the endpoint 'eyes' refused with 415: these 4 bytes"
        ):
            deployment.score([b"text"])
        azure.fail("POST", "/score/eyes", Reply(200, {"model": "0" * 12}))
        with pytest.raises(MedicError, match=f"answers with another model than {version}"):
            deployment.score(photographs[:1])

    # What was asked for, in this order.
    code = next(call.path.split("/")[-3] for call in azure.made("PUT", f"{SCOPE}/codes/.*"))
    assert writes(azure) == [
        f"PUT /models/discs/versions/{version}",
        f"PUT {azure.made('PUT', ENVIRONMENT)[0].path.removeprefix(SCOPE)}",
        "PUT /onlineEndpoints/eyes",
        f"POST /codes/{code}/versions/1/startPendingUpload",
        f"PUT /codes/{code}/versions/1",
        f"PUT /onlineEndpoints/eyes/deployments/bundle-{version}",
        "PUT /onlineEndpoints/eyes",
        *3 * ["POST /onlineEndpoints/eyes/listKeys"],
        "DELETE /onlineEndpoints/eyes",
    ]
    # The very files of the bundle, and its own score.py beside them.
    sent = {path: content for path, content in azure.blobs.items() if path.startswith(f"{CONTAINER}/LocalUpload/")}
    home = {name: (bundle.folder / name).read_bytes() for name in (*bundle.manifest.files, "manifest.json")}
    assert {path.split("/discs/", 1)[1]: content for path, content in sent.items()} == home
    code = {path: content for path, content in azure.blobs.items() if path not in sent}
    assert list(code.values()) == [(bundle.folder / "score.py").read_bytes()]
    model = azure.made("PUT", MODEL)[0].json()["properties"]
    assert model["modelType"] == "custom_model"
    assert model["tags"]["digest"] == bundle.manifest.digest
    assert azure.made("PUT", ENDPOINT)[0].json()["properties"]["authMode"] == "Key"
    assert azure.made("PUT", ENDPOINT)[1].json()["properties"]["traffic"] == {f"bundle-{version}": 100}
    asked = azure.made("PUT", DEPLOYMENT)[0].json()
    assert asked["sku"] == {"name": "Default", "capacity": 1}
    assert asked["properties"]["instanceType"] == "Standard_DS3_v2"
    assert asked["properties"]["environmentVariables"] == {"WORKER_COUNT": "2"}
    assert asked["properties"]["requestSettings"] == {"requestTimeout": "PT1M", "maxConcurrentRequestsPerInstance": 2}
    assert asked["properties"]["appInsightsEnabled"] is False
    # Each image went as it is, with a key; everybody else showed the token.
    scored = azure.made("POST", "/score/eyes")
    assert [call.body for call in scored] == [*photographs[:3], b"text", photographs[0]]
    keys = {call.headers["authorization"] for call in scored}
    tokens = {call.headers["authorization"] for call in azure.calls if call.path.startswith(SCOPE)}
    assert len(keys) == len(tokens) == 1
    assert keys != tokens
    # The journal is closed, and the model stays for the next deployment.
    assert deployment.status() == "stopped"
    assert azureml.deployments() == []
    assert [path.name for path in (tmp_path / "journals").rglob("*")] == ["azureml", WORKSPACE]
    assert not azure.assets[f"models/discs/versions/{version}"]["properties"].get("isArchived")
    with pytest.raises(MedicError, match="deleted before"):
        deployment.delete()
    with pytest.raises(MedicError, match="is stopped; deploy the bundle again"):
        deployment.score(photographs[:1])


def test_what_is_asked_for_is_written_as_yaml_without_any_secret(azure, bundle, tmp_path):
    azureml.deploy(bundle, name="eyes", settings=Settings(instance_type="Standard_F4s_v2", instance_count=2))
    folder = tmp_path / "journals" / "azureml" / WORKSPACE / "eyes"
    assert load_online_endpoint(folder / "endpoint.yml").auth_mode == "key"
    asked = load_online_deployment(folder / "deployment.yml")
    assert (asked.instance_type, asked.instance_count) == ("Standard_F4s_v2", 2)
    assert asked.model.removeprefix("azureml:") == f"discs:{bundle.manifest.version}"
    environment = load_environment(folder / "environment.yml")
    assert asked.environment.removeprefix("azureml:") == f"medic-serving:{environment.version}"
    packages = yaml.safe_load((folder / "conda.yml").read_text())["dependencies"][-1]["pip"]
    assert [re.sub("==.*", "", package) for package in packages] == [
        "onnxruntime",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "simplejpeg",
        "pydicom",
        "azureml-inference-server-http",
    ]
    assert all(re.fullmatch(r"[a-z-]+==[0-9.]+", package) for package in packages)
    assert f"onnxruntime=={bundle.manifest.values['created']['onnxruntime']}" in packages
    assert (folder / "code" / "score.py").read_bytes() == (bundle.folder / "score.py").read_bytes()
    secrets = [azure.environment["AZURE_CLIENT_SECRET"], azure._token, azure._signature, *azure.endpoints["eyes"].keys]
    written = [path.read_text() for path in (tmp_path / "journals").rglob("*") if path.is_file()]
    assert len(written) == 6
    assert not any(secret in text for secret in secrets for text in written)


def test_a_bundle_is_sent_once(azure, bundle):
    stored = azureml.store(bundle)
    assert stored == azureml.store(bundle.archive, WORKSPACE) == Thing("model", f"discs:{bundle.manifest.version}")
    assert len(azure.made("PUT", MODEL)) == 1
    onnx = [call for call in azure.made("PUT", BLOB) if call.path.endswith("/model.onnx")]
    assert [call.body for call in onnx] == [(bundle.folder / "model.onnx").read_bytes()]


def test_a_model_of_that_name_and_version_that_is_another_is_not_taken_for_it(azure, bundle):
    azureml.store(bundle)
    azure.assets[f"models/discs/versions/{bundle.manifest.version}"]["properties"]["tags"]["digest"] = "0" * 64
    with pytest.raises(MedicError, match="that is not this bundle; rename the bundle"):
        azureml.deploy(bundle, name="eyes")
    assert azureml.deployments() == []


def test_with_its_bundle_a_deployment_is_archived_and_deploying_again_restores_it(azure, bundle):
    model = f"models/discs/versions/{bundle.manifest.version}"
    first, second = azureml.deploy(bundle, name="eyes"), azureml.deploy(bundle, name="more-eyes")
    first.delete(bundle=True)
    assert not azure.assets[model]["properties"].get("isArchived"), "the second deployment uses it"
    second.delete(bundle=True)
    archived = [path for path, body in azure.assets.items() if body["properties"].get("isArchived")]
    assert sorted(path.split("/")[0] for path in archived) == ["environments", "models"]
    assert azure.endpoints == {}
    third = azureml.deploy(bundle, name="eyes")
    assert [thing.kind for thing in third.journal.things] == ["model", "environment", "endpoint", "deployment"]
    assert not any(body["properties"].get("isArchived") for body in azure.assets.values())
    assert len(azure.made("PUT", rf"{BLOB}/model\.onnx")) == 1


def test_wrong_credentials_are_said_to_be_wrong_without_showing_them(azure, bundle, monkeypatch):
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "not-the-secret")
    for begin in (lambda: azureml.store(bundle), lambda: azureml.deploy(bundle, name="eyes")):
        with pytest.raises(MedicError, match=r"Invalid client secret.*check AZURE_TENANT_ID") as caught:
            begin()
        assert "not-the-secret" not in str(caught.value)
    assert "Nothing was created" in str(caught.value)
    assert azureml.deployments() == []
    assert not any(call.path.startswith(SCOPE) for call in azure.calls)


def test_a_token_that_azure_does_not_accept_is_said_to_be_refused(azure, bundle):
    azure.fail(
        "POST", "/[^/]+/oauth2/v2.0/token", Reply(200, {"token_type": "Bearer", "expires_in": 9, "access_token": "x"})
    )
    with pytest.raises(MedicError, match=r"Authentication failed.*az login\. Nothing was created"):
        azureml.deploy(bundle, name="eyes")


def test_what_is_refused_before_anything_is_made_leaves_nothing_on_this_side(azure, bundle, tmp_path):
    azureml.store(bundle)
    azure.fail("PUT", ENVIRONMENT, error(400, "UserError", "The image is not known."))
    with pytest.raises(MedicError, match=r"medic-serving was not created \(.*image is not known.*Nothing was created"):
        azureml.deploy(bundle, name="eyes")
    assert [path.name for path in (tmp_path / "journals").rglob("*")] == ["azureml", WORKSPACE]


def test_a_missing_role_is_named(azure, bundle):
    azure.fail("GET", SCOPE, error(403, "AuthorizationFailed", "The client does not have authorization."))
    with pytest.raises(MedicError, match=r"does not have authorization.*'AzureML Data Scientist' on the workspace"):
        azureml.deploy(bundle, name="eyes")


def test_a_space_that_is_not_there_is_named(azure, bundle):
    with pytest.raises(
        MedicError, match=r"was not found.*check the workspace 'elsewhere' and the resource group 're"
    ) as e:
        azureml.deploy(bundle, "elsewhere", name="eyes")
    assert "Nothing was created" in str(e.value)


def test_an_endpoint_of_somebody_else_is_left_alone(azure, bundle):
    first = azureml.deploy(bundle, name="eyes")
    DeploymentJournal.load("azureml", WORKSPACE, "eyes").close()
    begun = len(azure.calls)
    with pytest.raises(MedicError, match="has an endpoint 'eyes' that was not made here; choose another name"):
        azureml.deploy(bundle, name="eyes")
    assert writes(azure, begun) == []
    assert azureml.deployments() == []
    assert "eyes" in azure.endpoints
    assert first.status() == "stopped"


def test_without_quota_the_endpoint_is_named_and_can_be_removed(azure, bundle):
    azure.fail("PUT", DEPLOYMENT, error(429, "OutOfQuota", "Not enough quota for Standard_DS3_v2."), times=-1)
    with pytest.raises(
        MedicError, match=r"Not enough quota.*MEDIC_AZUREML_INSTANCE_TYPE.*Created so far: model"
    ) as caught:
        azureml.deploy(bundle, name="eyes")
    assert f"endpoint eyes; {clean_up('eyes')} removes it" in str(caught.value)
    half = azureml.find("eyes")
    assert [thing.kind for thing in half.journal.things] == ["model", "environment", "endpoint"]
    assert half.status() == "crashed"
    begun = len(azure.calls)
    half.delete()
    assert writes(azure, begun) == [
        "DELETE /onlineEndpoints/eyes",
        f"PUT /{half_made(azure, 'environments')}",
        f"PUT /{half_made(azure, 'models')}",
    ]
    assert azureml.deployments() == []


def half_made(stub, kind):
    """The one asset of its kind, archived by now."""
    [path] = [path for path in stub.assets if path.startswith(kind)]
    assert stub.assets[path]["properties"]["isArchived"]
    return path


def test_a_deployment_that_fails_tells_why_with_the_end_of_its_log(azure, bundle):
    azure.broken = "User container has crashed."
    with pytest.raises(
        MedicError, match=r"(?s)container has crashed.*end of its log:.*Exception in init\(\)"
    ) as caught:
        azureml.deploy(bundle, name="eyes")
    assert f"deployment eyes/bundle-{bundle.manifest.version}; {clean_up('eyes')}" in str(caught.value)
    half = azureml.find("eyes")
    assert half.status() == "crashed"
    with pytest.raises(MedicError) as refused:
        half.score([b""])
    removes = f"{clean_up('eyes')} removes what there is of it, then deploy again"
    assert str(refused.value) == f"the deployment 'eyes' is crashed; {removes}"
    half.delete()
    assert azure.endpoints == {}
    assert half.status() == "stopped"


def test_what_takes_too_long_is_left_to_azure_and_can_be_removed(azure, bundle):
    azure.fail("GET", f"{SCOPE}/operations/1", Reply(200, {"status": "InProgress"}, {"x-ms-retry-after-ms": "50"}), -1)
    with pytest.raises(MedicError, match=r"still InProgress after 0\.5 seconds.*MEDIC_AZUREML_WAIT_SECONDS") as caught:
        azureml.deploy(bundle, name="eyes", settings=Settings(wait_seconds=0.5))
    assert "deployment eyes/bundle-" in str(caught.value)
    late = azureml.find("eyes")
    [there] = azure.endpoints["eyes"].deployments.values()
    assert there["properties"]["provisioningState"] == "Succeeded"
    assert late.status() == "crashed", "it runs by now, but no request goes there"
    with pytest.raises(MedicError, match=r"'eyes' is crashed; .* removes what there is of it, then deploy"):
        late.score([b""])
    there["properties"]["provisioningState"] = "Creating"
    assert late.status() == "starting"
    there["properties"]["provisioningState"] = "Deleting"
    assert late.status() == "stopped"
    late.delete()
    assert azure.endpoints == {}


@pytest.mark.parametrize("still_lost", [False, True])
def test_a_model_whose_registration_lost_its_answer_is_noted(azure, bundle, still_lost):
    """Azure does what it was asked, and says that it failed; whether it can be asked afterwards is another thing."""

    def lost(call, path):
        if still_lost and path not in azure.assets:
            azure.fail("GET", MODEL, error(503, "Unavailable", "Not now."), times=4)
        azure._register(call, path)
        return error(500, "InternalServerError", "Something went wrong.")

    azure._routes.insert(0, ("PUT", "/(models/[^/]+/versions/[^/]+)", lost))
    with pytest.raises(MedicError, match=r"was not stored \(.*Something went wrong") as caught:
        azureml.deploy(bundle, name="eyes")
    assert f"Created so far: model discs:{bundle.manifest.version}; {clean_up('eyes')} removes it" in str(caught.value)
    azure._routes.pop(0)
    azureml.find("eyes").delete()
    assert half_made(azure, "models")
    assert azureml.deployments() == []


def test_ctrl_c_while_a_model_is_registered_leaves_a_note_of_it(azure, bundle, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("azure.ai.ml.operations.ModelOperations.create_or_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            azureml.deploy(bundle, name="eyes")
    assert [str(thing) for thing in azureml.find("eyes").journal.things] == [f"model discs:{bundle.manifest.version}"]
    azureml.find("eyes").delete()
    assert azureml.deployments() == []


def test_what_took_azure_too_long_is_not_taken_for_refused(azure, bundle):
    azureml.store(bundle)
    azure.fail("PUT", ENVIRONMENT, error(408, "RequestTimeout", "That took too long."), times=-1)
    with pytest.raises(MedicError, match=r"That took too long.*Created so far: environment medic-serving:\w+; "):
        azureml.deploy(bundle, name="eyes")
    azureml.find("eyes").delete()
    assert azureml.deployments() == []


def test_beside_the_stub_what_was_trusted_before_is_trusted_still(monkeypatch):
    def certificates(path):
        return set(ssl.create_default_context(cafile=path).get_ca_certs(binary_form=True))

    for name in ("REQUESTS_CA_BUNDLE", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Stub(lambda call: Reply(200, {"hello": "there"})) as other:
        monkeypatch.setenv("SSL_CERT_FILE", str(other.certificate))
        monkeypatch.setenv("NO_PROXY", "hospital.example")
        with azureml_stub() as stub:
            for name, value in stub.environment.items():
                monkeypatch.setenv(name, value)
            assert httpx.get(other.url).json() == {"hello": "there"}
            assert httpx.get(f"{stub.url}/metadata/endpoints").json()[0]["name"] == "MedicStub"
            trusted = certificates(os.environ["REQUESTS_CA_BUNDLE"])
            assert trusted == certificates(stub.certificate) | certificates(certifi.where())
            assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "hospital.example,127.0.0.1,localhost"


def test_the_answers_of_services_become_one_prediction_with_its_operating_point():
    answers = [{"probabilities": {"No Finding": 1 - p, "Finding": p}} for p in (0.4, 0.2)]
    prediction = prediction_of(CHEST_XRAY_BINARY, [0.3], answers)
    assert prediction.decided.tolist() == [1, 0]
    assert (prediction.thresholds, prediction.grade) == ((0.3,), None)


def test_an_upload_that_is_cut_is_told_and_the_next_try_completes_it(azure, bundle, monkeypatch, caplog, capfd):
    # The storage's client waits for a quarter of a minute before each of its three further tries, and takes no setting.
    monkeypatch.setattr(StorageRetryPolicy, "sleep", lambda *_: None)
    azure.fail("PUT", rf"{BLOB}/model\.onnx", CUT, times=4)
    with pytest.raises(MedicError, match=r"was not stored.*look at the network.*Nothing was created") as caught:
        azureml.deploy(bundle, name="eyes")
    assert "stay in the workspace's storage below LocalUpload/, and the next try completes them" in str(caught.value)
    assert azure._signature not in f"{caught.value}{caplog.text}{capfd.readouterr()}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert azure.assets == {}
    assert azureml.deployments() == []
    assert str(azureml.store(bundle)) == f"model discs:{bundle.manifest.version}"
    sent = [content for path, content in azure.blobs.items() if path.endswith("/model.onnx")]
    assert sent == [(bundle.folder / "model.onnx").read_bytes()]


def test_a_connection_that_breaks_while_the_endpoint_is_made_leaves_a_note_of_it(azure, bundle):
    azure.fail("PUT", ENDPOINT, CUT, times=-1)
    with pytest.raises(
        MedicError,
        match=r"look at the network.*environment medic-serving:\w+, endpoint eyes; MEDIC_JOURNALS=\S+ medic del",
    ):
        azureml.deploy(bundle, name="eyes")
    azureml.find("eyes").delete()
    assert len(azure.made("DELETE", ENDPOINT)) == 1, "it may have been made"
    assert azureml.deployments() == []


def test_what_could_not_be_deleted_stays_in_the_journal(azure, bundle):
    deployment = azureml.deploy(bundle, name="eyes")
    azure.fail("DELETE", ENDPOINT, error(403, "AuthorizationFailed", "No."))
    with pytest.raises(MedicError, match=r"'eyes' was not deleted.*Created so far: .*endpoint eyes, deployment eyes/"):
        deployment.delete(bundle=True)
    assert azureml.find("eyes").status() == "ready"
    azure.fail("PUT", MODEL, error(403, "AuthorizationFailed", "No."))
    with pytest.raises(MedicError, match=r"Created so far: model discs:\w+; MEDIC_JOURNALS=\S+ medic delete eyes"):
        azureml.find("eyes").delete(bundle=True)
    assert [thing.kind for thing in azureml.find("eyes").journal.things] == ["model"]
    azureml.find("eyes").delete(bundle=True)
    assert len(azure.made("DELETE", ENDPOINT)) == 2
    assert azureml.deployments() == []
    assert half_made(azure, "models")


def test_a_deployment_is_deleted_where_it_was_made(azure, bundle, monkeypatch):
    deployment = azureml.deploy(bundle, name="eyes")
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", "another")
    monkeypatch.delenv("AZUREML_WORKSPACE_NAME")
    azureml.find("eyes", WORKSPACE).delete()
    assert azure.endpoints == {}
    assert deployment.status() == "stopped"


def test_what_the_environment_lacks_and_what_azure_would_refuse_is_said_at_once(azure, bundle, monkeypatch):
    for name in ("under_score", "ab", "a" * 33, "9lives"):
        with pytest.raises(MedicError, match="is no name for an endpoint of Azure"):
            azureml.deploy(bundle, name=name)
    with pytest.raises(MedicError, match="is no name of a workspace"):
        azureml.store(bundle, "../up")
    monkeypatch.setenv("MEDIC_AZUREML_INSTANCE_COUNT", "many")
    with pytest.raises(MedicError, match="MEDIC_AZUREML_INSTANCE_COUNT is 'many', which is no number"):
        azureml.deploy(bundle, name="eyes")
    monkeypatch.setenv("MEDIC_AZUREML_INSTANCE_COUNT", "3")
    assert Settings.from_environment() == Settings(instance_count=3)
    monkeypatch.delenv("AZUREML_WORKSPACE_NAME")
    with pytest.raises(MedicError, match="set AZUREML_WORKSPACE_NAME"):
        azureml.deployments()
    monkeypatch.delenv("AZURE_RESOURCE_GROUP")
    with pytest.raises(MedicError, match="set AZURE_RESOURCE_GROUP"):
        azureml.store(bundle)
    assert azure.calls == []


WITHOUT_SERVER = """
import json, runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("azureml"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
score = runpy.run_path(sys.argv[1])
score["init"]()
print(json.dumps([score["run"](open(sys.argv[2], "rb").read()), sys.modules["medic"].__file__]))
"""


def test_score_py_finds_the_one_bundle_in_the_folder_of_models_with_or_without_azures_server(copied, tmp_path):
    def ended():
        command = [sys.executable, "-c", WITHOUT_SERVER, tmp_path / "code" / "score.py", copied / "golden" / "01.jpeg"]
        environment = {**os.environ, "AZUREML_MODEL_DIR": str(copied.parent)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_bytes((copied / "score.py").read_bytes())
    [answer], library = json.loads(ended().stdout)
    assert answer["task"] == "retinopathy"
    assert library == str(copied / "medic" / "__init__.py"), "the bundle's own, though another is installed"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text("{}")
    assert "there are 2 bundles below" in ended().stderr


@pytest.fixture(scope="module")
def server(bundle, tmp_path_factory):
    """Azure's own inference server, with the code and the bundle where Azure puts them."""
    folder = tmp_path_factory.mktemp("azure")
    for name in (*bundle.manifest.files, "manifest.json"):
        path = folder / "model" / "discs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((bundle.folder / name).read_bytes())
    (folder / "code").mkdir()
    (folder / "code" / "score.py").write_bytes((bundle.folder / "score.py").read_bytes())
    with inference_server(folder / "code" / "score.py", folder / "model") as url, httpx.Client(base_url=url) as http:
        yield http


def post(server, content, kind="application/octet-stream"):
    response = server.post("/score", content=content, headers={"Content-Type": kind})
    return response.status_code, response.json()


@pytest.mark.servers
def test_under_azures_server_score_py_answers_as_the_predictor(server, bundle, photographs):
    predictor = bundle.predictor(1)
    expected = predictor.answers(predictor.predict(photographs[:5]))
    for kind in ("image/jpeg", "application/octet-stream"):
        status, answer = post(server, photographs[3], kind)
        assert status == 200
        assert answer.keys() == expected[3].keys()
        assert answer["grade"] == expected[3]["grade"]
        assert list(answer["probabilities"].values()) == pytest.approx(
            list(expected[3]["probabilities"].values()), abs=1e-4
        )
    radiograph = as_dicom(photographs[2])
    assert post(server, radiograph, "application/dicom") == (200, predictor.answers(predictor.predict([radiograph]))[0])
    status, answers = post(server, encoded(photographs[:5]), "application/json; charset=utf-8")
    assert status == 200
    assert [answer["grade_continuous"] for answer in answers] == pytest.approx(
        [answer["grade_continuous"] for answer in expected], abs=1e-4
    )


def as_dicom(photograph):
    grey = cv2.imdecode(np.frombuffer(photograph, np.uint8), cv2.IMREAD_GRAYSCALE)
    return dicom(grey, {"id": "1", "age": "050Y", "sex": "F", "view": "PA"})


def encoded(images):
    return json.dumps({"images": [base64.b64encode(image).decode() for image in images]})


@pytest.mark.servers
def test_under_azures_server_score_py_refuses_with_a_status_and_a_reason(server, photographs):
    def refused(*given):
        status, answer = post(server, *given)
        return status, answer.get("reason"), answer["error"]

    assert refused(b"text")[:2] == (415, "unsupported")
    assert refused(b"")[:2] == (422, "empty")
    assert refused(photographs[0][:1500])[:2] == (422, "truncated")
    status, reason, message = refused(encoded([photographs[0], b"text"]), "application/json")
    assert (status, reason) == (415, "unsupported")
    assert message.startswith("image 2: ")
    assert refused("{", "application/json") == (
        400,
        None,
        'the body is no JSON of the form {"images": ["<base64>", ...]}; send that',
    )
    assert refused("[" * 100_000, "application/json")[0] == 400
    many = refused(encoded(65 * [photographs[0]]), "application/json")
    assert many == (400, None, "the list has 65 images; send up to 64 in one request")
    assert refused(photographs[0], "text/plain")[0] == 415
    assert refused(b"\xff\xd8\xff" + bytes(33 << 20))[:2] == (413, "too_large")
    assert server.get("/score").status_code == 405
    assert post(server, photographs[0])[0] == 200, "it goes on working"
