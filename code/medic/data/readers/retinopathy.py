"""Diabetic retinopathy data in the layouts in which it is published."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from medic.data.corrections import corrected
from medic.data.readers import patients
from medic.data.readers.headers import find_columns, plain
from medic.data.readers.listed_images import find_images, stem
from medic.data.readers.listing import find_table, line_numbers, open_images, read_table, refuse_twice
from medic.data.records import validate
from medic.data.stores import Store, open_store
from medic.errors import MedicError
from medic.task import RETINOPATHY

_TITLES = {
    "img": ("image", "images", "id_code", "image_id", "image_name", "id", "name", "filename", "file", "img"),
    "label": ("level", "diagnosis", "label", "labels", "grade"),
}
_EYE = re.compile(r"(?P<patient>.+)_(?P<eye>left|right)$", re.IGNORECASE)


def read(
    source: str | os.PathLike, images: str | os.PathLike | None = None, small: bool = False
) -> tuple[pd.DataFrame, Store]:
    """Read the tables, and find each listed image in its store.

    Three layouts are known, tried in this order, in a folder or inside a zip file that is never unpacked:

    - pairs of one-column tables, the n-th label belonging to the n-th name: ``train_img.csv`` and ``train_label.csv``,
      the same for ``test`` and (optionally) ``validation``: the source's own split is kept;
    - ``trainLabels.csv`` with ``image,level`` (Kaggle 2015); all rows come as ``train``;
    - ``train.csv`` with ``id_code,diagnosis`` (Kaggle 2019); all rows come as ``train``.

    A header line and a file extension may be there or not. Names tell the patient and the eye, as ``eyes`` says.

    Args:
        source: the folder or zip file that holds the tables.
        images: the folder or zip file that holds the images; by default ``source`` itself, or the zip files in it.
        small: read the ``_small`` twins of the first layout.

    Returns:
        Records with the columns ``image``, ``patient``, ``eye`` (``left``, ``right`` or missing), ``patient_source``,
        ``split`` and ``label`` (grade 0..4), in the tables' order; and the store. An image that is listed but absent
        keeps its listed name, and ``medic.data.check.check`` reports it.

    Raises:
        MedicError: no table, tables of different lengths, a label that is no grade, a name listed twice, the same
            images in two folders.
    """
    tables = open_store(source)
    rows = _rows(tables, small)
    refuse_twice(rows["name"].map(stem), f"the tables of {tables.location}")
    store = _image_store(tables) if images is None else open_images(Path(images))
    people = eyes(list(rows["name"]))
    records = people.assign(
        image=find_images(list(rows["name"]), store),
        patient_source=patients.BY_EYES if people["eye"].notna().any() else patients.EACH_IMAGE,
        split=rows["split"].to_numpy(),
        label=rows["label"].to_numpy(),
    )
    return corrected(validate(records, RETINOPATHY), tables, RETINOPATHY), store


def eyes(names: list[str]) -> pd.DataFrame:
    """Whose eyes photographs show, by their names: ``image``, ``patient``, ``eye`` (``left``, ``right`` or missing).

    A name that ends in ``_left`` or ``_right`` tells both. Where none does, and all names follow another pattern such
    as ``5_L`` or ``05-OD`` (``medic.data.readers.patients.eyes``), that counts. Any other image is a patient's own.
    """
    found = [_EYE.match(stem(name)) for name in names]
    table = None if any(found) else patients.eyes(names)
    if table is None:
        people = [eye["patient"] if eye else stem(name) for name, eye in zip(names, found, strict=True)]
        table = pd.DataFrame({"patient": people, "eye": [eye["eye"].lower() if eye else pd.NA for eye in found]})
    return table.assign(image=names, eye=table["eye"].astype("string"))[["image", "patient", "eye"]]


def _rows(tables: Store, small: bool) -> pd.DataFrame:
    """``name``, ``split`` and ``label`` of every line."""
    suffix, parts = "_small.csv" if small else ".csv", []
    for split in ("train", "validation", "test"):
        files = {kind: find_table(tables, f"{split}_{kind}{suffix}") for kind in _TITLES}
        if len(set(map(bool, files.values()))) > 1:
            lonely = next(filter(None, files.values()))
            raise MedicError(f"{tables.location} has {lonely} but not the other table of the pair; add it")
        if files["img"] is None:
            continue
        names, labels = (_one_column(tables, file, _TITLES[kind]) for kind, file in files.items())
        if len(names) != len(labels):
            raise MedicError(
                f"{files['img']} has {len(names)} names and {files['label']} has {len(labels)} labels; the n-th label "
                "belongs to the n-th name, so both need the same number of lines (is a header counted as data?)"
            )
        grades = _grades(labels, files["label"])
        parts.append(pd.DataFrame({"name": names, "split": split, "label": grades.to_numpy()}))
    if parts:
        return pd.concat(parts)
    for table in () if small else ("trainLabels.csv", "train.csv"):
        file = find_table(tables, table)
        if file is not None:
            return _labelled(tables, file)
    wanted = (
        "train_img_small.csv and train_label_small.csv"
        if small
        else "train_img.csv and train_label.csv, trainLabels.csv (image,level) or train.csv (id_code,diagnosis)"
    )
    raise MedicError(f"{tables.location} holds no table of retinopathy grades; it needs {wanted}")


def _one_column(tables: Store, file: str, titles: tuple[str, ...]) -> pd.Series:
    cells = read_table(tables, file, map(plain, titles)).iloc[:, 0]
    gaps = set(range(cells.index[0], cells.index[-1])) - set(cells.index) if len(cells) else set()
    if gaps or not len(cells):
        what = f"line {min(gaps)} is empty" if gaps else "is empty"
        raise MedicError(f"{file} {what}; list one image a line, so that names and labels stay together")
    return cells


def _labelled(tables: Store, file: str) -> pd.DataFrame:
    table = read_table(tables, file, map(plain, (*_TITLES["img"], *_TITLES["label"])))
    places = {"image": 0, "label": 1}
    if table.columns.dtype.kind != "i":
        places = find_columns(list(table.columns), {}, f"{file} in {tables.location}").places
    if not {"image", "label"} <= places.keys() or len(table.columns) < 2:
        raise MedicError(
            f"{file} in {tables.location} has the columns {', '.join(map(str, table.columns))}; it needs one of images "
            "and one of labels (image,level)"
        )
    names, labels = (table.iloc[:, places[what]] for what in ("image", "label"))
    if (names == "").any():
        raise MedicError(f"{file} line {line_numbers(names.index[names == ''])} names no image; fill it in")
    return pd.DataFrame({"name": names, "split": "train", "label": _grades(labels, file)})


def _grades(labels: pd.Series, file: str) -> pd.Series:
    grades = pd.to_numeric(labels, errors="coerce")
    unfit = ~grades.isin(range(len(RETINOPATHY.classes)))
    if unfit.any():
        line = labels.index[unfit][0]
        raise MedicError(f"{file} line {line}: {labels[line]!r} is no grade; it must be 0, 1, 2, 3 or 4")
    return grades.astype("int64")


def _image_store(tables: Store) -> Store:
    """Where the images are when nobody says: beside the tables, or in the zip files beside them."""
    return tables if tables.images() or not Path(tables.location).is_dir() else open_images(Path(tables.location))
