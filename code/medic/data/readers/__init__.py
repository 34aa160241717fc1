"""The data sets of the series: what belongs to each published layout, so that its name is all that one has to know."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medic.data.images.preprocess import Preprocessing
from medic.data.readers import chest_xray, digits, own, retinopathy, skin_lesion
from medic.data.records import task_of
from medic.data.stores import Store
from medic.errors import MedicError
from medic.task import CHEST_XRAY, CHEST_XRAY_BINARY, CHEST_XRAY_OR_NONE, DIGITS, RETINOPATHY, SKIN_LESION, Task


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
        """Return the usual task, or the one that the classes found make; raises as ``task_of``."""
        return self.tasks[0] if self.tasks else task_of(records, self.name)

    def with_positive(self, records: pd.DataFrame, name: str) -> pd.DataFrame:
        """Give two own classes their codes so that the named one is positive: sensitivity and areas are that one's.

        Raises:
            MedicError: there are not two classes, or none of that name, or the data set is not one's own.
        """
        found = self.task(records).classes
        if self.tasks or len(found) != 2 or name not in found:
            raise MedicError(f"{name!r} cannot be the positive class: that is one of two own, not of {list(found)}")
        return records.assign(label=(records["class"] == name).astype("int64"))

    def find(self, data: Path) -> Path:
        """Return where the set lies: its folder or zip file below ``data``, or ``data`` itself."""
        return next((path for path in (data / self.name, data / f"{self.name}.zip") if path.exists()), data)


_CHEST_TASKS = (CHEST_XRAY, CHEST_XRAY_BINARY, CHEST_XRAY_OR_NONE)
_SQUARE, _GREY = Preprocessing(crop="square"), Preprocessing(crop="square", grey=True)
DATA_SETS = {
    "retinopathy": DataSet("retinopathy", (RETINOPATHY,), retinopathy.read, Preprocessing(crop="fundus")),
    "chest_xray": DataSet("chest_xray", _CHEST_TASKS, chest_xray.read, _GREY),
    "digits": DataSet("digits", (DIGITS,), digits.read, _GREY),
    "skin_lesion": DataSet("skin_lesion", (SKIN_LESION,), skin_lesion.read, _SQUARE),
}
OWN = DataSet("own", (), own.read, _SQUARE)
"""A person's own images. Their classes are read with them: ``medic.data.records.task_of`` makes the task."""


def data_set_of(task: Task) -> DataSet:
    """Return the data set that a task belongs to; ``OWN`` for a task that is none of the series'."""
    return next((one for one in DATA_SETS.values() if task in one.tasks), OWN)


def lesions_or_own(data: Path) -> tuple[DataSet, Path]:
    """Find skin lesions, otherwise a person's own images, in the data folder: the data set, and where it lies."""
    lesions = DATA_SETS["skin_lesion"]
    source = lesions.find(data)
    return lesions if source != data or skin_lesion.is_published(data) else OWN, source
