"""A person's own images: listed in a table, or sorted into one folder a class."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from medic.data.corrections import corrected
from medic.data.readers import class_folders
from medic.data.readers.headers import Columns, advice, find_columns, is_missing, known, titles
from medic.data.readers.listed_images import find_images, stem
from medic.data.readers.listing import (
    csv_files,
    line_numbers,
    open_images,
    read_table,
    refuse_other_archives,
    refuse_twice,
)
from medic.data.readers.patients import EACH_IMAGE, patients_of
from medic.data.records import task_of, with_codes, without_gaps
from medic.data.stores import FolderStore, Store, ZipStore, open_store
from medic.errors import MedicError
from medic.task import Task


def read(
    source: str | os.PathLike,
    images: str | os.PathLike | None = None,
    task: Task | None = None,
    level: int | None = None,
    columns: Mapping[str, str] | None = None,
) -> tuple[pd.DataFrame, Store]:
    """Read images with a CSV file that says what they show, or images in folders that are named as their classes.

    A table with an image and a label column counts before folders: it may know patients. Its columns are found by
    their titles, in any case and in several languages, and by published headers (``known_headers.json``); labels may
    also stand in one column of 0 and 1 a class. A table without such columns beside class folders is passed over,
    which is said. Folders are read as ``medic.data.readers.class_folders`` says.

    Args:
        source: a CSV file; or a folder or zip file that holds one, or else one folder a class.
        images: the folder or zip file of the images, where they are elsewhere than the table.
        task: whose classes the labels are, by name or all by code; by default the classes are the labels, sorted.
        level: which level of folders is the classes', where that can be mistaken; folders count then, and no table.
        columns: titles of the columns ``image``, ``label``, ``patient``, ``group`` or ``split``, where they are not
            found: ``{"label": "verdict"}``.

    Returns:
        Records with the columns ``image``, ``patient``, ``patient_source`` (how patients are told apart: a column, the
        paths, the file names, or ``image`` where each image counts as a patient), ``split`` (``train`` where none is
        given), ``label`` (class code) and ``class``; and the store. An image that is listed but absent keeps its
        listed name, and ``medic.data.check.check`` reports it.

    Raises:
        MedicError: nothing that can be read, no or several columns that could be meant, an image without a label or
            listed twice, not one listed image in the store, one class only, or a class that does not fit the task.
    """
    path, columns = Path(source), dict(columns or {})
    named = path.is_file() and path.name.lower().endswith((".csv", ".tsv", ".txt"))
    tables = FolderStore(path.parent) if named else open_store(path)
    folders = None if named else _with_archives(open_store(path if images is None else images))
    in_folders = folders is not None and class_folders.are_there(folders)
    files = [path.name] if named else csv_files(tables)
    read_files = {file: _tried(tables, file, columns) for file in files}
    lists = files if named else [file for file in files if _is_list(read_files[file], columns)]
    if folders is not None and not columns:
        # Beside class folders, and without titles, a table counts only if its images are here.
        sure = [file for file in lists if _has_titles(read_files[file]) and not in_folders]
        lists = [file for file in lists if file in sure or _lists_some(read_files[file], folders)]
    if level is not None and not named:
        lists, in_folders = [], True
    if len(lists) > 1:
        raise MedicError(f"{path} holds {len(lists)} tables of labels ({', '.join(lists[:3])}); name one of them")
    if lists or (files and not in_folders):
        file = (lists or files)[0]  # where none can be taken as it stands, the first says what is missing
        source_name, table = f"{file} in {tables.location}", read_files[file]
        if isinstance(table, MedicError):
            raise table
        cells, told_by = _cells(table, source_name, columns)
        others = [other for name, other in read_files.items() if name != file and not isinstance(other, MedicError)]
        if not {"patient", "group"} & cells.keys():
            cells, told_by = _told_elsewhere(cells, others)
        # Opened anew: beside the table may be images inside IDX files.
        store = _with_archives(open_store(tables.location)) if images is None else open_images(Path(images))
        records = _listed(cells, told_by, source_name, store)
    else:
        store, source_name = folders, str(folders.location)
        _refuse_without_images(store)
        for file in files:
            print(f"{file} in {tables.location} is not read: the folders are the classes", file=sys.stderr)
        records = class_folders.records_of(store, level)
    labelled = with_codes(records, task, source_name)
    listed = task or task_of(labelled, "own")
    given = corrected(labelled, tables, listed)
    return (given if task else without_gaps(given, listed)), store


# Which file is the table


def _tried(tables: Store, file: str, columns: Mapping[str, str]) -> pd.DataFrame | MedicError:
    """A table, or why it cannot be read: it may be none that is needed."""
    try:
        return read_table(tables, file, None if columns else titles())
    except MedicError as error:
        return error


def _has_titles(table: pd.DataFrame) -> bool:
    return table.columns.dtype.kind != "i"


def _is_list(table: pd.DataFrame | MedicError, columns: Mapping[str, str]) -> bool:
    """Whether a table lists images with labels, as far as its titles tell."""
    if isinstance(table, MedicError):
        return False
    if not _has_titles(table):
        return len(table.columns) == 2
    try:
        found = find_columns(list(table.columns), columns, "the table")
    except MedicError:  # a title that a person names is not here, or several could be meant, as reading it will say
        return not columns
    return "image" in found.places and ("label" in found.places or bool(_one_hot(table, found)))


def _lists_some(table: pd.DataFrame, store: Store) -> bool:
    """Whether an image of a table that lies beside class folders is there."""
    stems = {stem(name).casefold() for name in store.images()}
    try:
        place = find_columns([str(title) for title in table.columns], {}, "the table").places.get("image", 0)
    except MedicError:
        return True
    return any(stem(cell).casefold() in stems for cell in table.iloc[:, place])


# What stands in it


def _cells(table: pd.DataFrame, where: str, columns: Mapping[str, str]) -> tuple[dict[str, pd.Series], str]:
    """The columns that are needed or known, complete; and the title of the one that tells patients apart, or ''."""
    if table.empty:
        raise MedicError(f"{where} lists no image; it needs one line an image")
    header = [str(title) for title in table.columns]
    if _has_titles(table):
        found = find_columns(header, columns, where)
    elif len(header) == 2:
        print(f"{where} has no line with titles: its columns are taken as image and label", file=sys.stderr)
        found = Columns({"image": 0, "label": 1})
    else:
        first = ", ".join(table.iloc[0])[:100]
        raise MedicError(f"{where} has no title that is known in its first line ({first}); {advice('image')}")
    cells = {what: table.iloc[:, place] for what, place in found.places.items()}
    if "label" not in cells and "image" in cells and (one_hot := _one_hot(table, found)):
        cells["label"] = pd.Series(found.rest or "", table.index, dtype=object)
        for place in one_hot:
            cells["label"] = cells["label"].mask(pd.to_numeric(table.iloc[:, place]) == 1, header[place])
    for what in ("image", "label"):
        if what not in cells:
            raise MedicError(f"{where} has no column called like the {what} ({', '.join(header)}); {advice(what)}")
    told_by = next((header[found.places[what]] for what in ("patient", "group") if what in cells), "")
    return _complete(cells, found.leaves_out, where), told_by


def _complete(cells: dict[str, pd.Series], leaves_out: bool, where: str) -> dict[str, pd.Series]:
    """The rows with all that is needed; one without a label is refused, or left out where they are published so."""
    empty = cells["label"].map(is_missing)
    if empty.any() and leaves_out and not empty.all():
        print(f"{where}: {int(empty.sum())} of {len(empty)} images have no label and are left out", file=sys.stderr)
        cells = {what: values[~empty] for what, values in cells.items()}
    for what in ("image", "label", "patient", "split"):
        if what not in cells:
            continue
        empty = cells[what] == "" if what == "image" else cells[what].map(is_missing)
        if empty.any():
            written = ", ".join(sorted({repr(cell) for cell in cells[what][empty] if cell})) or "empty"
            raise MedicError(
                f"{where}: the {what} is missing in {int(empty.sum())} of {len(empty)} rows (line "
                f"{line_numbers(empty.index[empty])}: {written}); fill it in or remove the rows"
            )
    return cells


def _one_hot(table: pd.DataFrame, found: Columns) -> list[int]:
    """Columns of 0 and 1, one a class, of which each image has one; empty where the table has none such."""
    others = [place for place in range(len(table.columns)) if place not in found.places.values()]
    numbers = {place: pd.to_numeric(table.iloc[:, place], errors="coerce") for place in others}
    binary = [place for place, values in numbers.items() if len(values) and values.isin((0, 1)).all()]
    if len(binary) < 2:
        return []
    total = sum(numbers[place] for place in binary)
    return binary if (total <= 1 if found.rest else total == 1).all() else []


def _told_elsewhere(cells: dict[str, pd.Series], others: list[pd.DataFrame]) -> tuple[dict[str, pd.Series], str]:
    """With patient or group of each image by another table beside the one with the labels, where it has all images."""
    names = cells["image"].map(stem)
    for table in others:
        header = [str(title) for title in table.columns]
        with contextlib.suppress(MedicError):  # it may be about anything
            places = find_columns(header, {}, "the table").places
            what = next((what for what in ("patient", "group") if what in places), None)
            if what is None or "image" not in places:
                continue
            told = dict(zip(table.iloc[:, places["image"]].map(stem), table.iloc[:, places[what]], strict=True))
            found = names.map(told)
            if found.notna().all() and not (what == "patient" and found.map(is_missing).any()):
                return cells | {what: found}, header[places[what]]
    return cells, ""


def _listed(cells: dict[str, pd.Series], told_by: str, where: str, store: Store) -> pd.DataFrame:
    """Records without codes of the images in a table."""
    refuse_twice(cells["image"], where)
    _refuse_without_images(store)
    names = find_images(list(cells["image"]), store)
    if not any(name in store for name in names):
        raise MedicError(
            f"not one of the {len(names)} images that {where} lists is in {store.location}: it lists {names[0]}, and "
            f"there is {store.images()[0]}; say where they are (images=..., or --images)"
        )
    if cells["image"].index[0] == 1 and names[0] not in store:
        raise MedicError(f"{where} has no title that is known in its first line ({names[0]}, ...); {advice('image')}")
    refuse_twice(pd.Series(names, cells["image"].index), where)
    if "patient" in cells:
        patients, source = list(cells["patient"]), f"column {told_by}"
    elif by_name := patients_of(list(cells["image"])) or patients_of(names):
        patients, source = by_name
    elif "group" in cells:
        patients = [name if is_missing(cell) else cell for cell, name in zip(cells["group"], names, strict=True)]
        source = f"column {told_by} (no patient is known)"
    else:
        patients, source = names, EACH_IMAGE
    splits = _splits(cells["split"], where) if "split" in cells else "train"
    classes = [_label(cell) for cell in cells["label"]]
    return pd.DataFrame(
        {"image": names, "patient": patients, "patient_source": source, "split": splits, "class": classes}
    )


def _label(cell: str) -> str:
    """A label as a class: of a list such as ``['normal']``, as PadChest writes, its elements."""
    if cell.startswith("[") and cell.endswith("]"):
        return ", ".join(part.strip(" '\"") for part in cell[1:-1].split(",")) or cell
    return cell


def _splits(cells: pd.Series, where: str) -> list[str]:
    splits = cells.str.lower().map(known()["splits"])
    if splits.isna().any():
        line = cells.index[splits.isna()][0]
        raise MedicError(f"{where}, line {line}: the split {cells[line]!r} is unknown; use train, validation or test")
    return list(splits)


# Where the images are


def _with_archives(store: Store) -> Store:
    """The store itself, or where it is a folder without images the zip files in it."""
    return store if isinstance(store, ZipStore) or store.images() else open_images(Path(store.location))


def _refuse_without_images(store: Store) -> None:
    """Of a folder without images, name the spreadsheet or archive that was meant, or what is needed."""
    if store.images():
        return
    refuse_other_archives(store)
    for name in store.names():
        if name.lower().endswith((".xlsx", ".xls", ".ods")):
            raise MedicError(f"{name} in {store.location} is a spreadsheet; save it as CSV beside the images")
    raise MedicError(
        f"{store.location} holds no images (.jpeg, .png, .tif, .bmp, DICOM, ...); name a folder with one folder a "
        "class, or say where the images are (images=..., or --images)"
    )
