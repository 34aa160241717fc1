"""A person's own images: listed in a table, or sorted into one folder a class (``cat/1.jpeg``, ``dog/2.jpeg``)."""

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from medic.data.corrections import FILE, corrected
from medic.data.readers.listed_images import (
    EACH_IMAGE,
    find_images,
    is_patient_folder,
    open_folders,
    open_images,
    patients_of,
    stem,
)
from medic.data.readers.listing import advice, cells_of, missing, open_tables, read_table, refuse, split_of
from medic.data.records import task_of, with_codes
from medic.data.stores import Store
from medic.errors import MedicError


def read(
    source: str | os.PathLike, images: str | os.PathLike | None = None, columns: Mapping[str, str] | None = None
) -> tuple[pd.DataFrame, Store]:
    """Read images with a CSV file that says what they show, or images in folders that are named as their classes.

    One table with an image and a label column counts before folders, as it may know patients; others are not read. Its
    columns are found by their titles (``known_headers.json``); labels may also stand in one column of 0 and 1 a class,
    and a row may name a folder of images. A table that lists no image of the class folders is passed over, which is
    said.

    Class folders may lie below ``train``, ``validation`` (``val``, ``valid``) and ``test``; a split that is there is
    kept. Folders around everything do not matter, nor do folders within a class, unless several classes have the same.

    Args:
        source: a CSV file; or a folder or zip file that holds one, or else one folder a class.
        images: the folder or zip file of the images, where they are elsewhere than the table.
        columns: titles of the columns ``image``, ``label``, ``patient``, ``group`` or ``split``, where they are not
            found: ``{"label": "verdict"}``.

    Returns:
        Records with ``image``, ``patient``, ``patient_source`` (a column, the paths, the file names, or ``image`` where
        each image counts as a patient), ``split`` (``train`` where none is given), ``label`` (class code) and
        ``class``; and the store. An image that is listed but absent keeps its listed name.

    Raises:
        MedicError: nothing that can be read, no or several columns that could be meant, an image without a label or
            listed twice, not one listed image in the store, or one class only.
    """
    tables, named = open_tables(source)
    store = open_images(tables.location if images is None else images)
    if not store.images():
        what = "holds no images (.jpeg, .png, .tif, .bmp, DICOM, ...)"
        raise MedicError(f"{store.location} {what}; say where they are (images=..., or --images)")
    files = [name for name in tables.names() if name.lower().endswith((".csv", ".tsv")) and FILE not in name.lower()]
    files = [named] if named else files
    inside = [name.split("/") for name in store.images()]
    while len({p[0] for p in inside}) == 1 and min(map(len, inside)) > 2 and not _split(inside[0]):
        inside = [parts[1:] for parts in inside]  # a folder around everything
    below = [parts[1:] if _split(parts) else parts for parts in inside]
    classes = {parts[0] for parts in below}
    sorted_in = len(classes) > 1 and min(map(len, below)) > 1 and not any(map(is_patient_folder, classes))
    in_folders = not named and sorted_in
    used, cells, titles = _chosen(tables, files, columns, store, bool(columns) or not in_folders)
    if used:
        origin = f"{used} in {tables.location}"
        records = records_of(cells, titles, origin, store)
    else:
        sheets = [name for name in tables.names() if name.lower().endswith((".xlsx", ".xls", ".ods"))]
        if sheets and not in_folders:
            raise MedicError(f"{sheets[0]} in {tables.location} is a spreadsheet; save it as CSV")
        origin, records = str(store.location), _records_of_folders(store, inside, below)
    for file in files:
        if file != used:
            print(f"{file} in {tables.location} is not read: the classes are those of {origin}", file=sys.stderr)
    labelled = with_codes(records, origin)
    # Numbered once more: corrections may leave a class without images.
    return with_codes(corrected(labelled, tables, task_of(labelled, "own")), origin), store


def _chosen(
    tables: Store, files: Sequence[str], columns: Mapping[str, str] | None, store: Store, needed: bool
) -> tuple[str, pd.DataFrame, dict[str, str]]:
    """The one table that lists images of the store; where one is ``needed``, otherwise the first that can be read."""
    told, faults = [], []
    for file in files:
        try:
            table = read_table(tables, file, titled=bool(columns))
            cells, titles = cells_of(table, f"{file} in {tables.location}", columns)
            told.append((file, open_folders(cells, store), titles))
        except MedicError as fault:
            faults.append(fault)
    stems = {stem(name).casefold() for name in store.images()}
    fitting = [found for found in told if not stems.isdisjoint(found[1]["image"].map(stem).str.casefold())]
    if len(fitting) > 1:
        some = ", ".join(file for file, *_ in fitting[:3])
        raise MedicError(f"{tables.location} holds {len(fitting)} tables of labels ({some}); name one")
    if needed and faults and not told:
        raise faults[0]
    return next(iter(fitting or told * needed), ("", pd.DataFrame(), {}))


def records_of(cells: pd.DataFrame, titles: Mapping[str, str], where: str, store: Store) -> pd.DataFrame:
    """Make records without codes of what ``cells_of`` gives, one row a line: as ``read``, but for ``label``.

    Raises:
        MedicError: a cell is empty or not understood, an image is listed twice, or none is in the store.
    """
    for what in cells.columns.intersection(["image", "label", "split"]):
        refuse(cells[what], missing(cells[what]), where, f"is a missing {what}; fill it in or remove the line")
    names = pd.Series(find_images(list(cells["image"]), store), cells.index)
    absent = ~names.isin(store.names())
    if not titles:
        print(f"{where} has no line with titles: its columns are taken as image and label", file=sys.stderr)
    if store.images() and (absent.all() or (absent.iloc[0] and not titles)):
        remedy = "say where they are (images=..., or --images)" if titles or absent.all() else advice("image")
        raise MedicError(
            f"{absent.sum()} of the {len(names)} images that {where} lists are not in {store.location}: it lists "
            f"{names.iloc[0]}, and there is {store.images()[0]}; {remedy}"
        )
    for name in names[names.duplicated()][:1]:
        refuse(names, names == name, where, "is listed more than once; keep one line an image")
    people = cells.filter(["patient", "group"])
    people = people.mask(people.apply(missing)).dropna(axis=1, how="all")
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
    found = splits.map({word: split_of(word) for word in splits.unique()})
    refuse(splits, found.isna(), where, "is an unknown split; use train, validation or test")
    # PadChest writes a list such as ['normal']: its elements are the class.
    lists, labels = cells["label"].str.startswith("["), cells["label"]
    classes = labels.mask(lists, labels.str.strip("[]").str.replace("'", "").str.strip())
    records = {"image": names, "patient": patients, "patient_source": told_by, "split": found, "class": classes}
    return pd.DataFrame(records, cells.index).reset_index(drop=True)


def _records_of_folders(store: Store, inside: list[list[str]], below: list[list[str]]) -> pd.DataFrame:
    """As ``records_of``. Folders such as ``patient0012`` within a class, or the files' names, tell the patients.

    The parts of each image's name are given ``inside`` the outer folders, and ``below`` those of splits.
    """
    names, splits = store.images(), [_split(parts) for parts in inside]
    if any(splits) and None in splits:
        outside = "/".join(inside[splits.index(None)])
        raise MedicError(f"{store.location} has split folders beside {outside}; put all classes below one, or none")
    loose = [name for name, parts in zip(names, below, strict=True) if len(parts) < 2]
    if loose:
        some = f"{len(loose)} of {len(names)} images in {store.location} lie in no class folder, such as {loose[0]}"
        raise MedicError(f"{some}; move them, or list all in a CSV file")
    # cat and dog within clinic a and clinic b may be the classes. The same one alone within each (images) is none.
    nested = Counter(name for _, name in {(parts[0], parts[1]) for parts in below if len(parts) > 2})
    shared = sorted(name for name, count in nested.items() if count > 1 and not is_patient_folder(name))
    if len(shared) > 1 and min(map(len, below)) > 2:
        what = f"has {', '.join(shared[:3])} within several folders: which are the classes?"
        raise MedicError(f"{store.location} {what} Keep one level of folders, or list all in a table")
    patients, told_by = patients_of(names, ["/".join(parts[1:]) for parts in below]) or (names, EACH_IMAGE)
    records = pd.DataFrame({"image": names, "patient": patients, "patient_source": told_by})
    return records.assign(split=splits if any(splits) else "train", **{"class": [parts[0] for parts in below]})


def _split(parts: Sequence[str]) -> str | None:
    return split_of(parts[0]) if len(parts) > 1 else None
