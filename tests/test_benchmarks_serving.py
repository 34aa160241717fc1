"""The benchmarks of inference, serving and the series measure what they say; the page is made of their results."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"

RESULTS = """benchmark,method,metric,value,low,high,ratio,target,reached
serving,limit: bare onnxruntime,answers_per_s,100,98,101,1,,
serving,medic serve,answers_per_s,80,78,81,0.8,0.9,no
serving,medic serve,ms_single_client_p50,21,20,22,,,
"""


@pytest.fixture
def benchmark_modules(monkeypatch):
    """Benchmarks import one another by their bare names, as they do when they are run as scripts."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "serving.csv").write_text(RESULTS)
    (folder / "machine.txt").write_text("serving: some processor, 2 cores\n")
    return folder


def draw(results: Path, tmp_path: Path) -> subprocess.CompletedProcess:
    places = ["--results", str(results), "--images", str(tmp_path / "image"), "--page", str(tmp_path / "page.md")]
    command = [sys.executable, str(BENCHMARKS / "charts.py"), *places]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def test_the_page_has_the_machine_the_table_the_chart_and_what_was_missed(results, tmp_path):
    ended = draw(results, tmp_path)
    assert ended.returncode == 0, ended.stderr
    page = (tmp_path / "page.md").read_text()
    assert "Machine: some processor, 2 cores." in page
    assert "| medic serve | answers a second | 80 | 78 | 81 | 0.8 | 0.9 | no |" in page
    assert "- medic serve, answers a second: 0.8, asked for 0.9" in page
    assert "(image/serving.png)" in page
    assert (tmp_path / "image" / "serving.png").stat().st_size > 5000


def test_without_results_there_is_an_error_that_says_what_to_run(tmp_path):
    ended = draw(tmp_path, tmp_path)
    assert ended.returncode == 1
    assert "make bench" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_every_missed_target_of_the_committed_results_says_what_limits_it(benchmark_modules):
    import charts

    if not any(charts.RESULTS.glob("*.csv")):
        pytest.skip("there are no committed results; make bench writes them")
    said = charts.read_said(charts.LIMITS)
    missed = {name for name, table in charts.read_tables(charts.RESULTS).items() if (table["reached"] == "no").any()}
    assert missed <= said.keys()


def test_what_is_written_by_hand_stands_under_its_benchmark(benchmark_modules, tmp_path):
    import charts

    (tmp_path / "limits.md").write_text("Opening.\n\n## loading\n\n## serving\n\nDecoding limits it.\n")
    assert charts.read_said(tmp_path / "limits.md") == {"": "Opening.", "serving": "Decoding limits it."}


def doubled(offset: int):
    """Built in the worker's process."""
    if offset < 0:
        raise ValueError("below zero")
    return lambda number: (os.getpid(), 2 * number + offset)


def test_a_worker_answers_from_its_own_process_and_says_why_it_cannot(benchmark_modules):
    from turns import Worker

    from medic.errors import MedicError

    with Worker(doubled, 1) as worker:
        process, answer = worker.ready().ask(20)
        assert (answer, process != os.getpid()) == (41, True)
        with pytest.raises(MedicError, match="TypeError"):
            worker.ask("text")
    with Worker(doubled, -1) as worker, pytest.raises(MedicError, match="below zero"):
        worker.ready()


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    """A small bundle with random weights: enough to be timed."""
    import cv2
    import numpy as np
    import torch

    from medic.data.images.preprocess import Preprocessing
    from medic.deployment.bundle import About, package
    from medic.deployment.export import export
    from medic.modeling.classifier import Classifier
    from medic.task import RETINOPATHY

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bundle")
    model = Classifier(RETINOPATHY, "resnet18", preprocessing=Preprocessing(size=64), image_size=64).eval()
    disc = cv2.circle(np.zeros((100, 120, 3), np.uint8), (60, 50), 45, (40, 80, 160), -1)
    photograph = cv2.imencode(".jpeg", disc)[1].tobytes()
    export(model, folder / "model.onnx")
    model.save(folder / "checkpoint")
    about = About("Drawn discs.", True)
    bundle = package(model, folder / "bundle", folder / "model.onnx", [("disc.jpeg", photograph)], about, archive=False)
    return folder, bundle, photograph


def test_inference_compares_every_form_with_eager_torch_and_sets_its_targets(benchmark_modules, discs, monkeypatch):
    import inference
    import numpy as np

    folder, bundle, photograph = discs
    np.save(folder / "pixels.npy", np.stack([bundle.predictor(1).pixels(photograph)] * 8))
    made = {
        "checkpoint": folder / "checkpoint",
        "fp32": bundle.folder,
        "int8": bundle.folder,
        "bare": inference.export_bare(folder / "checkpoint", 64, folder / "bare.onnx"),
        "pixels": folder / "pixels.npy",
    }
    found = inference.timed(made, 64, {8: 2}, argparse.Namespace(threads=1, compile=False))
    rows = {row.method: row for row in found}
    assert rows["torch eager"].ratio == 1
    assert {row.target for row in found} == {None, 1.8, 5.0}
    assert inference.LIMIT in rows
    assert all(row.value > 0 and row.metric == "images_per_s_batch_8" for row in found)


@pytest.mark.servers
def test_serving_asks_the_service_as_users_run_it_and_a_plain_endpoint(benchmark_modules, discs):
    import serving

    _, bundle, photograph = discs
    options = argparse.Namespace(quick=True, threads=1)
    found = serving.measured(str(bundle.folder), [photograph] * 8, options)
    table = pd.DataFrame([vars(row) for row in found]).set_index(["method", "metric"])
    rates = table.xs("answers_per_s_8_clients", level="metric")
    assert list(rates.index) == [serving.REFERENCE, serving.DECODING, serving.OURS, serving.PLAIN]
    assert rates.loc[serving.REFERENCE, "ratio"] == 1
    assert rates.loc[serving.OURS, "target"] == serving.TARGET
    assert table.loc[(serving.OURS, "ms_single_client_p95"), "value"] > 0


def test_batch_writes_the_same_files_in_every_way_and_watches_memory(benchmark_modules, discs):
    import batch

    _, bundle, photograph = discs
    rates = {row.method: row for row in batch.speed(str(bundle.folder), [photograph] * 8, 16, 2)}
    assert set(rates) == {batch.PLAIN, batch.OURS, batch.LIMIT}
    *found, flat = batch.memory(str(bundle.folder), (5, 50))
    assert [row.metric for row in found] == ["s", "peak_mib"] * 2
    assert flat.metric == "peak_over_that_of_5_images"
    assert flat.reached == ("yes" if flat.value <= batch.FLAT else "no")


def test_importing_medic_and_asking_for_help_stays_far_from_importing_torch(benchmark_modules):
    import series

    found = {row.method: row.value for row in series.starts(1)}
    assert found["import medic"] < found["import torch"]
    assert found["medic --help"] < found["import torch"]
