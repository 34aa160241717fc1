"""Stores: every file is found once, by one name, and what cannot be read in place is named with a remedy."""

import os
import pickle
import re
import unicodedata
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from medic.data import stores
from medic.data.stores import JointStore, idx, open_from, open_store
from medic.errors import ImageError, MedicError

DICOM = bytes(128) + b"DICM" + bytes(20)
PNG = cv2.imencode(".png", np.full((4, 4), 9, np.uint8))[1].tobytes()  # that lay and pack write


def with_headers(path: Path, local: int, central: int, value: int) -> Path:
    """The same archive with a byte changed in all headers, at its places in local and in central ones."""
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        for found in re.finditer(re.escape(mark), bytes(data)):
            data[found.start() + place] = value
    path.write_bytes(data)
    return path


def test_a_folder_and_a_zip_file_hold_the_same_images_by_the_same_names(lay, pack):
    names = ["a/1.png", "a/2.JPG", "b/c/3.dcm"]
    folder = open_store(lay(*names, "b/notes.txt", ".hidden/4.png", "a/._1.png", "a/@eaDir/1.png/2.png"))
    packed = [f"{start}{name}" for start, name in zip(("", "./", "/"), names, strict=True)]
    archive = open_store(pack(*packed, "b/notes.txt", "__MACOSX/a/1.png", "a/.DS_Store", "a/Thumbs.db"))
    for store in (folder, archive, pickle.loads(pickle.dumps(archive))):
        assert (store.names(), store.images()) == (sorted([*names, "b/notes.txt"]), names)
        assert store.read("a/1.png") == PNG
        assert ("a/1.png" in store, "a/9.png" in store) == (True, False)
        for name in ("a/9.png", "../set/a/1.png"):
            with pytest.raises(ImageError, match="no such file"):
                store.read(name)


@pytest.mark.parametrize("name", ["IM000001", "A0001.IMA", "1.2.840.113619.2.55", "scan.unknown", "DICOMDIR.1"])
def test_dicom_files_are_known_by_their_content(name, lay, pack):
    files = {f"series/{name}": DICOM, "series/DICOMDIR": DICOM}
    files |= {"series/README": bytes(200), "series/table.csv": b"image,label\n" * 20}
    for place in (lay(**files), pack(**files)):
        assert open_store(place).images() == [f"series/{name}"]


def test_linked_folders_are_followed_once_and_circles_end(lay):
    elsewhere = lay("benign/1.png", "benign/deep/2.png")
    elsewhere.rename(elsewhere.with_name("elsewhere"))
    links = {"benign": "../elsewhere/benign", "circle": ".", "again": "real", "broken": "nowhere"}
    for name, target in (links | {"4.png": "../elsewhere/benign/1.png"}).items():
        os.symlink(target, lay("real/3.png") / name)
    assert open_store(lay()).images() == ["4.png", "benign/1.png", "benign/deep/2.png", "real/3.png"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("kind", ["folder", "zip", "zip without the flag"])
def test_an_accent_is_the_same_in_one_character_or_two(form, kind, lay, pack):
    name, composed = unicodedata.normalize(form, "bösartig/1.png"), "bösartig/1.png"
    place = lay(name) if kind == "folder" else pack(name)
    store = open_store(with_headers(place, 7, 9, 0) if "flag" in kind else place)
    assert store.names() == [composed]
    for asked in (name, composed, unicodedata.normalize("NFD", composed)):
        assert asked in store
        assert store.read(asked) == PNG


def test_a_name_that_is_no_text_is_read_under_one_that_a_table_can_hold(lay):
    store = open_store(lay(os.fsdecode("bösartig/1.png".encode("latin-1"))))
    assert store.images() == ["b\ufffdsartig/1.png"]
    assert store.read(store.images()[0]) == PNG


def test_two_files_of_one_name_are_an_error(pack, lay):
    path = pack("a/1.png", **{"a/2.png": b"first"})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a/2.png", b"last")
    for source, name in ((path, "a/2.png"), (lay("ä.png", "a\u0308.png"), "ä.png")):
        with pytest.raises(
            MedicError, match=f"holds 1 files whose names others have, such as {name}; rename or remove them"
        ):
            open_store(source).images()


def test_backslashes_in_a_zip_file_are_folders(pack):
    assert open_store(pack("a\\1.png", "a\\empty\\")).names() == ["a/1.png"]


REFUSED = {
    "set.zip": [
        (lambda path: with_headers(path, 8, 10, 9), "2 of 2 files .*9 is Deflate64.*unpack it"),
        (lambda path: path.with_suffix(".z01").touch(), "one part of a split archive; unpack all"),
        (lambda path: path.write_bytes(path.read_bytes()[60:]), "split archive|nor a zip file"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "nor a zip file that can be read"),
        (lambda path: with_headers(path, 6, 8, 1), "has 2 files under a password; unpack it with that"),
        (Path.unlink, "there is no folder or zip file"),
    ],
    "set.tar.gz": [(Path.touch, "is an archive that is not read; unpack it")],
    "set.tar.bz2": [(Path.touch, "is an archive that is not read; unpack it")],
    "labels.xlsx": [(Path.touch, "is a spreadsheet; save it as CSV")],
    "set.z01": [(Path.touch, "one part of a split archive")],
    "eye.jpeg": [(Path.touch, "is a single image; name the folder")],
}


@pytest.mark.parametrize(("name", "make", "message"), [(name, *case) for name in REFUSED for case in REFUSED[name]])
def test_what_cannot_be_read_in_place_is_named_for_what_it_is_with_the_remedy(name, make, message, pack):
    make(path := pack("a.png", "b.png", to=name))
    with pytest.raises(MedicError, match=message):
        open_store(path)


def test_a_member_that_is_damaged_is_an_error_of_one_image(pack):
    path = pack("a.png", "b.png")
    data = bytearray(path.read_bytes())
    data[data.find(PNG) + 20] ^= 1
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"cannot read a\.png .*CRC.*see that it is whole and may be read"):
        open_store(path).read("a.png")
    assert open_store(path).read("b.png") == PNG


def test_several_stores_are_one_and_are_found_again_from_where_they_were_moved_to(lay, pack, tmp_path):
    here = lay("set/1.png")
    pack("2.png", to=here / "more.zip")
    joint = JointStore({"main": open_store(here / "set"), "more": open_store(here / "more.zip")})
    assert pickle.loads(pickle.dumps(joint)).names() == joint.images() == ["main/1.png", "more/2.png"]
    described = stores.location_from(here, joint)
    here.rename(tmp_path / "there")
    assert open_from(tmp_path / "there", described).read("more/2.png") == PNG
    with pytest.raises(ImageError, match=r"cannot read other/1\.png in set \+ more\.zip"):
        joint.read("other/1.png")


def test_threads_and_processes_share_one_archive(pack):
    names = [f"{number}.png" for number in range(40)]
    store = open_store(pack(*names))
    for pool in (ThreadPoolExecutor(4), ProcessPoolExecutor(2)):
        with pool:
            assert set(pool.map(store.read, names)) == {PNG}


@pytest.mark.parametrize("name", ["set", "set.gz"])
def test_an_idx_array_is_read_back_as_it_was_written_or_refused(name, tmp_path):
    for dtype in ("uint8", "int8", "int16", "int32", "float32", "float64"):
        array = np.arange(24).reshape(2, 3, 4).astype(dtype)
        idx.write(tmp_path / name, array)
        np.testing.assert_array_equal(idx.read(tmp_path / name), array, strict=True)
    whole = (tmp_path / name).read_bytes()
    for content in (b"", PNG, whole[:-9], whole + b"more", whole[1:]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MedicError, match=rf"{name} is no IDX file, or not all of it is there"):
            idx.read(tmp_path / name)


def test_images_inside_idx_files_are_png_files_by_name(lay):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    idx.write((place := lay()) / "train-images-idx3-ubyte.gz", pixels)
    store = pickle.loads(pickle.dumps(open_store(place)))
    assert store.names() == ["train-images-idx3-ubyte.gz", *(f"train/0000{number}.png" for number in range(3))]
    for name, image in zip(store.images(), pixels, strict=True):
        assert np.array_equal(cv2.imdecode(np.frombuffer(store.read(name), np.uint8), -1), image)
    assert store.read(store.names()[0]) == (place / store.names()[0]).read_bytes()
    assert open_store(lay("photo.png")).images() == ["photo.png"], "among other images they are none"
