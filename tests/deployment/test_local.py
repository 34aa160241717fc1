"""A deployment lives on its own: it is found again, seen to crash, and deleted for good."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from medic.cli import main
from medic.deployment.bundle import Bundle, package
from medic.deployment.counts import measure, read_counts
from medic.deployment.drift import Reference
from medic.deployment.targets import local
from medic.errors import MedicError
from medic.files import write_json

pytestmark = pytest.mark.servers


@pytest.fixture
def space(tmp_path):
    """A space whose deployments are gone after the test, whatever it did."""
    folder = tmp_path / "a space"
    yield folder
    for deployment in local.deployments(folder):
        deployment.delete()


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_five_verbs(bundle, space, photographs):
    stored = local.store(bundle, space)
    assert stored.folder == space / "bundles" / bundle.manifest.version
    assert local.store(bundle.archive, space).folder == stored.folder
    with local.deploy(stored, space) as deployment:
        assert str(deployment).endswith("ready")
        assert [found.name for found in local.deployments(space)] == [deployment.name]
        expected = bundle.predictor().predict(photographs[:4])
        np.testing.assert_allclose(deployment.score(photographs[:4]).probabilities, expected.probabilities, atol=1e-4)
        # The first worker may answer before the process that started it has said so.
        wait_for(lambda: "Not a medical device" in deployment.log.read_text())
        with pytest.raises(MedicError, match="leave the port away"):
            local.deploy(stored, space, name=deployment.name, port=9)
    assert deployment.status() == "stopped"
    assert not psutil.pid_exists(deployment.pid)
    assert local.deployments(space) == []
    assert Bundle.load(stored.folder).verify() <= 1e-4, "the stored bundle stays"
    with pytest.raises(MedicError, match="delete failed"):
        deployment.delete()
    with pytest.raises(MedicError, match="no service answers"):
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

        def counted() -> int:
            files = list(deployment.folder.glob("drift-*.jsonl"))
            return sum(sum(counts["decided"]) for counts in read_counts(files)[1].values()) if files else 0

        wait_for(lambda: counted() == 3)  # a worker writes within ten seconds
        monkeypatch.setattr("sys.argv", ["medic", "drift", deployment.name, "--space", str(space)])
        with pytest.raises(SystemExit, match="0"):
            main()
    assert capsys.readouterr().out.splitlines()[-6].startswith("nothing moved; too few images yet to be sure of")


def test_a_deployment_outlives_its_program_and_its_crash_and_is_exchanged(bundle, space, photographs):
    program = (
        "import sys, pathlib; from medic.deployment.targets import local;"
        "print(local.deploy(sys.argv[1], pathlib.Path(sys.argv[2]), name='eyes').url)"
    )
    command = [sys.executable, "-c", program, str(bundle.archive), str(space)]
    url = subprocess.check_output(command, text=True).strip()
    first = local.find("eyes", space)
    assert (first.url, first.status(), len(first.score(photographs[:2]))) == (url, "ready", 2)
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: first.status() == "crashed")
    again = local.deploy(bundle, space, name="eyes")
    assert (again.url, again.status()) == (url, "ready"), "started again at the same port"
    assert again.pid != first.pid
    assert local.deploy(bundle, space, name="eyes").pid == again.pid, "exchanged while it runs"
    again.delete(bundle=True)
    assert (again.status(), list((space / "bundles").iterdir())) == ("stopped", [])


def test_a_process_number_that_is_now_another_programs_is_left_alone(space):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        folder = space / "deployments" / "stale"
        write_json(folder / local.RECORD, {"url": "http://127.0.0.1:9", "pid": other.pid})
        (folder / local.LINK).symlink_to("no bundle")
        (folder / "server.log").touch()
        stale = local.find("stale", space)
        assert stale.status() == "crashed"
        stale.delete()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_server_that_cannot_start_leaves_its_reason_and_can_be_started_again(bundle, space, monkeypatch):
    stored = local.store(bundle, space)
    monkeypatch.setattr(local.LOCAL, "_put", lambda *_: stored)
    sound = (stored.folder / "model.onnx").read_bytes()
    (stored.folder / "model.onnx").write_bytes(b"damaged")
    said = r"eyes is crashed .the end of its log:\n(?s:.*)changed or damaged at model\.onnx(?s:.*)medic delete eyes"
    with pytest.raises(MedicError, match=said):
        local.deploy(bundle, space, name="eyes")
    failed = local.find("eyes", space)
    (stored.folder / "model.onnx").write_bytes(sound)
    again = local.deploy(bundle, space, name="eyes")
    assert (failed.state, again.state, again.url) == ("crashed", "ready", failed.url)
    # Another one: a worker of the sound one may still be loading it.
    other = Path(shutil.copytree(stored.folder, stored.folder.with_name("other")))
    (other / "model.onnx").write_bytes(b"damaged")
    monkeypatch.setattr(local.LOCAL, "_put", lambda *_: SimpleNamespace(manifest=SimpleNamespace(version="other")))
    with pytest.raises(MedicError, match=r"did not take the bundle; (?s:.*)changed or damaged at model\.onnx"):
        local.deploy(bundle, space, name="eyes")
    wait_for(lambda: again.status() == "ready")
    found = local.find("eyes", space)
    assert (found.pid, found.bundle) == (again.pid, again.bundle)


def test_spaces_have_names_below_one_folder_and_hold_sound_bundles(bundle, copied, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDIC_SPACES", str(tmp_path / "spaces"))
    local.store(bundle, "demo")
    folder = tmp_path / "spaces" / "demo"
    assert (folder / "bundles" / bundle.manifest.version).is_dir()
    for wrong in (lambda: local.deploy(bundle, "demo", name="../up"), lambda: local.store(bundle, "..")):
        with pytest.raises(MedicError, match="is no name"):
            wrong()
    with pytest.raises(MedicError, match=f"the space {folder} has no deployment 'x'; there is: none; .*--space"):
        local.find("x", "demo")
    (copied / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(MedicError, match="changed or damaged"):
        local.store(copied, tmp_path / "new")
    assert not (tmp_path / "new").exists()
