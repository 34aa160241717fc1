"""A synthetic chest X-ray set in the layout of NIH ChestX-ray14, with planted faults."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from medic.sample.chest.body import CONSTANTS, Person
from medic.sample.chest.drawing import radiograph
from medic.sample.layout import File, Sample, csv
from medic.task import FINDINGS, NO_FINDING

SHARES, ALSO, DICOM = (CONSTANTS[table] for table in ("shares", "also", "faults"))
FOLDERS = 3  # of images in the archive; 12 in the real set
LARGEST_ID = 30805  # patients of the real set
FOLLOW_UPS = (0.36, 0.27, 0.17, 0.12, 0.08)  # share of patients with 1, 2, ... radiographs
LASTING = ("Cardiomegaly", "Mass", "Nodule", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")
UNREPORTED = 0.4  # share of the radiographs without a finding that show a slight sign of one
IN_THE_FILE = [
    ("RGBA", "four channels, the first three equal, the last opaque"),
    ("RGB", "three equal channels"),
    ("16 bit", "16 bits a pixel; each value 257 times that of 8 bits"),
    *(("DICOM", detail) for detail in DICOM),
]
AGES = {"age with a unit": "058Y", "impossible age": "412"}  # as the table has them


def cast(patients: int, seed: int, hospital: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Make up patients and their radiographs; see ``Sample``.

    The records have ``follow_up`` (int), ``age`` (int, years), ``sex``, ``view`` and a 0/1 column for each finding;
    ``label`` is 1 with any finding.
    """
    of = CONSTANTS["hospital"][hospital - 1]
    people = _people(patients, of["ill"], np.random.default_rng([seed, 0]))
    visits = _visits(people, of["in_bed"], np.random.default_rng([seed, 1]))
    shown = visits[list(FINDINGS)].assign(**{NO_FINDING: 1 - visits["label"]}).groupby(visits["split"]).sum()
    return visits, _choose_faults(visits), shown.T[["train", "test"]]


def _people(patients: int, ill: float, rng: np.random.Generator) -> pd.DataFrame:
    """One row a patient: patient, main (finding or empty), sex, age, radiographs, split (three tenths to test)."""
    # at least five patients of a finding: one to test, four to train on, so that a validation split can have one too
    count = {name: max(5, round(share * ill * patients)) for name, share in SHARES.items()}
    main = rng.permutation(np.repeat(["", *count], [patients - sum(count.values()), *count.values()]))
    names = np.sort(rng.choice(np.arange(1, max(LARGEST_ID, 2 * patients)), patients, replace=False))
    people = pd.DataFrame({"patient": [f"{name:08d}" for name in names], "main": main, "split": "train"})
    people["sex"] = np.where(rng.random(patients) < 0.46, "F", "M")
    people["age"] = np.rint(rng.normal(np.where(people["main"] == "", 52, 59), 14)).clip(19, 92).astype(int)
    people["radiographs"] = 1 + rng.choice(len(FOLLOW_UPS), patients, p=FOLLOW_UPS)
    for _, rows in people.groupby("main"):
        people.loc[rng.permutation(rows.index)[: max(1, round(0.32 * len(rows)))], "split"] = "test"
    return people


def _visits(people: pd.DataFrame, in_bed: list[float], rng: np.random.Generator) -> pd.DataFrame:
    """One row a radiograph; findings that last stay once they have come, the others come and go."""
    drawn = []
    for index, person in enumerate(people.itertuples()):
        count, courses = person.radiographs, {}
        if person.main:
            also = [name for name in ALSO[person.main] if rng.random() < 0.75]
            for name in (person.main, *also):
                start = 0 if rng.random() < 0.8 else rng.integers(count)
                end = count if name in LASTING else start + 1 + rng.geometric(0.4)
                drift = (rng.beta(1.3, 1.7) + np.cumsum(rng.normal(0, 0.12, count))).clip(0.05, 1).round(3)
                courses[name] = np.where((np.arange(count) >= start) & (np.arange(count) < end), drift, 0)
        for number in range(count):
            severity = {name: float(course[number]) for name, course in courses.items() if course[number]}
            slight = {str(rng.choice(FINDINGS)): float(rng.uniform(0.1, 0.45))} if rng.random() < UNREPORTED else {}
            view = "AP" if rng.random() < in_bed[bool(severity)] else "PA"
            drawn.append((index, number, person.sex, view, severity or slight, list(severity)))
    visits = people.loc[people.index.repeat(people["radiographs"]), ["patient", "sex", "age", "split"]]
    visits["follow_up"] = visits.groupby("patient").cumcount()
    visits["image"] = visits["patient"] + "_" + visits["follow_up"].map("{:03d}.png".format)
    visits["age"] += visits["follow_up"] // 2
    visits["view"], visits["drawn"] = [view for *_, view, _, _ in drawn], drawn
    visits[list(FINDINGS)] = [[int(name in reported) for name in FINDINGS] for *_, reported in drawn]
    visits["label"] = visits[list(FINDINGS)].max(axis=1)
    return visits.reset_index(drop=True)


def _choose_faults(visits: pd.DataFrame) -> pd.DataFrame:
    """Which radiographs get which fault: image, fault, detail; the files of one fault in the order of their making."""
    healthy = visits.assign(of=visits.groupby("patient")["image"].transform("size"))[visits["label"] == 0]
    healthy = healthy.drop_duplicates("patient").sort_values("of", kind="stable")  # with one radiograph first
    single = visits[(visits["split"] == "train") & (visits[list(FINDINGS)].sum(axis=1) == 1)]
    single = single.sort_values("Infiltration", ascending=False, kind="stable").iloc[0]
    plain = iter(healthy.loc[healthy["split"] == "train", "image"])
    tested = healthy.loc[healthy["split"] == "test", "image"].iloc[0]
    original, twin, (finding,) = next(plain), single["image"], single["drawn"][-1]
    rows = [
        *((next(plain), fault, detail) for fault, detail in IN_THE_FILE),
        (tested, "truncated", "the PNG ends after two fifths of its bytes"),
        (next(plain), "no image", "the table has a row, the archive no file"),
        (_stray(visits), "no row", "the archive has a file, the table no row"),
        *((next(plain), fault, age) for fault, age in AGES.items()),
        (original, "duplicate", f"same bytes as {twin}; labels No Finding and {finding}; this is the original"),
        (twin, "duplicate", f"same bytes as {original}; labels {finding} and No Finding", original),
    ]
    return pd.DataFrame(rows, columns=["image", "fault", "detail", "source"]).fillna("")


def _stray(visits: pd.DataFrame) -> str:
    """Return the name of a radiograph of nobody in the table."""
    return f"{visits['patient'].astype(int).max() + 1:08d}_000.png"


def draw(records: pd.DataFrame, size: tuple[int, int], seed: int, hospital: int) -> Iterator[File]:
    """Draw each radiograph; a mask is named by its image and finding."""
    look = {"size": size[0], "hospital": hospital}
    for number, row in enumerate(records.itertuples()):
        index, visit, sex, view, findings, reported = row.drawn
        if row.fault == "no image":
            continue
        person = Person(np.random.default_rng([seed, 3, index]), sex)
        pixels, masks = radiograph(
            findings, view, np.random.default_rng([seed, 4, index, visit]), person=person, **look
        )
        name, stem = f"images_{1 + number * FOLDERS // len(records):03d}/images/{row.image}", Path(row.image).stem
        if row.fault == "DICOM":
            (bits, inverted), name = DICOM[row.detail], name.replace(".png", ".dcm")
            tags = {"id": row.patient, "age": f"{row.age:03d}Y", "sex": row.sex, "view": row.view}
            data = dicom(pixels, tags, bits=bits, inverted=inverted)
        else:
            data = png(pixels, row.fault)
        yield name, data, {f"{stem}_{finding}": masks[finding] for finding in reported}
    rng = np.random.default_rng([seed, 5])
    pixels, _ = radiograph({}, "PA", rng, person=Person(rng), **look)
    yield f"images_{FOLDERS:03d}/images/{_stray(records)}", png(pixels), {}


def png(pixels: np.ndarray, fault: str = "") -> bytes:
    """Encode grey values, uint8 (H, W), as PNG; with a fault: "RGB", "RGBA", "16 bit" (times 257) or "truncated"."""
    image, buffer = Image.fromarray(pixels.astype(np.uint16) * 257 if fault == "16 bit" else pixels), io.BytesIO()
    (image.convert(fault) if fault in ("RGB", "RGBA") else image).save(buffer, "PNG", optimize=True)
    data = buffer.getvalue()
    return data[: len(data) * 2 // 5] if fault == "truncated" else data


def dicom(pixels: np.ndarray, person: dict[str, str], *, bits: int = 8, inverted: bool = False) -> bytes:
    """Encode uint8 (H, W) as an uncompressed DICOM file (PS3.3, Digital X-Ray image).

    With more than 8 bits, value p is stored as 1000 + 8p, and a window says which stored values are black and white
    (C.11.2.1.2, linear); 16 bits come without and 12 bits with an offset to subtract first (C.11.1).

    Args:
        pixels: grey values, bright where tissue is dense.
        person: ``id``, ``age`` (such as "058Y"), ``sex`` and ``view``; the name is always made up.
        bits: 8, 12 or 16.
        inverted: MONOCHROME1: high values are dark.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    def uid(of: str) -> str:
        return f"2.25.{int(hashlib.sha256(of.encode()).hexdigest()[:30], 16)}"

    data, name, buffer = Dataset(), f"{person['id']} {bits}", io.BytesIO()
    data.file_meta = meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = uid("medic sample"), "MEDIC_SAMPLE"
    data.SOPClassUID, data.SOPInstanceUID = DigitalXRayImageStorageForPresentation, uid(f"instance {name}")
    data.StudyInstanceUID, data.SeriesInstanceUID = uid(f"study {name}"), uid(f"series {name}")
    data.StudyDate = data.ContentDate = "20260101"
    data.StudyTime = data.ContentTime = "000000"
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", "CHEST", person["view"]
    data.PatientName, data.ImageComments = "Synthetic^Sample", "Drawn by a program: no real patient"
    data.PatientID, data.PatientAge, data.PatientSex = person["id"], person["age"], person["sex"]
    stored = 255 - pixels if inverted else pixels
    if bits > 8:
        stored, offset = 1000 + 8 * stored.astype(np.uint16), -1024 if bits == 12 else 0
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, offset, "US"
        data.WindowCenter, data.WindowWidth = 2020 + offset, 2041
    data.set_pixel_data(stored, f"MONOCHROME{1 if inverted else 2}", bits, generate_instance_uid=False)
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def tables(records: pd.DataFrame, twin: str, size: tuple[int, int]) -> dict[str, str]:
    """Return the table, columns as NIH names them, where brackets hold a pair; and the lists of each split."""
    present = records[list(FINDINGS)].astype(bool)
    columns = {
        "Image Index": records["image"],
        "Finding Labels": [("|".join(sorted(present.columns[row])) or NO_FINDING) for row in present.to_numpy()],
        "Follow-up #": records["follow_up"],
        "Patient ID": records["patient"].astype(int),
        "Patient Age": records["fault"].map(AGES).fillna(records["age"].astype(str)),
        "Patient Gender": records["sex"],
        "View Position": records["view"],
    }
    table = pd.DataFrame(columns)
    originals = ["OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"]
    table[originals] = pd.DataFrame(records["view"].map(CONSTANTS["originals"]).tolist(), records.index)
    of_split = {} if twin else {"train_val_list.txt": "train", "test_list.txt": "test"}
    lists = {name: csv(records.loc[records["split"] == split, "image"], False) for name, split in of_split.items()}
    return {f"Data_Entry_2017{twin}.csv": csv(table), **lists}


FILES = r"Data_Entry_2017(_small)?\.csv|(train_val|test)_list\.txt|images\.zip"
SAMPLE = Sample("chest_xray.md.j2", FILES, cast, draw, tables, (230, 120), size=(192, 64), height=1, packed=True)
