"""The drawn sets: reproducible, in their published layouts, with the splits, masks and faults that they promise."""

import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image

from medic.data.images.decode import decode
from medic.data.readers import DATA_SETS
from medic.data.stores import idx, open_store
from medic.errors import ImageError, MedicError
from medic.sample import SAMPLES, digits
from medic.sample.chest.body import Person
from medic.sample.chest.drawing import radiograph
from medic.sample.fundus import fundus_photograph
from medic.sample.layout import Sample
from medic.sample.lesion import drawing
from medic.task import FINDINGS

COMMITTED = Path(__file__).parents[3] / "sample_data"
TWINS = {"retinopathy": ".", "chest_xray": "Data_Entry_2017_small.csv", "skin_lesion": "metadata_small.csv"}


def ask(name: str, seed: int = 1) -> dict[str, int]:
    return {"patients": SAMPLES[name].patients[1], "seed": seed, "size": 64}


def drawing_every(step: int, name: str) -> Sample:
    """The same set, of whose images only every n-th is drawn."""
    whole = SAMPLES[name]
    return replace(whole, draw=lambda records, *how: whole.draw(records.iloc[::step], *how))


def files(folder: Path) -> dict[str, bytes]:
    """Every image by its name without folder and ending."""
    packed = (folder / "images.zip").is_file()
    store = open_store(folder / "images.zip" if packed else folder / "images")
    return {Path(name).stem: store.read(name) for name in store.names() if name != "SYNTHETIC.md"}


@pytest.fixture(scope="module", params=SAMPLES)
def small(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "a sample"
    return request.param, folder, SAMPLES[request.param].write(folder, **ask(request.param), masks=True)


def test_the_same_seed_gives_the_same_bytes_over_an_earlier_sample_and_masks_on_request(small, tmp_path, contents):
    name, folder, _ = small
    drawing_every(20, name).write(tmp_path, **ask(name, seed=2), masks=True)
    SAMPLES[name].write(tmp_path, **ask(name))
    assert contents(tmp_path) == {path: data for path, data in contents(folder).items() if "masks/" not in path}
    assert any((folder / "masks").iterdir())


def test_the_reader_takes_the_tables_the_splits_and_the_small_twin(small):
    name, folder, records = small
    found, store = DATA_SETS[name].read(folder)
    absent = set(found["image"]) - set(store.images())
    assert len(absent) == (records["fault"] == "no image").sum(), "masks are not taken for the images"
    assert [Path(image).stem for image in found["image"]] == [Path(image).stem for image in records["image"]]
    for column in {"split", "label", "eye", "view", *FINDINGS} & set(records) & set(found):
        assert found[column].astype(records[column].dtype).tolist() == records[column].tolist(), column
    assert len(found.groupby(["patient", "split"])) == found["patient"].nunique() == records["patient"].nunique()
    twin, _ = DATA_SETS[name].read(folder / TWINS[name], **{"small": True} if name == "retinopathy" else {})
    assert len(twin) == records["small"].sum() <= 40
    assert len(twin.groupby(["split", "label"])) == len(found.groupby(["split", "label"]))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_second_hospital_has_fewer_ill_people_other_pictures_and_no_shortcut(name):
    cast, patients = SAMPLES[name].cast, SAMPLES[name].patients[0]
    first, second = (cast(patients, 1, hospital)[0] for hospital in (1, 2))
    assert (second["label"] > 0).mean() < (first["label"] > 0).mean() - 0.05
    assert (drawn_with_mask(name, 0, 1)[0] != drawn_with_mask(name, 0, 2)[0]).mean() > 0.5
    if name != "retinopathy":
        clues = [of["sticker"] if "sticker" in of else of["view"] == "AP" for of in (first, second)]
        here, there = (clue.groupby(of["label"]).mean() for clue, of in zip(clues, (first, second), strict=True))
        assert here[1] - here[0] > 0.3
        assert abs(there[1] - there[0]) < 0.1


def refused(data: bytes) -> bool:
    try:
        decode(data)
    except ImageError:
        return True
    return False


def disc_at(data: bytes) -> int:
    return int(np.argmax(cv2.GaussianBlur(decode(data)[..., 1], (0, 0), 3).max(axis=0)))


SEEN = {  # of the files of a fault, and of their records; tests/data/test_check_sets.py finds the others
    "truncated": lambda data, _: refused(data[0]),
    "duplicate": lambda data, rows: data[0] == data[1] and rows["patient"].is_unique and rows["label"].is_unique,
    "swapped eyes": lambda data, _: disc_at(data[0]) > 32 > disc_at(data[1]),
    "rotated": lambda data, _: Image.open(io.BytesIO(data[0])).size == (48, 64),
    "RGB": lambda data, _: Image.open(io.BytesIO(data[0])).mode == "RGB",
    "RGBA": lambda data, _: Image.open(io.BytesIO(data[0])).mode == "RGBA",
    "16 bit": lambda data, _: Image.open(io.BytesIO(data[0])).mode == "I;16",
    "mislabelled": lambda _, rows: (rows["label"] == 1 - rows["shown"]).all() and rows["shown"].nunique() == 2,
    "DICOM": lambda data, _: (
        [pydicom.dcmread(io.BytesIO(file)).BitsStored for file in data] == [8, 16, 12]
        and all(decode(file)[:, 28:36].mean() > 110 for file in data)  # mediastinum and spine are bright
    ),
    "no image": lambda data, _: data == [b""],
    "no row": lambda data, rows: data[0] and rows["patient"].isna().all(),
}


def test_has_the_faults_that_it_lists_and_no_other(small):
    name, folder, records = small
    named, images = records.set_index(records["image"].map(lambda image: Path(image).stem)), files(folder)
    listed = pd.read_csv(folder / "planted_faults.csv", dtype=str)
    assert set(records.loc[records["fault"] != "", "image"]) == set(listed.loc[listed["fault"] != "no row", "image"])
    for fault, rows in listed[listed["fault"].isin(SEEN)].groupby("fault", sort=False):
        stems = rows["image"].map(lambda image: Path(image).stem).tolist()
        assert SEEN[fault]([images.get(stem, b"") for stem in stems], named.reindex(stems)), fault
    if name == "chest_xray":
        assert {"058Y", "412"} <= set(pd.read_csv(folder / "Data_Entry_2017.csv", dtype=str)["Patient Age"])


def drawn_with_mask(name: str, seed: int, hospital: int) -> tuple[np.ndarray, np.ndarray]:
    """An image and where haemorrhages, a mass or a lesion lie in it."""
    rng = np.random.default_rng(seed)
    if name == "retinopathy":
        image, mask = fundus_photograph(3, "left", rng, (256, 192), hospital=hospital)
        return image, mask == 6
    if name == "chest_xray":
        image, masks = radiograph({"Mass": 0.9}, "PA", rng, person=Person(rng), size=128, hospital=hospital)
        return image, masks["Mass"] > 0
    lesion = drawing.Lesion(0, 0, ("dark brown",), ("structureless",), person=1, seed=seed)
    image, mask = drawing.dermoscopic_image(lesion, rng, size=(160, 120), hospital=hospital)
    return image, mask > 0


@pytest.mark.parametrize("hospital", [1, 2])
@pytest.mark.parametrize(("name", "brighter"), [("retinopathy", -1), ("chest_xray", 1), ("skin_lesion", -1)])
def test_a_mask_lies_where_something_is_seen(name, brighter, hospital):
    contrast = []
    for image, inside in (drawn_with_mask(name, seed, hospital) for seed in range(6)):
        around = (cv2.dilate(inside.astype(np.uint8), np.ones((9, 9))) > 0) & ~inside
        contrast.append(brighter * (image[inside].mean() - image[around].mean()))
    assert np.mean(contrast) > 5


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_changes_a_radiograph_where_its_mask_says(finding):
    share = []
    for seed in range(3):
        look = {"person": Person(np.random.default_rng([7, seed])), "size": 96}
        without, _ = radiograph({}, "PA", np.random.default_rng([8, seed]), **look)
        shown, masks = radiograph({finding: 0.9}, "PA", np.random.default_rng([8, seed]), **look)
        change = cv2.GaussianBlur(np.abs(shown.astype(float) - without), (0, 0), 1)
        share.append(change[masks[finding] > 0].mean() / change[masks[finding] == 0].mean())
    assert np.mean(share) > 2


@pytest.mark.parametrize("name", SAMPLES)
def test_the_committed_set_is_what_is_drawn_and_large_enough_to_tell(name, tmp_path):
    records, committed = drawing_every(70, name).write(tmp_path), COMMITTED / name
    for path in (path for path in tmp_path.iterdir() if path.suffix in (".csv", ".txt", ".md")):
        assert path.read_bytes() == (committed / path.name).read_bytes(), path.name
    made, there = files(tmp_path), files(committed)
    assert len(made.keys() & there.keys()) >= 5
    for image in made.keys() & there.keys():  # bytes may differ between versions of OpenCV, the picture may not
        assert refused(made[image]) == refused(there[image])
        assert refused(made[image]) or np.abs(decode(made[image]).astype(int) - decode(there[image])).mean() < 1.5
    tested = records[records["split"] == "test"]
    assert len(tested) >= (150 if name == "chest_xray" else 300)
    assert tested["label"].value_counts().min() >= 20
    assert name != "chest_xray" or (tested[list(FINDINGS)].sum() >= 12).sum() >= 10
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*") if path.is_file()) <= 25_000_000


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(
    ("asked", "foreign", "said"),
    [
        ({"patients": 30}, "", r"ask for at least \d+ patients"),
        ({"size": 31}, "", r"and \d+ pixels"),
        ({"hospital": 3}, "", "and hospital 1 or 2"),
        *(({}, file, "empty or a new folder") for file in ("notes.txt", "SYNTHETIC.md", "images/12_left.jpeg")),
    ],
)
def test_what_cannot_be_written_is_refused_and_the_folder_left_alone(name, asked, foreign, said, tmp_path, contents):
    if foreign:
        (tmp_path / foreign).parent.mkdir(exist_ok=True)
        (tmp_path / foreign).write_text("mine")
    with pytest.raises(MedicError, match=said):
        SAMPLES[name].write(tmp_path, **asked)
    assert contents(tmp_path).keys() == {foreign} - {""}


def test_a_sample_that_fails_half_way_leaves_the_earlier_one(small, contents):
    def full(*_):
        raise OSError(28, "No space left on device")

    name, folder, _ = small
    before = contents(folder)
    with pytest.raises(MedicError, match="No space left"):
        replace(SAMPLES[name], draw=full).write(folder, **ask(name))
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_committed_digits_are_what_is_written_over_an_earlier_sample_but_never_over_mnist(tmp_path):
    digits.write_sample(tmp_path)
    digits.write_sample(tmp_path)
    for committed in (COMMITTED / "digits").iterdir():
        read = Path.read_bytes if committed.suffix == ".md" else idx.read
        assert np.array_equal(read(tmp_path / committed.name), read(committed))
    (tmp_path / "SOURCES.md").unlink()
    with pytest.raises(MedicError, match="is of no sample"):
        digits.write_sample(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
