"""The drawn sets: reproducible, in their published layouts, with the splits, masks and faults that they promise."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image

from medic.data.images.decode import decode
from medic.data.readers import DATA_SETS, retinopathy
from medic.errors import ImageError, MedicError
from medic.files import sha256
from medic.sample import SAMPLES
from medic.sample.chest.body import draw_person
from medic.sample.chest.drawing import FILMS, radiograph
from medic.sample.fundus import CAMERAS, fundus_photograph
from medic.sample.layout import Sample
from medic.sample.lesion import drawing, scene
from medic.task import FINDINGS

COMMITTED = Path(__file__).parents[3] / "sample_data"
SMALL = {
    "retinopathy": {"patients": 40, "seed": 1, "size": 64},
    "chest_xray": {"patients": 120, "seed": 1, "size": 64},
    "skin_lesion": {"patients": 100, "seed": 1, "size": 64},
}
TWIN = {"retinopathy": {"small": True}, "chest_xray": "Data_Entry_2017_small.csv", "skin_lesion": "metadata_small.csv"}


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}


def drawing_every(step: int, name: str) -> Sample:
    """The same set, of whose images only every n-th is drawn."""
    whole = SAMPLES[name]
    return replace(whole, draw=lambda records, *how: whole.draw(records.iloc[::step], *how))


def files(folder: Path) -> dict[str, bytes]:
    """Every image by its name without folder and ending."""
    if (folder / "images.zip").is_file():
        with zipfile.ZipFile(folder / "images.zip") as archive:
            return {Path(name).stem: archive.read(name) for name in archive.namelist()}
    return {path.stem: path.read_bytes() for path in (folder / "images").iterdir()}


@pytest.fixture(scope="module", params=SMALL)
def small(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "a sample"
    return request.param, folder, SAMPLES[request.param].write(folder, **SMALL[request.param], masks=True)


def test_the_same_seed_gives_the_same_bytes_over_an_earlier_sample_and_masks_on_request(small, tmp_path):
    name, folder, _ = small
    drawing_every(20, name).write(tmp_path, **SMALL[name] | {"seed": 2}, masks=True)
    SAMPLES[name].write(tmp_path, **SMALL[name])
    assert content(tmp_path) == {path: digest for path, digest in content(folder).items() if "masks/" not in path}
    assert any((folder / "masks").iterdir())


def test_the_reader_takes_the_tables_the_splits_and_the_small_twin(small):
    name, folder, records = small
    found, store = DATA_SETS[name].read(folder)
    assert [Path(image).stem for image in found["image"]] == [Path(image).stem for image in records["image"]]
    for column in {"patient", "split", "label", "eye", "view", *FINDINGS} & set(records) & set(found):
        wanted = records[column].astype(int) if name == "chest_xray" and column == "patient" else records[column]
        assert found[column].astype(wanted.dtype).tolist() == wanted.tolist(), column
    assert len(found.groupby(["patient", "split"])) == found["patient"].nunique()
    how = TWIN[name]
    twin, _ = DATA_SETS[name].read(folder / how) if isinstance(how, str) else retinopathy.read(folder, **how)
    assert len(twin) == records["small"].sum() <= 40
    assert len(twin.groupby(["split", "label"])) == len(found.groupby(["split", "label"]))
    assert decode(store.read(twin["image"][0])).ndim == 3


@pytest.mark.parametrize("name", SMALL)
def test_the_second_hospital_has_fewer_ill_people_other_pictures_and_no_shortcut(name):
    cast, patients = SAMPLES[name].cast, SAMPLES[name].patients[0]
    first, second = (cast(patients, 1, hospital)[0] for hospital in (1, 2))
    assert (second["label"] > 0).mean() < (first["label"] > 0).mean() - 0.05
    assert (drawn_with_mask(name, 0, 1)[0] != drawn_with_mask(name, 0, 2)[0]).mean() > 0.5
    if name != "retinopathy":
        clue = [of["sticker"] if "sticker" in of else of["view"] == "AP" for of in (first, second)]
        gaps = [c.groupby(of["label"]).mean().diff().iloc[-1] for c, of in zip(clue, (first, second), strict=True)]
        assert gaps[0] > 0.3
        assert abs(gaps[1]) < 0.1


def test_has_the_faults_that_it_lists_and_no_other(small):
    _, folder, records = small
    named, images = records.set_index(records["image"].map(lambda image: Path(image).stem)), files(folder)
    listed = pd.read_csv(folder / "planted_faults.csv", dtype=str)
    assert set(listed["image"]) - set(records["image"]) == set(listed.loc[listed["fault"] == "no row", "image"])
    assert set(records.loc[records["fault"] != "", "image"]) <= set(listed["image"])
    for fault, rows in listed.groupby("fault", sort=False):
        stems = [Path(image).stem for image in rows["image"]]
        one, data = stems[0], [images.get(stem, b"") for stem in stems]
        assert FAULTS[fault](one, data, named, images), fault


def pictures(data: list[bytes]) -> list[np.ndarray]:
    return [cv2.resize(decode(one), (64, 48)).astype(float) for one in data]


def refused(data: bytes) -> bool:
    try:
        decode(data)
    except ImageError:
        return True
    return False


def sharp(data: bytes) -> float:
    return 0.0 if refused(data) else cv2.Laplacian(decode(data)[..., 1], cv2.CV_64F).std()


def in_mode(mode: str):
    return lambda one, data, named, images: Image.open(io.BytesIO(data[0])).mode == mode


def unreadable(one, data, named, images) -> bool:
    return refused(data[0])


def wrongly_labelled(one, data, named, images) -> bool:
    wrong = named[named["fault"] == "mislabelled"]
    clear = wrong.groupby("shown")["score"].agg(["min", "max"])
    return (wrong["label"] == 1 - wrong["shown"]).all() and clear.loc[1, "min"] > clear.loc[0, "max"]


def of_each_depth(one, data, named, images) -> bool:
    kinds = [pydicom.dcmread(io.BytesIO(file)) for file in data]
    bright = [decode(file)[:, 28:36].mean() > 110 for file in data]  # mediastinum and spine
    return all(bright) and [(kind.BitsStored, kind.PhotometricInterpretation[-1]) for kind in kinds] == [
        (8, "2"), (16, "1"), (12, "2")]  # fmt: skip


FAULTS = {  # what is seen of each: of the first name, the files, the records by their names, and all images
    "truncated": unreadable,
    "not an image": unreadable,
    "animated GIF": unreadable,
    "duplicate": lambda one, data, named, images: data[0] == data[1],
    "near duplicate": lambda one, data, named, images: (
        data[0] != data[1] and np.abs(np.subtract(*pictures(data[:2]))).mean() < 8
    ),
    "swapped eyes": lambda one, data, named, images: data[0] != data[1],
    "nearly black": lambda one, data, named, images: decode(data[0]).max() < 30,
    "blurred": lambda one, data, named, images: sharp(data[0]) < 0.5 * np.median([*map(sharp, images.values())]),
    "mislabelled": wrongly_labelled,
    "CMYK": in_mode("CMYK"),
    "grey": in_mode("L"),
    "palette": in_mode("P"),
    "RGB": in_mode("RGB"),
    "RGBA": in_mode("RGBA"),
    "16 bit": in_mode("I;16"),
    "rotated": lambda one, data, named, images: Image.open(io.BytesIO(data[0])).size == (48, 64),
    "small": lambda one, data, named, images: decode(data[0]).shape == (12, 16, 3),
    "DICOM": of_each_depth,
    "no image": lambda one, data, named, images: one not in images,
    "no row": lambda one, data, named, images: one in images and one not in named.index,
    "age with a unit": lambda one, data, named, images: one in images,
    "impossible age": lambda one, data, named, images: one in images,
}


def drawn_with_mask(name: str, seed: int, hospital: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if name == "retinopathy":
        return fundus_photograph(3, "left", rng, (256, 192), camera=CAMERAS[hospital])
    if name == "chest_xray":
        image, masks = radiograph({"Mass": 0.9}, "PA", rng, person=draw_person(rng), size=128, film=FILMS[hospital])
        return image, masks["Mass"]
    lesion = drawing.Lesion(0, 0, ("dark brown",), ("structureless",), person=1, seed=seed)
    return drawing.dermoscopic_image(lesion, rng, size=(160, 120), camera=scene.CAMERAS[hospital])


@pytest.mark.parametrize("hospital", [1, 2])
@pytest.mark.parametrize(("name", "brighter"), [("retinopathy", -1), ("chest_xray", 1), ("skin_lesion", -1)])
def test_a_mask_lies_where_something_is_seen(name, brighter, hospital):
    contrast = []
    for seed in range(6):
        image, mask = drawn_with_mask(name, seed, hospital)
        inside = mask == 6 if name == "retinopathy" else mask > 0  # 6: haemorrhages
        around = (cv2.dilate(inside.astype(np.uint8), np.ones((9, 9))) > 0) & (mask == 0)
        contrast.append(brighter * (image[inside].mean() - image[around].mean()))
    assert np.mean(contrast) > 5


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_changes_a_radiograph_where_its_mask_says(finding):
    inside, outside = [], []
    for seed in range(3):
        person = draw_person(np.random.default_rng([7, seed]))
        (without, _), (shown, masks) = (
            radiograph(which, "PA", np.random.default_rng([8, seed]), person=person, size=96)
            for which in ({}, {finding: 0.9})
        )
        change = cv2.GaussianBlur(np.abs(shown.astype(float) - without), (0, 0), 1)
        inside.append(change[masks[finding] > 0].mean())
        outside.append(change[masks[finding] == 0].mean())
    assert np.mean(inside) > 2 * np.mean(outside)


@pytest.mark.parametrize("name", SMALL)
def test_the_committed_set_is_what_is_drawn_and_large_enough_to_tell(name, tmp_path):
    records, committed = drawing_every(70, name).write(tmp_path), COMMITTED / name
    for path in (path for path in tmp_path.iterdir() if path.suffix in (".csv", ".txt", ".md")):
        assert path.read_bytes() == (committed / path.name).read_bytes(), path.name
    made, there = files(tmp_path), files(committed)
    some = made.keys() & there.keys() - {"SYNTHETIC"}
    assert len(some) >= 5
    for image in some:  # bytes may differ between versions of OpenCV, the picture may not
        if refused(there[image]):
            assert refused(made[image])
        else:
            assert np.abs(decode(made[image]).astype(int) - decode(there[image])).mean() < 1.5
    assert len(there.keys() - {"SYNTHETIC"}) == len(records)
    assert (records["split"] == "test").sum() >= (150 if name == "chest_xray" else 300)
    if name == "chest_xray":
        assert (records.loc[records["split"] == "test", list(FINDINGS)].sum() >= 12).sum() >= 10
    else:
        assert records.loc[records["split"] == "test", "label"].value_counts().min() >= 20


def test_the_committed_sets_are_small():
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*") if path.is_file()) <= 25_000_000


@pytest.mark.parametrize("wrong", [{"patients": 30}, {"size": 31}, {"hospital": 3}])
@pytest.mark.parametrize("name", SMALL)
def test_what_cannot_be_drawn_is_refused(name, wrong, tmp_path):
    with pytest.raises(MedicError, match=r"ask for at least \d+ patients and \d+ pixels"):
        SAMPLES[name].write(tmp_path / "few", **wrong)
    assert not (tmp_path / "few").exists()


@pytest.mark.parametrize("foreign", ["notes.txt", "SYNTHETIC.md", "images/12_left.jpeg", "images/holiday.jpeg"])
def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path, foreign):
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("mine")
    with pytest.raises(MedicError, match="empty or a new folder"):
        SAMPLES["retinopathy"].write(tmp_path)
    assert content(tmp_path).keys() == {foreign}


def test_a_sample_that_fails_half_way_leaves_the_earlier_one(small):
    def full(*_):
        raise OSError(28, "No space left on device")

    name, folder, _ = small
    before = content(folder)
    with pytest.raises(MedicError, match="No space left"):
        replace(SAMPLES[name], draw=full).write(folder, **SMALL[name])
    assert content(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
