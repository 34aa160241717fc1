"""What is wrong with a data set, found before training rather than after."""

import re

import pandas as pd

from medic.data import corrections
from medic.data.check.duplicates import copies
from medic.data.check.images import measure, outliers, stats_of_set
from medic.data.records import SPLITS, targets
from medic.data.split import crossing_patients, patients_known
from medic.data.stores import Store
from medic.task import Task

__all__ = ["COLUMNS", "check", "measure", "unlisted_files"]

COLUMNS = ["image", "finding", "detail", "other"]  # of a table of findings
FEWEST_IMAGES, FEWEST_PATIENTS = 10, 5
"""Of a class: fewer cannot be dealt to three splits, or a network may know the patients instead of the class."""

_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".xlsx")
_ABOUT = ("readme", "licence", "license", "sources", "attribution", "synthetic")


def check(records: pd.DataFrame, store: Store, task: Task | None = None, scheduler: str | None = None) -> pd.DataFrame:
    """Look for faults: in the files, between files, and between files and table. Each image is decoded once.

    Args:
        records: as every reader gives them.
        store: where their images are.
        task: names the classes, which are then counted too; None counts none.
        scheduler: a Dask cluster that looks at the images instead (``medic.data.parallel.each``).

    Returns:
        One row a finding: ``image`` (empty for the set as a whole), ``finding`` (``medic.data.check.report.KINDS``
        explains each), ``detail`` (a sentence) and ``other`` (of copies, the image that it is most like; or empty).
    """
    findings: list[tuple[str, ...]] = []
    if "note" in records:
        noted = records[records["note"].notna()]
        findings += [(image, "noted", note) for image, note in zip(noted["image"], noted["note"], strict=True)]
    present = records["image"].map(store.__contains__).astype(bool)
    findings += [(name, "absent", f"not in {store.location.name}") for name in records["image"][~present]]
    there = records[present].reset_index(drop=True)
    stats, bits = stats_of_set(store, there["image"].tolist(), title="checking", scheduler=scheduler)
    if bits is not None:
        findings.append(("", "noted", f"the images of 16 bits use {bits} of them: they are scaled by that"))
    findings += stats.loc[stats["fault"] != "", ["image", "fault", "detail"]].itertuples(index=False, name=None)
    findings += outliers(stats) + copies(there, stats)
    for patient, theirs in records[records["patient"].isin(crossing_patients(records))].groupby("patient"):
        sides = ", ".join(f"{image} in {split}" for image, split in zip(theirs["image"], theirs["split"], strict=True))
        findings.append((theirs["image"].iloc[0], "patient_in_two_splits", f"patient {patient}: {sides}"))
    if task is not None:
        findings += _oddities_of_classes(records, task)
    findings += unlisted_files(records, store)
    return pd.DataFrame([(*row, "")[:4] for row in findings], columns=COLUMNS, dtype=object)


def _oddities_of_classes(records: pd.DataFrame, task: Task) -> list[tuple[str, str, str]]:
    """Classes of few images or of one patient, and splits that lack a class."""
    labels, known, found = targets(records, task), patients_known(records), []
    for code, name in enumerate(task.classes):
        theirs = records[(labels[:, code] == 1) if task.kind == "multilabel" else (labels == code)]
        images, patients = len(theirs), theirs["patient"].nunique()
        counted = f"{name}: images {images}" + (f", patients {patients}" if known else "")
        if images > 1 and patients == 1:
            found.append(("", "single_patient_class", f"{counted} ({theirs['patient'].iloc[0]})"))
        elif images < FEWEST_IMAGES or patients < FEWEST_PATIENTS:
            found.append(("", "rare_class", counted))
        lacking = [split for split in SPLITS if split in set(records["split"]) - set(theirs["split"])]
        found += [("", "split_imbalance", f"{counted}, and none in {split}") for split in lacking if images]
    return found


def unlisted_files(records: pd.DataFrame, store: Store) -> list[tuple[str, str, str]]:
    """Find files that no row names, in the folders where listed images lie; sorted. None is opened.

    Folders that differ by a number only (``images_001`` to ``images_012``) count as one; others are left out, for they
    may hold the same images at another size. Tables and texts (README, LICENCE) belong there, and beside images in the
    store's top folder anything may lie. Images that corrections exclude are no finding.

    Returns:
        Name, finding and detail: ``unlisted`` for images, ``not_an_image`` for all else.
    """
    excluded = {line["image"] for line in corrections.read(corrections.beside(store.location))}
    images, listed = set(store.images()), {*records["image"]} | excluded
    kinds = {name: re.sub(r"\d+", "0", name.rpartition("/")[0]) for name in store.names()}
    ours, found = {kinds[name] for name in listed if name in kinds}, []
    for name in kinds.keys() - listed:
        folder, _, file = name.lower().rpartition("/")
        if kinds[name] in ours and name in images:
            found.append((name, "unlisted", "no row of the table names it"))
        elif kinds[name] in ours and folder and not file.endswith(_TABLES) and not file.startswith(_ABOUT):
            found.append((name, "not_an_image", "a file of another kind among the images; move it elsewhere"))
    return sorted(found)
