"""Dermoscopic images of the ISIC Archive: benign or malignant."""

import os
import sys
from pathlib import Path

import pandas as pd

from medic.data.corrections import corrected
from medic.data.readers import own
from medic.data.readers.listed_images import open_images
from medic.data.readers.listing import cells_of, find_table, open_tables, read_table, sexes, whole
from medic.data.records import validate
from medic.data.stores import Store
from medic.errors import MedicError
from medic.task import SKIN_LESION

TABLE = "metadata.csv"
_DIAGNOSES = ("diagnosis", "diagnosis_5", "diagnosis_4", "diagnosis_3", "diagnosis_2")
"""The archive's former column, and today's from the finest to the coarsest."""


def is_published(folder: Path) -> bool:
    """Return whether a folder holds a table of the archive; other tables are called metadata.csv as well."""
    table = folder / TABLE
    return table.is_file() and b"isic_id" in table.read_bytes()[:4096].lower()


def read(source: str | os.PathLike, images: str | os.PathLike | None = None) -> tuple[pd.DataFrame, Store]:
    """Read the archive's table, and find each listed image in its store.

    It is ``metadata.csv`` as the archive's client and ``medic download skin_lesion`` write it. Where there is none,
    ``medic.data.readers.own`` reads what is there as benign and malignant.

    Returns:
        Records as of ``own`` with ``label`` 0 benign, 1 malignant. Of the archive's table also ``diagnosis`` (text),
        ``age`` (Int64, years, rounded to five), ``sex`` (``F``, ``M``), ``width`` and ``height`` (Int64, pixels of the
        original), each missing where not given. Rows that are neither benign nor malignant are left out, which is said.
        And the store.

    Raises:
        MedicError: columns that are missing, no row that is benign or malignant, or as ``own``.
    """
    tables, named = open_tables(source)
    file = named or find_table(tables, TABLE)
    if not file:
        records, store = own.read(source, images)
        found = tuple(records.groupby("label")["class"].first())
        if tuple(map(str.lower, found)) != SKIN_LESION.classes:
            raise MedicError(
                f"{tables.location} has the classes {', '.join(found)}, not benign and malignant; name own"
            )
        return records, store
    where = f"{file} in {tables.location}"
    table = read_table(tables, file, titled=True)
    # Exports differ in what stands before a column's name: metadata.clinical.sex, meta.acquisition.pixelsX.
    table.columns = [title.lower().rpartition(".")[2] for title in table.columns]
    if "isic_id" not in table or not {"benign_malignant", "diagnosis_1"} & set(table):
        columns = f"isic_id and benign_malignant or diagnosis_1; it has: {', '.join(table)}"
        raise MedicError(f"{where} needs the columns {columns}")
    finest = table.filter(_DIAGNOSES).replace("", pd.NA)
    table["diagnosis"] = finest.bfill(axis=1).iloc[:, 0].fillna("") if len(finest.columns) else ""
    cells, titles = cells_of(table, where)
    cells = cells.assign(label=cells["label"].str.lower())
    known = cells["label"].isin(SKIN_LESION.classes)
    others = f"{(~known).sum()} of {len(cells)} images are neither benign nor malignant"
    if not known.any():
        raise MedicError(f"{where}: {others}; read labels of your own with medic.data.readers.own")
    if not known.all():
        print(f"{others} and are left out", file=sys.stderr)
    cells, store = cells[known], open_images(tables.location if images is None else images)
    records = own.records_of(cells, titles, where, store)
    records.insert(4, "label", (records["class"] == "malignant").astype("int64"))
    told = cells.reindex(columns=["diagnosis", "age", "sex", "width", "height"], fill_value="").reset_index(drop=True)
    told = told.assign(
        diagnosis=told["diagnosis"].replace("", pd.NA).astype("string"),
        sex=sexes(told["sex"]),
        **{what: whole(told[what]) for what in ("age", "width", "height")},
    )
    return corrected(validate(records.join(told), SKIN_LESION), tables, SKIN_LESION), store
