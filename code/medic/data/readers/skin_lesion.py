"""Dermoscopic images of the ISIC Archive: benign or malignant."""

import os
import sys
from pathlib import Path

import pandas as pd

from medic.data.corrections import corrected
from medic.data.readers import own
from medic.data.readers.listed_images import open_images, stem
from medic.data.readers.listing import cells_of, find_table, open_tables, read_table, refuse_twice, sexes, whole
from medic.data.records import validate
from medic.data.stores import Store
from medic.errors import MedicError
from medic.task import SKIN_LESION

TABLES = ("metadata.csv", "groundtruth.csv")
"""The archive's own table, and the one without header line that the challenge of 2016 came with."""
_VERDICTS = ("benign_malignant", "diagnosis_1")
_DIAGNOSES = ("diagnosis", "diagnosis_5", "diagnosis_4", "diagnosis_3", "diagnosis_2")
"""The archive's former column, and today's from the finest to the coarsest."""
_DETAILS = ("diagnosis", "age", "sex", "width", "height")
_CODED = {"0": "benign", "0.0": "benign", "1": "malignant", "1.0": "malignant"}
"""As the challenge of 2016 wrote the verdicts of its test images."""


def is_published(folder: Path) -> bool:
    """Whether a folder holds a table of the archive or the challenge; other tables are called metadata.csv as well."""
    table = folder / TABLES[0]
    return (folder / TABLES[1]).is_file() or (table.is_file() and b"isic_id" in table.read_bytes()[:4096].lower())


def read(source: str | os.PathLike, images: str | os.PathLike | None = None) -> tuple[pd.DataFrame, Store]:
    """Read the archive's table, and find each listed image in its store.

    Three layouts are understood: ``metadata.csv`` as the archive's client and ``medic download skin_lesion`` write it;
    ``groundtruth.csv`` without header line, ``ISIC_0000001,benign`` or ``ISIC_0000003,0.0``; and, without either, what
    ``medic.data.readers.own`` reads as benign and malignant. Where both tables are there the first counts.

    Returns:
        Records with ``image``, ``patient``, ``patient_source``, ``split``, ``label`` (0 benign, 1 malignant) and
        ``class``, as of ``own``. Of ``metadata.csv`` also ``diagnosis`` (text), ``age`` (Int64, years, rounded to
        five), ``sex`` (``F``, ``M``), ``width`` and ``height`` (Int64, pixels of the original), each missing where not
        given. Rows that are neither benign nor malignant are left out, which is said. And the store.

    Raises:
        MedicError: columns that are missing, no row that is benign or malignant, or as ``own``.
    """
    tables, named = open_tables(source)
    metadata, groundtruth = (named, None) if named else (find_table(tables, wanted) for wanted in TABLES)
    if not metadata and not groundtruth:
        return own.read(source, images, SKIN_LESION)
    where = f"{metadata or groundtruth} in {tables.location}"
    cells, titles = _metadata(tables, metadata, where) if metadata else _groundtruth(tables, groundtruth, where)
    if metadata and groundtruth:
        print(f"{groundtruth} is not read: the labels are those of {metadata}", file=sys.stderr)
    known = cells["label"].isin(SKIN_LESION.classes)
    others = f"{(~known).sum()} of {len(cells)} images are neither benign nor malignant"
    if not known.any():
        raise MedicError(f"{where}: {others}; read labels of your own with medic.data.readers.own")
    if not known.all():
        print(f"{others} and are left out", file=sys.stderr)
    store = open_images(tables.location if images is None else images)
    records = own.records_of(cells[known], titles, where, store)
    records.insert(4, "label", (records["class"] == "malignant").astype("int64"))
    details = cells[known].filter([*_DETAILS]).reset_index(drop=True)
    return corrected(validate(records.join(details), SKIN_LESION), tables, SKIN_LESION), store


def _metadata(tables: Store, file: str, where: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Cells and titles as of ``cells_of``, with the details as they stand in the records."""
    table = read_table(tables, file, titled=True)
    # Exports differ in what stands before a column's name: metadata.clinical.sex, meta.acquisition.pixelsX.
    table.columns = [title.lower().rpartition(".")[2] for title in table.columns]
    for names in (_VERDICTS, _DIAGNOSES):
        if given := [name for name in names if name in table]:
            table[names[0]] = table[given].replace("", pd.NA).bfill(axis=1).iloc[:, 0].fillna("")
    if not {"isic_id", _VERDICTS[0]} <= set(table):
        raise MedicError(f"{where} needs the columns isic_id and {' or '.join(_VERDICTS)}; it has: {', '.join(table)}")
    cells, titles = cells_of(table, where)
    cells = cells.reindex(columns=cells.columns.union(["split", *_DETAILS], sort=False), fill_value="")
    cells = cells.assign(
        label=cells["label"].str.lower(),
        split=cells["split"].replace("", "train"),
        diagnosis=cells["diagnosis"].replace("", pd.NA).astype("string"),
        sex=sexes(cells["sex"]),
        **{what: whole(cells[what]) for what in ("age", "width", "height")},
    )
    return cells, titles


def _groundtruth(tables: Store, file: str, where: str) -> tuple[pd.DataFrame, dict[str, str]]:
    cells, _ = cells_of(read_table(tables, file), where)
    refuse_twice(cells["image"].map(stem), where)
    return cells.assign(label=cells["label"].str.lower().replace(_CODED)), {"image": "image"}
