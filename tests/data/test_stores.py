"""Bytes by name, from a folder or a zip file that is never unpacked."""

import json
import multiprocessing
import os
import pickle
import zipfile
import zlib
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from medic.data import stores
from medic.data.stores import JointStore, is_synthetic, location_from, open_from, open_store
from medic.errors import ImageError, MedicError

FILES = {"a.txt": b"alpha", "images/1_left.jpeg": b"left", "images/1_right.JPEG": b"right" * 50}


@pytest.fixture(params=["folder", "zip"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "folder":
        for name, data in FILES.items():
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / "set"
    return zipped(tmp_path / "set.zip", FILES)


def zipped(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_a_folder_and_a_zip_of_it_look_the_same(place):
    store = open_store(place)
    assert store.names() == sorted(FILES)
    assert {name: store.read(name) for name in store.names()} == FILES
    assert "images/1_left.jpeg" in store
    assert "images/2_left.jpeg" not in store
    assert "images" not in store


def test_reading_what_is_not_there_names_it_and_the_store(place):
    with pytest.raises(MedicError, match=r"images/9_left\.jpeg") as caught:
        open_store(place).read("images/9_left.jpeg")
    assert str(place) in str(caught.value)


def test_threads_and_other_processes_may_share_a_store(place):
    store = pickle.loads(pickle.dumps(open_store(place)))
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(store.read, list(FILES) * 40))
    assert read == list(FILES.values()) * 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_does_not_disturb_its_parents_reading(tmp_path):
    files = {f"{number}.png": bytes([number]) * 30_000 for number in range(20)}
    store = open_store(zipped(tmp_path / "set.zip", files, zipfile.ZIP_STORED))
    assert store.read("0.png") == files["0.png"]
    child = os.fork()
    if child == 0:
        os._exit(0 if all(store.read(name) == data for name, data in list(files.items()) * 5) else 1)
    assert all(store.read(name) == data for name, data in list(files.items()) * 5)
    assert os.waitpid(child, 0)[1] == 0


def test_a_fingerprint_changes_with_the_content(place, tmp_path):
    before = open_store(place).fingerprint("a.txt")
    assert open_store(place).fingerprint("a.txt") == before
    if place.is_dir():
        (place / "a.txt").write_bytes(b"other")
    else:
        zipped(place, FILES | {"a.txt": b"other"})
    assert open_store(place).fingerprint("a.txt") != before


def test_hidden_files_are_left_out(tmp_path):
    for name in ("shown.png", ".hidden.png", ".cache/inside.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert open_store(tmp_path).names() == ["shown.png"]


def test_a_path_where_nothing_is_names_itself(tmp_path):
    with pytest.raises(MedicError, match=r"there is no folder or zip file .*missing"):
        open_store(tmp_path / "missing")


@pytest.mark.parametrize("data", [b"", b"This is a text file named .zip", b"PK\x03\x04 and nothing behind"])
def test_a_zip_that_is_no_zip_is_refused(data, tmp_path):
    (tmp_path / "set.zip").write_bytes(data)
    with pytest.raises(MedicError, match="is no zip file that can be read"):
        open_store(tmp_path / "set.zip")


def test_a_zip_cut_off_in_the_middle_is_refused(tmp_path):
    path = zipped(tmp_path / "set.zip", FILES)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(MedicError, match="no zip file"):
        open_store(path)


@pytest.mark.parametrize(
    "name", ["../evil.png", "images/../../evil.png", "/etc/evil.png", "..\\evil.png", "C:/evil.png"]
)
def test_a_zip_with_names_that_lead_out_of_it_is_refused_as_a_whole(name, tmp_path):
    path = zipped(tmp_path / "set.zip", {"good.png": b"good", name: b"evil"})
    with pytest.raises(MedicError, match="lead out of the archive") as caught:
        open_store(path)
    assert "evil.png" in str(caught.value)


@pytest.mark.parametrize("name", ["../secret.png", "images/../../secret.png", "/etc/passwd"])
def test_a_name_never_leads_out_of_a_folder(name, tmp_path):
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    with pytest.raises(MedicError, match="leads out of"):
        open_store(tmp_path / "set").read(name)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_is_unreadable_and_its_neighbours_are_not(compression, tmp_path):
    damaged = bytes(range(256)) * 40
    path = zipped(tmp_path / "set.zip", {"good.png": b"good", "bad.png": damaged}, compression)
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("bad.png")
    data = bytearray(path.read_bytes())
    middle = member.header_offset + 30 + len("bad.png") + member.compress_size // 2
    data[middle] ^= 0xFF
    path.write_bytes(data)
    store = open_store(path)
    with pytest.raises(ImageError, match=r"bad\.png") as caught:
        store.read("bad.png")
    assert caught.value.reason == "unreadable"
    assert store.read("good.png") == b"good"


def test_a_file_larger_than_any_image_is_refused_before_it_is_read(place, monkeypatch):
    monkeypatch.setattr(stores, "MAX_BYTES", 100)
    with pytest.raises(ImageError) as caught:
        open_store(place).read("images/1_right.JPEG")
    assert caught.value.reason == "too_large"


def test_a_link_that_leads_nowhere_is_listed_but_unreadable(tmp_path):
    (tmp_path / "gone.jpeg").symlink_to(tmp_path / "elsewhere.jpeg")
    store = open_store(tmp_path)
    assert "gone.jpeg" in store
    for look in (store.read, store.fingerprint):
        with pytest.raises(ImageError) as caught:
            look("gone.jpeg")
        assert caught.value.reason == "unreadable"


def test_a_set_says_whether_it_is_generated(place, sample):
    assert not is_synthetic(open_store(place))
    assert is_synthetic(open_store(sample))


@pytest.fixture
def joint(tmp_path: Path) -> JointStore:
    """A zip file and a folder that hold a member of the same name."""
    (tmp_path / "second").mkdir()
    for name, data in {"a.txt": b"other", "b.txt": b"beta"}.items():
        (tmp_path / "second" / name).write_bytes(data)
    return open_store({"main": zipped(tmp_path / "first.zip", FILES), "extra": tmp_path / "second"})


def test_two_stores_are_read_as_one_and_equal_names_do_not_meet(joint):
    assert joint.names() == sorted([*(f"main/{name}" for name in FILES), "extra/a.txt", "extra/b.txt"])
    assert (joint.read("main/a.txt"), joint.read("extra/a.txt")) == (b"alpha", b"other")
    assert all(name in joint for name in joint.names())
    assert not any(name in joint for name in ("a.txt", "main/b.txt", "second/b.txt", "main"))
    assert joint.location.name == "first.zip + second"


@pytest.mark.parametrize("look", ["read", "fingerprint", "size", "checksum"])
@pytest.mark.parametrize("name", ["a.txt", "third/a.txt"])
def test_a_name_of_no_part_is_refused_with_the_keys(look, name, joint):
    with pytest.raises(MedicError, match="none of the keys main, extra"):
        getattr(joint, look)(name)


def test_size_and_checksum_mean_the_same_in_a_folder_and_in_a_zip(joint, place):
    store = open_store(place)
    for name, data in FILES.items():
        assert store.size(name) == joint.size(f"main/{name}") == len(data)
        assert store.checksum(name) == joint.checksum(f"main/{name}") == zlib.crc32(data)
    assert joint.fingerprint("main/a.txt") == open_store(joint.stores["main"].location).fingerprint("a.txt")


def _read_all(store: JointStore) -> dict[str, bytes]:
    return {name: store.read(name) for name in store.names()}


def test_threads_and_other_processes_may_share_a_joint_store(joint):
    expected = _read_all(joint)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(joint.read, list(expected) * 20)) == list(expected.values()) * 20
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        assert list(processes.map(joint.read, expected)) == list(expected.values())


def test_a_missing_part_of_a_joint_store_is_named(tmp_path):
    with pytest.raises(MedicError, match=r"there is no folder or zip file .*gone\.zip"):
        open_store({"main": zipped(tmp_path / "first.zip", FILES), "extra": tmp_path / "gone.zip"})
    with pytest.raises(MedicError, match="keys without a slash"):
        open_store({"main/first": tmp_path / "first.zip"})
    with pytest.raises(MedicError, match="needs stores"):
        open_store({})


@pytest.mark.parametrize("joined", [False, True])
def test_where_a_store_lies_is_told_so_that_both_may_move_together(joined, joint, tmp_path):
    store = joint if joined else joint.stores["main"]
    told = location_from(tmp_path / "made" / "set", store)
    assert str(tmp_path) not in str(told)
    again = open_from(tmp_path / "made" / "set", json.loads(json.dumps(told)))
    assert _read_all(again) == _read_all(store)


def test_an_encrypted_member_is_unreadable_and_says_so(tmp_path):
    path = zipped(tmp_path / "set.zip", {"good.png": b"good", "locked.png": b"locked"}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # "locked.png" is last in the archive's directory
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"locked\.png .* is encrypted; unpack the archive with its password"):
        open_store(path).read("locked.png")
    assert open_store(path).read("good.png") == b"good"
