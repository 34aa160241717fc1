"""A person's own images, in whichever of the two layouts they lie."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from medic.data.readers import folder, table
from medic.data.stores import Store, open_store
from medic.errors import MedicError
from medic.task import Task


def read(
    source: str | os.PathLike,
    images: str | os.PathLike | None = None,
    task: Task | None = None,
    level: int | None = None,
) -> tuple[pd.DataFrame, Store]:
    """Read images with a CSV file that says what they show, or images in folders that are named as their classes.

    The table counts where there is one: it may know patients, which folders do not. See ``medic.data.readers.table``
    and ``medic.data.readers.folder`` for what each understands, gives and refuses.

    Args:
        source: a CSV file; or a folder or zip file that holds one, or else one folder a class.
        images: the folder or zip file of the images, where they are elsewhere than the table.
        task: whose classes the labels are; by default the classes are the labels found, sorted.
        level: which level of folders is the classes', where the reader of folders cannot tell.

    Returns:
        Records with the columns ``image``, ``patient``, ``split``, ``label`` and ``class``; and the store.

    Raises:
        MedicError: as the two, and for a level where a table counts.
    """
    path = Path(source)
    is_table = path.is_file() and path.suffix.lower() != ".zip"
    tables = [path.name] if is_table else table.csv_files(open_store(path))
    if tables and level is not None:
        raise MedicError(
            f"level={level} is for images in folders, and {path} has the table {tables[0]}, which counts; leave the "
            "level away, or move the table elsewhere"
        )
    if tables:
        return table.read(path, images, task)
    return folder.read(path, images, task, level)
