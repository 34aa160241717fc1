"""The training benchmark: every way takes its step, every peer trains, and what cannot run is listed with the reason.

Nothing here asserts a speed: that is for benchmarks/training.py on a quiet machine.
"""

import gc
import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _frozen() -> Iterator[None]:
    """Benchmarks collect garbage before they time anything; what the tests so far have left is not theirs to search."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def script(repository: Path, monkeypatch: pytest.MonkeyPatch):
    """A file of benchmarks/ as a module, found as it is when the benchmark runs."""
    monkeypatch.syspath_prepend(repository / "benchmarks")
    return importlib.import_module


@pytest.fixture
def small(script, sample: Path, tmp_path: Path):
    """The peers' orchestration, and a job of seconds for all of them, with one thread: the cores are shared here."""
    peers = script("training_peers")
    extent = peers.Extent(16, 8, epochs=1, rounds=1, batch_size=8, size=32)
    return peers, replace(peers.prepare_photographs(sample.parent, tmp_path / "prepared", extent), threads=1)


def test_the_step_of_fit_is_timed_between_those_written_out(script):
    step = script("training_step")
    table, _ = step.compare(step.Work("resnet18", 32, 2, 3))
    rows = {row.method.split(", ")[1]: row for row in table}
    assert {step.REFERENCE, "fp32 channels_last", "limit: forward and backward alone", step.OURS} <= set(rows)
    assert all(0 < row.low <= row.value <= row.high for row in table)
    assert rows[step.REFERENCE].ratio == 1


def test_the_gpu_part_runs_its_whole_path_on_a_small_network(script, sample: Path):
    device = script("training_device")
    setup = device.Setup("resnet18", 32, 40, 8, published_seconds=900)
    extent = device.Extent(images=8, epochs=2, rounds=2, steps=1, workers=0, compiles=(False,))
    table, notes = device.compare((setup,), sample.parent, torch.device("cpu"), extent)
    assert {row.metric for row in table} == {
        "bf16_peak_tflops",
        "images_per_s",
        "share_of_bf16_peak",
        "s_per_epoch_of_5000",
        "share_waiting_for_images",
    }
    epoch = next(row for row in table if row.metric == "s_per_epoch_of_5000")
    assert epoch.target == 900
    assert epoch.ratio == pytest.approx(900 / epoch.value)
    assert "measured" in notes[0], "a card that is not in the table has its peak measured, and it is said"


def test_what_the_peak_of_a_known_card_rests_on_is_said(script, monkeypatch: pytest.MonkeyPatch):
    device = script("training_device")
    for name, tera in (("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA H200 NVL", 835), ("NVIDIA L40S", 362)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
        most, source = device.peak(torch.device("cuda"))
        assert most == tera * 1e12
        assert source.startswith("data sheet")


@pytest.mark.slow
def test_peers_without_their_environment_are_listed_empty_with_the_reason(small, tmp_path: Path, monkeypatch):
    peers, job = small
    monkeypatch.setattr(peers, "ENVIRONMENT", tmp_path / "absent")
    table, notes = peers.compare(job, tmp_path, 1, install=False)
    values = {row.method.split(" (")[0]: row.value for row in table if row.metric == peers.OVER_EPOCHS}
    assert [values.pop(method) for method in peers.OTHERS] == [None, None]
    assert list(values) == list(peers.OWN)
    assert all(value > 0 for value in values.values())
    assert notes[0].startswith("fastai and timm-style loop did not run")


@pytest.mark.slow
def test_fastai_and_timm_train_in_their_own_environment(small, tmp_path: Path):
    peers, job = small
    if not (peers.ENVIRONMENT / "ready").is_file():
        pytest.skip("the peers' environment is not made; run benchmarks/training.py without --quick once")
    python = str(peers.make_environment(install=False))
    for module in peers.OTHERS.values():
        answer = peers.run_peer([python, "-m", f"peers.{module}"], job, tmp_path, threads=1)
        assert len(answer["seconds"]) == 1
        assert len(answer["decided"]) == len(job.validation)
        assert module.removesuffix("_loop") in answer["with"]


@pytest.mark.slow
def test_two_processes_share_the_same_training(small, tmp_path: Path):
    peers, job = small
    command = [*peers.launcher(2), "-m", "peers.medic_fit"]
    assert command[0] == sys.executable
    answer = peers.run_peer(command, job, tmp_path, threads=1)
    assert len(answer["decided"]) == len(job.validation)
