"""IBM's real client against a stand-in on loopback: the five verbs, call by call, and what is left when one fails."""

import json
import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

from medic.cli import app
from medic.deployment.bundle import Bundle
from medic.deployment.stubs import watsonx as stand_in
from medic.deployment.stubs.server import CUT, Reply
from medic.deployment.stubs.watsonx import WatsonxStub, watsonx_stub
from medic.deployment.targets import find_target
from medic.deployment.targets.journal import DeploymentJournal, Thing
from medic.errors import ImageError, MedicError
from medic.task import CHEST_XRAY_BINARY

pytestmark = pytest.mark.servers
watsonx = find_target("watsonx")

MODEL = f"/ml/v4/models/{stand_in.UUID}"
DEPLOYMENT = f"/ml/v4/deployments/{stand_in.UUID}"
ASSET = f"/v2/assets/{stand_in.UUID}"
VARIABLES = ("URL", "APIKEY", "USERNAME", "PASSWORD", "VERSION", "INSTANCE_ID", "AUTH_URL", "PLATFORM_URL")


def enter(stub: WatsonxStub, monkeypatch: pytest.MonkeyPatch, folder: Path) -> WatsonxStub:
    for name in [*(f"WATSONX_{name}" for name in VARIABLES), "USER_ACCESS_TOKEN"]:
        monkeypatch.delenv(name, raising=False)
    for name, value in {**stub.environment, "MEDIC_JOURNALS": str(folder)}.items():
        monkeypatch.setenv(name, value)
    return stub


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    """IBM Cloud's stand-in, and the environment that points at it; journals go into the test's folder."""
    with watsonx_stub() as stub:
        yield enter(stub, monkeypatch, tmp_path / "journals")


@pytest.fixture
def refused(cloud, bundle):
    """Deploys, expects to fail, and gives the message; no secret is in it, in its causes or in the journal."""

    def deploy(**settings) -> str:
        with pytest.raises(MedicError) as caught:
            watsonx.deploy(bundle, "demo", "eyes", watsonx.Settings(poll=0.02, **settings))
        told = "".join(traceback.format_exception(caught.value))
        assert stand_in.KEY not in told
        assert cloud._token not in told
        return str(caught.value)

    return deploy


def pages() -> list[Path]:
    return sorted(Path(os.environ["MEDIC_JOURNALS"]).rglob("*.json"))


def clean_up(name: str) -> str:
    """The command that messages give."""
    return f"MEDIC_JOURNALS={os.environ['MEDIC_JOURNALS']} medic delete {name} --target watsonx --space demo"


def test_the_five_verbs_call_by_call(cloud, bundle, photographs, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    stored = watsonx.store(bundle, "demo")
    assert list(cloud.models) == [stored.id]
    (sign_in,) = cloud.made("POST", "/identity/token")
    assert parse_qs(sign_in.body.decode())["apikey"] == [stand_in.KEY]
    assert cloud.made("GET", "/v2/spaces")[0].query["name"] == ["demo"]
    assert cloud.made("GET", "/v2/software_specifications")[0].query["name"] == ["onnxruntime_opset_19"]
    (created,) = cloud.made("POST", "/ml/v4/models")
    assert created.json()["type"] == "onnxruntime_1.16"
    assert created.json()["space_id"] == cloud.spaces["demo"]
    assert created.json()["schemas"]["input"][0]["fields"] == [
        {"name": "images", "type": "tensor(uint8)[-1,96,96,3]", "nullable": False}
    ]
    assert "Not a medical device" in created.json()["description"]
    (uploaded,) = cloud.made("PUT", f"{MODEL}/content")
    assert uploaded.query["content_format"] == ["native"]
    assert cloud.models[stored.id]["content"] == (bundle.folder / "model.onnx").read_bytes()
    assert cloud.models[stored.id]["name"] == f"medic retinopathy {bundle.manifest.version}"
    assert pages() == []

    with watsonx.deploy(bundle, "demo", "eyes") as deployment:
        assert len(cloud.made("POST", "/ml/v4/models")) == 1, "the same version is not uploaded twice"
        (created,) = cloud.made("POST", "/ml/v4/deployments")
        assert created.json()["asset"] == {"id": stored.id}
        assert (created.json()["online"], created.json()["hardware_spec"]) == ({}, {"name": "S"})
        assert created.json()["space_id"] == cloud.spaces["demo"]
        (identity,) = cloud.deployments
        assert deployment.journal.things == [Thing("deployment", identity)]
        assert deployment.url == f"{cloud.url}/ml/v4/deployments/{identity}/predictions"
        assert (deployment.status(), deployment.bundle) == ("ready", bundle.manifest.version)
        assert "ready" in deployment._repr_html_()

        expected = bundle.predictor(1).predict(photographs[:4])
        scored = deployment.score(photographs[:4])
        np.testing.assert_allclose(scored.probabilities, expected.probabilities, atol=1e-4)
        np.testing.assert_allclose(scored.grade, expected.grade, atol=1e-4)
        assert (scored.task, scored.thresholds) == (expected.task, expected.thresholds)
        (asked,) = cloud.made("POST", f"/ml/v4/deployments/{identity}/predictions")
        assert np.array(asked.json()["input_data"][0]["values"]).shape == (4, 96, 96, 3)
        with pytest.raises(MedicError, match=r"has a deployment 'eyes' on watsonx .*delete that first"):
            watsonx.deploy(bundle, "demo", "eyes")
        journal = deployment.journal.path.read_text()
    assert cloud.made("DELETE", f"/ml/v4/deployments/{identity}")
    assert (cloud.deployments, list(cloud.models)) == ({}, [stored.id]), "the stored bundle stays"
    assert (deployment.status(), pages()) == ("stopped", [])
    with pytest.raises(MedicError, match="deleted before"):
        deployment.delete()
    with pytest.raises(MedicError, match="the deployment 'eyes' is stopped; deploy the bundle again"):
        deployment.score(photographs[:1])

    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", ""), "the client's own prints clutter no notebook"
    assert not any(secret in journal + caplog.text for secret in (stand_in.KEY, cloud._token))


def test_another_program_finds_the_deployment_and_removes_its_bundle_too(cloud, bundle, photographs):
    watsonx.deploy(bundle, "demo", "eyes")
    cloud.models |= {f"{number:08x}-0000-0000-0000-000000000000": other("not ours") for number in range(3)}
    program = (
        "import sys; from medic.deployment.targets import watsonx; found = watsonx.find('eyes', 'demo');"
        "print([one.name for one in watsonx.deployments('demo')], found.status(), len(found.score(sys.argv[1:])));"
        "found.delete(bundle=True)"
    )
    photograph = Path(os.environ["MEDIC_JOURNALS"]).parent / "eye.jpeg"
    photograph.write_bytes(photographs[0])
    said = subprocess.check_output([sys.executable, "-c", program, str(photograph)], text=True)
    assert said.strip() == "['eyes'] ready 1"
    assert (cloud.deployments, len(cloud.models), pages()) == ({}, 3, [])
    assert cloud.made("DELETE", ASSET)[0].query["purge_on_delete"] == ["true"]
    with pytest.raises(MedicError, match="there is no deployment 'eyes' on watsonx in 'demo'; there is: none"):
        watsonx.find("eyes", "demo")


def test_the_same_on_the_command_line(cloud, bundle, photographs, tmp_path):
    (tmp_path / "eye.jpeg").write_bytes(photographs[0])
    there = ["--target", "watsonx", "--space", "demo"]

    def medic(*arguments: str) -> str:
        ended = CliRunner().invoke(app, [*arguments, *there], catch_exceptions=False)
        assert ended.exit_code == 0, ended.output
        return ended.output

    assert medic("store", str(bundle.folder)).startswith("model ")
    assert "eyes of bundle" in medic("deploy", str(bundle.folder), "--name", "eyes")
    assert "eyes of bundle" in medic("deployments")
    assert medic("status", "eyes").strip() == "ready"
    (row,) = map(json.loads, medic("score", "eyes", str(tmp_path / "eye.jpeg"), "--json").splitlines())
    assert row["grade"] == bundle.predictor(1).predict(photographs[:1]).decided[0]
    medic("delete", "eyes", "--bundle")
    assert (cloud.models, cloud.deployments, pages()) == ({}, {}, [])


def other(name: str) -> dict:
    return {"name": name, "type": "x", "software_spec": {"id": "x"}, "space_id": "x", "content": b""}


def test_a_stored_bundle_is_found_again_beyond_the_first_page_of_a_list(cloud, bundle):
    cloud.models |= {f"{number:08x}-0000-0000-0000-000000000000": other("not ours") for number in range(5)}
    first = watsonx.store(bundle, "demo")
    assert watsonx.store(bundle.archive, "demo") == first
    assert len(cloud.made("POST", "/ml/v4/models")) == len(cloud.made("PUT", f"{MODEL}/content")) == 1


def test_a_stored_bundle_stays_while_another_deployment_serves_it(cloud, bundle):
    one, two = watsonx.deploy(bundle, "demo", "one"), watsonx.deploy(bundle, "demo", "two")
    one.delete(bundle=True)
    assert (len(cloud.models), len(cloud.deployments)) == (1, 1)
    two.delete(bundle=True)
    assert (cloud.models, cloud.deployments, pages()) == ({}, {}, [])


def test_a_name_that_was_given_elsewhere_is_refused(cloud, bundle, refused):
    made = watsonx.deploy(bundle, "demo", "eyes")
    made.journal.close()
    told = refused()
    assert "the space 'demo' has a deployment 'eyes' (with the id" in told
    assert "choose another name" in told
    assert (len(cloud.deployments), pages()) == (1, [])


def test_requests_stay_small_and_answers_are_put_together(cloud, bundle, photographs, monkeypatch):
    monkeypatch.setattr(watsonx, "REQUEST_BYTES", 300_000)
    with watsonx.deploy(bundle, "demo") as deployment:
        scored = deployment.score(photographs[:5])
        asked = cloud.made("POST", f"{DEPLOYMENT}/predictions")
        assert [len(call.json()["input_data"][0]["values"]) for call in asked] == [2, 2, 1]
        assert max(len(call.body) for call in asked) < 300_000
        expected = bundle.predictor(1).predict(photographs[:5])
        np.testing.assert_allclose(scored.probabilities, expected.probabilities, atol=1e-4)


def test_an_image_that_cannot_be_read_is_named(cloud, bundle, photographs):
    with watsonx.deploy(bundle, "demo") as deployment:
        with pytest.raises(ImageError, match=r"^image 2: "):
            deployment.score([photographs[0], b"no image"])
        with pytest.raises(MedicError, match=r"cannot read absent\.jpeg"):
            deployment.score(["absent.jpeg"])
        with pytest.raises(MedicError, match="no image to score"):
            deployment.score([])
        assert cloud.made("POST", f"{DEPLOYMENT}/predictions") == []


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(429, {"errors": [{"message": "Too many requests."}]}), r"\(429: Too many requests\.\); wait"),
        (CUT, "the connection failed"),
        (Reply(200, {"predictions": [{"id": "other", "values": [[1]]}]}), "otherwise than with 1 rows"),
    ],
)
def test_a_scoring_that_fails_says_why_and_harms_nothing(cloud, bundle, photographs, reply, reason):
    with watsonx.deploy(bundle, "demo", "eyes") as deployment:
        cloud.fail("POST", f"{DEPLOYMENT}/predictions", reply)
        with pytest.raises(MedicError, match=reason):
            deployment.score(photographs[:1])
        assert len(deployment.score(photographs[:1])) == 1


@pytest.mark.parametrize("secret", ["WATSONX_APIKEY", "WATSONX_PASSWORD"])
def test_cloud_pak_for_data(monkeypatch, tmp_path, bundle, photographs, secret):
    with watsonx_stub(cloud=False) as stub:
        enter(stub, monkeypatch, tmp_path / "journals")
        if secret == "WATSONX_PASSWORD":
            monkeypatch.delenv("WATSONX_APIKEY")
            monkeypatch.setenv("WATSONX_PASSWORD", stand_in.PASSWORD)
        before = dict(os.environ)
        with watsonx.deploy(bundle, "demo", "eyes") as deployment:
            assert len(deployment.score(photographs[:1])) == 1
        assert dict(os.environ) == before, "a client of IBM Cloud can follow in the same program"
        signed_in = stub.made("POST", "/icp4d-api/v1/authorize")[0].json()
        assert signed_in["username"] == stand_in.USER
        assert ("password" in signed_in, "api_key" in signed_in) == (secret == "WATSONX_PASSWORD", secret[-3:] == "KEY")
        assert stub.made("POST", "/identity/token") == []
        monkeypatch.setenv(secret, "wrong-and-secret")
        with pytest.raises(
            MedicError, match=r"401: Wrong user name.*check the key or the password\. Nothing"
        ) as caught:
            watsonx.deploy(bundle, "demo", "eyes")
        assert "wrong-and-secret" not in "".join(traceback.format_exception(caught.value))
        assert pages() == []


def test_a_wrong_key(cloud, refused, monkeypatch):
    monkeypatch.setenv("WATSONX_APIKEY", "wrong-and-secret")
    told = refused()
    assert "cannot sign in" in told
    assert "Provided API key could not be found.); check the key" in told
    assert told.endswith("Nothing was created")
    cloud.fail("POST", "/identity/token", Reply(401, {"errorMessage": "wrong-and-secret is not known"}))
    told = refused()
    assert "(401: *** is not known); check the key or the password. Nothing was created" in told
    assert (pages(), cloud.made("GET")) == ([], [])


def test_a_space_that_is_not_there_and_those_that_are(cloud, bundle):
    with pytest.raises(MedicError, match=r"no space 'dmeo' \(there is: default, demo\).*Nothing was created"):
        watsonx.deploy(bundle, "dmeo", "eyes")
    assert (pages(), cloud.models) == ([], {})


def test_a_software_specification_that_is_not_there_and_those_that_run_onnx(cloud, refused):
    told = refused(software="onnxruntime_opset_20")
    assert "(there is: onnxruntime_opset_19, onnxruntime_opset_21); set MEDIC_WATSONX_SOFTWARE" in told
    assert told.endswith("Nothing was created")
    told = refused(type="onnxruntime_1.17")
    assert "400: Unsupported model type and software specification combination" in told
    assert (pages(), cloud.models) == ([], {})


QUOTA = Reply(429, {"errors": [{"code": "too_many", "message": "The plan's capacity is used up."}]})
SERVER = Reply(502, b"<html>Bad Gateway</html>")
REFUSED_POSTS = [("/ml/v4/models", "the model was not stored", 0), ("/ml/v4/deployments", "was not created", 1)]


@pytest.mark.parametrize(("path", "what", "models"), REFUSED_POSTS)
def test_a_quota_that_is_used_up(cloud, refused, path, what, models):
    cloud.fail("POST", path, QUOTA)
    told = refused()
    assert f"{what} (429: The plan's capacity is used up.); wait, delete deployments" in told
    assert len(cloud.made("POST", path)) == 1, "it is not asked again and again"
    assert len(cloud.models) == models
    if models:
        assert f"Created so far: model {next(iter(cloud.models))}; {clean_up('eyes')}" in told
        watsonx.find("eyes", "demo").delete()
    assert (cloud.models, cloud.deployments, pages()) == ({}, {}, [])


def test_a_deployment_that_fails_there(cloud, refused, photographs):
    cloud.reason = "The runtime ran out of memory."
    told = refused()
    (model,), (identity,) = cloud.models, cloud.deployments
    assert "the deployment failed there (The runtime ran out of memory.)" in told
    assert f"Created so far: model {model}, deployment {identity}; {clean_up('eyes')} removes it" in told
    deployment = watsonx.find("eyes", "demo")
    assert deployment.status() == "crashed"
    with pytest.raises(MedicError, match="gave no scores"):
        deployment.score(photographs[:1])
    deployment.delete()
    deleted = [call.path for call in cloud.made("DELETE")]
    assert deleted == [f"/ml/v4/deployments/{identity}", f"/v2/assets/{model}"]
    assert (cloud.models, cloud.deployments, pages()) == ({}, {}, [])


def test_a_graph_that_the_runtime_cannot_load_fails_there(cloud, copied):
    import onnx

    bundle = Bundle.load(copied)
    graph = onnx.load(bundle.folder / "model.onnx")
    graph.ir_version = 10
    onnx.save(graph, bundle.folder / "model.onnx")
    with pytest.raises(MedicError, match="reads IR 9 and opset 19, not 10 and 18"):
        watsonx.deploy(bundle, "demo", "eyes", watsonx.Settings(poll=0.02))
    watsonx.find("eyes", "demo").delete()
    assert (cloud.models, cloud.deployments) == ({}, {})


def test_time_runs_out_but_the_deployment_is_not_lost(cloud, refused):
    cloud.looks = 10**6
    told = refused(wait=0.1)
    (identity,) = cloud.deployments
    assert "was not ready in 0.1 seconds (last seen: initializing)" in told
    assert f"deployment {identity}; {clean_up('eyes')} removes it" in told
    deployment = watsonx.find("eyes", "demo")
    assert (deployment.status(), deployment.url) == ("starting", None)
    cloud.looks = 0
    assert deployment.status() == "ready"
    assert deployment.url.endswith(f"{identity}/predictions")
    deployment.delete()
    assert (len(cloud.models), cloud.deployments, pages()) == (1, {}, [])


def test_looks_that_fail_are_taken_again(cloud, bundle):
    cloud.looks = 4
    cloud.fail("GET", DEPLOYMENT, SERVER)
    cloud.fail("GET", DEPLOYMENT, CUT)
    cloud.fail("GET", DEPLOYMENT, QUOTA)
    assert watsonx.deploy(bundle, "demo", "eyes").url
    assert len(cloud.made("GET", DEPLOYMENT)) == 7


@pytest.mark.parametrize(("method", "path"), [("PUT", f"{MODEL}/content"), ("PATCH", MODEL)])
def test_the_network_is_cut_during_the_upload(cloud, refused, bundle, method, path):
    cloud.fail(method, path, CUT)
    told = refused()
    (model,) = cloud.models
    assert "the model was not stored (the connection failed" in told
    assert f"Created so far: model {model}; {clean_up('eyes')} removes it" in told
    assert watsonx.find("eyes", "demo").status() == "crashed"
    with pytest.raises(MedicError, match="not complete"):
        watsonx.find("eyes", "demo").score([b""])
    whole = watsonx.store(bundle, "demo")
    assert whole.id != model, "half a model is not taken for the bundle"
    watsonx.find("eyes", "demo").delete()
    assert (list(cloud.models), pages()) == ([whole.id], [])


def test_the_network_is_cut_while_storing_alone(cloud, bundle):
    cloud.fail("PUT", f"{MODEL}/content", CUT)
    name = f"bundle-{bundle.manifest.version}"
    with pytest.raises(MedicError, match=f"Created so far: model .*; {clean_up(name)}"):
        watsonx.store(bundle, "demo")
    with pytest.raises(MedicError, match="delete that first"):
        watsonx.store(bundle, "demo")
    watsonx.find(name, "demo").delete()
    assert (cloud.models, pages()) == ({}, [])
    watsonx.store(bundle, "demo")


@pytest.mark.parametrize("kind", ["model", "deployment"])
@pytest.mark.parametrize("still_cut", [False, True])
def test_what_was_created_although_its_answer_was_lost_is_found(cloud, refused, kind, still_cut):
    """The service does what it was asked, and the connection breaks before it can say so."""
    route = getattr(cloud, f"_create_{kind}")

    def lost(call, *_):
        route(call)
        if still_cut:
            cloud.fail("GET", f"/ml/v4/{kind}s", CUT)
        return SERVER

    cloud._routes.insert(0, ("POST", f"/ml/v4/{kind}s", lost))
    told = refused()
    created = cloud.models if kind == "model" else cloud.deployments
    assert len(created) == len(cloud.made("POST", f"/ml/v4/{kind}s")) == 1, "it is not created twice"
    assert (f"perhaps a {kind} named " if still_cut else f"{kind} {next(iter(created))}") in told
    watsonx.find("eyes", "demo").delete()
    assert (cloud.models, cloud.deployments, pages()) == ({}, {}, [])


@pytest.mark.parametrize("kind", ["model", "deployment"])
def test_what_was_created_just_before_the_program_ended_is_found(cloud, bundle, monkeypatch, kind):
    """The service does what it was asked; Ctrl-C or a power cut comes before the program has heard so."""
    handle_request = httpx.HTTPTransport.handle_request
    page = Path(os.environ["MEDIC_JOURNALS"]) / "watsonx" / "demo" / "eyes.json"
    last = []

    def interrupted(transport, request):
        answer = handle_request(transport, request)
        if (request.method, request.url.path) == ("POST", f"/ml/v4/{kind}s"):
            last.append(page.read_text())
            raise KeyboardInterrupt
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(httpx.HTTPTransport, "handle_request", interrupted)
        with pytest.raises(KeyboardInterrupt):
            watsonx.deploy(bundle, "demo", "eyes")
    assert len(cloud.models if kind == "model" else cloud.deployments) == 1
    assert last == [page.read_text()], "the page says the same where nothing could be written any more"
    found = watsonx.find("eyes", "demo")
    assert found.journal.things[-1].kind == f"perhaps a {kind} named"
    assert found.status() == "crashed"
    found.delete()
    assert (cloud.models, cloud.deployments, pages()) == ({}, {}, [])


def test_deployments_are_listed_with_what_there_is_of_them_while_the_service_cannot_be_asked(cloud, bundle):
    watsonx.deploy(bundle, "demo", "eyes")
    cloud.reason = "no memory"
    with pytest.raises(MedicError, match="no memory"):
        watsonx.deploy(bundle, "demo", "half")
    *_, identity = cloud.deployments
    cloud.fail("POST", "/identity/token", SERVER, times=-1)
    told = CliRunner().invoke(app, ["deployments", "--target", "watsonx", "--space", "demo"])
    assert told.exit_code == 0, told.output
    whole, half = told.output.splitlines()
    assert "/predictions: unknown (watsonx: cannot sign in" in whole
    assert f"on watsonx (deployment {identity}): unknown (watsonx: cannot sign in" in half
    shown = watsonx.find("half", "demo")._repr_html_()
    assert "unknown (watsonx: cannot sign in" in shown


def test_the_command_that_cleans_up_works_in_a_shell_that_knows_nothing_of_this_program(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDIC_JOURNALS", str(tmp_path / "my journals"))
    command = DeploymentJournal("watsonx", "my space", "eyes").clean_up
    medic = 'medic() { printf "%s\\n" "$MEDIC_JOURNALS" "$@"; }; '
    said = subprocess.check_output(["sh", "-c", medic + command], env={"PATH": os.environ["PATH"]}, text=True)
    assert said.splitlines() == [
        str(tmp_path / "my journals"),
        *("delete", "eyes", "--target", "watsonx", "--space", "my space"),
    ]
    monkeypatch.delenv("MEDIC_JOURNALS")
    assert DeploymentJournal("watsonx", "demo", "eyes").clean_up == "medic delete eyes --target watsonx --space demo"


def test_a_removal_that_fails_half_way_keeps_the_rest(cloud, refused):
    cloud.reason = "no memory"
    refused()
    (model,), (identity,) = cloud.models, cloud.deployments
    cloud.fail("DELETE", ASSET, SERVER)
    deployment = watsonx.find("eyes", "demo")
    with pytest.raises(MedicError, match=rf"the model {model} could not be removed \(502: .*medic delete eyes"):
        deployment.delete()
    assert cloud.deployments == {}
    assert DeploymentJournal.load("watsonx", "demo", "eyes").things == [Thing("model", model)]
    watsonx.find("eyes", "demo").delete()
    assert [call.path for call in cloud.made("DELETE", DEPLOYMENT)] == [f"/ml/v4/deployments/{identity}"]
    assert (cloud.models, pages()) == ({}, [])


def test_what_was_removed_there_by_hand_is_no_obstacle(cloud, bundle):
    deployment = watsonx.deploy(bundle, "demo", "eyes")
    cloud.deployments.clear()
    cloud.models.clear()
    assert deployment.status() == "stopped"
    deployment.delete(bundle=True)
    assert pages() == []


def test_a_deployment_is_looked_for_only_where_it_was_made(cloud, bundle, monkeypatch):
    deployment = watsonx.deploy(bundle, "demo", "eyes")
    with watsonx_stub() as elsewhere:
        for name, value in elsewhere.environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(MedicError, match=f"is at {cloud.url}, and WATSONX_URL names {elsewhere.url}"):
            deployment.delete()
        assert elsewhere.calls == []


def test_no_key_goes_to_a_server_that_is_not_trusted(cloud, refused, monkeypatch, tmp_path):
    monkeypatch.delenv("WX_CLIENT_VERIFY_REQUESTS")
    assert "its certificate is not trusted here); set WX_CLIENT_VERIFY_REQUESTS" in refused()
    monkeypatch.setenv("WX_CLIENT_VERIFY_REQUESTS", "false")
    assert "turns the check of certificates off" in refused()
    monkeypatch.setenv("WX_CLIENT_VERIFY_REQUESTS", str(tmp_path / "absent.pem"))
    assert "cannot read certificates from" in refused()
    assert (cloud.calls, pages()) == ([], [])


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"WATSONX_URL": ""}, "WATSONX_URL is not set; set it to the address"),
        ({"WATSONX_URL": "http://127.0.0.1"}, "WATSONX_URL is http://127.0.0.1; set it"),
        ({"WATSONX_APIKEY": ""}, "there is no key; set WATSONX_APIKEY"),
        ({"WATSONX_PLATFORM_URL": ""}, "for Cloud Pak for Data set WATSONX_USERNAME"),
        ({"WATSONX_USERNAME": "eve", "WATSONX_APIKEY": ""}, "set WATSONX_APIKEY or WATSONX_PASSWORD"),
    ],
)
def test_a_variable_that_is_missing_is_named(cloud, refused, monkeypatch, variables, told):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert told in refused()
    assert (cloud.calls, pages()) == ([], [])


def test_an_address_with_a_password_in_it_is_refused_and_not_repeated(cloud, refused, monkeypatch):
    for address in ("https://eve:hush-hush@cpd.example", "eve:hush-hush@cpd.example"):
        monkeypatch.setenv("WATSONX_URL", address)
        told = refused()
        assert "WATSONX_URL has a name or a password in it" in told
        assert "hush" not in told
    assert (cloud.calls, pages()) == ([], [])


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("MEDIC_WATSONX_SOFTWARE", "onnxruntime_opset_21")
    monkeypatch.setenv("MEDIC_WATSONX_TYPE", "onnxruntime_1.17")
    monkeypatch.setenv("MEDIC_WATSONX_HARDWARE", "M")
    monkeypatch.setenv("MEDIC_WATSONX_POLL_SECONDS", "0.5")
    monkeypatch.setenv("MEDIC_WATSONX_WAIT_SECONDS", "60")
    wanted = watsonx.Settings("onnxruntime_opset_21", "onnxruntime_1.17", "M", 0.5, 60)
    assert watsonx.Settings.from_environment() == wanted
    monkeypatch.setenv("MEDIC_WATSONX_POLL_SECONDS", "often")
    with pytest.raises(MedicError, match="MEDIC_WATSONX_POLL_SECONDS is 'often'; give a number"):
        watsonx.Settings.from_environment()


def test_an_operating_point_comes_back_with_the_scores():
    facts = {"task": CHEST_XRAY_BINARY.to_dict(), "thresholds": [0.3]}
    answer = {"predictions": [{"id": "probabilities", "values": [[0.6, 0.4], [0.8, 0.2]]}]}
    assert watsonx._prediction(answer, facts, 2).decided.tolist() == [1, 0]


def test_storing_a_bundle_does_not_load_its_graph(cloud, bundle, monkeypatch):
    def loaded(*_, **__):
        raise AssertionError("the operating point stands in the manifest")

    monkeypatch.setattr(onnxruntime, "InferenceSession", loaded)
    assert watsonx.store(bundle, "demo").id in cloud.models


def test_the_journal_can_be_read_and_holds_what_scoring_needs(cloud, bundle):
    deployment = watsonx.deploy(bundle, "demo", "eyes")
    facts = json.loads(deployment.journal.path.read_text())["facts"]
    assert facts["task"] == bundle.task.to_dict()
    assert facts["preprocessing"] == bundle.manifest.preprocessing.to_dict()
    assert (facts["bundle"], facts["thresholds"]) == (bundle.manifest.version, None)
    assert facts["service"] == cloud.url
