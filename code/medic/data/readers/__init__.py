"""The lines of the series: what belongs to each published layout, so that commands and notebooks need only its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medic.data.images.preprocess import Preprocessing
from medic.data.readers import chest_xray, digits, own, retinopathy, skin_lesion
from medic.data.records import task_of, with_positive
from medic.data.stores import Store
from medic.errors import MedicError
from medic.task import (
    CHEST_XRAY,
    CHEST_XRAY_BINARY,
    CHEST_XRAY_OR_NONE,
    DIGITS,
    RETINOPATHY,
    SKIN_LESION,
    Task,
)


@dataclass(frozen=True)
class DataSet:
    """One layout, the questions that are put to it, and how its images become pixels.

    Attributes:
        name: of the folder or zip file below a data folder.
        tasks: the questions; the first is the usual one. Empty where the images themselves decide (``own``).
        read: the reader: ``read(source, images=None)`` gives records and store.
        preprocessing: how bytes become pixels, but for the size.
    """

    name: str
    tasks: tuple[Task, ...]
    read: Callable[..., tuple[pd.DataFrame, Store]]
    preprocessing: Preprocessing

    def task(self, records: pd.DataFrame) -> Task:
        """The line's usual task, or the one that the classes found make; raises as ``task_of``."""
        return self.tasks[0] if self.tasks else task_of(records, self.name)

    def with_positive(self, records: pd.DataFrame, name: str) -> pd.DataFrame:
        """Records of images of one's own in two classes, with the class that is positive second.

        Raises:
            MedicError: the line has classes of its own, whose order is given; or as
                ``medic.data.records.with_positive``.
        """
        if self.tasks:
            raise MedicError(
                f"the positive class of {self.name} is given ({', '.join(self.tasks[0].classes)}); {name!r} can be "
                "named for images of your own only, leave it away"
            )
        return with_positive(records, name)

    def find(self, data: Path) -> Path:
        """Where the line's set lies: its folder or zip file below ``data``, or ``data`` itself."""
        candidates = (data / self.name, data / f"{self.name}.zip")
        return next((path for path in candidates if path.exists()), data)


DATA_SETS = {
    line.name: line
    for line in (
        DataSet(
            "retinopathy",
            (RETINOPATHY,),
            retinopathy.read,
            Preprocessing(crop="fundus"),
        ),
        DataSet(
            "chest_xray",
            (CHEST_XRAY, CHEST_XRAY_BINARY, CHEST_XRAY_OR_NONE),
            chest_xray.read,
            Preprocessing(crop="square", grey=True),
        ),
        DataSet(
            "digits",
            (DIGITS,),
            digits.read,
            Preprocessing(crop="square", grey=True),
        ),
        DataSet(
            "skin_lesion",
            (SKIN_LESION,),
            skin_lesion.read,
            Preprocessing(crop="square"),
        ),
    )
}

OWN = DataSet("own", (), own.read, Preprocessing(crop="square"))
"""A person's own images. Their classes are read with them: ``medic.data.records.task_of`` makes the task."""


def data_set_of(task: Task) -> DataSet:
    """The line that a task belongs to; ``OWN`` for a task that is none of the series'."""
    return next((line for line in DATA_SETS.values() if task in line.tasks), OWN)


def find_data_set(name: str) -> DataSet:
    """The line of that name, ``own`` among them.

    Raises:
        MedicError: there is none; the message lists those there are.
    """
    if name not in {**DATA_SETS, OWN.name: OWN}:
        raise MedicError(f"no line is called {name!r}; there is: {', '.join(DATA_SETS)}, {OWN.name}")
    return DATA_SETS.get(name, OWN)


def lesions_or_own(data: Path) -> tuple[DataSet, Path]:
    """Skin lesions where the data folder holds them, otherwise a person's own images in the data folder itself.

    Returns:
        The line, and where its images and table lie; ``line.read`` reads them, and ``line.task`` gives the task.
    """
    line = DATA_SETS["skin_lesion"]
    source = line.find(data)
    return line if source != data or skin_lesion.is_published(data) else OWN, source
