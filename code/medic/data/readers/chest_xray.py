"""NIH ChestX-ray14 in the layouts in which NIH and Kaggle distribute it.

Wang et al., ChestX-ray8, CVPR 2017, p. 3462: 112,120 radiographs of 30,805 patients, 14 findings taken from the reports
by text mining.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from medic.data.corrections import corrected
from medic.data.readers.listed_images import find_images, stem
from medic.data.readers.listing import find_table, line_numbers, open_images, read_table, refuse_twice
from medic.data.records import validate
from medic.data.stores import FolderStore, Store, open_store
from medic.errors import MedicError
from medic.task import CHEST_XRAY, CHEST_XRAY_OR_NONE, FINDINGS, NO_FINDING

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
"""The table's names, in the order in which they are looked for."""

SPLIT_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}

OLDEST = 120
"""Years; the first edition has patients of 148 to 414, which are mistakes of typing."""

_HEADERS = {
    "image": ("Image Index",),
    "findings": ("Finding Labels",),
    "follow_up": ("Follow-up #",),
    "patient": ("Patient ID",),
    "age": ("Patient Age",),
    "sex": ("Patient Gender", "Patient Sex"),
    "view": ("View Position",),
}
# "OriginalImage[Width,Height]" is one title to the eye and two columns to a CSV reader; Kaggle's sample has two titles.
_SIZE_HEADERS = {"width": ("OriginalImage[Width", "OriginalImageWidth"), "height": ("Height]", "OriginalImageHeight")}
_AGE = re.compile(r"(\d+)(?:\.0*)?\s*([YMWD]?)", re.IGNORECASE)
_UNITS_A_YEAR = {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}


def read(source: str | os.PathLike, images: str | os.PathLike | None = None) -> tuple[pd.DataFrame, Store]:
    """Read the table, and find each listed image in its store.

    The columns are found by their titles, so the first edition (``Data_Entry_2017.csv``, whose lines end with a comma)
    and the revised one (``Data_Entry_2017_v2020.csv``) are both read. Where both are there, the revised one is taken:
    its ages are corrected. Name the file itself as ``source`` to take the other.

    An image is found by its file name without the ending, wherever it lies (``images_001/images/00000001_000.png``,
    ``images/00000001_000.png``), so a ``.dcm`` may stand in for the listed ``.png``. Nothing is unpacked.

    Args:
        source: the folder or zip file that holds the table, or the table itself.
        images: the folder or zip file that holds the images; by default that of the table. In a folder, the images lie
            in folders, in one zip file or in several (``images_001.zip`` to ``images_012.zip``), or in both.

    Returns:
        Records with the columns ``image``, ``patient``, ``patient_source``, ``follow_up`` (int64),
        ``age`` (Int64, years, missing where
        implausible), ``sex`` (``M``, ``F`` or missing), ``view`` (``PA``, ``AP`` or missing), ``width`` and ``height``
        (Int64, pixels of the original before NIH scaled it to 1024), ``split``, ``label`` (1 where there is any
        finding), one 0/1 column for each of the 14 findings and for ``No Finding``, and ``note`` (what could not be
        taken as it stands; missing for most), in the table's order; and the store. The split is that of
        ``train_val_list.txt`` and ``test_list.txt`` beside the table, otherwise all rows are ``train``. An image that
        is listed but absent keeps its listed name, and ``medic.data.check.check`` reports it.

    Raises:
        MedicError: no table, or one without rows or with columns missing; an unknown finding, or a finding together
            with "No Finding"; an image listed twice or found at two places; one of the two lists alone, or lists that
            do not fit the table; images inside zip files inside a zip file, or only in ``.tar.gz`` archives.
    """
    source = Path(source)
    if source.suffix.lower() == ".csv" and source.is_file():
        tables, file = FolderStore(source.parent), source.name
    else:
        tables = open_store(source)
        file = _find_table(tables)
    rows = _rows(tables, file)
    where = f"{file} in {tables.location}"
    stems = rows["image"].map(stem)
    refuse_twice(stems, where)
    store = open_images(tables.location if images is None else Path(images))
    labels = _labels(rows["findings"], where)
    people = {
        column: _known(rows[column], column, parse)
        for column, parse in {"age": _years, "sex": _one_of("M", "F"), "view": _one_of("PA", "AP")}.items()
    }
    records = pd.DataFrame(
        {
            "image": find_images(list(rows["image"]), store),
            "patient": rows["patient"].to_numpy(),
            "patient_source": "column Patient ID",
            "follow_up": _numbers(rows["follow_up"], where),
            "age": people["age"][0].astype("Int64"),
            "sex": people["sex"][0].astype("string"),
            "view": people["view"][0].astype("string"),
            **{column: _sizes(rows[column]).array for column in _SIZE_HEADERS if column in rows},
            "split": _splits(stems, tables, file),
            "label": 1 - labels[NO_FINDING],
            **labels,
            "note": _joined([notes for _, notes in people.values()]),
        }
    )
    return corrected(validate(records, CHEST_XRAY_OR_NONE), tables, CHEST_XRAY), store


# The table


def _find_table(tables: Store) -> str:
    """The table nearest to the top of the store."""
    found = next(filter(None, (find_table(tables, wanted) for wanted in TABLES)), None)
    if found is None:
        raise MedicError(
            f"{tables.location} holds no table of chest X-rays; it needs {TABLES[1]} or {TABLES[0]} (medic download "
            "nih_chest_xray14 tells where they are), or name the table itself"
        )
    return found


def _rows(tables: Store, file: str) -> pd.DataFrame:
    """The columns that are used, by what they are; the index is the line."""
    where = f"{file} in {tables.location}"
    table = read_table(tables, file)
    header = [title.lower() for title in table.columns]
    found = {
        column: next((header.index(title.lower()) for title in titles if title.lower() in header), None)
        for column, titles in (_HEADERS | _SIZE_HEADERS).items()
    }
    missing = [titles[0] for column, titles in _HEADERS.items() if found[column] is None]
    if missing:
        raise MedicError(
            f"{where} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} (its first line is "
            f"{','.join(table.columns)[:100]!r}); get it again from its source"
        )
    if table.empty:
        raise MedicError(f"{where} lists no image; get it again from its source")
    rows = pd.DataFrame({column: table.iloc[:, place] for column, place in found.items() if place is not None})
    for column in ("image", "patient"):
        if (rows[column] == "").any():
            raise MedicError(
                f"{where} line {line_numbers(rows.index[rows[column] == ''])} names no {column}; fill it in or remove "
                "the line"
            )
    return rows


def _labels(findings: pd.Series, where: str) -> dict[str, np.ndarray]:
    """A 0/1 column int64 (N,) for each finding and for "No Finding". Each combination is looked at once."""
    codes, combinations = pd.factorize(findings)
    present = np.zeros((len(combinations), len(FINDINGS) + 1), np.int64)
    names = (*FINDINGS, NO_FINDING)
    for number, combination in enumerate(combinations):
        said = [name.strip() for name in combination.split("|")]
        unknown = [name for name in said if name not in names]
        contradictory = NO_FINDING in said and len(set(said)) > 1
        if unknown or contradictory:
            lines = line_numbers(findings.index[findings == combination])
            what = f"{unknown[0]!r} is unknown" if unknown else f"{combination!r} names a finding with {NO_FINDING!r}"
            raise MedicError(f"{where} line {lines}: {what}; there is {', '.join(names)}, and | between several")
        present[number] = [name in said for name in names]
    return {name: present[codes, column] for column, name in enumerate(names)}


def _numbers(values: pd.Series, where: str) -> np.ndarray:
    numbers = pd.to_numeric(values, errors="coerce")
    unfit = ~(numbers % 1 == 0)
    if unfit.any():
        raise MedicError(
            f"{where} line {line_numbers(values.index[unfit])}: {values[unfit].iloc[0]!r} is no "
            "number of a follow-up; it must be 0, 1, 2, ..."
        )
    return numbers.to_numpy(np.int64)


def _sizes(values: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce")
    return numbers.where(numbers % 1 == 0).astype("Int64")


def _known(values: pd.Series, column: str, parse: Callable[[str], object]) -> tuple[pd.Series, np.ndarray]:
    """What each value means (missing where it means nothing), and a note (empty for most) where it was given up.

    An empty cell is missing without a note.
    """
    codes, texts = pd.factorize(values)
    meanings = [parse(text) for text in texts]
    notes = [
        f"{column} {text} taken as unknown" if text and meaning is None else ""
        for text, meaning in zip(texts, meanings, strict=True)
    ]
    return pd.Series(np.array(meanings, dtype=object)[codes]), np.array(notes, dtype=object)[codes]


def _years(text: str) -> int | None:
    """Whole years of an age such as ``58``, ``058Y``, ``010M`` (months), ``003W`` or ``021D``."""
    found = _AGE.fullmatch(text)
    years = int(found[1]) // _UNITS_A_YEAR[found[2].upper()] if found else OLDEST + 1
    return years if years <= OLDEST else None


def _one_of(*values: str) -> Callable[[str], str | None]:
    return lambda text: text.upper() if text.upper() in values else None


def _joined(notes: list[np.ndarray]) -> pd.Series:
    """One note a row, missing where there is none."""
    joined = np.full(len(notes[0]), pd.NA, dtype=object)
    for row in np.flatnonzero(np.logical_or.reduce([note != "" for note in notes])):
        joined[row] = "; ".join(note[row] for note in notes if note[row])
    return pd.Series(joined, dtype="string")


def _splits(stems: pd.Series, tables: Store, file: str) -> np.ndarray:
    """``train`` or ``test`` of each row, by the lists beside the table; all ``train`` without them."""
    folder = file.rpartition("/")[0]
    lists = {split: f"{folder}/{name}".lstrip("/") for split, name in SPLIT_LISTS.items()}
    there = [name for name in lists.values() if name in tables]
    if not there:
        return np.full(len(stems), "train", dtype=object)
    if len(there) == 1:
        (absent,) = set(lists.values()) - set(there)
        raise MedicError(f"{tables.location} has {there[0]} but not {absent}; add it, or move the other one away")
    listed = {}
    for split, name in lists.items():
        named = set(read_table(tables, name, ()).iloc[:, 0].map(stem))
        listed[split] = stems.isin(named)
        if not listed[split].any():
            raise MedicError(
                f"not one of the {len(named)} names in {name} in {tables.location} stands in {file}; the list belongs "
                "to other data: get the right one, or move both lists away"
            )
    both, neither = listed["train"] & listed["test"], ~(listed["train"] | listed["test"])
    for at_fault, what in ((both, "both"), (neither, "neither")):
        if at_fault.any():
            raise MedicError(
                f"{at_fault.sum()} of {len(stems)} images stand in {what} of {' and '.join(lists.values())} in "
                f"{tables.location}, for instance {stems[at_fault].iloc[0]}; correct the lists, or move both away"
            )
    return np.where(listed["test"], "test", "train").astype(object)
