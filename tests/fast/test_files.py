"""Files are written whole or not at all."""

import errno
import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from medic.errors import MedicError
from medic.files import replacing, sha256, write_bytes, write_json, write_text


def test_what_is_written_can_be_read_and_leaves_nothing_beside_it(tmp_path):
    write_bytes(tmp_path / "deep" / "er" / "a.bin", b"\0\1")
    write_text(tmp_path / "b.txt", "grün\n")
    write_json(tmp_path / "c.json", {"name": "grün", "list": [1, 2]})
    assert (tmp_path / "deep" / "er" / "a.bin").read_bytes() == b"\0\1"
    assert (tmp_path / "b.txt").read_bytes() == "grün\n".encode()
    assert json.loads((tmp_path / "c.json").read_text()) == {"name": "grün", "list": [1, 2]}
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a.bin", "b.txt", "c.json"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"


def test_an_error_while_writing_leaves_the_old_file_and_no_trace(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_path_and_what_to_do(tmp_path):
    with pytest.raises(MedicError, match=r"cannot write .*a\.txt: .*free some space"), replacing(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_outgrows_its_limit_is_not_left_half_written(tmp_path):
    code = "import sys; from medic.files import write_bytes; write_bytes(sys.argv[1], bytes(100_000))"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.bin")], preexec_fn=limit, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "MedicError: cannot write" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_regular_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MedicError, match="choose a folder that can be written"):
        write_text(tmp_path / "file" / "below" / "a.txt", "text")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc here, the folder that even root cannot write")
def test_a_read_only_place_cannot_be_written_even_by_root():
    with pytest.raises(MedicError, match="cannot write /proc/medic-test"):
        write_text("/proc/medic-test/a.txt", "text")


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not bind root")
def test_a_folder_without_permission_cannot_be_written(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(MedicError, match="Permission denied"):
        write_text(folder / "a.txt", "text")


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as one, replacing(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"


def test_a_checksum_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"content" * 100_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"content" * 100_000).hexdigest()
