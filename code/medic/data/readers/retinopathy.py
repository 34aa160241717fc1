"""Diabetic retinopathy data in the layouts in which it is published."""

import os

import numpy as np
import pandas as pd

from medic.data.corrections import corrected
from medic.data.readers.listed_images import find_images, open_images, stem
from medic.data.readers.listing import cells_of, find_table, open_tables, read_table, refuse, refuse_twice
from medic.data.readers.patients import BY_EYES, EACH_IMAGE, eyes
from medic.data.records import SPLITS, validate
from medic.data.stores import Store
from medic.errors import MedicError
from medic.task import RETINOPATHY


def read(
    source: str | os.PathLike, images: str | os.PathLike | None = None, small: bool = False
) -> tuple[pd.DataFrame, Store]:
    """Read the tables, and find each listed image in its store.

    Three layouts are known, tried in this order, in a folder or inside a zip file that is never unpacked:

    - pairs of one-column tables, the n-th label belonging to the n-th name: ``train_img.csv`` and ``train_label.csv``,
      the same for ``test`` and (optionally) ``validation``: the source's own split is kept;
    - ``trainLabels.csv`` with ``image,level`` (Kaggle 2015); all rows come as ``train``;
    - ``train.csv`` with ``id_code,diagnosis`` (Kaggle 2019); all rows come as ``train``.

    A header line and a file extension may be there or not. ``small`` reads the ``_small`` twins of the first layout.

    Returns:
        Records with ``image``, ``patient``, ``eye`` (``left``, ``right`` or missing: see ``eyes``), ``patient_source``,
        ``split`` and ``label`` (grade 0..4), in the tables' order; and the store.

    Raises:
        MedicError: no table, tables of different lengths, a label that is no grade, an image listed or stored twice.
    """
    tables, _ = open_tables(source)
    suffix = "_small.csv" if small else ".csv"
    rows = [part for split in SPLITS if (part := _pair(tables, split, suffix)) is not None]
    for wanted in () if small else ("trainLabels.csv", "train.csv"):
        if not rows and (file := find_table(tables, wanted)):
            cells, _ = cells_of(read_table(tables, file), file)
            refuse(cells["image"], cells["image"] == "", file, "is no image; fill it in")
            rows = [cells.assign(label=_grades(cells["label"], file), split="train")]
    if not rows:
        pairs = f"train_img{suffix} and train_label{suffix}" + ", trainLabels.csv or train.csv" * (not small)
        raise MedicError(f"{tables.location} holds no table of retinopathy grades; it needs {pairs}")
    listed = pd.concat(rows)
    refuse_twice(listed["image"].map(stem), f"a table of {tables.location}")
    store = open_images(tables.location if images is None else images)
    people = eyes(list(listed["image"]))
    records = people.assign(
        image=find_images(list(listed["image"]), store),
        patient_source=BY_EYES if people["eye"].notna().any() else EACH_IMAGE,
        split=listed["split"].to_numpy(),
        label=listed["label"].to_numpy(),
    )
    return corrected(validate(records, RETINOPATHY), tables, RETINOPATHY), store


def _pair(tables: Store, split: str, suffix: str) -> pd.DataFrame | None:
    """``image``, ``label`` and ``split`` of every line of a pair of tables; None where there is none."""
    files = [find_table(tables, f"{split}_{what}{suffix}") for what in ("img", "label")]
    if None in files:
        if alone := next(filter(None, files), None):
            raise MedicError(f"{tables.location} has {alone} but not the other table of the pair; add it")
        return None
    names, labels = (read_table(tables, file).iloc[:, 0] for file in files)
    if len(names) != len(labels):
        raise MedicError(
            f"{files[0]} has {len(names)} names and {files[1]} has {len(labels)} labels; the n-th label belongs to the "
            "n-th name (is a header counted as data?)"
        )
    return pd.DataFrame({"image": names.array, "label": _grades(labels, files[1]), "split": split}, names.index)


def _grades(labels: pd.Series, file: str) -> np.ndarray:
    grades = pd.to_numeric(labels, errors="coerce")
    refuse(labels, ~grades.isin(range(5)), file, "is no grade; it must be 0, 1, 2, 3 or 4")
    return grades.to_numpy("int64")
