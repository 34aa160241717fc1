"""Reading and splitting the table of NIH ChestX-ray14 at its full size: 112,120 rows of 30,805 patients.

The table is drawn with the real one's columns, number of rows and patients, and frequencies; its images are named in
the directory of a zip file, as in Kaggle's archive, and are empty: no image is opened. The reference is how published
notebooks do it: pandas, one column made for each finding by searching the text of each row, a dictionary of all paths
from a walk over the archive, scikit-learn's split by group.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from measure import Row, arguments, figure, interleave, rows, run, show, write
from sklearn.model_selection import GroupShuffleSplit

from medic.data.readers import chest_xray
from medic.data.split import complete_splits
from medic.task import CHEST_XRAY, FINDINGS, NO_FINDING

NAME = "chest_table"
ROWS, PATIENTS = 112_120, 30_805
SECONDS = 2.0
"""What reading and splitting the full table may take."""
# Images of each finding among the 112,120 (Wang et al., CVPR 2017), in the order of FINDINGS.
COUNTS = (11_559, 2_776, 13_317, 19_894, 5_782, 6_331, 1_431, 5_302, 4_667, 2_303, 2_516, 1_686, 3_385, 227)
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
TABLE, ARCHIVE = "Data_Entry_2017.csv", "images.zip"
READ = "medic: read, labels and notes"
LOCATED = "medic: read, find every image, split"
REFERENCE = "pandas, a search a row and finding, split by group"
DUMMIES = "pandas, str.get_dummies, split by group"


def write_set(folder: Path, count: int) -> None:
    """A table of that many rows, and a zip file that names its images."""
    random = np.random.default_rng(0)
    patients = np.sort(random.integers(1, PATIENTS * count // ROWS + 1, count))
    follow_up = np.arange(count) - np.searchsorted(patients, patients)
    present = random.random((count, len(FINDINGS))) < np.array(COUNTS) / ROWS
    names = [f"{patient:08d}_{number:03d}.png" for patient, number in zip(patients, follow_up, strict=True)]
    lines = [HEADER]
    for row, name in enumerate(names):
        findings = "|".join(np.array(FINDINGS)[present[row]]) or NO_FINDING
        age, sex, view = random.integers(1, 95), "MF"[random.integers(2)], ("PA", "AP")[random.integers(2)]
        lines.append(f"{name},{findings},{follow_up[row]},{patients[row]},{age},{sex},{view},2500,2048,0.168,0.168,")
    (folder / TABLE).write_text("\n".join(lines) + "\n")
    with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_STORED) as archive:
        for row, name in enumerate(names):
            archive.writestr(f"images_{1 + row * 12 // count:03d}/images/{name}", b"")


def usual(folder: Path, dummies: bool) -> pd.DataFrame:
    """As published notebooks do it."""
    table = pd.read_csv(folder / TABLE, usecols=range(7))
    with zipfile.ZipFile(folder / ARCHIVE) as archive:
        paths = {Path(name).name: name for name in archive.namelist()}
    table["path"] = table["Image Index"].map(paths.get)
    if dummies:
        table = table.join(table["Finding Labels"].str.get_dummies("|"))
    else:
        for finding in FINDINGS:
            table[finding] = table["Finding Labels"].map(lambda text, wanted=finding: 1.0 if wanted in text else 0.0)
    dealer = GroupShuffleSplit(1, test_size=0.2, random_state=0)
    _, test = next(dealer.split(table, groups=table["Patient ID"]))
    return table.assign(split=np.where(np.isin(np.arange(len(table)), test), "test", "train"))


def measured(folder: Path, rounds: int, count: int) -> list[Row]:
    """The rows of the result."""

    def located() -> None:
        records, _ = chest_xray.read(folder)
        complete_splits(records, task=CHEST_XRAY)

    empty = folder / "none"
    empty.mkdir()
    methods = {
        REFERENCE: lambda: usual(folder, dummies=False),
        DUMMIES: lambda: usual(folder, dummies=True),
        LOCATED: located,
        READ: lambda: chest_xray.read(folder, images=empty),
    }
    seconds = interleave(methods, rounds)
    table = rows(NAME, seconds, reference=REFERENCE)
    # The target is about the full table: a smaller one would reach it for nothing.
    limit = SECONDS if count == ROWS else None
    return [*table, figure(NAME, LOCATED, "s", float(np.median(seconds[LOCATED])), target=limit, at_most=True)]


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    count = ROWS // 10 if options.quick else ROWS
    with tempfile.TemporaryDirectory() as temporary:
        write_set(Path(temporary), count)
        table = measured(Path(temporary), 3 if options.quick else 7, count)
    show(table, f"data: SYNTHETIC table of {count:,} rows in NIH's layout; empty images, none is opened")
    write(table, NAME, options)


if __name__ == "__main__":
    run(main)
