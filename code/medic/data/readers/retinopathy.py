"""Diabetic retinopathy data in the layouts in which it is published."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

import pandas as pd

from medic.data.corrections import corrected
from medic.data.records import validate
from medic.data.stores import Store, is_image_name, open_store
from medic.errors import MedicError
from medic.task import RETINOPATHY

IMAGE_HEADERS = ("image", "images", "id_code", "image_id", "image_name", "id", "name", "filename", "file", "img")
LABEL_HEADERS = ("level", "diagnosis", "label", "labels", "grade")
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

    A header line and a file extension may be there or not. A name ending in ``_left`` or ``_right`` tells the patient
    and the eye; any other image counts as a patient of its own.

    Args:
        source: the folder or zip file that holds the tables.
        images: the folder or zip file that holds the images; by default ``source`` itself, or the one zip file in it.
        small: read the ``_small`` twins of the first layout.

    Returns:
        Records with the columns ``image``, ``patient``, ``eye`` (``left``, ``right`` or missing), ``split`` and
        ``label`` (grade 0..4), in the tables' order; and the store. An image that is listed but absent keeps its
        listed name, and ``medic.data.check.check`` reports it.

    Raises:
        MedicError: no table, tables of different lengths, a label that is no grade, a name listed twice, the same
            images in two folders.
    """
    tables = open_store(source)
    rows = _rows(tables, small)
    store = _image_store(tables) if images is None else open_store(images)
    names = [name for name, _, _ in rows]
    twice = [name for name, count in Counter(map(_stem, names)).items() if count > 1]
    if twice:
        raise MedicError(
            f"{len(twice)} images are listed more than once in the tables of {tables.location}, "
            f"for instance {twice[0]}; keep one line an image"
        )
    found = _locate(names, store)
    records = eyes(names).assign(
        image=[found.get(name, name) for name in names],
        split=[split for _, split, _ in rows],
        label=[label for _, _, label in rows],
    )
    return corrected(validate(records, RETINOPATHY), tables, RETINOPATHY), store


def eyes(names: list[str]) -> pd.DataFrame:
    """Whose eyes photographs show, by their names: ``image``, ``patient``, ``eye`` (``left``, ``right`` or missing)."""
    found = [_EYE.match(_stem(name)) for name in names]
    return pd.DataFrame(
        {
            "image": names,
            "patient": [eye["patient"] if eye else _stem(name) for name, eye in zip(names, found, strict=True)],
            "eye": pd.array([eye["eye"].lower() if eye else pd.NA for eye in found], dtype="string"),
        }
    )


def _rows(tables: Store, small: bool) -> list[tuple[str, str, int]]:
    """Name, split and grade of every line."""
    suffix = "_small.csv" if small else ".csv"
    rows = []
    for split in ("train", "validation", "test"):
        names_file = _find_table(tables, f"{split}_img{suffix}")
        labels_file = _find_table(tables, f"{split}_label{suffix}")
        if (names_file is None) != (labels_file is None):
            lonely = names_file or labels_file
            raise MedicError(f"{tables.location} has {lonely} but not the other table of the pair; add it")
        if names_file is None:
            continue
        names = [line[0] for line in _lines(tables, names_file, IMAGE_HEADERS)]
        labels = [
            _grade(line[0], labels_file, number) for number, line in _numbered(tables, labels_file, LABEL_HEADERS)
        ]
        if len(names) != len(labels):
            raise MedicError(
                f"{names_file} has {len(names)} names and {labels_file} has {len(labels)} labels; the n-th label "
                "belongs to the n-th name, so both need the same number of lines (is a header counted as data?)"
            )
        rows += [(name, split, label) for name, label in zip(names, labels, strict=True)]
    if rows:
        return rows
    for table in () if small else ("trainLabels.csv", "train.csv"):
        file = _find_table(tables, table)
        if file is not None:
            return _labelled_rows(tables, file)
    wanted = (
        "train_img_small.csv and train_label_small.csv"
        if small
        else ("train_img.csv and train_label.csv, trainLabels.csv (image,level) or train.csv (id_code,diagnosis)")
    )
    raise MedicError(f"{tables.location} holds no table of retinopathy grades; it needs {wanted}")


def _labelled_rows(tables: Store, file: str) -> list[tuple[str, str, int]]:
    lines = _numbered(tables, file, IMAGE_HEADERS + LABEL_HEADERS, keep_header=True)
    header = [cell.lower() for cell in lines[0][1]]
    image, label = 0, 1
    if any(cell in IMAGE_HEADERS + LABEL_HEADERS for cell in header):
        columns = [
            next((header.index(word) for word in words if word in header), None)
            for words in (IMAGE_HEADERS, LABEL_HEADERS)
        ]
        if None in columns:
            raise MedicError(
                f"{file} in {tables.location} has the columns {', '.join(header)}; it needs an image column "
                f"({', '.join(IMAGE_HEADERS[:3])}, ...) and a label column ({', '.join(LABEL_HEADERS[:3])}, ...)"
            )
        image, label = columns
        lines = lines[1:]
    rows = []
    for number, line in lines:
        if len(line) <= max(image, label):
            raise MedicError(
                f"{file} line {number} has {len(line)} columns instead of {max(image, label) + 1}; correct it"
            )
        if not line[image]:
            raise MedicError(f"{file} line {number} names no image; fill it in or remove the line")
        rows.append((line[image], "train", _grade(line[label], file, number)))
    return rows


def _find_table(tables: Store, file: str) -> str | None:
    """The table of that name nearest to the top of the store."""
    found = sorted((name for name in tables.names() if PurePosixPath(name).name == file), key=lambda n: n.count("/"))
    if len(found) > 1 and found[0].count("/") == found[1].count("/"):
        raise MedicError(
            f"{tables.location} holds {file} twice ({found[0]}, {found[1]}); name the folder of one of them"
        )
    return found[0] if found else None


def _lines(tables: Store, file: str, headers: tuple[str, ...]) -> list[list[str]]:
    return [line for _, line in _numbered(tables, file, headers)]


def _numbered(
    tables: Store, file: str, headers: tuple[str, ...], keep_header: bool = False
) -> list[tuple[int, list[str]]]:
    """The lines of a table with their numbers, without a header line when the first is one."""
    try:
        text = tables.read(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MedicError(f"{file} in {tables.location} is no UTF-8 text ({error}); save it as CSV again") from error
    lines = [
        (number, [cell.strip() for cell in line])
        for number, line in enumerate(csv.reader(io.StringIO(text, newline=None)), 1)
    ]
    while lines and not any(lines[-1][1]):
        lines.pop()
    if lines and not keep_header and lines[0][1] and lines[0][1][0].lower() in headers:
        lines.pop(0)
    if not lines:
        raise MedicError(f"{file} in {tables.location} is empty; it should list one image a line")
    empty = [number for number, line in lines if not any(line)]
    if empty:
        raise MedicError(f"{file} line {empty[0]} is empty; remove it, so that names and labels stay together")
    return lines


def _grade(text: str, file: str, line: int) -> int:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if value not in range(len(RETINOPATHY.classes)):
        raise MedicError(f"{file} line {line}: {text!r} is no grade; it must be 0, 1, 2, 3 or 4")
    return int(value)


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem if is_image_name(path.name) else path.name


def _image_store(tables: Store) -> Store:
    """Where the images are when nobody says: beside the tables, or in the one zip file beside them."""
    if any(is_image_name(name) for name in tables.names()):
        return tables
    archives = [name for name in tables.names() if name.lower().endswith(".zip")]
    if len(archives) == 1 and Path(tables.location).is_dir():
        return open_store(Path(tables.location) / archives[0])
    return tables


def _locate(names: list[str], store: Store) -> dict[str, str]:
    """For each listed name its name in the store.

    The same photograph may lie in several folders (at full size and scaled down, say): the folder that has most of
    the listed images is asked first.
    """
    folders: dict[str, dict[str, str]] = defaultdict(dict)
    for stored in store.names():
        if is_image_name(stored):
            path = PurePosixPath(stored)
            folders[str(path.parent)].setdefault(path.stem, stored)
    stems = {name: _stem(name) for name in names}
    wanted = set(stems.values())
    covered = {folder: len(wanted & members.keys()) for folder, members in folders.items()}
    order = sorted((folder for folder in folders if covered[folder]), key=lambda folder: (-covered[folder], folder))
    if len(order) > 1 and covered[order[0]] == covered[order[1]]:
        both = wanted & folders[order[0]].keys() & folders[order[1]].keys()
        if both:
            raise MedicError(
                f"{store.location} holds {len(both)} of the listed images both in {order[0]} and in {order[1]}; "
                "say which folder is meant (images=..., on the command line --images)"
            )
    located = {}
    for name, stem in stems.items():
        hit = next((folders[folder][stem] for folder in order if stem in folders[folder]), None)
        if hit is not None:
            located[name] = hit
    return located
