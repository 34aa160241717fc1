"""The benchmarks run, write the columns they promise, and the page says what their committed results say.

Nothing here asserts a speed: that is for benchmarks/ on a quiet machine.
"""

import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

COLUMNS = ["benchmark", "method", "metric", "value", "low", "high", "ratio", "target", "reached"]


@pytest.fixture(scope="module")
def script(repository: Path):
    """A file of benchmarks/ as a module; they import one another by their bare names, as scripts do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(repository / "benchmarks")
        yield importlib.import_module


@pytest.fixture(scope="module")
def network(script, sample: Path) -> Path:
    """The network that is timed, with random weights, in every form."""
    return script("inference").network(sample.parent)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    return rows


def test_ratios_are_of_medians_and_targets_are_judged_by_them(script, tmp_path, capsys):
    measure = script("measure")
    options = measure.arguments("x").parse_args(["--quick", "--to", str(tmp_path)])
    seconds = {"reference": np.array([2.0, 2.2, 1.8]), "ours": np.array([0.5, 0.4, 0.6]), "limit": np.full(3, 0.4)}
    rows = measure.rows("small", seconds, reference="reference", work=10, targets={"ours": 4, "limit": 9})
    rows.append(measure.compared("small", seconds, "ours", "limit", target=1.3, at_most=True))
    rows.append(measure.figure("small", "ours", "psnr_db", 48, target=47))
    measure.show(rows, measure.origin(options.data))
    measure.write(rows, "small", options)
    printed = capsys.readouterr().out
    reference, ours, limit, over, quality = table(tmp_path / "small.csv")
    assert (float(reference["value"]), float(reference["ratio"])) == (5, 1)
    assert (float(ours["value"]), float(ours["ratio"]), ours["reached"]) == (20, 4, "yes")
    assert float(ours["low"]) < 20 < float(ours["high"])
    assert (float(limit["target"]), limit["reached"]) == (9, "no")
    assert (over["metric"], float(over["value"]), over["reached"]) == ("time_over_limit", 1.25, "yes")
    assert (quality["ratio"], quality["reached"]) == ("", "yes")
    assert "real fundus photographs" in printed or "SYNTHETIC" in printed
    assert (tmp_path / "machine.txt").read_text().startswith("small: commit ")


def test_the_page_holds_the_tables_of_the_committed_results(script, repository, tmp_path):
    measure, text = script("measure"), (repository / "docs" / "benchmarks.md").read_text()
    assert measure.page(measure.RESULTS, tmp_path, text) == text, "run python benchmarks/measure.py"
    names = {path.stem for path in measure.RESULTS.glob("*.csv")}
    assert {path.stem for path in tmp_path.glob("*.png")} == names
    assert {path.stem for path in (repository / "image" / "benchmarks").glob("*.png")} == names


def test_quality_in_time_is_drawn_over_minutes_and_gets_a_section_of_its_own(script, tmp_path):
    measure, rows = script("measure"), []
    for minutes in (1, 2):
        for method, kappa in (("medic train", 0.7), ("fastai", 0.6)):
            rows.append(measure.figure("quality_in_time", method, f"kappa_after_{minutes}_min", kappa))
            rows.append(measure.figure("quality_in_time", method, f"seconds_taken_after_{minutes}_min", 60 * minutes))
    options = measure.arguments("x").parse_args(["--to", str(tmp_path)])
    measure.write(rows, "quality_in_time", options)
    page = measure.page(tmp_path, tmp_path, "# Benchmarks\n")
    assert "## quality_in_time" in page
    assert "| medic train | kappa after 1 min | 0.7 |" in page
    assert measure.page(tmp_path, tmp_path, page) == page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ours"), [("preparation", "medic"), ("loading", "medic: prepared, lean augmentation"), ("training", None)]
)
def test_a_quick_run_writes_its_table_and_touches_no_committed_figure(name, ours, repository, sample, tmp_path):
    committed = repository / "benchmarks" / "results" / f"{name}.csv"
    before = committed.read_bytes()
    command = [sys.executable, f"{name}.py", "--quick", "--data", str(sample.parent), "--to", str(tmp_path)]
    environment, where = os.environ | {"OMP_NUM_THREADS": "1"}, repository / "benchmarks"
    ended = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    rows = table(tmp_path / f"{name}.csv")
    assert {row["benchmark"] for row in rows} == {name}
    speeds = {row["method"]: row for row in rows if row["metric"].startswith("images_per_s")}
    assert (ours or "resnet18 step, medic.modeling.training.fit") in speeds
    for row in speeds.values():
        assert 0 < float(row["low"]) <= float(row["value"]) <= float(row["high"])
    assert committed.read_bytes() == before


@pytest.mark.slow
def test_inference_compares_every_form_with_eager_torch_and_sets_its_targets(script, network):
    inference = script("inference")
    rows = {row.method: row for row in inference.timed(network, {1: 1}, threads=1)}
    assert rows[inference.REFERENCE].ratio == 1
    assert {name: row.target for name, row in rows.items() if row.target} == inference.TARGETS
    assert inference.LIMIT in rows
    assert all(row.value > 0 and row.metric == "images_per_s_batch_1" for row in rows.values())


@pytest.mark.slow
@pytest.mark.servers
def test_serving_asks_the_service_as_users_run_it_and_a_plain_endpoint(script, network, sample):
    serving = script("serving")
    found = serving.served(network / "fp32", script("inference").photographs(sample.parent), 16, 1)
    rates = {row.method: row for row in found if row.metric == "answers_per_s_8_clients"}
    assert list(rates) == [serving.REFERENCE, serving.DECODING, serving.OURS, serving.PLAIN]
    targets = [row.target for row in found if row.target]
    assert targets == [serving.ALIKE, serving.ALONE, serving.START]
    waits = [row.value for row in found if row.method == serving.OURS and row.metric == "ms_single_client_p95"]
    assert np.min(waits) > 0


@pytest.mark.slow
def test_batch_times_every_way_on_the_same_files_and_watches_memory(script, network, sample):
    serving = script("serving")
    found = serving.batched(network / "fp32", script("inference").photographs(sample.parent), 8, 1, (5, 50))
    assert {row.method for row in found if row.ratio} == {
        serving.LOOP,
        serving.PREDICT,
        serving.REFERENCE,
        serving.DECODING,
    }
    flat = next(row for row in found if row.metric == "peak_over_that_of_5_images")
    assert flat.reached == ("yes" if flat.value <= serving.FLAT else "no")
