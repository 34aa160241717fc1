"""Files are written whole or not at all."""

import errno
import hashlib
import json
import os

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


def test_a_folder_takes_the_place_of_another_whole_or_not_at_all(tmp_path, monkeypatch):
    path, replace = tmp_path / "set", os.replace
    write_text(path / "old.txt", "old")

    def fail_at_the_new_one(one, other) -> None:
        if str(one).endswith(".part") and other == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(one, other)

    def put_new() -> None:
        with replacing(path) as temporary:
            temporary.mkdir()
            (temporary / "new.txt").write_text("new")
            assert [file.name for file in path.iterdir()] == ["old.txt"]

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail_at_the_new_one)
        with pytest.raises(MedicError, match="cannot write"):
            put_new()
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.*")] == ["set/old.txt"]
    put_new()
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.*")] == ["set/new.txt"]


def test_a_full_disk_and_a_place_that_cannot_be_written_are_told_with_what_to_do(tmp_path):
    with pytest.raises(MedicError, match=r"cannot write .*a\.txt: .*free some space"), replacing(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(MedicError, match="choose a folder that can be written"):
        write_text(tmp_path / "file" / "below" / "a.txt", "text")
    os.mkfifo(tmp_path / "pipe")
    for path, said in ((tmp_path / "pipe", "neither file nor folder"), ("", "directory")):
        with pytest.raises(MedicError, match=said):
            write_text(path, "text")
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_stays_and_leads_to_what_was_written(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "a.txt")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a.txt").read_text() == "text"


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
