"""The table that goes with the images: one row an image, checked once at the boundary."""

from __future__ import annotations

import math
import os
import sys
import unicodedata
from collections.abc import Sequence

import numpy as np
import pandas as pd

from medic.errors import MedicError
from medic.task import NO_FINDING, Task

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
        MedicError: a column or a value is missing, an image is listed twice, a split or a label is unknown.
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
    """Each image once: without the varied copies that ``medic.modeling.augment.augmented_set`` adds for training."""
    return records[records["copy"] == 0] if {"copy", "copy_of"} <= set(records) else records


_WHOLE = dict.fromkeys(("age", "width", "height"), "Int64")
_TYPES = dict.fromkeys(("eye", "sex", "view", "note", "diagnosis"), "string") | _WHOLE
"""Of columns that readers may give and that a CSV file would lose; where there is none of that name, none is made."""


def read_records(path: str | os.PathLike) -> pd.DataFrame:
    """Read records back from the CSV file they were saved as; names stay text, also ``007`` and ``NA``."""
    # A class may be called NA: of names and classes nothing is missing, of all else only what is empty.
    text = dict.fromkeys(("image", "patient", "patient_source", "group", "class", "copy_of"), str)
    header = pd.read_csv(path, nrows=0).columns
    empty = {column: [""] for column in header if column not in text}
    types = text | _TYPES | {"corrected": "string"}
    return pd.read_csv(path, dtype=types, keep_default_na=False, na_values=empty)


def _refuse(records: pd.DataFrame, at_fault: pd.Series, what: str, show: str | None = None) -> None:
    if at_fault.any():
        rows = records[at_fault].head(3)
        named = [
            str(image) if show is None else f"{image} ({show} {value!r})"
            for image, value in zip(rows["image"], rows[show or "image"], strict=True)
        ]
        more = ", ..." if at_fault.sum() > 3 else ""
        raise MedicError(f"{at_fault.sum()} of {len(records)} images {what}: {', '.join(named)}{more}")


def class_counts(records: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Images by class and split.

    Returns:
        One row a class (named as in the task), one int column a split that occurs, and ``total``. For a multilabel
        task an image counts in the row of each of its classes, and images without any in a last row "No Finding"
        (unless the task has a class of that name), so the rows do not sum to the images.

    Raises:
        MedicError: the records lack a column of a multilabel task.
    """
    splits = [split for split in SPLITS if (records["split"] == split).any()]
    if task.kind == "multilabel":
        present = pd.DataFrame(targets(records, task), index=records.index, columns=list(task.classes))
        if NO_FINDING not in present:
            present[NO_FINDING] = 1 - present.max(axis=1)
        counts = present.groupby(records["split"].to_numpy()).sum().T.reindex(columns=splits).astype(int)
        counts.index.name = "class"
        return counts.assign(total=counts.sum(axis=1))
    counts = pd.crosstab(records["label"], records["split"]).reindex(index=range(len(task.classes)), columns=splits)
    counts = counts.fillna(0).astype(int)
    counts.index = pd.Index(task.classes, name="class")
    counts.columns.name = None
    return counts.assign(total=counts.sum(axis=1))


def class_weights(labels: np.ndarray | pd.Series, task: Task) -> tuple[float, ...]:
    """Factors on the loss that make every class count the same in sum: N / (C * n_c).

    King & Zeng, Political Analysis 9(2), 2001, p. 144; the formula is that of scikit-learn's ``balanced``. The mean
    over the images is 1, and a class without images gets 1, which nothing uses.

    Raises:
        MedicError: the task is multilabel.
    """
    if task.kind == "multilabel":
        raise MedicError(
            f"an image of the task {task.name!r} may have several classes, so no factor a class makes them count the "
            "same; a weighted multilabel loss (medic.modeling.objectives) is for that"
        )
    counts = np.bincount(np.asarray(labels, int), minlength=len(task.classes))
    present = np.count_nonzero(counts)
    return tuple(float(len(labels) / (present * count)) if count else 1.0 for count in counts)


def in_order(names: Sequence[str]) -> list[str]:
    """The distinct names, sorted: as numbers where all of them are numbers, so that 10 follows 9; as text otherwise."""
    distinct = sorted(set(names))
    return sorted(distinct, key=_number) if all(_number(name) is not None for name in distinct) else distinct


def task_of(records: pd.DataFrame, name: str) -> Task:
    """The multiclass task that a person's own records ask.

    Raises:
        MedicError: a column is missing, there are fewer than two classes, or codes and names do not belong together.
    """
    missing = [column for column in ("label", "class") if column not in records]
    if missing:
        raise MedicError(f"the records lack {' and '.join(missing)}; medic.data.readers.own makes both")
    pairs = records[["label", "class"]].drop_duplicates().sort_values("label")
    if list(pairs["label"]) != list(range(len(pairs))):
        raise MedicError(
            f"the codes {sorted(set(records['label']))} and the classes {', '.join(sorted(set(records['class'])))} do "
            "not belong one to one; take the task of all records, not of a part of them"
        )
    return Task(name, "multiclass", tuple(pairs["class"]))


def with_positive(records: pd.DataFrame, name: str) -> pd.DataFrame:
    """Give two classes their codes so that the positive one comes second: sensitivity and areas are that one's.

    Where nobody says, the positive class is the last in alphabetical order.

    Raises:
        MedicError: there are not two classes, or none of that name.
    """
    found = list(task_of(records, "own").classes)
    if len(found) != 2 or name not in found:
        raise MedicError(f"{name!r} cannot be the positive class: that is one of two, and there are {found}")
    return records.assign(label=(records["class"] == name).astype("int64"))


def without_gaps(records: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Number the classes anew, in the same order, where corrections have left one without images; that is said.

    Raises:
        MedicError: one class only is left.
    """
    left = sorted(set(records["label"]))
    if len(left) < 2:
        raise MedicError(
            f"after the corrections all {len(records)} images are of the class {records['class'].iloc[0]!r}; two or "
            "more classes are needed to tell images apart"
        )
    gone = [name for code, name in enumerate(task.classes) if code not in left]
    if gone:
        print(f"after the corrections no image is left in the class {', '.join(gone)}", file=sys.stderr)
    return records.assign(label=records["label"].map({label: code for code, label in enumerate(left)}))


def lacking(records: pd.DataFrame, task: Task) -> list[str]:
    """Classes that a split has no image of, in one sentence each: what is absent is neither learned nor tested."""
    counts, sentences = class_counts(records, task).reindex(task.classes), []
    splits = [split for split in counts if split != "total"]
    for name, row in counts.iterrows():
        without = [split for split in splits if not row[split]]
        if not row["total"]:
            sentences.append(f"the class {name!r} has no image: nothing can be learned of it")
        elif "train" in without:
            sentences.append(f"the class {name!r} has no image in train: it cannot be learned; take another seed")
        elif without:
            few = "1 image" if row["total"] == 1 else f"{row['total']} images"
            sentences.append(
                f"the class {name!r} has {few}, none of them in {' and '.join(without)}: how well it is told cannot be "
                "measured there; three patients or more are needed"
            )
    return sentences


def with_codes(records: pd.DataFrame, task: Task | None, source: object) -> pd.DataFrame:
    """Give records their class codes, and check them as every reader does.

    Args:
        records: with the columns ``image``, ``patient``, ``split`` and ``class`` (text), maybe ``patient_source``.
        task: whose codes to give: ``class`` holds its names, or for all images its codes as numbers. None numbers the
            classes in their order.
        source: where the records come from, for messages.

    Raises:
        MedicError: fewer than two classes, two that differ in writing only, one without training images, one that the
            task does not know, or one of the task's that no image has.
    """
    found = in_order(records["class"])
    if len(found) < 2:
        raise MedicError(f"{source} has one class only, {found[0]!r}; two or more are needed to tell images apart")
    _refuse_alike(found, source)
    trained = set(records.loc[records["split"] == "train", "class"])
    unseen = [name for name in found if name not in trained]
    if trained and unseen:
        raise MedicError(
            f"{source} has the class {unseen[0]!r} only outside the training images, where a model cannot learn it; "
            "is it written differently there?"
        )
    codes = {name: code for code, name in enumerate(found)} if task is None else _codes_of(task, found, source)
    chosen = task or Task("own", "multiclass", tuple(found))
    labelled = records.assign(label=records["class"].map(codes))
    told_by = ["patient_source"] if "patient_source" in records else []
    return validate(labelled[["image", "patient", *told_by, "split", "label", "class"]], chosen)


def _codes_of(task: Task, found: list[str], source: object) -> dict[str, int]:
    if task.kind == "multilabel":
        raise MedicError(f"the task {task.name!r} has several classes an image, and {source} gives one; name another")
    codes = {name: code for code, name in enumerate(task.classes)}
    if not set(found) & codes.keys() and all(_number(name) in range(len(codes)) for name in found):
        codes = {name: int(_number(name)) for name in found}
    unknown = [name for name in found if name not in codes]
    absent = [name for code, name in enumerate(task.classes) if code not in {codes.get(name) for name in found}]
    if unknown or absent:
        what = (
            f"the class {unknown[0]!r}, which is unknown to" if unknown else f"no image of the class {absent[0]!r} of"
        )
        raise MedicError(
            f"{source} has {what} the task {task.name!r} ({', '.join(task.classes)}); correct the names, or read "
            "without a task"
        )
    return codes


def _refuse_alike(found: list[str], source: object) -> None:
    """Two spellings of one class would silently be two classes."""
    first: dict[object, str] = {}
    for name in found:
        other = first.setdefault(_spelling(name), name)
        if other != name:
            raise MedicError(f"{source} writes one class in two ways, {other!r} and {name!r}; use one of them")


def _spelling(name: str) -> object:
    number = _number(name)
    # An accented letter may be one character or two, and blanks may be several: to the eye they are the same.
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split()) if number is None else number


def _number(name: str) -> float | None:
    try:
        value = float(name)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
