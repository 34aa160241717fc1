"""Diabetic retinopathy data in the layouts in which it is published."""

import os

import pandas as pd

from medic.data.corrections import corrected
from medic.data.readers.listed_images import eyes, open_images
from medic.data.readers.listing import cells_of, find_table, open_tables, read_table, refuse
from medic.data.readers.own import records_of
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
        Records as of ``medic.data.readers.own``, with ``label`` (grade 0..4) and ``eye`` (``left``, ``right`` or
        missing: see ``eyes``) instead of ``class``, in the tables' order; and the store.

    Raises:
        MedicError: no table, tables of different lengths, a label that is no grade, or as ``records_of``.
    """
    tables, _ = open_tables(source)
    suffix = "_small.csv" if small else ".csv"
    pairs = [part for split in SPLITS if (part := _pair(tables, split, suffix)) is not None]
    single = None if small else find_table(tables, "trainLabels.csv") or find_table(tables, "train.csv")
    if pairs:
        cells, titles, where = pd.concat(pairs), {"image": "image"}, f"a table of {tables.location}"
    elif single:
        cells, titles = cells_of(read_table(tables, single), where := f"{single} in {tables.location}")
        _refuse_others(cells["label"], where)
    else:
        needed = f"train_img{suffix} and train_label{suffix}" + ", trainLabels.csv or train.csv" * (not small)
        raise MedicError(f"{tables.location} holds no table of retinopathy grades; it needs {needed}")
    store = open_images(tables.location if images is None else images)
    records = records_of(cells, titles, where, store).drop(columns="class")
    records.insert(2, "eye", eyes(list(cells["image"]))["eye"])
    records["label"] = pd.to_numeric(cells["label"]).array.astype("int64")
    return corrected(validate(records, RETINOPATHY), tables, RETINOPATHY), store


def _pair(tables: Store, split: str, suffix: str) -> pd.DataFrame | None:
    """``image``, ``label`` and ``split`` of every line of a pair of tables, as text; None where there is none."""
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
    _refuse_others(labels, files[1])
    return pd.DataFrame({"image": names.array, "label": labels.array, "split": split}, names.index)


def _refuse_others(labels: pd.Series, where: str) -> None:
    grades = pd.to_numeric(labels, errors="coerce")
    refuse(labels, ~grades.isin(range(5)), where, "is no grade; it must be 0, 1, 2, 3 or 4")
