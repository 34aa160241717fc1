"""Large sets: time that grows with the number of images, and memory that hardly does. Measured in child processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WRITE = "import sys; from pathlib import Path; import scale; scale.write_zip(Path(sys.argv[1]), int(sys.argv[2]))"


def run(repository: Path, *arguments: object) -> str:
    """What ``benchmarks/scale.py`` prints in a process of its own."""
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.check_output(command, text=True, cwd=repository / "benchmarks", env=environment)


@pytest.mark.slow
def test_a_million_rows_are_checked_split_counted_and_described_in_bounded_memory(repository):
    found = json.loads(run(repository, "scale.py", "records", 1_000_000).splitlines()[-1])
    assert found["rows"] == 1_000_000
    assert found["peak_mib"] < 1000
    assert found["peak_mib"] - found["table_mib"] < 400


@pytest.mark.slow
def test_a_zip_of_a_hundred_thousand_members_is_opened_and_prepared_in_bounded_memory(repository, tmp_path):
    run(repository, "-c", WRITE, tmp_path / "originals.zip", 100_000)
    told = run(repository, "scale.py", "prepare", tmp_path / "originals.zip", tmp_path / "set", 2000)
    found = json.loads(told.splitlines()[-1])
    assert (found["members"], found["images"]) == (100_000, 2000)
    assert found["peak_mib"] < 600
    assert found["seconds_repeated"] < found["seconds"]
