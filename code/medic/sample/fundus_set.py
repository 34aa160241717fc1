"""A synthetic retinopathy data set in the layout of the published tutorial, with planted faults.

No real eye is behind any photograph. The set is for trying the whole line without a download; figures made from it
say nothing about patients.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from medic.data.stores import SYNTHETIC_MARK
from medic.errors import MedicError
from medic.files import write_bytes, write_text
from medic.sample.fundus.drawing import Anatomy, Eye, fundus_photograph, sample_anatomy
from medic.sample.layout import earlier_files

__all__ = ["Anatomy", "Eye", "fundus_photograph", "sample_anatomy", "write_sample"]

TITLE = "# Synthetic fundus photographs"
TABLES = {  # file: split, column, only the small twin's rows
    f"{split}_{what}{'_small' if small else ''}.csv": (split, column, small)
    for split in ("train", "test")
    for what, column in (("img", "image"), ("label", "label"))
    for small in (False, True)
}
IMAGE_FILE = re.compile(r"\d+_(left|right)\.jpeg")

# of grades 0-4 in one eye of each patient; with the eyes that differ, photographs come to about 44, 17, 24, 9 and 6 %
SHARES = (0.51, 0.13, 0.23, 0.07, 0.06)
FEWEST_PATIENTS = 40  # below, the rare grades and the planted faults do not fit into every split
LEAST_OF_A_GRADE = 5  # patients: 2 to test, 3 to train on, so that a validation split can have one too
# grades of an eye that differs from its twin
NEIGHBOURS = {
    0: (1, 1, 2),
    1: (0, 2),
    2: (1, 3),
    3: (2, 2, 4),
    4: (3, 2),
}

ABOUT = """{title}

**Synthetic.** Every photograph here was drawn by a program from random numbers. No real patient, no real eye, and no
clinical meaning: a result from this folder says that the software works, nothing about patients.

Made by `medic sample` with seed {seed}: {patients} patients, both eyes
each, {width} x {height} pixels, JPEG quality {quality}. The same seed gives the same files.

| file | content |
| --- | --- |
| `images/<patient>_left.jpeg`, `images/<patient>_right.jpeg` | the photographs |
| `train_img.csv`, `test_img.csv` | one column, no header: names without extension; no patient is in both |
| `train_label.csv`, `test_label.csv` | one column, no header: the n-th grade belongs to the n-th name |
| `..._small.csv` | about a quarter of the rows, the two eyes of a patient together, every grade present |
| `planted_faults.csv` | the faults that were put in on purpose: `image,fault,detail` |

Grades: 0 no retinopathy, 1 mild, 2 moderate, 3 severe, 4 proliferative. What each shows follows the International
Clinical Diabetic Retinopathy scale (Wilkinson et al., Ophthalmology 110, 2003). Grades of the photographs:

| | 0 | 1 | 2 | 3 | 4 |
| --- | --- | --- | --- | --- | --- |
{counts}
"""


def write_sample(
    folder: str | os.PathLike,
    *,
    patients: int = 110,
    seed: int = 2026,
    width: int = 544,
    height: int = 408,
    quality: int = 86,
) -> pd.DataFrame:
    """Write a synthetic data set; the same arguments give byte-identical files (with the same OpenCV).

    Args:
        folder: absent, empty, or holding an earlier sample, which is replaced.
        patients: at least 40; two photographs each.
        seed: of everything.
        width: of a photograph, pixels.
        height: of a photograph, pixels.
        quality: of the JPEG files, 1-100.

    Returns:
        One row a photograph, in the order of the CSV files: ``image`` (name without extension), ``patient`` (str),
        ``eye``, ``split`` ("train" or "test"), ``label`` (int, 0-4), ``small`` (bool, in the small twin too) and
        ``fault`` (str, empty for most).

    Raises:
        MedicError: too few patients, or a folder that holds anything else or cannot be written.
    """
    if patients < FEWEST_PATIENTS:
        raise MedicError(
            f"cannot make a sample of {patients} patients with every grade in every split: "
            f"ask for at least {FEWEST_PATIENTS}"
        )
    folder = Path(folder)
    earlier = earlier_files(folder, SYNTHETIC_MARK, TITLE, _of_a_sample)
    rng = np.random.default_rng(seed)
    people = _people(patients, rng)
    faults = _choose_faults(people)
    records = _records(people, faults, rng)

    # the mark comes first: it shows that the folder is ours, so that an interrupted run can be repeated
    counts = "\n".join(
        f"| {split} | " + " | ".join(str((rows["label"] == grade).sum()) for grade in range(5)) + " |"
        for split, rows in records.groupby("split", sort=False)
    )
    about = {"seed": seed, "patients": patients, "width": width, "height": height, "quality": quality}
    write_text(folder / SYNTHETIC_MARK, ABOUT.format(title=TITLE, counts=counts, **about))
    written = {folder / SYNTHETIC_MARK}
    for name, data in _photographs(people, faults, seed, (width, height, quality)):
        write_bytes(folder / "images" / f"{name}.jpeg", data)
        written.add(folder / "images" / f"{name}.jpeg")
    for name, (split, column, small) in TABLES.items():
        rows = records[(records["split"] == split) & (records["small"] | (not small))]
        write_text(folder / name, rows[column].to_csv(header=False, index=False, lineterminator="\n"))
        written.add(folder / name)
    listed = faults[["image", "fault", "detail"]]
    write_text(folder / "planted_faults.csv", listed.to_csv(index=False, lineterminator="\n"))
    written.add(folder / "planted_faults.csv")
    for path in earlier - written:
        path.unlink()
    return records


def _of_a_sample(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return name in {*TABLES, "planted_faults.csv"} or (folder == "images" and bool(IMAGE_FILE.fullmatch(file)))


def _people(patients: int, rng: np.random.Generator) -> pd.DataFrame:
    """One row a patient: patient, left, right (grades), split, small."""
    count = [max(LEAST_OF_A_GRADE, round(patients * share)) for share in SHARES]
    count[0] = patients - sum(count[1:])
    names = rng.choice(np.arange(1, max(1000, 2 * patients)), patients, replace=False)
    people = pd.DataFrame({"patient": names.astype(str), "left": np.repeat(np.arange(5), count)})
    people["right"] = people["left"]
    people["split"], people["small"] = "train", False
    for grade, rows in people.groupby("left"):
        order = rng.permutation(rows.index)
        tested = max(2, round(0.3 * len(order)))
        people.loc[order[:tested], "split"] = "test"
        people.loc[order[: max(1, round(tested / 5))], "small"] = True
        people.loc[order[tested:][: max(2, round((len(order) - tested) / 5))], "small"] = True
        # from the other end, so that the grades of the small twins stay as planned
        for index in order[len(order) - round(len(order) / 4) :]:
            people.loc[index, rng.choice(["left", "right"])] = rng.choice(NEIGHBOURS[grade])
    return people.sample(frac=1, random_state=rng).reset_index(drop=True)


def _choose_faults(people: pd.DataFrame) -> pd.DataFrame:
    """Which photographs get which fault: image, fault, detail, source (of whose photograph the bytes are)."""
    plain = people[(people["left"] == people["right"]) & ~people["small"]]

    def of(grade: int, split: str) -> Iterator[str]:
        return iter(plain.loc[(plain["left"] == grade) & (plain["split"] == split), "patient"])

    healthy, moderate, tested = of(0, "train"), of(2, "train"), of(0, "test")
    cut, twin, swapped, dark = (next(healthy) for _ in range(4))
    original, blurred = next(moderate), next(moderate)
    text = next(tested)
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
    records = people.melt(["patient", "split", "small"], ["left", "right"], var_name="eye", value_name="label")
    records["image"] = records["patient"] + "_" + records["eye"]
    records["fault"] = records["image"].map(faults.set_index("image")["fault"]).fillna("")
    records = records.sample(frac=1, random_state=rng).sort_values("split", ascending=False, kind="stable")
    return records[["image", "patient", "eye", "split", "label", "small", "fault"]].reset_index(drop=True)


def _photographs(
    people: pd.DataFrame, faults: pd.DataFrame, seed: int, look: tuple[int, int, int]
) -> Iterator[tuple[str, bytes]]:
    """Every photograph's name and bytes, faults included; ``look`` is width, height and JPEG quality."""
    width, height, quality = look
    fault = faults.set_index("image")["fault"].to_dict()
    source = faults.loc[faults["source"] != "", ["image", "source"]].set_index("image")["source"].to_dict()
    lent = {name: b"" for name in source.values()}
    for index, person in enumerate(people.itertuples()):
        anatomy = sample_anatomy(np.random.default_rng([seed, index]))
        for eye in ("left", "right"):
            name = f"{person.patient}_{eye}"
            rng = np.random.default_rng([seed, index, 1 if eye == "left" else 2])
            pixels = fundus_photograph(getattr(person, eye), eye, rng, anatomy=anatomy, width=width, height=height)
            data = _spoil(pixels, fault.get(name, ""), quality)
            if name in lent:
                lent[name] = data
            if name not in source:
                yield name, data
    for name, other in source.items():
        yield name, lent[other]


def _spoil(pixels: np.ndarray, fault: str, quality: int) -> bytes:
    """Encode a photograph as JPEG, with its fault if it has one that is in the bytes."""
    if fault == "not an image":
        return b"This is not a photograph. It is a text file that somebody named .jpeg.\n"
    if fault == "nearly black":
        pixels = pixels // 25
    if fault == "blurred":
        pixels = cv2.GaussianBlur(pixels, (0, 0), pixels.shape[1] / 45)
    _, encoded = cv2.imencode(".jpeg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    data = encoded.tobytes()
    return data[: len(data) * 2 // 5] if fault == "truncated" else data
