"""A synthetic chest X-ray set in the layout of NIH ChestX-ray14, with planted faults.

No real chest is behind any radiograph. The set is for trying the whole line without a download; figures made from it
say nothing about patients.
"""

import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from medic.data.stores import SYNTHETIC_MARK
from medic.errors import MedicError
from medic.files import replacing, write_text
from medic.sample.chest.anatomy import sample_anatomy
from medic.sample.chest.drawing import SMALLEST, radiograph
from medic.sample.chest.files import add_member, dicom, png
from medic.sample.chest.patients import FEWEST_PATIENTS, follow_ups, people_with
from medic.sample.layout import earlier_files
from medic.task import FINDINGS, NO_FINDING

__all__ = ["radiograph", "sample_anatomy", "write_sample"]

TITLE = "# Synthetic chest radiographs"
TABLE = "Data_Entry_2017.csv"
LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
FILES = {TABLE, *LISTS.values(), "images.zip", "planted_faults.csv"}
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
# of originals as the real table states them: width and height in pixels, pixel spacing in mm
DETECTORS = {
    "PA": ((2992, 2991, 0.143), (2500, 2048, 0.171), (2048, 2500, 0.171)),
    "AP": ((2500, 2048, 0.168), (3056, 2544, 0.139)),
}
FOLDERS = 3  # of images in the archive; 12 in the real set

ABOUT = """{title}

**Synthetic.** Every radiograph here was drawn by a program from random numbers. No real patient, no real chest, and no
clinical meaning: a result from this folder says that the software works, nothing about patients.

Made by `medic sample` (in Python: `medic.sample.chest_set.write_sample`) with seed {seed}: {patients}
patients, {images} radiographs of {size} x {size} pixels. The same seed gives the same files.

| file | content |
| --- | --- |
| `images.zip` | `images_001/images/<patient>_<follow-up>.png`, ...; stored, not compressed again |
| `Data_Entry_2017.csv` | one row a radiograph, columns as in NIH ChestX-ray14; the original sizes are made up |
| `train_val_list.txt`, `test_list.txt` | the names of each split; no patient is in both |
| `planted_faults.csv` | the faults that were put in on purpose: `image,fault,detail` |

How a finding shows follows the Fleischner Society's glossary of terms for thoracic imaging (Hansell et al., Radiology
246(3), 2008) where it has the term. As in hospitals, patients whose radiograph is taken in bed
(view AP) are sicker. Radiographs with each finding, of {images}:

| finding | train_val | test |
| --- | --- | --- |
{counts}
"""


def write_sample(folder: str | os.PathLike, *, patients: int = 165, seed: int = 2026, size: int = 128) -> pd.DataFrame:
    """Write a synthetic data set; the same arguments give byte-identical files (with the same OpenCV and Pillow).

    Args:
        folder: absent, empty, or holding an earlier sample, which is replaced.
        patients: at least 120; one to five radiographs each, 2.2 on average.
        seed: of everything.
        size: of the square radiographs, pixels, at least 64.

    Returns:
        One row a radiograph, in the order of the table: ``image`` (name as in the table), ``patient`` (str),
        ``follow_up`` (int), ``age`` (int, years), ``sex``, ``view``, ``split`` ("train" or "test"), ``label`` (1 with
        any finding, else 0), one 0/1 column a finding, and ``fault`` (str, empty for most).

    Raises:
        MedicError: too few patients or pixels, or a folder that holds anything else or cannot be written.
    """
    if patients < FEWEST_PATIENTS or size < SMALLEST:
        raise MedicError(
            f"cannot make a sample of {patients} patients at {size} pixels with every finding in every split: "
            f"ask for at least {FEWEST_PATIENTS} patients and {SMALLEST} pixels"
        )
    folder = Path(folder)
    earlier = earlier_files(folder, SYNTHETIC_MARK, TITLE, FILES.__contains__)
    people = people_with(patients, np.random.default_rng([seed, 0]))
    visits = follow_ups(people, np.random.default_rng([seed, 1]))
    faults = _choose_faults(visits)
    visits["fault"] = visits["image"].map(faults.drop_duplicates("image").set_index("image")["fault"]).fillna("")

    counts = "\n".join(
        f"| {name} | "
        + " | ".join(str((visits.loc[visits["split"] == split, column] == wanted).sum()) for split in LISTS)
        + " |"
        for name, column, wanted in [*((name, name, 1) for name in FINDINGS), (NO_FINDING, "label", 0)]
    )
    about = ABOUT.format(title=TITLE, seed=seed, patients=patients, images=len(visits), size=size, counts=counts)
    # the mark comes first: it shows that the folder is ours, so that an interrupted run can be repeated
    write_text(folder / SYNTHETIC_MARK, about)
    with replacing(folder / "images.zip") as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        add_member(archive, SYNTHETIC_MARK, about.encode())
        _add_images(archive, people, visits, faults, seed, size)
    write_text(folder / TABLE, _table(visits, np.random.default_rng([seed, 2])))
    for split, name in LISTS.items():
        write_text(folder / name, "".join(f"{image}\n" for image in visits.loc[visits["split"] == split, "image"]))
    listed = faults[["image", "fault", "detail"]]
    write_text(folder / "planted_faults.csv", listed.to_csv(index=False, lineterminator="\n"))
    for path in earlier - {folder / name for name in (*FILES, SYNTHETIC_MARK)}:
        path.unlink()
    return visits.drop(columns=["person", "severity"])


def _choose_faults(visits: pd.DataFrame) -> pd.DataFrame:
    """Which radiographs get which fault: image, fault, detail; the files of one fault in the order of their making."""
    visits = visits.assign(
        radiographs=visits.groupby("patient")["image"].transform("size"), findings=visits[list(FINDINGS)].sum(axis=1)
    )
    healthy = visits[visits["label"] == 0].drop_duplicates("patient")
    healthy = healthy.sort_values("radiographs", kind="stable")  # those of patients with one radiograph first
    plain = iter(healthy.loc[healthy["split"] == "train", "image"])
    tested = healthy.loc[healthy["split"] == "test", "image"].iloc[0]
    single = visits[(visits["split"] == "train") & (visits["findings"] == 1)]
    single = single.sort_values("Infiltration", ascending=False, kind="stable")  # a frequent one, if there is any
    original, twin = next(plain), single["image"].iloc[0]
    (finding,) = single["severity"].iloc[0]
    dicoms = [next(plain) for _ in range(3)]
    stray = f"{int(visits['patient'].astype(int).max()) + 1:08d}_000.png"
    rows = [
        (next(plain), "RGBA", "four channels, the first three equal, the last opaque"),
        (next(plain), "RGB", "three equal channels"),
        (next(plain), "16 bit", "16 bits a pixel; each value 257 times that of 8 bits"),
        (dicoms[0], "DICOM", "the file is .dcm: 8 bits, MONOCHROME2"),
        (dicoms[1], "DICOM", "the file is .dcm: 16 bits, MONOCHROME1, with a window"),
        (dicoms[2], "DICOM", "the file is .dcm: 12 bits, MONOCHROME2, with an offset and a window"),
        (tested, "truncated", "the PNG ends after two fifths of its bytes"),
        (next(plain), "no image", "the table has a row, the archive no file"),
        (stray, "no row", "the archive has a file, the table no row"),
        (next(plain), "age with a unit", "058Y"),
        (next(plain), "impossible age", "412"),
        (original, "duplicate", f"same bytes as {twin}; labels No Finding and {finding}; this is the original"),
        (twin, "duplicate", f"same bytes as {original}; labels {finding} and No Finding"),
    ]
    return pd.DataFrame(rows, columns=["image", "fault", "detail"])


def _add_images(
    archive: zipfile.ZipFile, people: pd.DataFrame, visits: pd.DataFrame, faults: pd.DataFrame, seed: int, size: int
) -> None:
    """Draw every radiograph and store it under its name, faults included."""
    original, twin = faults.loc[faults["fault"] == "duplicate", "image"]
    depths = iter(((8, False), (16, True), (12, False)))
    depth = {image: next(depths) for image in faults.loc[faults["fault"] == "DICOM", "image"]}
    anatomies = [
        sample_anatomy(np.random.default_rng([seed, 3, index]), sex) for index, sex in enumerate(people["sex"])
    ]
    lender = next(visits[visits["image"] == original].itertuples())
    for number, visit in enumerate(visits.itertuples()):
        if visit.fault == "no image":
            continue
        shown = lender if visit.image == twin else visit
        rng = np.random.default_rng([seed, 4, shown.person, shown.follow_up])
        pixels = radiograph(shown.severity, shown.view, rng, anatomy=anatomies[shown.person], size=size)
        name = f"images_{1 + number * FOLDERS // len(visits):03d}/images/{visit.image}"
        if visit.fault == "DICOM":
            bits, inverted = depth[visit.image]
            person = {"id": visit.patient, "age": f"{visit.age:03d}Y", "sex": visit.sex, "view": visit.view}
            add_member(archive, name.replace(".png", ".dcm"), dicom(pixels, person, bits=bits, inverted=inverted))
            continue
        data = png(pixels, {"RGBA": "RGBA", "RGB": "RGB", "16 bit": "I;16"}.get(visit.fault, "L"))
        add_member(archive, name, data[: len(data) * 2 // 5] if visit.fault == "truncated" else data)
    stray = faults.loc[faults["fault"] == "no row", "image"].item()
    pixels = radiograph({}, "PA", np.random.default_rng([seed, 5]), size=size)
    add_member(archive, f"images_{FOLDERS:03d}/images/{stray}", png(pixels))


def _table(visits: pd.DataFrame, rng: np.random.Generator) -> str:
    """The table of all radiographs as CSV text, columns as NIH names them."""
    lines = [HEADER]
    for visit in visits.itertuples():
        age = {"age with a unit": "058Y", "impossible age": "412"}.get(visit.fault, str(visit.age))
        labels = "|".join(sorted(visit.severity)) or NO_FINDING
        kinds = DETECTORS[visit.view]
        width, height, spacing = kinds[rng.integers(len(kinds))]
        lines.append(
            f"{visit.image},{labels},{visit.follow_up},{int(visit.patient)},{age},{visit.sex},{visit.view},"
            f"{width},{height},{spacing},{spacing}"
        )
    return "\n".join(lines) + "\n"
