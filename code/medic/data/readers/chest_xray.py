"""NIH ChestX-ray14 in the layouts in which NIH and Kaggle distribute it.

Wang et al., ChestX-ray8, CVPR 2017, p. 3462: 112,120 radiographs of 30,805 patients, 14 findings taken from the reports
by text mining.
"""

import os

import numpy as np
import pandas as pd

from medic.data.corrections import corrected
from medic.data.readers.listed_images import open_images, stem
from medic.data.readers.listing import cells_of, find_table, open_tables, read_table, refuse, sexes, whole
from medic.data.readers.own import records_of
from medic.data.records import validate
from medic.data.stores import Store
from medic.errors import MedicError
from medic.task import CHEST_XRAY, CHEST_XRAY_OR_NONE, FINDINGS, NO_FINDING

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
"""The table's names, in the order in which they are looked for."""
OLDEST = 120  # years; the first edition has patients of 148 to 414, which are mistakes of typing

_LISTS = ("train_val_list.txt", "test_list.txt")
_UNITS_A_YEAR = {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}


def read(source: str | os.PathLike, images: str | os.PathLike | None = None) -> tuple[pd.DataFrame, Store]:
    """Read the table, of two editions the revised one, and find each listed image in its store.

    Returns:
        Records as of ``medic.data.readers.own``, with ``split`` by ``train_val_list.txt`` and ``test_list.txt`` beside
        the table (otherwise ``train``), and instead of ``class``: ``follow_up`` (Int64), ``age`` (Int64, years, missing
        where implausible), ``sex`` (``M``, ``F`` or missing), ``view`` (``PA``, ``AP`` or missing), ``width`` and
        ``height`` (Int64, pixels of the original before NIH scaled it to 1024), ``label`` (1 where there is any
        finding), one 0/1 column for each of the 14 findings and for ``No Finding``, and ``note`` (what could not be
        taken as it stands; missing for most), in the table's order; and the store.

    Raises:
        MedicError: no table, or one without rows or columns that it needs; findings that are unknown or stand beside
            "No Finding"; lists that do not fit; or as ``records_of``.
    """
    tables, file = open_tables(source)
    file = file or next(filter(None, (find_table(tables, wanted) for wanted in TABLES)), None)
    if file is None:
        raise MedicError(f"{tables.location} holds no table of chest X-rays; it needs {' or '.join(TABLES)}")
    where = f"{file} in {tables.location}"
    cells, titles = cells_of(read_table(tables, file, titled=True), where)
    if missing := {"patient", "follow_up", "age", "sex", "view"} - set(cells):
        raise MedicError(f"{where} lacks the columns of {', '.join(sorted(missing))}; get it again from its source")
    labels, views = _labels(cells["label"], where), cells["view"].str.upper()
    cells["split"] = _splits(cells["image"], tables)
    # 58, 058Y, 010M (months), 003W or 021D; each way of writing is looked at once
    ages = cells["age"].drop_duplicates()
    found = ages.str.upper().str.extract(r"^(\d+)(?:\.0*)?\s*([YMWD]?)$")
    years = (pd.to_numeric(found[0]) // found[1].map(_UNITS_A_YEAR)).set_axis(ages)
    known = {
        "age": cells["age"].map(years.where(years <= OLDEST)).astype("Int64"),
        "sex": sexes(cells["sex"]),
        "view": views.where(views.isin(["PA", "AP"])).astype("string"),
    }
    notes = pd.Series("", cells.index)
    for what, values in known.items():
        unknown = values.isna() & (cells[what] != "")
        notes[unknown] += f"; {what} " + cells[what][unknown] + " taken as unknown"
    store = open_images(tables.location if images is None else images)
    records = records_of(cells, titles, where, store).drop(columns="class")
    sides = {side: whole(cells[side]) for side in ("width", "height") if side in cells}
    details = pd.DataFrame({"follow_up": whole(cells["follow_up"]), **known, **sides, "label": 1 - labels[NO_FINDING]})
    notes = notes.str.removeprefix("; ").mask(notes == "", pd.NA).astype("string")
    records = records.join(details.join(labels).assign(note=notes).reset_index(drop=True))
    return corrected(validate(records, CHEST_XRAY_OR_NONE), tables, CHEST_XRAY), store


def _labels(findings: pd.Series, where: str) -> pd.DataFrame:
    """A 0/1 column int64 for each finding and for "No Finding". Each combination is looked at once."""
    names, (codes, combinations) = [*FINDINGS, NO_FINDING], pd.factorize(findings)
    given = combinations.to_series().str.replace(" *[|] *", "|", regex=True).str.get_dummies("|")
    present = given.reindex(columns=names, fill_value=0)
    sound = (given.sum(axis=1) == present.sum(axis=1)) & (present[NO_FINDING] != present[list(FINDINGS)].any(axis=1))
    what = f"is not understood; there is {', '.join(names[:3])}, ..., with | between several, or {NO_FINDING} alone"
    refuse(findings, ~sound.iloc[codes].set_axis(findings.index), where, what)
    return present.iloc[codes].set_axis(findings.index)


def _splits(names: pd.Series, tables: Store) -> np.ndarray | str:
    """``train`` or ``test`` of each row, by the official lists; all ``train`` without them."""
    lists = [name for name in (find_table(tables, wanted) for wanted in _LISTS) if name]
    if not lists:
        return "train"
    stems = names.map(stem)
    train, *test = (stems.isin(read_table(tables, name)[0].map(stem)) for name in lists)
    if not test or (train == test[0]).any():
        what = f"do not name each image in one of {', '.join(_LISTS)}; correct the lists, or move both away"
        raise MedicError(f"{' and '.join(lists)} in {tables.location} {what}")
    return np.where(train, "train", "test").astype(object)
