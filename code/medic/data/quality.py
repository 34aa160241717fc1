"""What is wrong with a data set, found before training rather than after."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict

import cv2
import numpy as np
import pandas as pd

from medic.data.crop import DARK
from medic.data.decode import decode, read_header
from medic.data.parallel import each
from medic.data.split import crossing_patients
from medic.data.stores import Store, is_image_name
from medic.errors import ImageError
from medic.task import FINDINGS, NO_FINDING

NEARLY_BLACK = 40
"""An image whose brightest hundredth stays below this (of 255) shows nothing that could be graded."""


def check(records: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Look for faults: in the files, between files, and between files and table.

    Args:
        records: as every reader gives them.
        store: where their images are.

    Returns:
        One row a finding, with the columns ``image``, ``finding`` and ``detail``. Findings are ``noted`` (the reader
        could not take the row as it stands), ``absent``, ``empty``, ``unsupported``, ``truncated``, ``unreadable``,
        ``too_large``, ``nearly_black``, ``identical`` (the same bytes under two names), ``patient_in_two_splits`` and
        ``unlisted`` (a file that no row names). Empty when nothing was found.
    """
    findings: list[tuple[str, str, str]] = []
    if "note" in records:
        noted = records[records["note"].notna()]
        findings += [(image, "noted", note) for image, note in zip(noted["image"], noted["note"], strict=True)]
    twins: dict[bytes, list[int]] = defaultdict(list)
    present = [name in store for name in records["image"]]
    findings += [(name, "absent", f"not in {store.location.name}") for name in records["image"][~np.array(present)]]
    rows = records.index[present]
    for row, (digest, finding, detail) in zip(
        rows, each(lambda name: _look(store, name), list(records.loc[rows, "image"]), title="checking"), strict=True
    ):
        if finding:
            findings.append((records.loc[row, "image"], finding, detail))
        if digest:
            twins[digest].append(row)
    for group in twins.values():
        findings += _identical(records.loc[group]) if len(group) > 1 else []
    for patient in crossing_patients(records):
        theirs = records[records["patient"] == patient]
        sides = ", ".join(f"{image} in {split}" for image, split in zip(theirs["image"], theirs["split"], strict=True))
        findings.append((theirs["image"].iloc[0], "patient_in_two_splits", f"patient {patient}: {sides}"))
    findings += [(name, "unlisted", "no row of the table names it") for name in unlisted(records, store)]
    return pd.DataFrame(findings, columns=["image", "finding", "detail"])


def unlisted(records: pd.DataFrame, store: Store) -> list[str]:
    """Image files that no row names, in the folders where listed images lie; sorted.

    Folders that differ by a number only (``images_001/images`` to ``images_012/images``) count as one. Others are left
    out: the same images at another size may be there.
    """
    listed = set(records["image"])
    names = [name for name in store.names() if is_image_name(name)]
    kinds = {folder: re.sub(r"\d+", "0", folder) for folder in {name.rpartition("/")[0] for name in names}}
    ours = {kinds[name.rpartition("/")[0]] for name in names if name in listed}
    return [name for name in names if name not in listed and kinds[name.rpartition("/")[0]] in ours]


def _look(store: Store, name: str) -> tuple[bytes, str, str]:
    """Digest of the file, and what is wrong with it by itself (or nothing)."""
    try:
        data = store.read(name)
    except ImageError as error:
        return b"", error.reason, str(error)
    digest = hashlib.sha256(data).digest()
    try:
        pixels = decode(data, at_least=128)
    except ImageError as error:
        return digest, error.reason, str(error)
    brightest = float(np.percentile(pixels.max(axis=2), 99))
    if brightest < NEARLY_BLACK:
        detail = f"99 % of the pixels are below {brightest:.0f} of 255"
        if _sixteen_bits(data):
            detail += "; of its 16 bits the values may use only the lower ones: save it anew, scaled to all of them"
        return digest, "nearly_black", detail
    return digest, "", ""


def _sixteen_bits(data: bytes) -> bool:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels is not None and pixels.dtype == np.uint16


def _labels(group: pd.DataFrame) -> pd.Series:
    """What each row says the image shows: its findings, where the table has them, otherwise its class code."""
    if not set(FINDINGS) <= set(group):
        return group["label"].astype(str)
    return group[list(FINDINGS)].apply(
        lambda row: "|".join(name for name in FINDINGS if row[name]) or NO_FINDING, axis=1
    )


def _identical(group: pd.DataFrame) -> list[tuple[str, str, str]]:
    findings = []
    labels = _labels(group)
    for row in group.itertuples():
        others = group[group["image"] != row.image]
        mine, theirs = labels[row.Index], labels[others.index]
        notes = [f"same bytes as {', '.join(others['image'])}"]
        if (theirs != mine).any():
            notes.append(f"labels differ ({mine} and {', '.join(sorted(set(theirs)))})")
        if (others["patient"] != row.patient).any():
            notes.append("of another patient")
        if (others["split"] != row.split).any():
            notes.append("in another split")
        findings.append((row.image, "identical", "; ".join(notes)))
    return findings


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
