"""The four IDX files of MNIST as records and a store, and the sample that is laid out like them."""

import gzip
import multiprocessing
import os
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from medic.data import idx
from medic.data.check import check
from medic.data.idx_store import IdxStore
from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared, prepare
from medic.data.readers import digits
from medic.data.split import complete_splits
from medic.data.stores import FolderStore, is_synthetic, location_from, open_from, open_store
from medic.errors import ImageError, MedicError
from medic.sample.digits import write_sample

COUNTS = {"train": 30, "t10k": 12}


def lay(folder: Path, side: tuple[int, int] = (28, 28), ending: str = ".gz", mark: str = "-") -> Path:
    random = np.random.default_rng(4)
    for name, count in COUNTS.items():
        images = random.integers(0, 256, (count, *side), dtype=np.uint8)
        idx.write(folder / f"{name}-images{mark}idx3-ubyte{ending}", images)
        idx.write(folder / f"{name}-labels{mark}idx1-ubyte{ending}", np.arange(count, dtype=np.uint8) % 10)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay(tmp_path / "digits")


def pixels(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-", "."])
def test_records_follow_the_files(ending, mark, tmp_path):
    records, store = digits.read(lay(tmp_path, ending=ending, mark=mark))
    assert list(records.columns) == ["image", "patient", "split", "label"]
    assert list(records["image"])[:2] == ["train/00000.png", "train/00001.png"]
    assert list(records["image"])[-1] == "test/00011.png"
    assert list(records["patient"]) == list(records["image"])
    assert list(records["split"]) == ["train"] * 30 + ["test"] * 12
    assert list(records["label"]) == [number % 10 for number in range(30)] + [number % 10 for number in range(12)]
    assert all(name in store for name in records["image"])


@pytest.mark.parametrize("side", [(28, 28), (8, 8), (20, 33)])
def test_the_store_gives_each_image_as_png_with_its_own_pixels(side, tmp_path):
    folder = lay(tmp_path, side)
    records, store = digits.read(folder)
    for part, split in (("train", "train"), ("t10k", "test")):
        stored = idx.read(folder / f"{part}-images-idx3-ubyte.gz")
        names = records.loc[records["split"] == split, "image"]
        assert all(np.array_equal(pixels(store.read(name)), image) for name, image in zip(names, stored, strict=True))
    data = store.read("train/00003.png")
    assert data.startswith(b"\x89PNG")
    assert store.size("train/00003.png") == len(data)
    assert store.checksum("train/00003.png") == store.checksum("train/00003.png") != store.checksum("train/00004.png")


def test_names_are_the_images_and_the_files(folder):
    store = open_store(folder)
    assert isinstance(store, IdxStore)
    assert len(store.names()) == 42 + 4
    assert store.names() == sorted(store.names())
    assert store.read("t10k-labels-idx1-ubyte.gz") == (folder / "t10k-labels-idx1-ubyte.gz").read_bytes()
    for absent in ("train/00030.png", "train/3.png", "train/00003", "../digits/train/00003.png", "images/00001.png"):
        assert absent not in store
    with pytest.raises(ImageError, match="train/00030"):
        store.read("train/00030.png")


def test_a_fingerprint_changes_with_the_file_and_only_then(folder):
    store = open_store(folder)
    before = store.fingerprint("train/00001.png"), store.fingerprint("test/00001.png")
    os.utime(folder / "train-images-idx3-ubyte.gz", ns=(1, 1))
    assert store.fingerprint("train/00001.png") != before[0]
    assert store.fingerprint("test/00001.png") == before[1]


def test_threads_and_other_processes_may_share_the_store(folder):
    store = open_store(folder)
    names = [name for name in store.names() if name.endswith(".png")] * 5
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(store.read, names))
    assert pickle.loads(pickle.dumps(store)).read(names[7]) == read[7]
    assert len(pickle.dumps(store)) < 2000
    for method in ("fork", "spawn"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
            assert pool.submit(store.read, names[3]).result() == read[3]


def test_only_a_folder_of_idx_images_alone_becomes_this_store(folder, tmp_path):
    assert isinstance(open_store(folder), IdxStore)
    (folder / "scan.png").write_bytes(b"")
    assert isinstance(open_store(folder), FolderStore)
    (tmp_path / "labels only").mkdir()
    shutil.copy(folder / "train-labels-idx1-ubyte.gz", tmp_path / "labels only")
    assert isinstance(open_store(tmp_path / "labels only"), FolderStore)


def test_digits_go_through_check_and_prepare_like_any_other_set(folder, tmp_path):
    records, store = digits.read(folder)
    assert check(records, store).empty
    prepared = prepare(complete_splits(records), store, tmp_path / "a" / "prepared", Preprocessing(28, "square", True))
    assert len(prepared.records) == 42
    assert prepared.skipped.empty
    assert not prepared.synthetic
    # Moved together, the set finds its originals again.
    (tmp_path / "b").mkdir()
    for name in ("a", "digits"):
        shutil.move(tmp_path / name, tmp_path / "b" / name)
    again = Prepared.load(tmp_path / "b" / "a" / "prepared").store
    assert isinstance(again, IdxStore)
    assert again.read("test/00002.png").startswith(b"\x89PNG")


def test_the_store_is_found_again_from_a_relative_place(folder, tmp_path):
    place = location_from(tmp_path / "elsewhere", open_store(folder))
    assert place == "../digits"
    assert isinstance(open_from(tmp_path / "elsewhere", place), IdxStore)


def test_a_generated_set_stays_marked_as_generated(folder):
    assert not is_synthetic(open_store(folder))
    (folder / "SYNTHETIC.md").write_text("drawn")
    assert is_synthetic(open_store(folder))


def test_images_may_lie_in_another_folder(folder, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in folder.glob("*images*"):
        shutil.move(path, images / path.name)
    with pytest.raises(MedicError, match="lacks train-images"):
        digits.read(folder)
    records, store = digits.read(folder, images)
    assert store.read(records["image"][5]).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_missing_file_is_named(name, folder):
    (folder / f"{name}.gz").unlink()
    with pytest.raises(MedicError, match=rf"lacks {name}\.gz; the set of digits has four files"):
        digits.read(folder)


def test_no_folder_is_named(tmp_path):
    with pytest.raises(MedicError, match=r"there is no folder .*nowhere"):
        digits.read(tmp_path / "nowhere")


def test_counts_that_differ_are_told(folder):
    idx.write(folder / "t10k-labels-idx1-ubyte.gz", np.zeros(11, np.uint8))
    with pytest.raises(MedicError, match=r"has 12 images and the labels beside it are 11"):
        digits.read(folder)


def test_a_label_that_is_no_digit_is_told_with_its_place(folder):
    idx.write(folder / "train-labels-idx1-ubyte.gz", np.array([3] * 29 + [10], np.uint8))
    with pytest.raises(MedicError, match=r"1 labels that are no digit 0..9, the first at position 29: 10"):
        digits.read(folder)


def test_images_and_labels_exchanged_are_told(folder):
    images, labels = (folder / f"train-{what}-ubyte.gz" for what in ("images-idx3", "labels-idx1"))
    images.rename(folder / "third")
    labels.rename(images)
    (folder / "third").rename(labels)
    with pytest.raises(MedicError, match="are images and labels exchanged"):
        digits.read(folder)


def test_images_that_are_no_grey_images_are_told_before_anything_is_read_from_them(folder):
    idx.write(folder / "train-images-idx3-ubyte.gz", np.zeros((30, 28, 28), np.float32))
    with pytest.raises(MedicError, match="holds float32 of shape"):
        digits.read(folder)


def test_a_truncated_file_of_images_says_how_much_is_missing(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))
    _, store = digits.read(folder)
    with pytest.raises(MedicError, match=r"100 of 23,520 bytes are missing"):
        store.read("train/00000.png")


def test_the_sample_is_the_committed_one_and_can_be_made_again(repository, tmp_path):
    for _ in range(2):
        write_sample(tmp_path)
    committed = repository / "sample_data" / "digits"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in committed.iterdir())
    for name in ("train", "t10k"):
        for what in ("images-idx3", "labels-idx1"):
            ours, theirs = (idx.read(place / f"{name}-{what}-ubyte.gz") for place in (tmp_path, committed))
            assert np.abs(ours.astype(int) - theirs).max() <= 1  # another OpenCV may round otherwise
    assert (tmp_path / "SOURCES.md").read_text() == (committed / "SOURCES.md").read_text()


def test_the_sample_is_real_handwriting_laid_out_like_mnist(repository):
    records, store = digits.read(repository / "sample_data" / "digits")
    assert records["split"].value_counts().to_dict() == {"train": 1500, "test": 297}
    assert all(len(set(rows["label"])) == 10 for _, rows in records.groupby("split"))
    assert not is_synthetic(store)
    about = (repository / "sample_data" / "digits" / "SOURCES.md").read_text()
    assert "CC BY 4.0" in about
    images = idx.read(repository / "sample_data" / "digits" / "train-images-idx3-ubyte.gz")
    assert images.shape == (1500, 28, 28)
    weight = images.sum(axis=(1, 2))
    for axis in (1, 2):
        centre = (images.sum(axis=3 - axis) @ np.arange(28)) / weight
        assert np.abs(centre - 13.5).max() <= 1


def test_the_sample_replaces_no_other_files(folder, tmp_path):
    with pytest.raises(MedicError, match="which no earlier sample made"):
        write_sample(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(MedicError, match="it is a file"):
        write_sample(tmp_path / "file")
    made = tmp_path / "made"
    write_sample(made)
    (made / "mine.txt").write_text("")
    with pytest.raises(MedicError, match=r"it holds mine\.txt"):
        write_sample(made)


@pytest.mark.real_data
def test_mnist_has_its_counts(real_data):
    records, store = digits.read(real_data / "digits")
    counts = records.groupby(["split", "label"]).size()
    assert counts["train"].tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert counts["test"].tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert records["image"].is_unique
    assert pixels(store.read("train/59999.png")).shape == (28, 28)
