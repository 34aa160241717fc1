"""What is wrong with a data set, found before training rather than after."""

from __future__ import annotations

import hashlib
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

NEARLY_BLACK = 40
"""A photograph whose brightest hundredth stays below this (of 255) shows nothing that could be graded."""


def check(records: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Look for faults: in the files, between files, and between files and table.

    Args:
        records: as every reader gives them.
        store: where their images are.

    Returns:
        One row a finding, with the columns ``image``, ``finding`` and ``detail``. Findings are ``absent``, ``empty``,
        ``unsupported``, ``truncated``, ``unreadable``, ``too_large``, ``nearly_black``, ``identical`` (the same
        bytes under two names), ``patient_in_two_splits`` and ``unlisted`` (a file that no row names). Empty when
        nothing was found.
    """
    findings: list[tuple[str, str, str]] = []
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
    listed = set(records["image"])
    folders = {name.rpartition("/")[0] for name in records.loc[rows, "image"]}
    findings += [
        (name, "unlisted", "no row of the table names it")
        for name in store.names()
        if is_image_name(name) and name.rpartition("/")[0] in folders and name not in listed
    ]
    return pd.DataFrame(findings, columns=["image", "finding", "detail"])


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
        return digest, "nearly_black", f"99 % of the pixels are below {brightest:.0f} of 255"
    return digest, "", ""


def _identical(group: pd.DataFrame) -> list[tuple[str, str, str]]:
    findings = []
    for row in group.itertuples():
        others = group[group["image"] != row.image]
        notes = [f"same bytes as {', '.join(others['image'])}"]
        if (others["label"] != row.label).any():
            notes.append(f"labels differ ({row.label} and {', '.join(map(str, sorted(set(others['label']))))})")
        if (others["patient"] != row.patient).any():
            notes.append("of another patient")
        if (others["split"] != row.split).any():
            notes.append("in another split")
        findings.append((row.image, "identical", "; ".join(notes)))
    return findings


def measure(records: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Measure each photograph: what differs between cameras and sittings before any disease does.

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
