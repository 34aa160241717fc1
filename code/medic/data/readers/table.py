"""A person's own images, listed in a CSV file with an image and a label column."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pandas as pd

from medic.data.corrections import FILE, corrected
from medic.data.readers.folder import SPLIT_FOLDERS
from medic.data.records import task_of, with_codes, without_gaps
from medic.data.stores import FolderStore, Store, is_image_name, open_store
from medic.errors import MedicError
from medic.task import Task

HEADERS = {
    "image": (
        ("image", "images", "image_name", "image_id", "image_index", "image_path", "filename", "file_name", "file",
         "filepath", "file_path", "path", "img"),
        ("id_code", "id", "name"),
    ),
    "label": (
        ("label", "labels", "class", "class_name", "category", "diagnosis", "dx", "grade", "level", "target", "y"),
    ),
    "patient": (("patient", "patient_id", "subject", "subject_id", "person", "person_id", "case_id"),),
    "split": (("split", "set", "subset", "partition"),),
}  # fmt: skip
"""What columns are called, in any case, with spaces and hyphens for underscores; the first group counts before the
second."""
_OPTIONAL = ("patient", "split")


def read(
    source: str | os.PathLike,
    images: str | os.PathLike | None = None,
    task: Task | None = None,
    columns: Mapping[str, str] | None = None,
) -> tuple[pd.DataFrame, Store]:
    """Read a CSV file with one line an image, and find each image in its store.

    The first line names the columns. Commas, semicolons or tabs separate them. An image may be named with or without
    its folder and its extension, as long as that tells which one is meant.

    Args:
        source: the CSV file; or a folder or zip file that holds one such file, and maybe the images.
        images: the folder or zip file with the images; by default where the CSV file lies, or the one zip file there.
        task: whose classes the labels are, by name or all by code; by default the classes are the labels, sorted.
        columns: which column is the ``image``, ``label``, ``patient`` or ``split``, where it is not found by its name
            in ``HEADERS``: ``{"label": "verdict"}``.

    Returns:
        Records with the columns ``image``, ``patient`` (the image's own name without such a column: each image then
        counts as a patient), ``split`` (``train`` without such a column), ``label`` (class code) and ``class`` (the
        label as written), in the table's order; and the store. An image that is listed but absent keeps its listed
        name, and ``medic.data.check.check`` reports it.

    Raises:
        MedicError: no such file, no or several columns that could be meant, a line with too few columns or an empty
            cell, an image listed twice, not one listed image in the store, one class only, or a class that does not
            fit the task.
    """
    tables, file = _find(source)
    store = _image_store(tables) if images is None else open_store(images)
    where = f"{file} in {tables.location}"
    lines = _lines(tables, file)
    places = _columns(lines[0][1], columns or {}, where)
    cells: dict[str, list[str]] = {what: [] for what in places}
    for number, line in lines[1:]:
        if len(line) <= max(places.values()):
            raise MedicError(f"{where}, line {number}, has {len(line)} columns instead of {len(lines[0][1])}; mend it")
        for what, place in places.items():
            if not line[place]:
                raise MedicError(f"{where}, line {number}, has no {what}; fill it in or remove the line")
            cells[what].append(line[place])
    numbers = [number for number, _ in lines[1:]]
    names = _located(cells["image"], numbers, store, where)
    splits = [_split(cell, number, where) for cell, number in zip(cells.get("split", ()), numbers, strict=False)]
    records = pd.DataFrame(
        {
            "image": names,
            "patient": cells.get("patient", names),
            "split": splits or "train",
            "class": cells["label"],
        }
    )
    labelled = with_codes(records, task, where)
    listed = task or task_of(labelled, "own")
    given = corrected(labelled, tables, listed)
    return (given if task else without_gaps(given, listed)), store


def _find(source: str | os.PathLike) -> tuple[Store, str]:
    """The store that holds the table, and its name there."""
    path = Path(source)
    if path.is_file() and path.suffix.lower() != ".zip":
        return FolderStore(path.parent), path.name
    tables = open_store(path)
    found = csv_files(tables)
    if len(found) != 1:
        there = f"{len(found)} CSV files ({', '.join(found[:3])})" if found else "no CSV file"
        raise MedicError(f"{path} holds {there}; name the file that lists images and labels")
    return tables, found[0]


def csv_files(tables: Store) -> list[str]:
    """Names of the tables in a store; the journal of corrections is none."""
    return [
        name
        for name in tables.names()
        if name.lower().endswith((".csv", ".tsv")) and "__MACOSX" not in name and name.rpartition("/")[2] != FILE
    ]


def _image_store(tables: Store) -> Store:
    """Where the images are when nobody says: beside the table, or in the one zip file beside it."""
    names = tables.names()
    archives = [name for name in names if name.lower().endswith(".zip")]
    if len(archives) == 1 and Path(tables.location).is_dir() and not any(map(is_image_name, names)):
        return open_store(Path(tables.location) / archives[0])
    # Opened anew: beside the table may be images inside IDX files.
    return open_store(tables.location)


def _lines(tables: Store, file: str) -> list[tuple[int, list[str]]]:
    """The lines that are not blank, with their numbers; the first names the columns."""
    where = f"{file} in {tables.location}"
    try:
        text = tables.read(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MedicError(f"{where} is no UTF-8 text ({error}); save it as CSV in UTF-8") from error
    first = text.splitlines()[0] if text.strip() else ""
    separator = max(",;\t", key=first.count)
    try:
        rows = csv.reader(io.StringIO(text, newline=None), delimiter=separator)
        lines = [(rows.line_num, [cell.strip() for cell in line]) for line in rows]
    except csv.Error as error:
        raise MedicError(f"{where} cannot be read as a table ({error}); save it as CSV again") from error
    lines = [(number, line) for number, line in lines if any(line)]
    if len(lines) < 2:
        raise MedicError(f"{where} is empty; it needs a line with the columns' names and one line an image")
    return lines


def _columns(header: list[str], chosen: Mapping[str, str], where: str) -> dict[str, int]:
    """The place of each column that is there."""
    unknown = [what for what in chosen if what not in HEADERS]
    if unknown:
        raise MedicError(f"columns={{{unknown[0]!r}: ...}} is not one of {', '.join(HEADERS)}; correct it")
    plain = [cell.lower().replace(" ", "_").replace("-", "_") for cell in header]
    places = {}
    for what, groups in HEADERS.items():
        if what in chosen:
            fitting = [place for place, cell in enumerate(header) if cell == chosen[what]]
            if len(fitting) != 1:
                raise MedicError(
                    f"{where} has {len(fitting)} columns called {chosen[what]!r}; it has: {', '.join(header)}"
                )
        else:
            by_group = ([place for place, cell in enumerate(plain) if cell in group] for group in groups)
            fitting = next(filter(None, by_group), [])
        if len(fitting) > 1:
            raise MedicError(
                f"{where} has several columns that could be the {what}: "
                f"{', '.join(header[place] for place in fitting)}; say which with "
                f"columns={{{what!r}: {header[fitting[0]]!r}}}"
            )
        if fitting:
            places[what] = fitting[0]
        elif what not in _OPTIONAL:
            raise MedicError(
                f"{where} has no column that is called like the {what} ({', '.join(groups[0][:3])}, ...); it has: "
                f"{', '.join(header)}; say which with columns={{{what!r}: ...}}"
            )
    return places


def _split(cell: str, number: int, where: str) -> str:
    if cell.lower() not in SPLIT_FOLDERS:
        raise MedicError(f"{where}, line {number}: the split {cell!r} is unknown; use train, validation or test")
    return SPLIT_FOLDERS[cell.lower()]


def _composed(name: str) -> str:
    """Accented letters as one character each: in names of files that were on a Mac they are two, in tables one."""
    return unicodedata.normalize("NFC", name)


def _located(cells: list[str], numbers: list[int], store: Store, where: str) -> list[str]:
    """For each listed image its name in the store, or the listed name where it is absent."""
    by_ending: dict[str, list[str]] = defaultdict(list)
    for name in store.names():
        if is_image_name(name):
            parts = PurePosixPath(name).parts
            for start in range(len(parts)):
                ending = _composed("/".join(parts[start:]))
                by_ending[ending].append(name)
                by_ending[str(PurePosixPath(ending).with_suffix(""))].append(name)
    if not by_ending:
        raise MedicError(f"{store.location} holds no images; say where they are (images=..., or --images)")
    names, lines = [], {}
    for cell, number in zip(cells, numbers, strict=True):
        listed = cell.replace("\\", "/").removeprefix("./")
        fitting = [listed] if listed in store else by_ending.get(_composed(listed), [])
        if len(fitting) > 1:
            raise MedicError(
                f"{where}, line {number}: {cell} could be {fitting[0]} or {fitting[1]}; write its folder or its "
                "extension too"
            )
        name = fitting[0] if fitting else listed
        if name in lines:
            raise MedicError(f"{where} lists {name} in line {lines[name]} and in line {number}; keep one line an image")
        lines[name] = number
        names.append(name)
    if not any(name in store for name in names):
        some = next(name for name in store.names() if is_image_name(name))
        raise MedicError(
            f"not one of the {len(names)} images that {where} lists is in {store.location}: it lists {names[0]}, and "
            f"there is {some}; say where they are (images=..., or --images)"
        )
    return names
