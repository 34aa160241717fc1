"""The table that goes with the images: one row an image, checked once at the boundary."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from medic.errors import MedicError
from medic.task import Task

SPLITS = ("train", "validation", "test")


def validate(records: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Check records against a task, and give them back with a clean index and an integer label.

    Args:
        records: one row an image, with the columns ``image`` (name inside its store, unique), ``patient``, ``split``
            (one of ``train``, ``validation``, ``test``) and ``label`` (class code of the task); others are kept.
        task: whose class codes the labels are.

    Raises:
        MedicError: a column is missing, a value is empty, an image is listed twice, a split or a label is unknown;
            the message names the first rows at fault.
    """
    missing = [column for column in ("image", "patient", "split", "label") if column not in records]
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
    codes = pd.to_numeric(records["label"], errors="coerce")
    outside = ~codes.isin(range(len(task.classes)))
    legend = ", ".join(f"{code} {name}" for code, name in enumerate(task.classes))
    _refuse(records, outside, f"have a label outside the task {task.name!r} ({legend}); correct the table", "label")
    return records.assign(label=codes.astype(np.int64))


def read_records(path: str | os.PathLike) -> pd.DataFrame:
    """Read records back from the CSV file they were saved as; names stay text, also ``007`` and ``NA``."""
    return pd.read_csv(path, converters={"image": str, "patient": str}, dtype={"eye": "string"})


def _refuse(records: pd.DataFrame, at_fault: pd.Series, what: str, show: str | None = None) -> None:
    if at_fault.any():
        rows = records[at_fault].head(3)
        named = [
            str(row.image) if show is None else f"{row.image} ({show} {getattr(row, show)!r})"
            for row in rows.itertuples()
        ]
        more = ", ..." if at_fault.sum() > 3 else ""
        raise MedicError(f"{at_fault.sum()} of {len(records)} images {what}: {', '.join(named)}{more}")
