"""Large sets: time that grows with the number of images, and memory that hardly does. Measured in child processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medic.data.prepare import Entry, Journal

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


def test_a_journal_of_many_images_finds_each_and_takes_the_last_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, "settings") as journal:
        for number in range(5000):
            journal.add(Entry(f"{number}.jpeg", "1-2", f"images/aa/{number}.jpg"))
        journal.add(Entry("7.jpeg", "3-4", None, "truncated", "its end is missing"))
    with Journal(path, "settings") as journal:
        assert journal.find("4999.jpeg") == Entry("4999.jpeg", "1-2", "images/aa/4999.jpg")
        assert journal.find("7.jpeg").reason == "truncated"
        assert journal.find("5000.jpeg") is None
    with Journal(path, "other settings") as journal:
        assert journal.find("7.jpeg") is None


def test_a_journal_says_in_each_line_little_more_than_the_name_and_the_file(tmp_path):
    with Journal(tmp_path / "journal.jsonl", "settings " * 100) as journal:
        journal.add(Entry("7.jpeg", "1-2", "images/aa/7.jpg"))
    assert len((tmp_path / "journal.jsonl").read_text()) < 120


@pytest.mark.parametrize("line", [b'{"image": "7.jpeg", "settings"', b"\xff\xfe\n", b"[1]\n", b"7\n", b"\n"])
def test_a_journal_passes_over_what_is_no_line_of_its_own(line, tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, "settings") as journal:
        journal.add(Entry("6.jpeg", "1-2", "images/aa/6.jpg"))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"6.jpeg", b"5.jpeg") + line)
    with Journal(path, "settings") as journal:
        journal.add(Entry("8.jpeg", "1-2", "images/aa/8.jpg"))
    with Journal(path, "settings") as journal:
        assert [journal.find(f"{number}.jpeg") is not None for number in (5, 7, 8)] == [True, False, True]
