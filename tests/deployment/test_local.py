"""A deployment lives on its own: it is found again, seen to crash, and deleted for good."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from medic.cli import main
from medic.deployment.bundle import Bundle, package
from medic.deployment.counts import measure, read_counts
from medic.deployment.drift import Reference
from medic.deployment.targets import local
from medic.errors import MedicError

pytestmark = pytest.mark.servers


@pytest.fixture
def space(tmp_path):
    """A space whose deployments are gone after the test, whatever it did."""
    folder = tmp_path / "a space"
    yield folder
    for deployment in local.deployments(folder):
        deployment.delete()


def test_the_five_verbs(bundle, space, photographs, capsys):
    stored = local.store(bundle, space)
    assert stored.folder == space / "bundles" / bundle.manifest.version
    assert local.store(bundle.archive, space).folder == stored.folder
    with local.deploy(stored, space) as deployment:
        assert deployment.status() == "ready"
        assert [found.name for found in local.deployments(space)] == [deployment.name]
        expected = bundle.predictor().predict(photographs[:4])
        np.testing.assert_allclose(deployment.score(photographs[:4]).probabilities, expected.probabilities, atol=1e-4)
        assert "ready" in deployment._repr_html_()
        # The first worker may answer before the process that started it has said so.
        deadline = time.monotonic() + 60
        while "Not a medical device" not in deployment.log.read_text():
            assert time.monotonic() < deadline, deployment.log.read_text()
            time.sleep(0.1)
        with pytest.raises(MedicError, match="leave the port away"):
            local.deploy(stored, space, name=deployment.name, port=9)
        pid = deployment.pid
    assert deployment.status() == "stopped"
    assert not psutil.pid_exists(pid)
    assert local.deployments(space) == []
    assert Bundle.load(stored.folder).verify() <= 1e-4, "the stored bundle stays"
    with pytest.raises(MedicError, match="deleted before"):
        deployment.delete()
    with pytest.raises(MedicError, match="is stopped"):
        deployment.score(photographs[:1])


def test_what_a_deployment_answers_is_counted_for_drift(
    classifier, exported, about, photographs, space, tmp_path, monkeypatch, capsys
):
    pixels = np.stack([classifier.preprocessing.pixels(data) for data in photographs])
    said = classifier.predict_pixels(pixels)
    seen = measure(photographs, pixels, said)
    about = replace(about, reference=Reference.fit(seen, said, said.decided, np.arange(len(said)), "test"))
    golden = [("0_left.jpeg", photographs[0])]
    bundle = package(exported.path, tmp_path / "counted", golden, about, archive=False)
    with local.deploy(bundle, space) as deployment:
        deployment.score(photographs[:3])
        deadline, counted = time.monotonic() + 60, 0
        while counted < 3:  # a worker writes within ten seconds
            assert time.monotonic() < deadline, f"{counted} of 3 answers were counted"
            time.sleep(0.1)
            if files := list(deployment.folder.glob("drift-*.jsonl")):
                counted = sum(sum(counts["decided"]) for counts in read_counts(files)[1].values())
        assert counted == 3
        monkeypatch.setattr("sys.argv", ["medic", "drift", deployment.name, "--space", str(space)])
        with pytest.raises(SystemExit, match="0"):
            main()
    assert capsys.readouterr().out.splitlines()[-6].startswith("nothing moved; too few images yet to be sure of")


def test_a_deployment_outlives_the_program_that_made_it_and_a_crash_is_seen(bundle, space, photographs):
    program = (
        "import sys, pathlib; from medic.deployment.targets import local;"
        "print(local.deploy(sys.argv[1], pathlib.Path(sys.argv[2]), name='mine').url)"
    )
    command = [sys.executable, "-c", program, str(bundle.archive), str(space)]
    url = subprocess.check_output(command, text=True).strip()
    found = local.find("mine", space)
    assert (found.url, found.status()) == (url, "ready")
    assert len(found.score(photographs[:2])) == 2
    os.kill(found.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while found.status() != "crashed" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found.status() == "crashed"
    with pytest.raises(MedicError, match="is crashed; deploy the bundle again"):
        found.score(photographs[:1])
    found.delete(bundle=True)
    assert found.status() == "stopped"
    assert list((space / "bundles").iterdir()) == []


def test_a_process_number_that_is_now_somebody_elses_is_left_alone(space):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        folder = space / "deployments" / "stale"
        stale = local.Deployment("stale", space, "http://127.0.0.1:9", "0" * 12, other.pid, 1.0, "2020-01-01")
        local.write_json(folder / local.RECORD, local._record(stale))
        assert stale.status() == "crashed"
        stale.delete()
        assert other.poll() is None
        assert not folder.exists()
    finally:
        other.kill()
        other.wait()


def test_a_server_that_cannot_start_leaves_its_reason_and_nothing_else(bundle, space, monkeypatch):
    stored = local.store(bundle, space)
    monkeypatch.setattr(local, "store", lambda *_: stored)
    (stored.folder / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(MedicError, match=r"end of its log:\nmedic: .*changed or damaged at model\.onnx"):
        local.deploy(bundle, space)
    assert list((space / "deployments").iterdir()) == []


def test_a_crashed_deployment_that_cannot_be_started_with_another_bundle_keeps_its_own(bundle, space, monkeypatch):
    first = local.deploy(bundle, space, name="eyes")
    os.kill(first.pid, signal.SIGKILL)
    first._child.wait()
    record = (first.folder / local.RECORD).read_bytes()
    stored = local.store(bundle, space)
    monkeypatch.setattr(local, "store", lambda *_: stored)
    graph = (stored.folder / "model.onnx").read_bytes()
    (stored.folder / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(MedicError, match=r"changed or damaged at model\.onnx"):
        local.deploy(bundle, space, name="eyes")
    (stored.folder / "model.onnx").write_bytes(graph)
    assert (first.folder / local.RECORD).read_bytes() == record
    assert (first.folder / local.LINK).resolve() == stored.folder.resolve()
    assert local.find("eyes", space).status() == "crashed"


def test_a_damaged_bundle_is_not_stored(copied, space):
    (copied / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(MedicError, match="changed or damaged"):
        local.store(copied, space)
    assert not space.exists()


def test_spaces_have_names_below_one_folder(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDIC_SPACES", str(tmp_path / "spaces"))
    local.store(bundle, "demo")
    assert (tmp_path / "spaces" / "demo" / "bundles" / bundle.manifest.version).is_dir()
    with pytest.raises(MedicError, match="is no name"):
        local.deploy(bundle, "demo", name="../up")
    with pytest.raises(MedicError, match="has no deployment 'x'; there is: none"):
        local.find("x", "demo")


def test_a_name_of_a_space_cannot_lead_out(bundle):
    with pytest.raises(MedicError, match="is no name"):
        local.store(bundle, "..")
    assert isinstance(local._folder("up/../and/away"), Path)
