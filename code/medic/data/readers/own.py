"""A person's own images: listed in a table, or sorted into one folder a class."""

import contextlib
import os
import sys
from collections.abc import Mapping

import pandas as pd

from medic.data.corrections import corrected
from medic.data.readers import class_folders, listing
from medic.data.readers.listed_images import find_images, open_folders, open_images, stem
from medic.data.readers.listing import cells_of, is_missing, read_table, refuse
from medic.data.readers.patients import EACH_IMAGE, patients_of
from medic.data.records import task_of, with_codes, without_gaps
from medic.data.stores import Store
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

    A table with an image and a label column counts before folders, which ``class_folders`` reads: it may know patients.
    Its columns are found by their titles (``known_headers.json``); labels may also stand in one column of 0 and 1 a
    class, and a row may name a folder of images. A table that lists no image of the class folders is passed over,
    which is said.

    Args:
        source: a CSV file; or a folder or zip file that holds one, or else one folder a class.
        images: the folder or zip file of the images, where they are elsewhere than the table.
        task: whose classes the labels are, by name or all by code; by default the classes are the labels, sorted.
        level: which level of folders is the classes', where that can be mistaken; folders count then, and no table.
        columns: titles of the columns ``image``, ``label``, ``patient``, ``group`` or ``split``, where they are not
            found: ``{"label": "verdict"}``.

    Returns:
        Records with ``image``, ``patient``, ``patient_source`` (a column, the paths, the file names, or ``image`` where
        each image counts as a patient), ``split`` (``train`` where none is given), ``label`` (class code) and
        ``class``; and the store. An image that is listed but absent keeps its listed name.

    Raises:
        MedicError: nothing that can be read, no or several columns that could be meant, an image without a label or
            listed twice, not one listed image in the store, one class only, or a class that does not fit the task.
    """
    tables, named = listing.open_tables(source)
    store = open_images(tables.location if images is None else images)
    if not store.images():
        what = "holds no images (.jpeg, .png, .tif, .bmp, DICOM, ...)"
        raise MedicError(f"{store.location} {what}; say where they are (images=..., or --images)")
    files = [named] if named else listing.table_files(tables)
    in_folders = not named and class_folders.are_there(store)
    used, cells, titles = "", pd.DataFrame(), {}
    if named or level is None:
        used, cells, titles = _chosen(tables, files, columns, store, bool(columns) or not in_folders)
    ignored = [file for file in files if file != used]
    if used:
        if not {"patient", "group"} & set(cells):
            ignored = _add_people(cells, titles, tables, ignored)
        origin = f"{used} in {tables.location}"
        records = records_of(cells, titles, origin, store)
    else:
        sheets = [name for name in tables.names() if name.lower().endswith((".xlsx", ".xls", ".ods"))]
        if sheets and not in_folders:
            raise MedicError(f"{sheets[0]} in {tables.location} is a spreadsheet; save it as CSV")
        origin, records = str(store.location), class_folders.records_of(store, level)
    for file in ignored:
        print(f"{file} in {tables.location} is not read: the classes are those of {origin}", file=sys.stderr)
    labelled = with_codes(records, task, origin)
    given = corrected(labelled, tables, asked := task or task_of(labelled, "own"))
    return (given if task else without_gaps(given, asked)), store


def _chosen(tables: Store, files: list[str], columns: Mapping[str, str] | None, store: Store, sure: bool) -> tuple:
    """The one table that lists images of the store, its cells and titles; none where it need not be (``sure``)."""
    told, faults, fitting = {}, [], []
    stems = {stem(name).casefold() for name in store.images()}
    for file in files:
        try:
            table = read_table(tables, file, titled=bool(columns))
            cells, titles = cells_of(table, f"{file} in {tables.location}", columns)
            told[file] = open_folders(cells, store), titles
        except MedicError as fault:
            faults.append(fault)
        else:
            fitting += [file] * (not stems.isdisjoint(told[file][0]["image"].map(stem).str.casefold()))
    if len(fitting) > 1:
        named = ", ".join(fitting[:3])
        raise MedicError(f"{tables.location} holds {len(fitting)} tables of labels ({named}); name one")
    if sure and faults and not told:
        raise faults[0]
    used = next(iter(fitting or (told if sure else ())), "")
    return used, *told.get(used, (pd.DataFrame(), {}))


def _add_people(cells: pd.DataFrame, titles: dict[str, str], tables: Store, files: list[str]) -> list[str]:
    """Add the patient or group of each image as the first other table tells that has all; return what is not used."""
    names = cells["image"].map(stem)
    for file in files:
        with contextlib.suppress(MedicError, KeyError):  # it may be about anything
            others, found = cells_of(read_table(tables, file), file, needs=())
            what = "patient" if "patient" in others else "group"
            told = dict(zip(others["image"].map(stem), others[what], strict=True))
            if set(names) <= told.keys():
                cells[what], titles[what] = names.map(told), found[what]
                return [other for other in files if other != file]
    return files


def records_of(cells: pd.DataFrame, titles: Mapping[str, str], where: str, store: Store) -> pd.DataFrame:
    """Make records without codes of what ``cells_of`` gives: as ``read``, but for ``label``.

    Raises:
        MedicError: a cell is empty or not understood, an image is listed twice, or none is in the store.
    """
    for what in cells.columns.intersection(["image", "label", "split"]):
        refuse(cells[what], cells[what].map(is_missing), where, f"is a missing {what}; fill it in or remove the line")
    names = pd.Series(find_images(list(cells["image"]), store), cells.index)
    absent = [name not in store for name in names]
    if not titles:
        print(f"{where} has no line with titles: its columns are taken as image and label", file=sys.stderr)
    if store.images() and (all(absent) or (absent[0] and not titles)):
        remedy = "say where they are (images=..., or --images)" if titles or all(absent) else listing.advice("image")
        raise MedicError(
            f"{sum(absent)} of the {len(names)} images that {where} lists are not in {store.location}: it lists "
            f"{names.iloc[0]}, and there is {store.images()[0]}; {remedy}"
        )
    listing.refuse_twice(names, where)
    people = cells.filter(["patient", "group"])
    people = people.mask(people.map(is_missing)).dropna(axis=1, how="all")
    if "patient" in people and (unknown := people["patient"].isna().sum()):
        print(f"{where}: {unknown} of {len(cells)} images have no patient", file=sys.stderr)
    patients, told_by = names, EACH_IMAGE
    if "patient" not in people and (told := patients_of(list(cells["image"])) or patients_of(list(names))):
        patients, told_by = told
    elif not people.empty:
        patients = people.bfill(axis=1).iloc[:, 0].fillna(names)
        told_by = f"column {' and '.join(map(titles.get, people))}"
        told_by += " (no patient is known)" * ("patient" not in people)
    splits = cells.get("split", pd.Series("train", cells.index))
    found = splits.str.lower().map(listing.known()["splits"])
    refuse(splits, found.isna(), where, "is an unknown split; use train, validation or test")
    # PadChest writes a list such as ['normal']: its elements are the class.
    classes = cells["label"].str.replace(r"^\[(.+)\]$", lambda found: found[1].replace("'", "").strip(), regex=True)
    records = {"image": names, "patient": patients, "patient_source": told_by, "split": found, "class": classes}
    return pd.DataFrame(records, cells.index).reset_index(drop=True)
