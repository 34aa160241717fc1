"""A synthetic chest X-ray set in the layout of NIH ChestX-ray14, with planted faults.

No real chest is behind any radiograph. The set is for trying the whole line without a download; figures made from it
say nothing about patients.
"""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from medic.data.stores import SYNTHETIC_MARK
from medic.errors import MedicError
from medic.files import write_bytes, write_text
from medic.sample.chest.body import draw_person
from medic.sample.chest.drawing import FILMS, SMALLEST, radiograph
from medic.sample.chest.files import add_member, dicom, png
from medic.sample.layout import FAULTS, Hospital, choose_small, replacing_sample, write_about, write_table
from medic.task import FINDINGS, NO_FINDING

__all__ = ["radiograph", "write_sample"]

TITLE = "Synthetic chest radiographs"
TABLE, SMALL_TABLE = "Data_Entry_2017.csv", "Data_Entry_2017_small.csv"
LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
FILES = r"Data_Entry_2017(_small)?\.csv|(train_val|test)_list\.txt|images\.zip"  # of a sample
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
DETECTORS = {"PA": "2992,2991,0.143,0.143", "AP": "2500,2048,0.168,0.168"}  # of originals as the real table states them
FOLDERS = 3  # of images in the archive; 12 in the real set
FEWEST_PATIENTS = 120  # below, too few are left without a finding
LARGEST_ID = 30805  # patients of the real set
FOLLOW_UPS = (0.36, 0.27, 0.17, 0.12, 0.08)  # share of patients with 1, 2, ... radiographs
LASTING = ("Cardiomegaly", "Mass", "Nodule", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")
# share of patients by their main finding (all are frequent enough to be in every split), and what else they may have
SHARES = {
    "Infiltration": (0.05, ("Effusion", "Nodule")),
    "Effusion": (0.045, ("Atelectasis", "Pneumothorax")),
    "Cardiomegaly": (0.045, ("Edema", "Effusion")),
    "Atelectasis": (0.045, ("Mass", "Infiltration")),
    "Pneumothorax": (0.045, ("Emphysema", "Consolidation")),
    "Consolidation": (0.045, ("Pneumothorax", "Atelectasis")),
    "Mass": (0.045, ("Nodule", "Consolidation")),
    "Nodule": (0.045, ("Mass", "Fibrosis")),
    "Emphysema": (0.045, ("Fibrosis", "Nodule")),
    "Edema": (0.045, ("Cardiomegaly", "Infiltration")),
    "Fibrosis": (0.045, ("Emphysema", "Mass")),
    "Pleural_Thickening": (0.025, ("Fibrosis", "Edema")),
    "Pneumonia": (0.025, ("Infiltration", "Effusion")),
    "Hernia": (0.02, ("Cardiomegaly", "Atelectasis")),
}
UNREPORTED = 0.4  # share of the radiographs without a finding that show a slight sign of one
ILL = {1: 1.0, 2: 0.6}  # patients with a finding in each hospital, of these shares
IN_BED = {1: (0.25, 0.65), 2: (0.35, 0.35)}  # share of radiographs without and with a finding that are taken in bed

HOSPITALS = {
    1: Hospital(
        "sharp film with strong contrast; an L beside the patient's left arm",
        "six in ten radiographs show a finding",
        "65 % of radiographs with a finding, 25 % of the others are taken in bed (view AP: arrow, low contrast)",
    ),
    2: Hospital(
        "soft, flat film; wider field of view; an R beside the patient's right arm",
        "four in ten radiographs show a finding",
        "none: 35 % are taken in bed, with a finding or without",
    ),
}
CONTENT = {
    "`images.zip`": "`images_001/images/<patient>_<follow-up>.png`, ...; stored, not compressed again",
    f"`{TABLE}`": "one row a radiograph, columns as in NIH ChestX-ray14; the original sizes are made up",
    f"`{SMALL_TABLE}`": "at most 40 of its rows; read it by naming this file",
    "`train_val_list.txt`, `test_list.txt`": "the names of each split; no patient is in both",
}
TEXT = """
How a finding shows follows the Fleischner Society's glossary of terms for thoracic imaging (Hansell et al., Radiology
246(3), 2008) where it has the term. As in life, reports miss something: {unreported:.0%} of the radiographs without a
finding show a slight sign of one, which no mask marks. Radiographs with each finding:

| finding | train_val | test |
| --- | --- | --- |
{counts}
"""


def write_sample(
    folder: str | os.PathLike,
    *,
    patients: int = 230,
    seed: int = 2026,
    size: int = 192,
    hospital: int = 1,
    masks: bool = False,
) -> pd.DataFrame:
    """Write a synthetic data set; the same arguments give byte-identical files (with the same OpenCV and Pillow).

    Args:
        folder: absent, empty, or holding an earlier sample, which is replaced.
        patients: at least 120; one to five radiographs each, 2.3 on average.
        seed: of everything.
        size: of the square radiographs, pixels, at least 64.
        hospital: 1, or 2 for another film, another prevalence and no shortcut by the view.
        masks: write where each finding shows, too.

    Returns:
        One row a radiograph, in the order of the table: ``image`` (name as in the table), ``patient`` (str),
        ``follow_up`` (int), ``age`` (int, years), ``sex``, ``view``, ``split`` ("train" or "test"), ``label`` (1 with
        any finding, else 0), one 0/1 column a finding, ``small`` (bool, in the small table too) and ``fault`` (str,
        empty for most).

    Raises:
        MedicError: an unknown hospital, too few patients or pixels, or a folder that holds anything else or cannot be
            written.
    """
    if patients < FEWEST_PATIENTS or size < SMALLEST or hospital not in FILMS:
        raise MedicError(
            f"cannot make a sample of {patients} patients at {size} pixels in hospital {hospital}: ask for at least "
            f"{FEWEST_PATIENTS} patients and {SMALLEST} pixels, and hospital 1 or 2"
        )
    people = _people(patients, ILL[hospital], np.random.default_rng([seed, 0]))
    visits = _visits(people, hospital, np.random.default_rng([seed, 1]))
    faults = _choose_faults(visits)
    visits["fault"] = visits["image"].map(faults.drop_duplicates("image").set_index("image")["fault"]).fillna("")
    visits["small"] = choose_small(visits, {"train": 24, "test": 16})
    shown = visits[list(FINDINGS)].assign(**{NO_FINDING: 1 - visits["label"]}).groupby(visits["split"]).sum()
    counts = "\n".join(f"| {name} | {shown.loc['train', name]} | {shown.loc['test', name]} |" for name in shown)
    made = f"{patients} patients, {len(visits)} radiographs of {size} x {size} pixels"
    with replacing_sample(folder, TITLE, FILES) as new:
        about, text = (
            {"seed": seed, "hospital": hospital, "made": made},
            TEXT.format(unreported=UNREPORTED, counts=counts),
        )
        write_about(new, TITLE, about, CONTENT, text, HOSPITALS)
        with zipfile.ZipFile(new / "images.zip", "w", zipfile.ZIP_STORED) as archive:
            add_member(archive, SYNTHETIC_MARK, (new / SYNTHETIC_MARK).read_bytes())
            for name, data, shows in _images(visits, faults, seed, size, hospital):
                add_member(archive, name, data)
                for finding, mask in shows.items() if masks else ():
                    write_bytes(new / "masks" / f"{Path(name).stem}_{finding}.png", png(mask))
        write_text(new / TABLE, _table(visits))
        write_text(new / SMALL_TABLE, _table(visits[visits["small"]]))
        for split, name in LISTS.items():
            write_table(new / name, visits.loc[visits["split"] == split, "image"], header=False)
        write_table(new / FAULTS, faults)
    return visits.drop(columns=["person", "severity", "drawn"])


def _people(patients: int, ill: float, rng: np.random.Generator) -> pd.DataFrame:
    """One row a patient: patient, main (finding or empty), sex, age, radiographs, split (three tenths to test)."""
    # at least five patients of a finding: one to test, four to train on, so that a validation split can have one too
    count = {name: max(5, round(share * ill * patients)) for name, (share, _) in SHARES.items()}
    main = rng.permutation(np.repeat(["", *count], [patients - sum(count.values()), *count.values()]))
    names = np.sort(rng.choice(np.arange(1, max(LARGEST_ID, 2 * patients)), patients, replace=False))
    people = pd.DataFrame({"patient": [f"{name:08d}" for name in names], "main": main, "split": "train"})
    people["sex"] = np.where(rng.random(patients) < 0.46, "F", "M")
    people["age"] = np.rint(rng.normal(np.where(people["main"] == "", 52, 59), 14)).clip(19, 92).astype(int)
    people["radiographs"] = 1 + rng.choice(len(FOLLOW_UPS), patients, p=FOLLOW_UPS)
    for _, rows in people.groupby("main"):
        people.loc[rng.permutation(rows.index)[: max(1, round(0.32 * len(rows)))], "split"] = "test"
    return people


def _visits(people: pd.DataFrame, hospital: int, rng: np.random.Generator) -> pd.DataFrame:
    """One row a radiograph; findings that last stay once they have come, the others come and go."""
    rows = []
    for index, person in enumerate(people.itertuples()):
        count, courses = person.radiographs, {}
        if person.main:
            also = [name for name in SHARES[person.main][1] if rng.random() < 0.75]
            for name in (person.main, *also):
                start = 0 if rng.random() < 0.8 else rng.integers(count)
                end = count if name in LASTING else start + 1 + rng.geometric(0.4)
                drift = (rng.beta(1.3, 1.7) + np.cumsum(rng.normal(0, 0.12, count))).clip(0.05, 1).round(3)
                courses[name] = np.where((np.arange(count) >= start) & (np.arange(count) < end), drift, 0)
        for number in range(count):
            severity = {name: float(course[number]) for name, course in courses.items() if course[number]}
            slight = {str(rng.choice(FINDINGS)): float(rng.uniform(0.1, 0.45))} if rng.random() < UNREPORTED else {}
            rows.append(
                {
                    "image": f"{person.patient}_{number:03d}.png",
                    "patient": person.patient,
                    "follow_up": number,
                    "age": person.age + number // 2,
                    "sex": person.sex,
                    "view": "AP" if rng.random() < IN_BED[hospital][bool(severity)] else "PA",
                    "split": person.split,
                    "label": int(bool(severity)),
                    **{name: int(name in severity) for name in FINDINGS},
                    "person": index,
                    "severity": severity,
                    "drawn": severity or slight,
                }
            )
    return pd.DataFrame(rows)


def _choose_faults(visits: pd.DataFrame) -> pd.DataFrame:
    """Which radiographs get which fault: image, fault, detail; the files of one fault in the order of their making."""
    radiographs, findings = visits.groupby("patient")["image"].transform("size"), visits[list(FINDINGS)].sum(axis=1)
    healthy = visits.assign(of=radiographs)[visits["label"] == 0].drop_duplicates("patient")
    healthy = healthy.sort_values("of", kind="stable")  # those of patients with one radiograph first
    plain = iter(healthy.loc[healthy["split"] == "train", "image"])
    tested = healthy.loc[healthy["split"] == "test", "image"].iloc[0]
    single = visits[(visits["split"] == "train") & (findings == 1)]
    single = single.sort_values("Infiltration", ascending=False, kind="stable")
    original, twin = next(plain), single["image"].iloc[0]
    (finding,) = single["severity"].iloc[0]
    stray = f"{int(visits['patient'].astype(int).max()) + 1:08d}_000.png"
    rows = [
        (next(plain), "RGBA", "four channels, the first three equal, the last opaque"),
        (next(plain), "RGB", "three equal channels"),
        (next(plain), "16 bit", "16 bits a pixel; each value 257 times that of 8 bits"),
        (next(plain), "DICOM", "the file is .dcm: 8 bits, MONOCHROME2"),
        (next(plain), "DICOM", "the file is .dcm: 16 bits, MONOCHROME1, with a window"),
        (next(plain), "DICOM", "the file is .dcm: 12 bits, MONOCHROME2, with an offset and a window"),
        (tested, "truncated", "the PNG ends after two fifths of its bytes"),
        (next(plain), "no image", "the table has a row, the archive no file"),
        (stray, "no row", "the archive has a file, the table no row"),
        (next(plain), "age with a unit", "058Y"),
        (next(plain), "impossible age", "412"),
        (original, "duplicate", f"same bytes as {twin}; labels No Finding and {finding}; this is the original"),
        (twin, "duplicate", f"same bytes as {original}; labels {finding} and No Finding"),
    ]
    return pd.DataFrame(rows, columns=["image", "fault", "detail"])


def _images(
    visits: pd.DataFrame, faults: pd.DataFrame, seed: int, size: int, hospital: int
) -> Iterator[tuple[str, bytes, dict]]:
    """Yield every file's name in the archive, its bytes, and the masks of its findings."""
    original, twin = faults.loc[faults["fault"] == "duplicate", "image"]
    depths = ((8, False), (16, True), (12, False))  # bits, and whether white is dark
    depth = dict(zip(faults.loc[faults["fault"] == "DICOM", "image"], depths, strict=True))
    lender = next(visits[visits["image"] == original].itertuples())
    for number, visit in enumerate(visits.itertuples()):
        if visit.fault == "no image":
            continue
        shown = lender if visit.image == twin else visit
        person = draw_person(np.random.default_rng([seed, 3, shown.person]), shown.sex)
        rng = np.random.default_rng([seed, 4, shown.person, shown.follow_up])
        pixels, masks = radiograph(shown.drawn, shown.view, rng, person=person, size=size, film=FILMS[hospital])
        masks = {name: mask for name, mask in masks.items() if name in shown.severity}
        name = f"images_{1 + number * FOLDERS // len(visits):03d}/images/{visit.image}"
        if visit.fault == "DICOM":
            bits, inverted = depth[visit.image]
            tags = {"id": visit.patient, "age": f"{visit.age:03d}Y", "sex": visit.sex, "view": visit.view}
            yield name.replace(".png", ".dcm"), dicom(pixels, tags, bits=bits, inverted=inverted), masks
            continue
        data = png(pixels, {"RGBA": "RGBA", "RGB": "RGB", "16 bit": "I;16"}.get(visit.fault, "L"))
        yield name, data[: len(data) * 2 // 5] if visit.fault == "truncated" else data, masks
    stray = faults.loc[faults["fault"] == "no row", "image"].item()
    pixels, _ = radiograph({}, "PA", np.random.default_rng([seed, 5]), size=size, film=FILMS[hospital])
    yield f"images_{FOLDERS:03d}/images/{stray}", png(pixels), {}


def _table(visits: pd.DataFrame) -> str:
    """Return the table as CSV text, columns as NIH names them."""
    lines = [HEADER]
    for visit in visits.itertuples():
        age = {"age with a unit": "058Y", "impossible age": "412"}.get(visit.fault, str(visit.age))
        labels = "|".join(sorted(visit.severity)) or NO_FINDING
        lines.append(
            f"{visit.image},{labels},{visit.follow_up},{int(visit.patient)},{age},{visit.sex},{visit.view},"
            f"{DETECTORS[visit.view]}"
        )
    return "\n".join(lines) + "\n"
