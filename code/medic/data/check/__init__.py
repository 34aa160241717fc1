"""What is wrong with a data set, found before training rather than after."""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np
import pandas as pd

from medic.data import corrections
from medic.data.check.duplicates import near_duplicates
from medic.data.check.images import ImageStats, measure, outliers, stats_of_set
from medic.data.images.decode import read_header
from medic.data.records import SPLITS, targets
from medic.data.split import crossing_patients, patients_known
from medic.data.stores import NOT_READ, Store
from medic.errors import ImageError
from medic.task import FINDINGS, NO_FINDING, Task

__all__ = ["COLUMNS", "check", "foreign", "label_oddities", "measure", "unlisted"]

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
        counted += f" of {_many(patients, 'patient')}" if patients_known(records) else ""
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


_OTHER_PICTURES = (*NOT_READ, ".j2k", ".jxl", ".svg")
_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".xlsx")
_ABOUT = ("readme", "licence", "license", "sources", "attribution", "synthetic")


def unlisted(records: pd.DataFrame, store: Store) -> list[str]:
    """Image files that no row names, in the folders where listed images lie; sorted.

    Folders that differ by a number only (``images_001/images`` to ``images_012/images``) count as one. Others are left
    out: the same images at another size may be there. So are images that the corrections beside the store exclude.
    """
    excluded = _excluded(store) if "corrected" in records else set()
    images = set(store.images())
    return [
        name
        for name in _beside(records, store)
        if name in images and not name.lower().endswith(_OTHER_PICTURES) and name not in excluded
    ]


def foreign(records: pd.DataFrame, store: Store) -> list[tuple[str, str, str]]:
    """Files of other kinds in the folders where listed images lie, which readers pass over in silence.

    Tables, their JSON, and texts about the set (README, LICENCE, SOURCES, ATTRIBUTION) belong there. In the store's
    top folder only pictures of other formats are found, for there anything may lie beside the images.

    Returns:
        Name, finding and detail: ``unsupported`` for pictures in a format that is not read, ``not_an_image`` for all
        else.
    """
    found, images = [], set(store.images())
    for name in _beside(records, store):
        folder, _, file = name.rpartition("/")
        if file.lower().endswith(_OTHER_PICTURES):
            found.append((name, "unsupported", f"no row names it, and it would not be read: {_refusal(store, name)}"))
        elif (
            folder and name not in images and not file.lower().endswith(_TABLES) and not file.lower().startswith(_ABOUT)
        ):
            found.append((name, "not_an_image", "a file of another kind among the images; move it elsewhere"))
    return found


def _refusal(store: Store, name: str) -> str:
    try:
        read_header(store.read(name))
    except ImageError as error:
        return str(error)
    return "it is an image under the name of another format; rename it"


def _excluded(store: Store) -> set[str]:
    journal = corrections.beside(store.location)
    last = {one.image: one.after for one in corrections.read(journal)} if journal.is_file() else {}
    return {image for image, label in last.items() if label == corrections.EXCLUDED}


def _beside(records: pd.DataFrame, store: Store) -> list[str]:
    """Names that no row has, in the folders of listed images, sorted."""
    listed = set(records["image"])
    names = store.names()
    kinds = {folder: re.sub(r"\d+", "0", folder) for folder in {name.rpartition("/")[0] for name in names}}
    ours = {kinds[name.rpartition("/")[0]] for name in names if name in listed}
    return [name for name in names if name not in listed and kinds[name.rpartition("/")[0]] in ours]


COLUMNS = ["image", "finding", "detail", "other"]
"""Of a table of findings."""

_NAMED = 5  # duplicates that a sentence names, before it only counts


def check(records: pd.DataFrame, store: Store, task: Task | None = None, scheduler: str | None = None) -> pd.DataFrame:
    """Look for faults: in the files, between files, and between files and table. Each image is decoded once.

    Args:
        records: as every reader gives them.
        store: where their images are.
        task: names the classes, which are then counted too; None counts none.
        scheduler: a Dask cluster that looks at the images instead (``medic.data.parallel.each``).

    Returns:
        One row a finding, with the columns ``image``, ``finding``, ``detail`` and ``other`` (of duplicates, the image
        that it is most like; empty text for all else). The findings, in this order:

        - of the table: ``noted`` (the reader could not take the row as it stands), ``absent``;
        - of single files: ``empty``, ``unsupported``, ``truncated``, ``unreadable``, ``too_large``, ``nearly_black``
          (``medic.data.check.images``);
        - of files against the rest of the set: ``too_dark``, ``too_bright``, ``blurred``, ``odd_size`` and
          ``odd_channels`` (``medic.data.check.images`` says from where on, and why);
        - between files: ``identical`` (the same bytes under two names) and ``near_duplicate`` (the same picture in
          other bytes, also mirrored or turned; ``medic.data.check.duplicates``);
        - of people and classes: ``patient_in_two_splits``, and with a task ``rare_class``, ``single_patient_class`` and
          ``split_imbalance`` (``medic.data.check``; they concern no single image, and theirs is empty text);
        - beside the images: ``unlisted`` (an image file that no row names), ``not_an_image``, and ``unsupported`` for
          pictures in formats that are not read, which readers pass over (``medic.data.check``).

        Empty when nothing was found.
    """
    findings: list[tuple[str, ...]] = []
    if "note" in records:
        noted = records[records["note"].notna()]
        findings += [(image, "noted", note) for image, note in zip(noted["image"], noted["note"], strict=True)]
    present = np.array([name in store for name in records["image"]], dtype=bool)
    findings += [(name, "absent", f"not in {store.location.name}") for name in records["image"][~present]]
    there = records[present].reset_index(drop=True)
    names = there["image"].tolist()
    stats, bits = stats_of_set(store, names, title="checking", scheduler=scheduler)
    if bits is not None:
        findings.append(("", "noted", f"the images of 16 bits use {bits} of them: they are scaled by that"))
    findings += [(name, one.fault, one.detail) for name, one in zip(names, stats, strict=True) if one.fault]
    sound = [row for row, one in enumerate(stats) if not one.fault]
    findings += outliers([names[row] for row in sound], [stats[row] for row in sound])
    findings += _identical(there, stats) + _near(there, stats)
    for patient, theirs in records[records["patient"].isin(crossing_patients(records))].groupby("patient"):
        sides = ", ".join(f"{image} in {split}" for image, split in zip(theirs["image"], theirs["split"], strict=True))
        findings.append((theirs["image"].iloc[0], "patient_in_two_splits", f"patient {patient}: {sides}"))
    if task is not None:
        findings += label_oddities(records, task)
    findings += [(name, "unlisted", "no row of the table names it") for name in unlisted(records, store)]
    findings += foreign(records, store)
    return pd.DataFrame([(*row, "")[:4] for row in findings], columns=COLUMNS, dtype=object)


def _identical(records: pd.DataFrame, stats: list[ImageStats]) -> list[tuple[str, ...]]:
    """Groups of files with the same bytes, each file once."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, one in enumerate(stats):
        if one.digest:
            groups[one.digest].append(row)
    findings = []
    for group in groups.values():
        for row in group if len(group) > 1 else []:
            others = [other for other in group if other != row]
            detail = f"same bytes as {_enumerated(records['image'].iloc[others])}"
            findings.append(_compared(records, row, others, "identical", detail))
    return findings


def _near(records: pd.DataFrame, stats: list[ImageStats]) -> list[tuple[str, ...]]:
    """Files that show one picture in other bytes, each file once, with those it is most like first."""
    rows = [row for row, one in enumerate(stats) if one.fingerprint is not None]
    if len(rows) < 2:
        return []
    like: dict[int, list[tuple[float, int, str]]] = defaultdict(list)
    for pair in near_duplicates(np.stack([stats[row].fingerprint for row in rows])):
        one, other = rows[pair.first], rows[pair.second]
        if stats[one].digest != stats[other].digest:
            like[one].append((pair.correlation, other, pair.turn))
            like[other].append((pair.correlation, one, pair.turn))
    findings = []
    for row in sorted(like):
        nearest = sorted(like[row], key=lambda found: (-found[0], found[1]))
        said = [
            f"{records['image'].iloc[other]} ({f'{turn}, ' if turn else ''}correlation {value:.2f})"
            for value, other, turn in nearest
        ]
        detail = f"same picture as {_enumerated(said)}"
        findings.append(_compared(records, row, [other for _, other, _ in nearest], "near_duplicate", detail))
    return findings


def _compared(records: pd.DataFrame, row: int, others: list[int], finding: str, detail: str) -> tuple[str, ...]:
    """A finding about one image and those like it, with what the table says differently of them."""
    notes = [detail]
    mine, *theirs = _labels(records.iloc[[row, *others]])
    if set(theirs) != {mine}:
        notes.append(f"labels differ ({mine} and {', '.join(sorted(set(theirs)))})")
    if patients_known(records) and (records["patient"].iloc[others] != records["patient"].iloc[row]).any():
        notes.append("of another patient")
    if (records["split"].iloc[others] != records["split"].iloc[row]).any():
        notes.append("in another split")
    return records["image"].iloc[row], finding, "; ".join(notes), records["image"].iloc[others[0]]


def _enumerated(names: pd.Series | list[str]) -> str:
    named = list(names)
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more


def _labels(group: pd.DataFrame) -> list[str]:
    """What each row says the image shows: its findings, where the table has them, otherwise its class."""
    if set(FINDINGS) <= set(group):
        return ["|".join(name for name in FINDINGS if row[name]) or NO_FINDING for _, row in group.iterrows()]
    return group["class" if "class" in group else "label"].astype(str).tolist()
