"""The table that goes with the images: one row an image, checked once at the boundary; its classes and their counts."""

import os
import unicodedata

import numpy as np
import pandas as pd

from medic.errors import MedicError
from medic.task import NO_FINDING, Task

SPLITS = ("train", "validation", "test")


def validate(records: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Check records against a task, and give them back with a clean index and integer labels.

    Args:
        records: one row an image, with the columns ``image`` (name inside its store, unique), ``patient``, ``split``
            (one of ``SPLITS``) and ``label`` (class code of the task; for a multilabel task whether any class is
            present, and for each class a column of 0 and 1 by its name); others are kept.
        task: whose class codes the labels are.

    Raises:
        MedicError: a column or a value is missing, an image is listed twice, a split or a label is unknown.
    """
    several = task.kind == "multilabel"
    required = ("image", "patient", "split", "label")
    _require(records, *required, *(task.classes if several else ()))
    if records.empty:
        raise MedicError("the records are empty; name a folder or a table that lists images")
    records = records.reset_index(drop=True)
    for name in required:
        values = records[name]
        _refuse(records, values.isna() | (values == ""), f"have no {name}; fill it in or drop the rows")
    _refuse(records, records["image"].duplicated(keep=False), "are listed more than once; keep one row an image")
    _refuse(records, ~records["split"].isin(SPLITS), f"have a split other than {', '.join(SPLITS)}")
    codes = {"label": ("none", "any") if several else task.classes}
    codes |= dict.fromkeys(task.classes, ("absent", "present")) if several else {}
    for name, meanings in codes.items():
        values = pd.to_numeric(records[name], errors="coerce")
        legend = ", ".join(f"{code} {meaning}" for code, meaning in enumerate(meanings))
        outside = f"have a {name} outside the task {task.name!r} ({legend}); correct the table"
        _refuse(records, ~values.isin(range(len(meanings))), outside, name)
        records[name] = values.astype(np.int64)
    return records


def _require(records: pd.DataFrame, *columns: str) -> None:
    missing = [name for name in columns if name not in records]
    if missing:
        raise MedicError(f"the records lack the column {', '.join(missing)}; read them with the reader of their task")


def _refuse(records: pd.DataFrame, at_fault: pd.Series, what: str, show: str | None = None) -> None:
    if at_fault.any():
        rows = records[at_fault].head(3)
        named = rows["image"].astype(str) + ("" if show is None else f" ({show} " + rows[show].map(repr) + ")")
        more = ", ..." if at_fault.sum() > 3 else ""
        raise MedicError(f"{at_fault.sum()} of {len(records)} images {what}: {', '.join(named)}{more}")


def targets(records: pd.DataFrame, task: Task) -> np.ndarray:
    """Return what a model of the task is to say of each row: int64 (N,), for multilabel tasks (N, C) of 0 and 1.

    Raises:
        MedicError: the records lack a column of the task.
    """
    if task.kind != "multilabel":
        return records["label"].to_numpy(np.int64)
    _require(records, *task.classes)
    return records[list(task.classes)].to_numpy(np.int64)


def read_records(path: str | os.PathLike) -> pd.DataFrame:
    """Read records back from the CSV file they were saved as; names stay text, also ``007`` and ``NA``."""
    # A class may be called NA: of names and classes nothing is missing, of all else only what is empty.
    text = dict.fromkeys(("image", "patient", "patient_source", "group", "class"), str)
    kinds = text | dict.fromkeys(("eye", "sex", "view", "note", "diagnosis", "corrected"), "string")
    kinds |= dict.fromkeys(("age", "width", "height"), "Int64")
    empty = {name: [""] for name in pd.read_csv(path, nrows=0).columns if name not in text}
    return pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=empty)


def class_counts(records: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Count images by class and split.

    Returns:
        One row a class, one int column a split that occurs, and ``total``. For a multilabel task an image counts in
        the row of each of its classes, and without any in a last row "No Finding": rows do not sum to the images.
    """
    if task.kind == "multilabel":
        present = pd.DataFrame(targets(records, task), columns=list(task.classes))
        if NO_FINDING not in present:
            present[NO_FINDING] = 1 - present.max(axis=1)
    else:
        present = pd.get_dummies(pd.Categorical.from_codes(records["label"], list(task.classes)), dtype=int)
    counts = present.groupby(records["split"].to_numpy()).sum().T.rename_axis("class")
    return counts[[split for split in SPLITS if split in counts]].assign(total=counts.sum(axis=1))


def class_weights(labels: np.ndarray | pd.Series, task: Task) -> tuple[float, ...]:
    """Return factors on the loss that make every class count the same in sum: N / (C * n_c).

    As scikit-learn's ``balanced`` (King & Zeng, Political Analysis 9(2), 2001, p. 144). A class without images gets 1,
    which nothing uses. A multilabel task has no such factors: that is a ``MedicError``.
    """
    if task.kind == "multilabel":
        raise MedicError(f"an image of the task {task.name!r} may have several classes; take its weighted loss instead")
    counts = np.bincount(np.asarray(labels, int), minlength=len(task.classes))
    present = np.count_nonzero(counts)
    return tuple(float(len(labels) / (present * count)) if count else 1.0 for count in counts)


def lacking(records: pd.DataFrame, task: Task) -> list[str]:
    """Return a sentence for each class and split without an image: what is absent is neither learned nor tested."""
    counts = class_counts(records, task).loc[list(task.classes)].drop(columns="total")
    so = dict.fromkeys(counts, "measured there; add patients") | {"train": "learned; add images of it"}
    absent = [(name, split) for split in counts for name in counts.index[counts[split] == 0]]
    return [f"the class {name!r} has no image in {split}: it cannot be {so[split]}" for name, split in absent]


def task_of(records: pd.DataFrame, name: str) -> Task:
    """Return the multiclass task that a person's own records ask.

    Raises:
        MedicError: a column is missing, there are fewer than two classes, or codes and names do not belong together.
    """
    _require(records, "label", "class")
    classes = records.drop_duplicates(["label", "class"]).sort_values("label")
    if list(classes["label"]) != list(range(len(classes))):
        found = ", ".join(map(str, classes["class"]))
        raise MedicError(f"codes and classes ({found}) do not belong one to one; take the task of all records")
    return Task(name, "multiclass", tuple(classes["class"]))


def with_codes(records: pd.DataFrame, source: object) -> pd.DataFrame:
    """Number the classes in their order, and check the records as every reader does.

    The order is that of numbers where all are numbers, so that 10 follows 9.

    Args:
        records: with the columns ``image``, ``patient``, ``split`` and ``class`` (text), maybe ``patient_source``.
        source: where the records come from, for messages.

    Raises:
        MedicError: fewer than two classes, or two that differ in writing only.
    """
    spelled: dict[float | str, str] = {}
    for name in sorted(set(records["class"])):
        if (other := spelled.setdefault(_spelling(name), name)) != name:
            raise MedicError(f"{source} writes one class in two ways, {other!r} and {name!r}; use one of them")
    if len(spelled) < 2:
        raise MedicError(f"{source} has one class only, {name!r}; two or more are needed to tell images apart")
    numeric = all(isinstance(key, float) for key in spelled)
    task = Task("own", "multiclass", tuple(spelled[key] for key in (sorted(spelled) if numeric else spelled)))
    labelled = records.assign(label=records["class"].map(task.classes.index))
    kept = ("image", "patient", "patient_source", "split", "label", "class", "corrected")
    return validate(labelled[[name for name in kept if name in labelled]], task)


def _spelling(name: str) -> float | str:
    """What two ways of writing one class share: a number, or its letters in small and without doubled blanks."""
    try:
        return float(name)
    except ValueError:
        return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
