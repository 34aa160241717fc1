"""Dermoscopic images of the ISIC Archive: benign or malignant."""

from __future__ import annotations

import os
import sys
from functools import reduce
from pathlib import Path

import pandas as pd

from medic.data.corrections import corrected
from medic.data.readers import own
from medic.data.readers.listed_images import find_images, stem
from medic.data.readers.listing import csv_files, find_table, line_numbers, open_images, read_table
from medic.data.readers.patients import EACH_IMAGE
from medic.data.records import validate
from medic.data.stores import FolderStore, Store, open_store
from medic.errors import MedicError
from medic.task import SKIN_LESION

TABLES = ("metadata.csv", "groundtruth.csv")
"""The archive's own table, and the one without header line that the challenge of 2016 came with."""
_VERDICTS = ("benign_malignant", "diagnosis_1")
_DIAGNOSES = ("diagnosis", "diagnosis_5", "diagnosis_4", "diagnosis_3", "diagnosis_2")
"""The former column, and today's from the finest to the coarsest."""
_READ = (
    "isic_id",
    *_VERDICTS,
    *_DIAGNOSES,
    *("patient_id", "lesion_id", "age_approx", "sex", "split", "pixelsx", "pixelsy", "pixels_x", "pixels_y"),
)
_CODED = {"0": "benign", "0.0": "benign", "1": "malignant", "1.0": "malignant"}
"""As the challenge of 2016 wrote the verdicts of its test images."""
_SEXES = {"female": "F", "male": "M"}


def is_published(folder: Path) -> bool:
    """Whether a folder holds a table of the archive or the challenge; other tables are called metadata.csv as well."""
    if (folder / TABLES[1]).is_file():
        return True
    if not (folder / TABLES[0]).is_file():
        return False
    with open(folder / TABLES[0], encoding="utf-8", errors="replace") as file:
        return "isic_id" in file.readline().lower()


def read(source: str | os.PathLike, images: str | os.PathLike | None = None) -> tuple[pd.DataFrame, Store]:
    """Read the archive's table, and find each listed image in its store.

    Three layouts are understood: ``metadata.csv`` as the archive's client and ``medic download skin_lesion`` write it,
    with the verdict in ``benign_malignant`` or, in newer entries, in ``diagnosis_1``; ``groundtruth.csv`` without
    header line, ``ISIC_0000001,benign`` or ``ISIC_0000003,0.0``; and, without either, the folders ``benign`` and
    ``malignant``. Where both tables are there the first is read, and a verdict that the second contradicts is noted.

    Columns of ``metadata.csv`` are found by their names, whatever stands before them up to a full stop.

    Args:
        source: the folder or zip file that holds the table, or the folders; or a file such as ``metadata.csv`` itself.
        images: the folder or zip file of the images; by default that of the table. A folder may hold zip files.

    Returns:
        Records with the columns ``image``, ``patient`` (``patient_id`` where the table knows it, otherwise
        ``lesion_id``, otherwise the image's own name), ``patient_source``, ``split`` (``train`` where
        no column says), ``label`` (0 benign, 1 malignant) and ``class``. Of ``metadata.csv`` also ``diagnosis``
        (text), ``age`` (Int64, years, rounded by the archive to five), ``sex`` (``F``, ``M``), ``width`` and
        ``height`` (Int64, pixels of the original), and ``note`` (what contradicts), each missing where not given.
        Rows that are neither benign nor malignant are left out, which is said. And the store. An image that is absent
        keeps its listed name, and ``medic.data.check.check`` reports it.

    Raises:
        MedicError: no table and no such folders; a table without the needed columns, without rows, or with an image
            listed twice; not one row that is benign or malignant; an image found at two places.
    """
    source = Path(source)
    if source.suffix.lower() == ".csv" and source.is_file():
        tables, found = FolderStore(source.parent), {TABLES[0]: source.name}
    else:
        tables = open_store(source)
        found = {wanted: name for wanted in TABLES if (name := find_table(tables, wanted)) is not None}
    if not found:
        others = csv_files(tables)
        if others:
            raise MedicError(
                f"{tables.location} holds {', '.join(others[:3])} but neither {TABLES[0]} nor {TABLES[1]} of the "
                "ISIC Archive; read a table of your own with medic.data.readers.own (on the command line: own)"
            )
        return own.read(source, images, SKIN_LESION)
    listed = _metadata(tables, found[TABLES[0]]) if TABLES[0] in found else None
    truth = _groundtruth(tables, found[TABLES[1]]) if TABLES[1] in found else None
    records = truth if listed is None else listed if truth is None else _compared(listed, truth, found[TABLES[1]])
    records = records[records["class"].isin(SKIN_LESION.classes)].reset_index(drop=True)
    total = len(truth if listed is None else listed)
    if records.empty:
        raise MedicError(f"{tables.location}: not one of {total} images is labelled benign or malignant")
    if len(records) < total:
        left_out = f"{total - len(records)} of {total} images are neither benign nor malignant and are left out"
        print(left_out, file=sys.stderr)
    store = open_images(tables.location if images is None else Path(images))
    records["image"] = find_images(list(records["name"]), store)
    records["label"] = [SKIN_LESION.classes.index(name) for name in records["class"]]
    first = ["image", "patient", "patient_source", "split", "label", "class"]
    records = records[first + [column for column in records if column not in (*first, "name")]]
    return corrected(validate(records, SKIN_LESION), tables, SKIN_LESION), store


def _metadata(tables: Store, file: str) -> pd.DataFrame:
    where = f"{file} in {tables.location}"
    table = read_table(tables, file)
    # Exports differ in what stands before a column's name: metadata.clinical.sex, meta.acquisition.pixelsX.
    header = [title.lower().rpartition(".")[2] for title in table.columns]
    twice = [name for name in _READ if header.count(name) > 1]
    if twice:
        raise MedicError(f"{where} has several columns called {twice[0]}; keep one")
    verdicts = [name for name in _VERDICTS if name in header]
    if "isic_id" not in header or not verdicts:
        raise MedicError(f"{where} needs the columns isic_id and {' or '.join(_VERDICTS)}; it has: {', '.join(header)}")
    if table.empty:
        raise MedicError(f"{where} lists no image; get it again")
    table = table.set_axis(header, axis=1).reset_index(drop=True)
    cells = {column: table[column].astype(object) for column in _READ if column in header}
    name = _names(cells["isic_id"], where)
    given = {column: values.replace("", pd.NA) for column, values in cells.items()}

    def known(column: str) -> pd.Series:
        return given.get(column, pd.Series(pd.NA, index=name.index, dtype="object"))

    def first(*columns: str) -> pd.Series:
        """Of each row the first value that is given."""
        return reduce(pd.Series.fillna, map(known, columns))

    sizes = {"width": first("pixelsx", "pixels_x"), "height": first("pixelsy", "pixels_y")}
    patient, told_by = _patients(known("patient_id"), known("lesion_id"), name)
    return pd.DataFrame(
        {
            "name": name,
            "patient": patient,
            "patient_source": told_by,
            "split": known("split").str.lower().fillna("train"),
            "class": first(*verdicts).str.lower().fillna(""),
            "diagnosis": first(*_DIAGNOSES).astype("string"),
            "age": _whole(known("age_approx")),
            "sex": known("sex").str.lower().map(_SEXES).astype("string"),
            **{column: _whole(values) for column, values in sizes.items()},
        }
    )


def _groundtruth(tables: Store, file: str) -> pd.DataFrame:
    where = f"{file} in {tables.location}"
    lines = read_table(tables, file, titles=())
    empty = (lines == "").any(axis=1) | (len(lines.columns) != 2)
    if empty.any():
        first = line_numbers(lines.index[empty])
        raise MedicError(f"{where}, line {first}, is not an image and its verdict, such as ISIC_0000001,benign")
    name = _names(lines[0].reset_index(drop=True), where)
    classes = [_CODED.get(verdict, verdict) for verdict in lines[1].str.lower()]
    return pd.DataFrame(
        {"name": name, "patient": name, "patient_source": EACH_IMAGE, "split": "train", "class": classes}
    )


def _patients(patient: pd.Series, lesion: pd.Series, name: pd.Series) -> tuple[pd.Series, str]:
    """Who is on each image, and what tells: the patient, else the lesion, else the image itself."""
    told = [title for title, cells in (("patient_id", patient), ("lesion_id", lesion)) if cells.notna().any()]
    source = f"column {' and '.join(told)}" if told else EACH_IMAGE
    return patient.fillna(lesion).fillna(name), f"{source} (no patient is known)" if told == ["lesion_id"] else source


def _compared(listed: pd.DataFrame, truth: pd.DataFrame, file: str) -> pd.DataFrame:
    """The archive's rows, with a note where the other table says otherwise; what it has alone is left out and said."""
    alone = truth["name"][~truth["name"].isin(listed["name"])]
    if len(alone):
        print(
            f"{len(alone)} images of {file} are not in {TABLES[0]} and are left out: {alone.iloc[0]}, ...",
            file=sys.stderr,
        )
    other = listed["name"].map(dict(zip(truth["name"], truth["class"], strict=True)))
    differs = other.notna() & (other != listed["class"])
    return listed.assign(note=(f"{file} says " + other.where(differs)).astype("string"))


def _names(cells: pd.Series, where: str) -> pd.Series:
    """Names of images without their endings, each once."""
    names = cells.map(stem)
    twice = names[names.duplicated()]
    if (names == "").any() or len(twice):
        what = f"lists {twice.iloc[0]} twice; keep one line an image" if len(twice) else "has a line without an image"
        raise MedicError(f"{where} {what}")
    return names


def _whole(values: pd.Series) -> pd.Series:
    """Whole numbers, missing where there are none."""
    return pd.to_numeric(values, errors="coerce").round().astype("Int64")
