"""The table that goes with the images: one row an image, checked once at the boundary."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from medic.errors import MedicError
from medic.task import Task

SPLITS = ("train", "validation", "test")


def validate(records: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Check records against a task, and give them back with a clean index and integer labels.

    Args:
        records: one row an image, with the columns ``image`` (name inside its store, unique), ``patient``, ``split``
            (one of ``train``, ``validation``, ``test``) and ``label`` (class code of the task; for a multilabel task 1
            where any class is present, 0 where none is, and beside it one column of 0 and 1 for each class, by its
            name); others are kept.
        task: whose class codes the labels are.

    Raises:
        MedicError: a column is missing, a value is empty, an image is listed twice, a split or a label is unknown;
            the message names the first rows at fault.
    """
    classes = list(task.classes) if task.kind == "multilabel" else []
    missing = [column for column in ("image", "patient", "split", "label", *classes) if column not in records]
    if missing:
        raise MedicError(
            f"the records lack the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            "a reader of medic.data.readers makes them all"
        )
    if records.empty:
        raise MedicError("the records are empty; name a folder or a table that lists images")
    records = records.reset_index(drop=True)
    for column in ("image", "patient", "split", "label"):
        _refuse(
            records, records[column].isna() | (records[column] == ""), f"have no {column}; fill it in or drop the rows"
        )
    _refuse(records, records["image"].duplicated(keep=False), "are listed more than once; keep one row an image")
    _refuse(records, ~records["split"].isin(SPLITS), f"have a split other than {', '.join(SPLITS)}")
    legend = ", ".join(f"{code} {name}" for code, name in enumerate(task.classes)) if not classes else "0 none, 1 any"
    allowed = {"label": range(2 if classes else len(task.classes))} | dict.fromkeys(classes, range(2))
    clean = {}
    for column, codes in allowed.items():
        values = pd.to_numeric(records[column], errors="coerce")
        meaning = legend if column == "label" else f"{column}: 0 absent, 1 present"
        outside = f"have a label outside the task {task.name!r} ({meaning}); correct the table"
        _refuse(records, ~values.isin(codes), outside, column)
        clean[column] = values.astype(np.int64)
    return records.assign(**clean)


def targets(records: pd.DataFrame, task: Task) -> np.ndarray:
    """What a model of the task is to say of each row.

    Returns:
        int64 (N,) class codes; for multilabel tasks int64 (N, C), 0 or 1 for each class.

    Raises:
        MedicError: the records lack a column of the task.
    """
    if task.kind != "multilabel":
        return records["label"].to_numpy(np.int64)
    missing = [name for name in task.classes if name not in records]
    if missing:
        raise MedicError(
            f"the records lack the column{'s' * (len(missing) > 1)} {', '.join(missing[:3])} of the task "
            f"{task.name!r}; read them with the reader of that task and prepare anew"
        )
    return records[list(task.classes)].to_numpy(np.int64)


def originals(records: pd.DataFrame) -> pd.DataFrame:
    """Each image once: without the varied copies that ``medic.modeling.augmented_set`` adds for training."""
    return records[records["copy"] == 0] if {"copy", "copy_of"} <= set(records) else records


_TEXT, _NUMBERS = ("eye", "sex", "view", "note", "diagnosis"), ("age", "width", "height")
_TYPES = dict.fromkeys(_TEXT, "string") | dict.fromkeys(_NUMBERS, "Int64")
"""Of columns that readers may give and that a CSV file would lose; where there is none of that name, none is made."""


def read_records(path: str | os.PathLike) -> pd.DataFrame:
    """Read records back from the CSV file they were saved as; names stay text, also ``007`` and ``NA``."""
    text = dict.fromkeys(("image", "patient", "class", "copy_of"), str)
    # A class may be called NA: only an empty cell is missing.
    records = pd.read_csv(path, converters=text | {"corrected": lambda cell: cell or pd.NA}, dtype=_TYPES)
    return records.astype({"corrected": "string"}) if "corrected" in records else records


def _refuse(records: pd.DataFrame, at_fault: pd.Series, what: str, show: str | None = None) -> None:
    if at_fault.any():
        rows = records[at_fault].head(3)
        named = [
            str(image) if show is None else f"{image} ({show} {value!r})"
            for image, value in zip(rows["image"], rows[show or "image"], strict=True)
        ]
        more = ", ..." if at_fault.sum() > 3 else ""
        raise MedicError(f"{at_fault.sum()} of {len(records)} images {what}: {', '.join(named)}{more}")
