"""How many images each class has, and what to do about it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medic.data.records import SPLITS, targets
from medic.errors import MedicError
from medic.task import NO_FINDING, Task


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

    King & Zeng, Political Analysis 9(2), 2001, p. 144; the formula is that of scikit-learn's ``balanced``.

    Args:
        labels: int (N,) class codes of the training images.
        task: whose codes they are.

    Returns:
        One factor a class, mean 1 over the images. A class without images gets 1, which nothing uses.

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
