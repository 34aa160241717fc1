"""Large sets: memory that hardly grows with the number of images. Each is measured in a process of its own."""

import os
import subprocess
import sys

import pytest

RECORDS = """
import re
from pathlib import Path
import numpy as np
import pandas as pd
from medic.data.records import class_counts, validate
from medic.data.split import split_by_patient
from medic.task import RETINOPATHY

def records(rows):
    patients = (np.arange(rows) // 2).astype(str)
    labels = np.random.default_rng(0).choice(5, rows, p=[0.6, 0.12, 0.18, 0.06, 0.04])
    names = [f"{number:07}.jpeg" for number in range(rows)]
    eyes = np.where(np.arange(rows) % 2, "right", "left")
    return pd.DataFrame({"image": names, "patient": patients, "eye": eyes, "split": "train", "label": labels})

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
"""
A_MILLION_ROWS = """
import sys
from medic.data.explore import describe
from medic.data.stores import open_store

table = records(1_000_000)
before = peak()
dealt = split_by_patient(validate(table, RETINOPATHY), test=0.2)
class_counts(dealt, RETINOPATHY)
assert len(dealt) == 1_000_000
describe(dealt, open_store(sys.argv[1]), RETINOPATHY)
print(peak(), peak() - before)
"""
A_LARGE_ZIP = """
import sys, time, zipfile
import cv2
from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import prepare
from medic.data.stores import open_store

pixels = np.random.default_rng(0).integers(0, 255, (72, 96, 3), np.uint8)
image = cv2.imencode(".jpg", pixels)[1].tobytes()
with zipfile.ZipFile(sys.argv[1] + "/originals.zip", "w") as archive:
    for number in range(100_000):
        archive.writestr(f"{number:07}.jpeg", image + str(number).encode())
store = open_store(sys.argv[1] + "/originals.zip")
assert len(store.names()) == 100_000
times = []
for _ in range(2):
    start = time.perf_counter()
    made = prepare(records(2000), store, sys.argv[1] + "/set", Preprocessing(size=32, crop="square"))
    times.append(time.perf_counter() - start)
assert len(made.records) == 2000
print(peak(), times[1] / times[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "mib", "second"),
    [(A_MILLION_ROWS, 1000, 400), (A_LARGE_ZIP, 600, 1)],
    ids=["a million rows are split, counted and described", "a zip of 100,000 is opened, part of it prepared twice"],
)
def test_large_sets_stay_in_bounded_memory(program, mib, second, tmp_path):
    """The second number: MiB above those of the table; the time of preparing again over that of the first time."""
    command = [sys.executable, "-c", RECORDS + program, str(tmp_path)]
    said = subprocess.check_output(command, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    peak, other = map(float, said.splitlines()[-1].split())
    assert peak < mib
    assert other < second
