"""The benchmarks run, write the columns they promise, and leave the committed figures alone."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

COLUMNS = ["benchmark", "method", "metric", "value", "low", "high", "ratio", "target", "reached"]
SMALL = """
import sys
from pathlib import Path
import numpy as np
import measure

options = measure.arguments("x").parse_args(["--quick", "--to", sys.argv[1]])
seconds = {"reference": np.array([2.0, 2.2, 1.8]), "ours": np.array([0.5, 0.4, 0.6])}
seconds["limit"] = np.array([0.4, 0.4, 0.4])
table = measure.rows("small", seconds, reference="reference", work=10, targets={"ours": 4, "limit": 9})
table.append(measure.compared("small", seconds, "ours", "limit", target=1.3, at_most=True))
table.append(measure.figure("small", "ours", "psnr_db", 48, target=47))
measure.show(table, measure.origin(options.data))
measure.write(table, "small", options)
"""

# A script as it is, but everything is timed twice, where a quick run warms up first and takes three rounds.
FEWER = """
import runpy
import sys
import measure

interleave = measure.interleave
measure.interleave = lambda methods, rounds: interleave(methods, 2, warm_up=False)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(repository: Path, *arguments: object) -> subprocess.CompletedProcess:
    ended = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=repository / "benchmarks",
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    return ended


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    return rows


def test_ratios_are_of_medians_and_targets_are_judged_by_them(repository, tmp_path):
    printed = run(repository, "-c", SMALL, tmp_path).stdout
    reference, ours, limit, over, quality = table(tmp_path / "small.csv")
    assert (float(reference["value"]), float(reference["ratio"])) == (5, 1)
    assert (float(ours["value"]), float(ours["ratio"]), ours["reached"]) == (20, 4, "yes")
    assert float(ours["low"]) < 20 < float(ours["high"])
    assert (limit["target"], limit["reached"]) == ("9", "no")
    assert (over["metric"], over["value"], over["reached"]) == ("time_over_limit", "1.25", "yes")
    assert (quality["ratio"], quality["reached"]) == ("", "yes")
    assert "real fundus photographs" in printed or "SYNTHETIC" in printed
    assert (tmp_path / "machine.txt").read_text().startswith("small: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "ours"), [("preparation", "medic"), ("loading", "medic: prepared, lean augmentation, normalised too")]
)
def test_a_quick_run_writes_its_table_and_touches_no_committed_figure(script, ours, repository, tmp_path):
    committed = repository / "benchmarks" / "results" / f"{script}.csv"
    before = committed.read_bytes() if committed.exists() else None
    run(repository, "-c", FEWER, f"{script}.py", "--quick", "--to", tmp_path)
    rows = table(tmp_path / f"{script}.csv")
    assert {row["benchmark"] for row in rows} == {script}
    speed = next(row for row in rows if row["method"] == ours and row["metric"] == "images_per_s")
    assert float(speed["low"]) <= float(speed["value"]) <= float(speed["high"])
    assert float(speed["ratio"]) > 3
    assert speed["reached"] in ("yes", "no")
    assert (committed.read_bytes() if committed.exists() else None) == before


@pytest.mark.slow
def test_the_curve_of_time_and_memory_has_the_same_columns(repository, tmp_path):
    run(repository, "preparation.py", "--scale", "--quick", "--to", tmp_path)
    rows = table(tmp_path / "preparation_scale.csv")
    assert {"s", "images_per_s", "peak_mib"} <= {row["metric"] for row in rows}
    assert all(float(row["value"]) < 1000 for row in rows if row["metric"] == "peak_mib")


@pytest.mark.slow
def test_reading_the_chest_table_is_compared_with_how_it_is_usually_done(repository, tmp_path):
    run(repository, "chest_table.py", "--quick", "--to", tmp_path)
    rows = table(tmp_path / "chest_table.csv")
    assert len({row["method"] for row in rows if row["metric"] == "ms"}) == 4
    assert not any(row["reached"] for row in rows), "the target is about the full table"
