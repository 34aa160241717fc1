"""Classes that a set has too few images of to learn or to judge, and splits that lack one."""

from __future__ import annotations

import pandas as pd

from medic.data.records import SPLITS, targets
from medic.task import Task

FEWEST_IMAGES = 10
"""Of a class: fewer cannot be dealt to training, validation and test with more than one or two in each."""
FEWEST_PATIENTS = 5
"""Of a class: fewer, and a network may know the patients instead of the class."""


def label_oddities(records: pd.DataFrame, task: Task) -> list[tuple[str, str, str]]:
    """Look at the classes' numbers.

    Args:
        records: as a reader gives them.
        task: whose classes are counted; one that does not occur is found too.

    Returns:
        Empty text (for the set as a whole), finding and detail, class after class: ``rare_class`` (fewer than 10
        images or 5 patients), ``single_patient_class`` (several images, all of one patient) and ``split_imbalance``
        (a class that occurs, but not in one of the set's splits).
    """
    labels = targets(records, task)
    splits = [split for split in SPLITS if (records["split"] == split).any()]
    found = []
    for code, name in enumerate(task.classes):
        theirs = records[labels[:, code] == 1 if task.kind == "multilabel" else labels == code]
        images, patients = len(theirs), theirs["patient"].nunique()
        counted = f"{name}: {_many(images, 'image')}"
        # Where each image counts as a patient of its own, nothing is known of patients.
        counted += "" if records["patient"].is_unique else f" of {_many(patients, 'patient')}"
        if not images:
            found.append(("", "rare_class", f"{name}: no image shows it"))
            continue
        if images > 1 and patients == 1:
            found.append(("", "single_patient_class", f"{counted} ({theirs['patient'].iloc[0]})"))
        elif images < FEWEST_IMAGES or patients < FEWEST_PATIENTS:
            found.append(("", "rare_class", counted))
        there = theirs["split"].value_counts()
        for split in splits:
            if split not in there:
                shares = ", ".join(f"{there[other]} in {other}" for other in splits if other in there)
                found.append(("", "split_imbalance", f"{name}: none in {split}, {shares}"))
    return found


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
