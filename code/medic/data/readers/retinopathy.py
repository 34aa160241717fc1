"""Diabetic retinopathy data in the layouts in which it is published."""

import os

import numpy as np
import pandas as pd

from medic.data.corrections import corrected
from medic.data.readers import own
from medic.data.readers.listed_images import find_images, open_images, stem
from medic.data.readers.listing import find_table, open_tables, read_table, refuse, refuse_twice
from medic.data.readers.patients import BY_EYES, EACH_IMAGE, eyes
from medic.data.records import validate
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
        MedicError: no table, tables of different lengths, a label that is no grade, a name listed twice, the same
            images in two folders.
    """
    tables, _ = open_tables(source)
    rows = pd.concat(_tables(tables, small))
    refuse_twice(rows["image"].map(stem), f"a table of {tables.location}")
    store = open_images(tables.location if images is None else images)
    people = eyes(list(rows["image"]))
    records = people.assign(
        image=find_images(list(rows["image"]), store),
        patient_source=BY_EYES if people["eye"].notna().any() else EACH_IMAGE,
        split=rows["split"].to_numpy(),
        label=rows["label"].to_numpy(),
    )
    return corrected(validate(records, RETINOPATHY), tables, RETINOPATHY), store


def _tables(tables: Store, small: bool) -> list[pd.DataFrame]:
    """``image``, ``label`` and ``split`` of every line, by table."""
    suffix, parts = "_small.csv" if small else ".csv", []
    for split in ("train", "validation", "test"):
        files = [find_table(tables, f"{split}_{what}{suffix}") for what in ("img", "label")]
        if any(files) and not all(files):
            raise MedicError(
                f"{tables.location} has {files[0] or files[1]} but not the other table of the pair; add it"
            )
        if all(files):
            names, labels = (read_table(tables, file).iloc[:, 0] for file in files)
            if len(names) != len(labels):
                counts = f"{files[0]} has {len(names)} names and {files[1]} has {len(labels)} labels"
                raise MedicError(
                    f"{counts}; the n-th label belongs to the n-th name, so both need the same number of lines (is a "
                    "header counted as data?)"
                )
            for cells, file in ((names, files[0]), (labels, files[1])):
                refuse(cells, cells.index.diff() > 1, file, "follows an empty line, so names and labels do not fit")
            parts.append(pd.DataFrame({"image": names, "label": _grades(labels, files[1]), "split": split}))
    for wanted in () if small else ("trainLabels.csv", "train.csv"):
        if not parts and (file := find_table(tables, wanted)):
            cells, _ = own.cells_of(read_table(tables, file), file, {})
            refuse(cells["image"], cells["image"] == "", file, "is no image; fill it in")
            parts = [cells.assign(label=_grades(cells["label"], file), split="train")]
    if not parts:
        pairs = f"train_img{suffix} and train_label{suffix}" + ", trainLabels.csv or train.csv" * (not small)
        raise MedicError(f"{tables.location} holds no table of retinopathy grades; it needs {pairs}")
    return parts


def _grades(labels: pd.Series, file: str) -> np.ndarray:
    grades = pd.to_numeric(labels, errors="coerce")
    refuse(labels, ~grades.isin(range(5)), file, "is no grade; it must be 0, 1, 2, 3 or 4")
    return grades.to_numpy("int64")
