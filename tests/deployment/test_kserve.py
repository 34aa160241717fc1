"""A bundle on a KServe cluster: its files hold what a cluster asks for, and the five verbs drive the real clients."""

import copy
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from medic.deployment.bundle import Bundle
from medic.deployment.client import Client
from medic.deployment.stubs.kubernetes import kubernetes_stub
from medic.deployment.stubs.server import CUT, Reply
from medic.deployment.targets import find_target, kserve
from medic.deployment.targets.kserve.cluster_files import write_cluster_files
from medic.deployment.targets.kserve.container_image import (
    dockerfile,
    serving_packages,
    serving_requirements,
)
from medic.deployment.targets.kserve.inference_service import (
    TOKEN_FOLDER,
    ClusterSettings,
    inference_service,
    server_arguments,
)
from medic.deployment.targets.kserve.strict_manifest import check_manifest
from medic.errors import MedicError

SETTINGS = ClusterSettings("discs", "medic", "registry.example/medic:1", "s3://bundles/medic/bundles/0123")
SECRETS = "/api/v1/namespaces/medic/secrets"
SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/medic/inferenceservices"


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """A cluster on loopback that this test's environment points at."""
    monkeypatch.setenv("MEDIC_JOURNALS", str(tmp_path / "journals"))
    for variable in ("TOKEN", "MODE", "REPLICAS", "SERVICE_ACCOUNT", "UPLOADED"):
        monkeypatch.delenv(f"MEDIC_KSERVE_{variable}", raising=False)
    with kubernetes_stub() as stub:
        for variable, value in stub.environment.items():
            monkeypatch.setenv(variable, value)
        yield stub


def journal_file(tmp_path: Path) -> Path:
    return tmp_path / "journals" / "kserve" / "medic" / "discs.json"


def clean_up(name: str) -> str:
    """The command that messages give."""
    return f"MEDIC_JOURNALS={os.environ['MEDIC_JOURNALS']} medic delete {name} --target kserve --space medic"


def holds(cluster) -> set[str]:
    """What exists on the cluster, as kind and name."""
    return {f"{plural[:-1]} {name}" for _, plural, name in cluster.objects}


# --- the manifest -----------------------------------------------------------------------------------------------------


def test_the_target_of_this_name_uses_the_real_package_of_this_name():
    assert find_target("kserve") is kserve
    import kserve as package

    assert package is not kserve
    assert package.KServeClient.__module__.startswith("kserve.")


@pytest.mark.parametrize("mode", ["RawDeployment", "Serverless"])
def test_the_manifest_is_one_that_the_real_models_know(mode):
    manifest = inference_service(ClusterSettings(**{**vars(SETTINGS), "mode": mode, "service_account": "reader"}))
    from kubernetes.client import ApiClient

    assert ApiClient().sanitize_for_serialization(check_manifest(manifest)) == manifest, "nothing is lost in reading"
    assert manifest["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == mode


def test_the_container_has_no_rights_and_tells_how_it_is():
    predictor = inference_service(SETTINGS)["spec"]["predictor"]
    (container,) = predictor["containers"]
    assert container["name"] == "kserve-container"
    assert {"name": "STORAGE_URI", "value": SETTINGS.storage} in container["env"]
    assert container["args"][0] == "/mnt/models"
    security = container["securityContext"]
    assert security["runAsNonRoot"]
    assert security["readOnlyRootFilesystem"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp", TOKEN_FOLDER}
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness", "startup")}
    assert probes == {
        "liveness": "/v2/health/live",
        "readiness": "/v2/health/ready",
        "startup": "/v2/health/ready",
    }
    assert set(container["resources"]) == {"requests", "limits"}
    assert predictor["terminationGracePeriodSeconds"] == 30
    assert (predictor["minReplicas"], predictor["maxReplicas"], predictor["scaleMetric"]) == (1, 3, "cpu")
    assert predictor["annotations"]["prometheus.io/scrape"] == "true"
    assert predictor["automountServiceAccountToken"] is False


def test_knative_is_spared_what_it_refuses():
    predictor = inference_service(ClusterSettings(**{**vars(SETTINGS), "mode": "Serverless", "replicas": (0, 2)}))[
        "spec"
    ]["predictor"]
    assert len(predictor["containers"][0]["ports"]) == 1
    assert "terminationGracePeriodSeconds" not in predictor
    assert "securityContext" not in predictor, "it passes those of containers only"
    assert predictor["scaleMetric"] == "concurrency"


@pytest.mark.parametrize(
    ("place", "field", "value", "complaint"),
    [
        ("spec.predictor", "minReplica", 1, r"unknown field InferenceService\.spec\.predictor\.minReplica;"),
        ("spec.predictor.containers.0.readinessProbe.httpGet", "pathh", "/", r"containers\[0\]\.readinessProbe"),
        ("spec.predictor.containers.0.securityContext", "runAsNonroot", True, "unknown field"),
        ("spec.predictor", "minReplicas", "1", r"minReplicas should be int, it is '1'"),
        ("spec.predictor", "maxReplicas", True, r"maxReplicas should be int, it is True"),
        ("spec.predictor.containers.0.resources.limits", "cpu", 2, "cpu should be str, it is 2"),
        ("spec.predictor", "containers", {}, "containers should be a list"),
        ("metadata.labels", "stage", None, "stage is empty"),
        ("spec.predictor.volumes.0", "name", None, "name is empty"),
    ],
)
def test_a_field_that_is_misspelt_or_of_a_wrong_type_is_caught(place, field, value, complaint):
    manifest = copy.deepcopy(inference_service(SETTINGS))
    inner = manifest
    for step in place.split("."):
        inner = inner[int(step) if step.isdigit() else step]
    inner[field] = value
    with pytest.raises(MedicError, match=complaint):
        check_manifest(manifest)


def test_a_field_that_is_required_and_missing_is_caught():
    manifest = copy.deepcopy(inference_service(SETTINGS))
    del manifest["spec"]["predictor"]["volumes"][0]["name"]
    with pytest.raises(MedicError, match=r"volumes\[0\] does not fit V1Volume .*`name`, must not be `None`"):
        check_manifest(manifest)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"name": "Discs"}, "no name for an InferenceService"),
        ({"name": "x" * 41}, "up to 40"),
        ({"namespace": "../elsewhere"}, "no name for a namespace"),
        ({"mode": "ModelMesh"}, "no mode 'ModelMesh'"),
        ({"scale_metric": "rps"}, "RawDeployment cannot scale by 'rps'"),
        ({"replicas": (0, 1)}, "no range for RawDeployment; give 1 or more"),
        ({"replicas": (3, 2)}, "no range"),
        ({"replicas": (0, 0), "mode": "Serverless"}, "no range for Serverless; give 0 or more"),
    ],
)
def test_settings_that_a_cluster_would_refuse_are_refused_here(wrong, complaint):
    with pytest.raises(MedicError, match=complaint):
        ClusterSettings(**{**vars(SETTINGS), **wrong})


# --- the files --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(bundle, tmp_path_factory):
    return write_cluster_files(bundle, tmp_path_factory.mktemp("cluster") / "files", SETTINGS)


def test_the_files_for_a_cluster_are_written_whole_and_never_over_something_else(written, bundle, tmp_path):
    assert yaml.safe_load((written / "inference_service.yaml").read_text()) == inference_service(SETTINGS)
    steps = (written / "README.md").read_text()
    assert "docker build --tag registry.example/medic:1 image" in steps
    assert bundle.manifest.notice in steps
    again = write_cluster_files(bundle.archive, written, SETTINGS)
    assert again == written
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(MedicError, match="holds something else"):
        write_cluster_files(bundle, tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_image_runs_as_nobody_from_pinned_parts(written):
    lines = (written / "image" / "Dockerfile").read_text().splitlines()
    bases = [line for line in lines if line.startswith("FROM")]
    assert len(bases) == 2
    assert all(re.search(r"python:\d+\.\d+\.\d+-slim-\w+( AS packages)?$", line) for line in bases)
    assert "USER 10001:10001" in lines
    assert "--require-hashes" in "\n".join(lines)
    assert any(line.startswith("HEALTHCHECK") and "/v2/health/ready" in line for line in lines)
    entry = next(json.loads(line.removeprefix("ENTRYPOINT ")) for line in lines if line.startswith("ENTRYPOINT"))
    assert entry == ["python", "-m", "medic.deployment.service.server"]
    assert (written / "image" / ".dockerignore").read_text().splitlines()[0] == "*"
    source = Path(kserve.__file__).parents[3]
    for name in ("deployment/service/server.py", "data/images/preprocess.py", "task.py"):
        assert (written / "image" / "medic" / name).read_bytes() == (source / name).read_bytes()
    assert not list((written / "image").rglob("__pycache__"))


def test_every_package_of_the_image_is_pinned_with_a_hash_and_none_of_them_is_torch(written):
    entries = re.split(r"\n(?=\w)", (written / "image" / "requirements.txt").read_text().strip())
    names = [Requirement(entry.split(" \\")[0]).name for entry in entries]
    assert names == serving_packages()
    assert {"kserve", "onnxruntime", "numpy", "opencv-python-headless", "uvicorn"} <= set(names)
    assert not [name for name in names if re.match(r"torch|nvidia|cuda|triton|lightning|jax", name)]
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+ \\\n", entry), entry[:60]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:60]


def test_without_a_lock_the_installed_versions_are_taken_and_a_lock_with_a_gap_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("medic.deployment.targets.kserve.container_image._repository", lambda: tmp_path)
    assert f"numpy=={importlib.metadata.version('numpy')}\n" in serving_requirements()
    assert "--require-hashes" not in dockerfile(hashes=False)
    (tmp_path / "lock.txt").write_text("numpy==2.4.6 \\\n    --hash=sha256:00\n")
    with pytest.raises(MedicError, match=r"lock\.txt lacks .*kserve.*; run make lock"):
        serving_requirements(tmp_path / "lock.txt")
    with pytest.raises(MedicError, match="cannot read the lock"):
        serving_requirements(tmp_path / "nothing.txt")


RESTRICTED = """
import importlib.abc, json, os, pathlib, sys
class Refuse(importlib.abc.MetaPathFinder):
    refused = set(json.loads(os.environ["REFUSED"]))
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in self.refused:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)
sys.meta_path.insert(0, Refuse())
pathlib.Path(__file__).with_name(f"restricted-{os.getpid()}").touch()
"""


@pytest.mark.servers
def test_the_server_answers_with_the_packages_of_the_image_and_the_arguments_of_the_manifest(
    bundle, photographs, tmp_path
):
    allowed = {*serving_packages(), "medic"}
    refused = [
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & allowed
    ]
    assert {"torch", "sklearn", "matplotlib", "typer", "pytest"} <= set(refused)
    token = tmp_path / "token"
    token.write_text("a-token-for-this-test-alone")
    # Python reads it at every start, and so it binds the server's own child processes, too.
    (tmp_path / "sitecustomize.py").write_text(RESTRICTED)
    here = {"8080": "0", "8081": "0", f"{TOKEN_FOLDER}/token": str(token), "0.0.0.0": "127.0.0.1", "2": "1"}
    arguments = [here.get(argument, argument) for argument in server_arguments(str(bundle.folder))]
    server = subprocess.Popen(
        [sys.executable, "-m", "medic.deployment.service.server", *arguments],
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "log").open("wb"),
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "REFUSED": json.dumps(refused)},
    )
    try:
        said = server.stdout.readline()
        assert "serving" in said, (tmp_path / "log").read_text()[-2000:]
        url = re.search(r"http://127\.0\.0\.1:\d+", said).group()
        assert len(list(tmp_path.glob("restricted-*"))) >= 2, "the server and its worker are both bound"
        with httpx.Client(base_url=url, trust_env=False) as anyone:
            assert anyone.get("/v2/health/live").status_code == 200, "probes carry no token"
            assert anyone.get("/v2/health/ready").status_code == 200
            assert anyone.post("/predict", content=photographs[0]).status_code == 401
        with Client(url, headers={"Authorization": f"Bearer {token.read_text()}"}) as client:
            answered = client.score(photographs[:2])
        expected = bundle.predictor().predict(photographs[:2])
        np.testing.assert_allclose(answered.probabilities, expected.probabilities, atol=1e-4)
    finally:
        server.terminate()
        server.wait(30)


PARSE = """
import sys
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
config = text_format.Parse(open(sys.argv[1]).read(), model_config_pb2.ModelConfig())
print(json_format.MessageToJson(config, preserving_proto_field_name=True))
"""


def test_triton_finds_the_graph_and_its_config_says_what_the_graph_has(written, bundle):
    model = written / "model_repository" / "discs"
    # In a process of its own: Triton's messages and KServe's have the same names, and one process takes only one.
    parsed = subprocess.check_output([sys.executable, "-c", PARSE, str(model / "config.pbtxt")], text=True)
    config = json.loads(parsed)
    assert (config["name"], config["platform"], config["max_batch_size"]) == ("discs", "onnxruntime_onnx", 16)
    assert config["dynamic_batching"]["preferred_batch_size"] == [4, 16]
    assert (model / "1" / "model.onnx").read_bytes() == (bundle.folder / "model.onnx").read_bytes()

    def stated(tensors):
        assert all(tensor["dims"] for tensor in tensors), "Triton takes no tensor without a size"
        shapes = [tensor["reshape"].get("shape", []) if "reshape" in tensor else tensor["dims"] for tensor in tensors]
        return {
            tensor["name"]: (tensor["data_type"], [int(size) for size in shape])
            for tensor, shape in zip(tensors, shapes, strict=True)
        }

    def real(tensors):
        kinds = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
        return {
            tensor.name: (kinds[tensor.type], [size if isinstance(size, int) else -1 for size in tensor.shape[1:]])
            for tensor in tensors
        }

    graph = onnxruntime.InferenceSession(str(model / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    assert stated(config["input"]) == real(graph.get_inputs()) == {"images": ("TYPE_UINT8", [96, 96, 3])}
    assert stated(config["output"]) == real(graph.get_outputs())
    labelled = {tensor["name"]: tensor["label_filename"] for tensor in config["output"] if "label_filename" in tensor}
    assert labelled == {"probabilities": "labels.txt"}
    assert (model / "labels.txt").read_text().splitlines() == list(bundle.task.classes)


# --- the five verbs ---------------------------------------------------------------------------------------------------


def test_the_five_verbs(cluster, bundle, photographs, tmp_path):
    stored = kserve.store(bundle, "medic")
    assert stored.uri == f"pvc://bundles/medic/medic/bundles/{bundle.manifest.version}"
    assert Bundle.load(stored.folder).manifest.version == bundle.manifest.version
    with kserve.deploy(bundle.archive, "medic", "discs") as deployment:
        assert holds(cluster) == {"secret discs-token", "inferenceservice discs"}
        assert deployment.status() == "ready"
        assert [str(found.journal) for found in kserve.deployments("medic")] == [
            "secret discs-token, inferenceservice discs"
        ]
        answered = kserve.find("discs", "medic").score(photographs[:4])
        expected = bundle.predictor().predict(photographs[:4])
        np.testing.assert_allclose(answered.probabilities, expected.probabilities, atol=1e-4)
        np.testing.assert_allclose(answered.grade, expected.grade, atol=1e-4)
        with pytest.raises(MedicError, match="has an InferenceService discs; delete that first"):
            kserve.deploy(bundle, "medic", "discs")
        with pytest.raises(MedicError, match="refused with 422"):
            deployment.score([b"no image"])
    assert deployment.status() == "stopped"
    assert holds(cluster) == set()
    assert not journal_file(tmp_path).exists()
    assert stored.folder.is_dir(), "the stored bundle stays"
    with pytest.raises(MedicError, match="deleted before"):
        deployment.delete()
    with pytest.raises(MedicError, match="the deployment 'discs' is stopped; deploy the bundle again"):
        deployment.score(photographs[:1])

    posted = [(call.path, call.json()) for call in cluster.calls if call.method == "POST"]
    assert [path for path, _ in posted] == [SECRETS, SERVICES]
    service = posted[1][1]
    assert service["spec"]["predictor"]["containers"][0]["env"] == [{"name": "STORAGE_URI", "value": stored.uri}]
    assert service["spec"]["predictor"]["containers"][0]["image"] == "registry.example/medic:stub"
    mark = service["metadata"]["labels"]["medic/deployment"]
    assert posted[0][1]["metadata"]["labels"]["medic/deployment"] == mark
    gone = [call.path for call in cluster.calls if call.method == "DELETE"]
    assert gone == [f"{SERVICES}/discs", f"{SECRETS}/discs-token"]
    scored = cluster.ingress.calls
    assert [str(call) for call in scored[:5]] == ["GET /", *["POST /predict"] * 4]
    assert {call.headers["host"] for call in scored} == {"discs.medic.cluster.example"}
    assert all(call.headers["authorization"].startswith("Bearer ") for call in scored)
    assert scored[1].body == photographs[0]


def test_two_deployments_of_a_bundle_share_it_until_the_last_is_deleted(cluster, bundle):
    first = kserve.deploy(bundle, "medic", "first")
    second = kserve.deploy(bundle, "medic", "second")
    folder = kserve.store(bundle, "medic").folder
    first.delete(bundle=True)
    assert folder.is_dir()
    assert second.status() == "ready"
    second.delete(bundle=True)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("change", "uri", "advice"),
    [
        ({"MEDIC_KSERVE_STORAGE": None}, "pvc://bundles/medic/medic/bundles/{}", "rm -r MOUNT/medic/medic/bundles/{}"),
        ({"MEDIC_KSERVE_MOUNT": None}, "pvc://bundles/medic/medic/bundles/{}", "a pod that mounts the claim bundles"),
        ({"MEDIC_KSERVE_MOUNT": "/nowhere/at/all"}, "pvc://bundles/medic/medic/bundles/{}", "the claim bundles"),
        ({"MEDIC_KSERVE_STORAGE": "pvc://another"}, "pvc://bundles/medic/medic/bundles/{}", "the claim bundles"),
        ({}, "s3://bucket/medic/bundles/{}", "run aws s3 rm --recursive s3://bucket/medic/bundles/{}"),
        ({}, "gs://bucket/medic/bundles/{}", "run gcloud storage rm --recursive gs://bucket/medic/bundles/{}"),
        ({}, "file:///our%20store/medic/bundles/{}", "run rm -r '/our store/medic/bundles/{}' on the machine"),
        ({}, "https://host.example/medic/bundles/{}.tar.gz", "remove it there with that server's own tool"),
    ],
)
def test_a_stored_bundle_that_is_out_of_reach_is_named_when_its_deployment_is_deleted(
    cluster, bundle, monkeypatch, tmp_path, change, uri, advice
):
    deployment = kserve.deploy(bundle, "medic", "discs")
    version = bundle.manifest.version
    deployment.journal.know(storage=uri.format(version))
    for variable, value in change.items():
        monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
    with pytest.raises(MedicError) as raised:
        deployment.delete(bundle=True)
    told = str(raised.value)
    assert told.startswith(
        f"kserve: the deployment discs is deleted, but its bundle still lies at {uri.format(version)}; "
    )
    assert advice.format(version) in told
    assert holds(cluster) == set()
    assert not journal_file(tmp_path).exists()
    assert (cluster.folder / "claim" / "medic" / "bundles" / version).is_dir()


def test_the_settings_reach_the_manifest(cluster, bundle, photographs, monkeypatch):
    monkeypatch.setenv("MEDIC_KSERVE_MODE", "Serverless")
    monkeypatch.setenv("MEDIC_KSERVE_REPLICAS", "0-5")
    monkeypatch.setenv("MEDIC_KSERVE_SERVICE_ACCOUNT", "reader")
    monkeypatch.setenv("MEDIC_KSERVE_TOKEN", "chosen-by-the-person-here")
    with kserve.deploy(bundle, "medic") as deployment:
        assert re.fullmatch(r"retinopathy-[0-9a-f]{6}", deployment.name)
        (service,) = (call.json() for call in cluster.api.made("POST", SERVICES))
        predictor = service["spec"]["predictor"]
        assert (predictor["minReplicas"], predictor["maxReplicas"]) == (0, 5)
        assert predictor["serviceAccountName"] == "reader"
        assert "chosen-by-the-person-here" not in str(service)
        assert len(deployment.score(photographs[:1])) == 1
        monkeypatch.setenv("MEDIC_KSERVE_TOKEN", "another-than-the-one-there")
        with pytest.raises(MedicError, match="refused with 401"):
            deployment.score(photographs[:1])


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "message", "says", "left"),
    [
        (f"{SERVICES}/discs", 401, "Unauthorized", r"401: Unauthorized\); renew the credentials in KUBECONFIG", set()),
        (SECRETS, 403, 'secrets is forbidden: User "eve" cannot create', "ask for the right to use secrets", set()),
        (
            SERVICES,
            403,
            'inferenceservices "discs" is forbidden: exceeded quota: small, requested: count=1, used: count=3',
            "exceeded quota: small.*ask for a larger quota",
            {"secret discs-token"},
        ),
        (SERVICES, 429, "the server is busy", "429: the server is busy.*try again in a minute", {"secret discs-token"}),
        (SERVICES, 500, "etcd is ill", "500: etcd is ill.*try again in a minute", {"secret discs-token"}),
        (SERVICES, 409, '"discs" already exists', "choose another name", {"secret discs-token"}),
        (SERVICES, 422, "spec.predictor is invalid", "correct the settings", {"secret discs-token"}),
    ],
)
def test_a_refusal_says_why_what_was_created_and_how_to_remove_it(
    cluster, bundle, tmp_path, path, status, message, says, left
):
    cluster.refuse("GET" if path.endswith("discs") else "POST", path, status, message)
    with pytest.raises(MedicError, match=f"(?s)^kserve: .*{says}") as raised:
        kserve.deploy(bundle, "medic", "discs")
    assert holds(cluster) == left
    if not left:
        assert not journal_file(tmp_path).exists()
        return
    assert f"Created so far: secret discs-token; {clean_up('discs')} removes it" in str(raised.value)
    kserve.find("discs", "medic").delete()
    assert holds(cluster) == set()
    assert not journal_file(tmp_path).exists()


def test_a_wrong_token_in_the_kubeconfig_is_seen_before_anything_is_stored(cluster, bundle, tmp_path):
    config = cluster.folder / "kubeconfig"
    config.write_text(config.read_text().replace(cluster.token, "wrong"))
    with pytest.raises(MedicError, match=r"401: Unauthorized.*renew the credentials") as raised:
        kserve.deploy(bundle, "medic", "discs")
    assert "wrong" not in str(raised.value)
    assert list((cluster.folder / "claim").iterdir()) == []
    assert not journal_file(tmp_path).exists()


def test_a_namespace_that_is_not_there_leaves_nothing(cluster, bundle, tmp_path):
    with pytest.raises(MedicError, match=r'namespaces "other" not found\); make the namespace') as raised:
        kserve.deploy(bundle, "other", "discs")
    stored = kserve.store(bundle, "other")
    assert str(raised.value).endswith(f". Nothing was created; the bundle stays stored at {stored.uri}")
    assert not (tmp_path / "journals" / "kserve" / "other" / "discs.json").exists()


def test_a_cluster_without_kserve_is_told_from_a_name_that_is_free(cluster, bundle):
    cluster.fail("GET", f"{SERVICES}/discs", Reply(404, b"404 page not found"))
    with pytest.raises(MedicError, match="install KServe on the cluster"):
        kserve.deploy(bundle, "medic", "discs")


def test_a_service_that_fails_carries_the_cluster_s_own_words(cluster, bundle):
    cluster.failure = ("ModelLoadFailed", "the container ended with code 1: token has 3 letters")
    cluster.warnings = ['Failed to pull image "registry.example/medic:stub"']
    with pytest.raises(
        MedicError, match=r"discs failed \(ModelLoadFailed: the container ended.*Failed to pull"
    ) as raised:
        kserve.deploy(bundle, "medic", "discs")
    assert "Created so far: secret discs-token, inferenceservice discs" in str(raised.value)
    half = kserve.find("discs", "medic")
    assert half.status() == "crashed"
    with pytest.raises(MedicError, match="is crashed"):
        half.score([b"image"])
    half.delete()
    assert holds(cluster) == set()


def test_a_stored_bundle_that_was_damaged_is_not_served(cluster, bundle):
    stored = kserve.store(bundle, "medic")
    (stored.folder / "score.py").write_text("changed")
    with pytest.raises(MedicError, match=r"was changed or damaged at score\.py"):
        kserve.deploy(bundle, "medic", "discs")
    assert holds(cluster) == set()


def test_waiting_ends_and_the_deployment_may_still_become_ready(cluster, bundle, photographs, monkeypatch):
    cluster.ready_after = None
    cluster.warnings = ["0/3 nodes are available: 3 Insufficient cpu."]
    monkeypatch.setenv("MEDIC_KSERVE_WAIT_SECONDS", "0.2")
    with pytest.raises(MedicError, match=r"not ready in 0\.2 seconds \(PredictorNotReady.*Insufficient cpu") as raised:
        kserve.deploy(bundle, "medic", "discs")
    assert f"{clean_up('discs')} removes it" in str(raised.value)
    late = kserve.find("discs", "medic")
    assert late.status() == "starting"
    cluster.ready_after = 0
    assert len(late.score(photographs[:1])) == 1
    late.delete()


def test_a_hiccup_while_waiting_is_lived_through_but_a_lost_right_is_not(cluster, bundle):
    cluster.fail("GET", f"{SERVICES}/discs", Reply(503, b"upset"), times=2, after=1)
    kserve.deploy(bundle, "medic", "discs").delete()
    cluster.fail("GET", f"{SERVICES}/discs", Reply(403, {"message": "no more"}), after=1)
    with pytest.raises(MedicError, match=r"could not be watched \(403: no more.*Created so far: secret"):
        kserve.deploy(bundle, "medic", "discs")
    kserve.find("discs", "medic").delete()
    assert holds(cluster) == set()


def test_a_connection_cut_while_posting_forgets_nothing(cluster, bundle, tmp_path):
    """Whether the object was made nobody knows: the cluster is asked, and if it cannot say, it stays in the journal."""
    cluster.fail("POST", SERVICES, CUT)
    with pytest.raises(MedicError, match=r"discs could not be created \(the connection failed") as raised:
        kserve.deploy(bundle, "medic", "discs")
    assert "Created so far: secret discs-token; " in str(raised.value)
    assert len(cluster.api.made("POST", SERVICES)) == 1, "it is not sent twice"
    kserve.find("discs", "medic").delete()

    cluster.fail("POST", SERVICES, CUT)
    cluster.fail("GET", f"{SERVICES}/discs", CUT, times=4, after=1)
    with pytest.raises(MedicError, match="Created so far: secret discs-token, inferenceservice discs; "):
        kserve.deploy(bundle, "medic", "discs")
    kserve.find("discs", "medic").delete()
    assert holds(cluster) == set()
    assert not journal_file(tmp_path).exists()


def test_a_delete_that_fails_half_way_keeps_the_rest_in_the_journal(cluster, bundle, tmp_path):
    deployment = kserve.deploy(bundle, "medic", "discs")
    cluster.refuse("DELETE", f"{SERVICES}/discs", 403, "inferenceservices is forbidden")
    with pytest.raises(
        MedicError, match=f"Still there: secret discs-token, inferenceservice discs; {clean_up('discs')}"
    ):
        deployment.delete()
    assert deployment.status() == "ready", "it keeps its Secret for as long as it runs"
    cluster.refuse("DELETE", f"{SECRETS}/discs-token", 403, "secrets is forbidden")
    with pytest.raises(
        MedicError, match=r"secret discs-token could not be removed \(403.*Still there: secret discs-token;"
    ):
        deployment.delete()
    assert holds(cluster) == {"secret discs-token"}
    assert str(kserve.find("discs", "medic").journal) == "secret discs-token"
    assert deployment.status() == "stopped"
    kserve.find("discs", "medic").delete()
    assert holds(cluster) == set()
    assert not journal_file(tmp_path).exists()


def test_what_somebody_else_made_under_the_same_name_is_left_alone(cluster, bundle):
    deployment = kserve.deploy(bundle, "medic", "discs")
    cluster.objects["medic", "secrets", "discs-token"]["metadata"]["labels"] = {}
    deployment.delete()
    assert holds(cluster) == {"secret discs-token"}


def test_no_secret_is_written_or_said(cluster, bundle, monkeypatch, tmp_path):
    token = "a-secret-that-must-not-show"
    monkeypatch.setenv("MEDIC_KSERVE_TOKEN", token)
    deployment = kserve.deploy(bundle, "medic", "discs")
    shown = [journal_file(tmp_path).read_text(), str(deployment), deployment._repr_html_(), repr(deployment)]
    cluster.refuse("DELETE", f"{SECRETS}/discs-token", 500, "broken")
    with pytest.raises(MedicError) as raised:
        deployment.delete()
    monkeypatch.setenv("MEDIC_KSERVE_TOKEN", "too short")
    with pytest.raises(MedicError, match="16 to 200") as short:
        kserve.deploy(bundle, "medic", "other")
    shown += [str(raised.value), str(short.value)]
    encoded = cluster.objects["medic", "secrets", "discs-token"]["data"]["token"]
    for text in shown:
        assert not [secret for secret in (token, encoded, cluster.token, "too short") if secret in text]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"MEDIC_KSERVE_IMAGE": None}, "names no container image; write its files with .*docker build"),
        ({"MEDIC_KSERVE_STORAGE": None}, "set it to where the cluster reads bundles"),
        ({"MEDIC_KSERVE_STORAGE": "ftp://old"}, "one of pvc, s3, gs, https, file"),
        ({"MEDIC_KSERVE_STORAGE": "https://eve:hush@host.example"}, "has a name, a password or a query in it"),
        ({"MEDIC_KSERVE_STORAGE": "eve:hush@host.example/x"}, "has a name, a password or a query in it"),
        ({"MEDIC_KSERVE_STORAGE": "https://host.example/x?sig=hush"}, "has a name, a password or a query in it"),
        ({"MEDIC_KSERVE_MOUNT": "/nowhere/at/all"}, "there is no folder /nowhere/at/all"),
        ({"MEDIC_KSERVE_REPLICAS": "three"}, "such as 1-3"),
        ({"MEDIC_KSERVE_MODE": "Fast"}, "KServe has no mode 'Fast'"),
        ({"MEDIC_KSERVE_WAIT_SECONDS": "soon"}, "give a number of seconds"),
        ({"KUBECONFIG": "/nowhere/at/all"}, "set KUBECONFIG to the file of a cluster"),
    ],
)
def test_a_setting_that_is_missing_or_wrong_is_named(cluster, bundle, monkeypatch, change, complaint):
    for variable, value in change.items():
        monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
    with pytest.raises(MedicError, match=complaint) as raised:
        kserve.deploy(bundle, "medic", "discs")
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize(
    ("root", "command", "uri"),
    [
        ("s3://bucket/medic/", "run aws s3 cp --recursive", "s3://bucket/medic/medic/bundles/{}"),
        ("gs://bucket", "run gcloud storage rsync --recursive", "gs://bucket/medic/bundles/{}"),
        ("https://host.example", r"put .*discs\.tar\.gz at", "https://host.example/medic/bundles/{}.tar.gz"),
        ("pvc://claim", "set MEDIC_KSERVE_MOUNT", "pvc://claim/medic/bundles/{}"),
    ],
)
def test_storage_that_cannot_be_written_from_here_says_how_and_goes_on_once_it_is_done(
    bundle, monkeypatch, root, command, uri
):
    monkeypatch.setenv("MEDIC_KSERVE_STORAGE", root)
    monkeypatch.delenv("MEDIC_KSERVE_MOUNT", raising=False)
    monkeypatch.setenv("MEDIC_KSERVE_UPLOADED", "an older one")
    version = bundle.manifest.version
    with pytest.raises(MedicError, match=f"{command}.*MEDIC_KSERVE_UPLOADED={version}"):
        kserve.store(bundle, "medic")
    monkeypatch.setenv("MEDIC_KSERVE_UPLOADED", version)
    stored = kserve.store(bundle, "medic")
    assert (stored.uri, stored.folder) == (uri.format(version), None)
    assert stored.inside == ("/mnt/models/discs" if root.startswith("https") else "/mnt/models")


def test_a_file_uri_is_its_own_mount(bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDIC_KSERVE_STORAGE", f"file://{tmp_path}")
    stored = kserve.store(bundle, "medic")
    assert stored.folder == tmp_path / "medic" / "bundles" / bundle.manifest.version
    assert Bundle.load(stored.folder).verify() <= 1e-4
