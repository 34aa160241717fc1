"""Large sets: time that grows with the number of images, and memory that hardly does. Measured in child processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MANY_RECORDS = 1_000_000
MANY_MEMBERS = 100_000


def measured(repository: Path, *arguments: object) -> dict:
    """What ``benchmarks/scale.py`` measures in a process of its own."""
    ended = subprocess.run(
        [sys.executable, str(repository / "benchmarks" / "scale.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_million_rows_are_checked_split_counted_and_described_in_bounded_memory(repository):
    found = measured(repository, "records", MANY_RECORDS)
    assert found["rows"] == MANY_RECORDS
    assert found["peak_mib"] < 1000
    assert found["peak_mib"] - found["table_mib"] < 400


@pytest.mark.slow
def test_a_zip_of_a_hundred_thousand_members_is_opened_and_prepared_in_bounded_memory(repository, tmp_path):
    program = "import sys; from pathlib import Path; import scale; scale.write_zip(Path(sys.argv[1]), int(sys.argv[2]))"
    archive = tmp_path / "originals.zip"
    subprocess.run(
        [sys.executable, "-c", program, str(archive), str(MANY_MEMBERS)], cwd=repository / "benchmarks", check=True
    )
    found = measured(repository, "prepare", archive, tmp_path / "set", 2000)
    assert found["members"] == MANY_MEMBERS
    assert found["images"] == 2000
    assert found["peak_mib"] < 600
    assert found["seconds_repeated"] < found["seconds"]
