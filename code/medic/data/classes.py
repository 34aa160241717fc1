"""Class names as their owner wrote them, and the task that follows from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from medic.data.records import validate
from medic.errors import MedicError
from medic.task import Task


def in_order(names: Sequence[str]) -> list[str]:
    """The distinct names, sorted: as numbers where all of them are numbers, so that 10 follows 9; as text otherwise."""
    distinct = sorted(set(names))
    return sorted(distinct, key=_number) if all(_number(name) is not None for name in distinct) else distinct


def task_of(records: pd.DataFrame, name: str) -> Task:
    """The multiclass task that a person's own records ask.

    Args:
        records: with the columns ``label`` and ``class``, as the readers ``folder`` and ``table`` give them.
        name: what the task is to be called in folders, files and commands.

    Raises:
        MedicError: a column is missing, there are fewer than two classes, or codes and names do not belong together.
    """
    missing = [column for column in ("label", "class") if column not in records]
    if missing:
        raise MedicError(f"the records lack {' and '.join(missing)}; medic.data.readers.folder and table make both")
    pairs = records[["label", "class"]].drop_duplicates().sort_values("label")
    if list(pairs["label"]) != list(range(len(pairs))):
        raise MedicError(
            f"the codes {sorted(set(records['label']))} and the classes {', '.join(sorted(set(records['class'])))} do "
            "not belong one to one; take the task of all records, not of a part of them"
        )
    return Task(name, "multiclass", tuple(pairs["class"]))


def with_codes(records: pd.DataFrame, task: Task | None, source: object) -> pd.DataFrame:
    """Give records their class codes, and check them as every reader does.

    Args:
        records: with the columns ``image``, ``patient``, ``split`` and ``class`` (text).
        task: whose codes to give: ``class`` holds its names, or for all images its codes as numbers. None numbers the
            classes in their order.
        source: where the records come from, for messages.

    Returns:
        The records with ``label`` before ``class``.

    Raises:
        MedicError: fewer than two classes, two that differ in writing only, one that only test or validation images
            have, one that the task does not know, or one of the task's that no image has.
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
    return validate(labelled[["image", "patient", "split", "label", "class"]], chosen)


def _codes_of(task: Task, found: list[str], source: object) -> dict[str, int]:
    if task.kind == "multilabel":
        raise MedicError(f"the task {task.name!r} has several classes an image, and {source} gives one; name another")
    codes = {name: code for code, name in enumerate(task.classes)}
    if not set(found) & codes.keys() and all(_number(name) in range(len(codes)) for name in found):
        codes = {name: int(_number(name)) for name in found}
    for names, what in (
        (
            [name for name in found if name not in codes],
            "has the class {name!r}, which the task {task!r} does not know",
        ),
        (
            [name for code, name in enumerate(task.classes) if code not in {codes.get(name) for name in found}],
            "has no image of the class {name!r} of the task {task!r}",
        ),
    ):
        if names:
            raise MedicError(
                f"{source} {what.format(name=names[0], task=task.name)} ({', '.join(task.classes)}); "
                f"correct the names, or read without a task"
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
    return name.casefold() if number is None else number


def _number(name: str) -> float | None:
    try:
        value = float(name)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
