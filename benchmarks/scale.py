"""Time and memory of a preparation against the number of images: small generated ones from one zip file.

Run by ``preparation.py --scale``. As a script of its own it does one size in a fresh process, because a process's
largest memory cannot be measured twice: ``python benchmarks/scale.py prepare ZIP FOLDER`` and
``python benchmarks/scale.py records ROWS`` print one JSON object.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from measure import Row, figure, in_own_process, peak_memory
from photographs import distinct

from medic.data.explore import describe
from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import prepare
from medic.data.records import class_counts, validate
from medic.data.split import split_by_patient
from medic.data.stores import open_store
from medic.sample.fundus import fundus_photograph
from medic.task import RETINOPATHY

NAME = "preparation_scale"
SECONDS = 180
"""What the largest number of images may take on two cores."""


def write_zip(path: Path, members: int) -> None:
    """A stored zip of small photographs, each with its own bytes: ``0000001.jpeg`` and so on."""
    kinds = [
        cv2.imencode(".jpg", fundus_photograph(grade, "left", np.random.default_rng(grade), (96, 72))[0])[1]
        for grade in range(5)
    ]
    photographs = [kind.tobytes() for kind in kinds]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(members):
            archive.writestr(f"{number:07}.jpeg", distinct(photographs[number % 5], number))


def generated_records(rows: int) -> pd.DataFrame:
    """Pairs of eyes, grades as imbalanced as in life."""
    patients = np.arange(rows) // 2
    return pd.DataFrame(
        {
            "image": [f"{number:07}.jpeg" for number in range(rows)],
            "patient": patients.astype(str),
            "eye": np.where(np.arange(rows) % 2, "right", "left"),
            "split": "train",
            "label": np.random.default_rng(0).choice(5, rows, p=[0.6, 0.12, 0.18, 0.06, 0.04]),
        }
    )


def prepare_once(archive: Path, folder: Path, limit: int | None = None) -> dict:
    """Prepare all that a zip holds (or its first members), and prepare it again, when there is nothing left to do."""
    start = time.perf_counter()
    store = open_store(archive)
    names = store.names()
    opened = time.perf_counter()
    records = generated_records(len(names))[:limit]
    prepared = prepare(records, store, folder, Preprocessing(size=32))
    done = time.perf_counter()
    prepare(records, store, folder, Preprocessing(size=32))
    return {
        "members": len(names),
        "images": len(prepared.records),
        "seconds_to_open": opened - start,
        "seconds": done - start,
        "seconds_repeated": time.perf_counter() - done,
        "peak_mib": peak_memory(),
    }


def records_once(rows: int) -> dict:
    """Check, split, count and describe a table; its store holds none of the images."""
    records = generated_records(rows)
    start, before = time.perf_counter(), peak_memory()
    with tempfile.TemporaryDirectory() as empty:
        dealt = split_by_patient(validate(records, RETINOPATHY), test=0.2)
        class_counts(dealt, RETINOPATHY)
        describe(dealt, open_store(empty), RETINOPATHY)
    return {"rows": rows, "seconds": time.perf_counter() - start, "table_mib": before, "peak_mib": peak_memory()}


def curve(numbers: tuple[int, ...], most_rows: int) -> list[Row]:
    """The rows of the result; each number of images in its own process."""
    table = []
    for number in numbers:
        with tempfile.TemporaryDirectory() as temporary:
            archive = Path(temporary) / "originals.zip"
            write_zip(archive, number)
            found = in_own_process(__file__, "prepare", str(archive), str(Path(temporary) / "set"))
        method = f"medic.prepare, {number:,} images"
        limit = SECONDS if number == 100_000 else None
        table += [
            figure(NAME, method, "s", found["seconds"], target=limit, at_most=True),
            figure(NAME, method, "images_per_s", found["images"] / found["seconds"]),
            figure(NAME, method, "s_repeated", found["seconds_repeated"]),
            figure(NAME, method, "peak_mib", found["peak_mib"]),
        ]
    for number in (*numbers, most_rows):
        found = in_own_process(__file__, "records", str(number))
        method = f"check, split, count and describe {number:,} rows"
        table += [figure(NAME, method, "s", found["seconds"]), figure(NAME, method, "peak_mib", found["peak_mib"])]
    return table


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        print(json.dumps(prepare_once(Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:]))))
    else:
        print(json.dumps(records_once(int(sys.argv[2]))))
