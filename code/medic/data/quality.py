"""What is wrong with a data set, found before training rather than after."""

from __future__ import annotations

from collections import defaultdict

import cv2
import numpy as np
import pandas as pd

from medic.data.appearance import Appearance, look
from medic.data.crop import DARK
from medic.data.decode import decode, read_header
from medic.data.duplicates import near_duplicates
from medic.data.label_counts import label_oddities
from medic.data.outliers import outliers
from medic.data.parallel import each
from medic.data.split import crossing_patients
from medic.data.stores import Store
from medic.data.strays import foreign, unlisted
from medic.errors import ImageError
from medic.task import FINDINGS, NO_FINDING, Task

COLUMNS = ["image", "finding", "detail", "other"]
"""Of a table of findings."""

_NAMED = 5  # duplicates that a sentence names, before it only counts


def check(records: pd.DataFrame, store: Store, task: Task | None = None) -> pd.DataFrame:
    """Look for faults: in the files, between files, and between files and table. Each image is decoded once.

    Args:
        records: as every reader gives them.
        store: where their images are.
        task: names the classes, which are then counted too; None counts none.

    Returns:
        One row a finding, with the columns ``image``, ``finding``, ``detail`` and ``other`` (of duplicates, the image
        that it is most like; empty text for all else). The findings, in this order:

        - of the table: ``noted`` (the reader could not take the row as it stands), ``absent``;
        - of single files: ``empty``, ``unsupported``, ``truncated``, ``unreadable``, ``too_large``, ``nearly_black``
          (``medic.data.appearance``);
        - of files against the rest of the set: ``too_dark``, ``too_bright``, ``blurred``, ``odd_size`` and
          ``odd_channels`` (``medic.data.outliers`` says from where on, and why);
        - between files: ``identical`` (the same bytes under two names) and ``near_duplicate`` (the same picture in
          other bytes, also mirrored or turned; ``medic.data.duplicates``);
        - of people and classes: ``patient_in_two_splits``, and with a task ``rare_class``, ``single_patient_class`` and
          ``split_imbalance`` (``medic.data.label_counts``; they concern no single image, and theirs is empty text);
        - beside the images: ``unlisted`` (an image file that no row names), ``not_an_image``, and ``unsupported`` for
          pictures in formats that are not read, which readers pass over (``medic.data.strays``).

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
    looks = list(each(lambda name: look(store, name), names, title="checking"))
    findings += [(name, one.fault, one.detail) for name, one in zip(names, looks, strict=True) if one.fault]
    sound = [row for row, one in enumerate(looks) if not one.fault]
    findings += outliers([names[row] for row in sound], [looks[row] for row in sound])
    findings += _identical(there, looks) + _near(there, looks)
    for patient, theirs in records[records["patient"].isin(crossing_patients(records))].groupby("patient"):
        sides = ", ".join(f"{image} in {split}" for image, split in zip(theirs["image"], theirs["split"], strict=True))
        findings.append((theirs["image"].iloc[0], "patient_in_two_splits", f"patient {patient}: {sides}"))
    if task is not None:
        findings += label_oddities(records, task)
    findings += [(name, "unlisted", "no row of the table names it") for name in unlisted(records, store)]
    findings += foreign(records, store)
    return pd.DataFrame([(*row, "")[:4] for row in findings], columns=COLUMNS, dtype=object)


def _identical(records: pd.DataFrame, looks: list[Appearance]) -> list[tuple[str, ...]]:
    """Groups of files with the same bytes, each file once."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, one in enumerate(looks):
        if one.digest:
            groups[one.digest].append(row)
    findings = []
    for group in groups.values():
        for row in group if len(group) > 1 else []:
            others = [other for other in group if other != row]
            detail = f"same bytes as {_enumerated(records['image'].iloc[others])}"
            findings.append(_compared(records, row, others, "identical", detail))
    return findings


def _near(records: pd.DataFrame, looks: list[Appearance]) -> list[tuple[str, ...]]:
    """Files that show one picture in other bytes, each file once, with those it is most like first."""
    rows = [row for row, one in enumerate(looks) if one.fingerprint is not None]
    if len(rows) < 2:
        return []
    like: dict[int, list[tuple[float, int, str]]] = defaultdict(list)
    for pair in near_duplicates(np.stack([looks[row].fingerprint for row in rows])):
        one, other = rows[pair.first], rows[pair.second]
        if looks[one].digest != looks[other].digest:
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
    # Where each image counts as a patient of its own, nothing is known of patients.
    if not records["patient"].is_unique and (records["patient"].iloc[others] != records["patient"].iloc[row]).any():
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


def measure(records: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Measure each image: what differs between cameras and sittings before any disease does.

    Args:
        records: as every reader gives them.
        store: where their images are.

    Returns:
        The records' ``image`` with ``width`` and ``height`` (pixels, as stored), ``brightness`` (mean of the lit
        region's pixels, 0..255), ``red``, ``green``, ``blue`` (the same by channel) and ``sharpness`` (variance of the
        Laplacian of the green channel at about 512 px; Pech-Pacheco et al., ICPR 2000, p. 314). Missing values
        where an image is absent or cannot be read.
    """
    columns = ["width", "height", "brightness", "red", "green", "blue", "sharpness"]
    values = list(each(lambda name: _measure_one(store, name), list(records["image"]), title="measuring"))
    return pd.DataFrame(values, columns=columns, index=records.index).assign(image=records["image"])[
        ["image", *columns]
    ]


def _measure_one(store: Store, name: str) -> tuple[float, ...]:
    try:
        data = store.read(name) if name in store else b""
        header = read_header(data)
        pixels = decode(data, at_least=512)
    except ImageError:
        return (np.nan,) * 7
    scale = 512 / max(pixels.shape[:2])
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    lit = pixels.max(axis=2) > DARK
    colour = pixels[lit].mean(axis=0) if lit.any() else np.zeros(3)
    inside = cv2.erode(lit.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    edges = cv2.Laplacian(pixels[:, :, 1], cv2.CV_32F)
    sharpness = float(edges[inside].var()) if inside.any() else 0.0
    return (header.width, header.height, float(colour.mean()), *map(float, colour), sharpness)
