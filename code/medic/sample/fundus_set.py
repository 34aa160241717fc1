"""A synthetic retinopathy data set in the layout of the published tutorial, with planted faults."""

import os
from collections.abc import Iterator
from itertools import product

import cv2
import numpy as np
import pandas as pd

from medic.errors import MedicError
from medic.files import write_bytes
from medic.sample.fundus import HOSPITALS, LESIONS, fundus_photograph
from medic.sample.layout import FAULTS, choose_small, jpeg, replacing_sample, write_about, write_table

TITLE = "Synthetic fundus photographs"
FILES = r"(train|test)_(img|label)(_small)?\.csv|images/\d+_(left|right)\.jpeg"
SMALL = {"train": 26, "test": 14}  # images

# of grades 0-4 in one eye of each patient, by hospital
SHARES = {1: (0.48, 0.14, 0.22, 0.08, 0.08), 2: (0.66, 0.13, 0.13, 0.04, 0.04)}
FEWEST_PATIENTS = 40  # below, the rare grades and the planted faults do not fit into every split
LEAST_OF_A_GRADE = 5  # patients: 2 to test, 3 to train on, so that a validation split can have one too
TESTED = 0.43
QUALITY = 88  # of the JPEG files
NEIGHBOURS = {
    0: (1, 1, 2),
    1: (0, 2),
    2: (1, 3),
    3: (2, 2, 4),
    4: (3, 2),
}  # grades of an eye that differs from its twin

ABOUT = """Grades: 0 no retinopathy, 1 mild, 2 moderate, 3 severe, 4 proliferative. What each shows follows the
International Clinical Diabetic Retinopathy scale (Wilkinson et al., Ophthalmology 110, 2003). A quarter of the patients
have another grade in one eye than in the other. Nothing but lesions tells the grade: no shortcut is planted.

A mask is a PNG of the photograph's size. Its values: 0 no lesion, {lesions}.

Grades of the photographs:

| | 0 | 1 | 2 | 3 | 4 |
| --- | --- | --- | --- | --- | --- |
{counts}"""


def write_sample(
    folder: str | os.PathLike,
    *,
    patients: int = 352,
    seed: int = 2026,
    width: int = 288,
    height: int = 216,
    hospital: int = 1,
    masks: bool = False,
) -> pd.DataFrame:
    """Write a synthetic data set; the same arguments give byte-identical files (with the same OpenCV).

    Args:
        folder: absent, empty, or holding an earlier sample, which is replaced.
        patients: at least 40; two photographs each.
        seed: of everything.
        width: of a photograph, pixels.
        height: of a photograph, pixels.
        hospital: 1, or 2 with another camera and fewer ill people.
        masks: whether to write where lesions lie, ``masks/<image>.png``; see ``fundus_photograph``.

    Returns:
        One row a photograph, in the order of the CSV files: ``image`` (name without extension), ``patient`` (str),
        ``eye``, ``split`` ("train" or "test"), ``label`` (int, 0-4), ``small`` (bool, in the small twin too) and
        ``fault`` (str, empty for most).

    Raises:
        MedicError: too few patients, no such hospital, or a folder that holds anything else or cannot be written.
    """
    if patients < FEWEST_PATIENTS or hospital not in HOSPITALS:
        raise MedicError(
            f"cannot make a sample of {patients} patients at hospital {hospital}: "
            f"ask for at least {FEWEST_PATIENTS}, so that every split has every grade, and hospital 1 or 2"
        )
    rng = np.random.default_rng(seed)
    people = _people(patients, SHARES[hospital], rng)
    faults = _choose_faults(people)
    records = _records(people, faults, rng)
    counts = pd.crosstab(records["split"], records["label"]).loc[["train", "test"]]
    text = ABOUT.format(
        lesions=", ".join(f"{number} {name}" for number, name in enumerate(LESIONS, 1)),
        counts="\n".join(f"| {split} | " + " | ".join(map(str, row)) + " |" for split, *row in counts.itertuples()),
    )
    about = {
        "seed": seed,
        "hospital": hospital,
        "made": f"{patients} patients, two eyes each, {width} x {height} pixels",
    }
    files = {
        "`images/<patient>_left.jpeg`, `images/<patient>_right.jpeg`": "the photographs",
        "`train_img.csv`, `test_img.csv`": "one column, no header: names without extension; no patient is in both",
        "`train_label.csv`, `test_label.csv`": "one column, no header: the n-th grade belongs to the n-th name",
        "`..._small.csv`": "a few of the rows, the two eyes of a patient together, every grade present",
    }
    with replacing_sample(folder, TITLE, FILES) as new:
        write_about(new, TITLE, about, files, text, HOSPITALS)
        for name, data, mask in _photographs(people, faults, (seed, hospital), (width, height)):
            write_bytes(new / "images" / f"{name}.jpeg", data)
            if masks:
                write_bytes(new / "masks" / f"{name}.png", cv2.imencode(".png", mask)[1].tobytes())
        for split, small in product(("train", "test"), ("", "_small")):
            rows = records[(records["split"] == split) & (records["small"] | (not small))]
            write_table(new / f"{split}_img{small}.csv", rows["image"], header=False)
            write_table(new / f"{split}_label{small}.csv", rows["label"], header=False)
        write_table(new / FAULTS, faults[["image", "fault", "detail"]])
    return records


def _people(patients: int, shares: tuple[float, ...], rng: np.random.Generator) -> pd.DataFrame:
    """One row a patient: patient, left, right (grades), split."""
    count = [max(LEAST_OF_A_GRADE, round(patients * share)) for share in shares]
    count[0] = patients - sum(count[1:])
    names = rng.choice(np.arange(1, max(1000, 2 * patients)), patients, replace=False)
    people = pd.DataFrame({"patient": names.astype(str), "left": np.repeat(np.arange(5), count), "split": "train"})
    people["right"] = people["left"]
    for grade, rows in people.groupby("left"):
        order = rng.permutation(rows.index)
        people.loc[order[: max(2, round(TESTED * len(order)))], "split"] = "test"
        for index in order[1::4]:  # never the first of a split, so that each keeps every grade
            people.loc[index, rng.choice(["left", "right"])] = rng.choice(NEIGHBOURS[grade])
    return people.sample(frac=1, random_state=rng).reset_index(drop=True)


def _choose_faults(people: pd.DataFrame) -> pd.DataFrame:
    """Which photographs get which fault: image, fault, detail, source (of whose photograph the bytes are)."""
    plain = people[people["left"] == people["right"]]

    def of(grade: int, split: str) -> Iterator[str]:
        return iter(plain.loc[(plain["left"] == grade) & (plain["split"] == split), "patient"])

    healthy, moderate, tested = of(0, "train"), of(2, "train"), of(0, "test")
    cut, twin, swapped, dark = (next(healthy) for _ in range(4))
    original, blurred, text = next(moderate), next(moderate), next(tested)
    rows = [
        (f"{cut}_left", "truncated", "the JPEG ends after two fifths of its bytes", ""),
        (f"{text}_right", "not an image", "a text file named .jpeg", ""),
        (f"{original}_left", "duplicate", f"same bytes as {twin}_left; labels 2 and 0; this is the original", ""),
        (f"{twin}_left", "duplicate", f"same bytes as {original}_left; labels 0 and 2", f"{original}_left"),
        (f"{swapped}_left", "swapped eyes", "shows the right eye", f"{swapped}_right"),
        (f"{swapped}_right", "swapped eyes", "shows the left eye", f"{swapped}_left"),
        (f"{dark}_right", "nearly black", "exposed 25 times too short", ""),
        (f"{blurred}_right", "blurred", "far out of focus", ""),
    ]
    return pd.DataFrame(rows, columns=["image", "fault", "detail", "source"])


def _records(people: pd.DataFrame, faults: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """One row a photograph, train before test, shuffled within."""
    records = people.melt(["patient", "split"], ["left", "right"], var_name="eye", value_name="label")
    records["image"] = records["patient"] + "_" + records["eye"]
    records["fault"] = records["image"].map(faults.set_index("image")["fault"]).fillna("")
    records = records.sample(frac=1, random_state=rng).sort_values("split", ascending=False, kind="stable")
    records["small"] = choose_small(records, SMALL)
    return records[["image", "patient", "eye", "split", "label", "small", "fault"]].reset_index(drop=True)


def _photographs(
    people: pd.DataFrame, faults: pd.DataFrame, key: tuple[int, int], size: tuple[int, int]
) -> Iterator[tuple[str, bytes, np.ndarray]]:
    """Every photograph's name, bytes and mask, faults included; ``key`` is seed and hospital."""
    planted = faults.set_index("image")
    lent = planted.loc[planted["source"] != "", "source"]
    kept = {}
    for index, person in enumerate(people.itertuples()):
        for number, eye in enumerate(("left", "right"), 1):
            name, rng = f"{person.patient}_{eye}", np.random.default_rng([*key, index, number])
            grade = getattr(person, eye)
            pixels, mask = fundus_photograph(grade, eye, rng, size, person=[*key, index], hospital=HOSPITALS[key[1]])
            data = jpeg(pixels, QUALITY, planted["fault"].get(name, ""))
            if name in set(lent):
                kept[name] = data, mask
            if name not in lent:
                yield name, data, mask
    for name, other in lent.items():
        yield name, *kept[other]
