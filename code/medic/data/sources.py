"""The real data sets: where they live, what one may do with them, and how to get them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from medic.data.records import SPLITS


@dataclass(frozen=True)
class RemoteFile:
    """One file at its official home.

    Attributes:
        name: what it is called on disk and on a mirror.
        url: where it is fetched from.
        md5: its checksum as published, 32 hexadecimal digits.
        bytes: its length, or None where the publisher does not state it.
    """

    name: str
    url: str
    md5: str
    bytes: int | None = None


@dataclass(frozen=True)
class Source:
    """A data set somebody else publishes.

    Attributes:
        title: what it is, in one line.
        home: the page of the set.
        licence: what one may do with it.
        citation: whom to name.
        images: number of images by split, as far as published.
        files: by edge length in pixels, the file to fetch; empty where a login is needed.
        needs_login: the site that wants an account, or None.
        steps: the manual way, one line a step; ``{downloads}`` and ``{target}`` stand for the folders.
    """

    title: str
    home: str
    licence: str
    citation: str
    images: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[int, RemoteFile] = field(default_factory=dict)
    needs_login: str | None = None
    steps: tuple[str, ...] = ()


def _medmnist(name: str, md5: str) -> RemoteFile:
    return RemoteFile(f"{name}.npz", f"https://zenodo.org/records/10519652/files/{name}.npz?download=1", md5)


_TOKEN_STEP = (
    "Install Kaggle's client (pip install kaggle) and give it a token: on https://www.kaggle.com/settings, under API, "
    "create one and save it where that page says (~/.kaggle/kaggle.json)."
)


def _competition(name: str, *steps: str) -> tuple[str, ...]:
    rules = f"Sign in at Kaggle, open https://www.kaggle.com/competitions/{name}/rules and accept the rules."
    return (rules, _TOKEN_STEP, *steps)


def _one_archive(command: str, archive: str, table: str) -> tuple[str, ...]:
    """Steps for an archive that stays packed: the reader finds the one zip file beside the table."""
    return (
        f"{command} -p {{downloads}}",
        f"mkdir -p {{target}} && unzip -j {{downloads}}/{archive} {table} -d {{target}}",
        f"mv {{downloads}}/{archive} {{target}}/   (do not unpack it: the images are read inside)",
    )


_COMPETITION_LICENCE = "the competition's rules; redistribution not allowed"

SOURCES: dict[str, Source] = {
    "retinamnist": Source(
        title="RetinaMNIST (MedMNIST+): DeepDRiD fundus photographs, grades 0-4, cropped to squares",
        home="https://zenodo.org/records/10519652",
        licence="CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)",
        citation=(
            "Yang et al., MedMNIST v2, Scientific Data 10, 41 (2023), https://doi.org/10.1038/s41597-022-01721-8; "
            "photographs: Liu et al., DeepDRiD, Patterns 3, 100512 (2022), https://doi.org/10.1016/j.patter.2022.100512"
        ),
        images={"train": 1080, "validation": 120, "test": 400},
        files={
            64: _medmnist("retinamnist_64", "afda852cc34dcda56f86ad2b2457dbcc"),
            224: _medmnist("retinamnist_224", "eae7e3b6f3fcbda4ae613ebdcbe35348"),
        },
    ),
    "eyepacs": Source(
        title="Kaggle 2015 (EyePACS): fundus photographs at full size, two eyes a patient, grades 0-4, about 35 GB",
        home="https://www.kaggle.com/competitions/diabetic-retinopathy-detection",
        licence=_COMPETITION_LICENCE,
        citation="Kaggle and EyePACS, Diabetic Retinopathy Detection, 2015",
        images={"train": 35126},
        needs_login="Kaggle",
        steps=_competition(
            "diabetic-retinopathy-detection",
            "for part in 1 2 3 4 5; do kaggle competitions download -c diabetic-retinopathy-detection "
            "-f train.zip.00$part -p {downloads}; done",
            "kaggle competitions download -c diabetic-retinopathy-detection -f trainLabels.csv.zip -p {downloads}",
            "If a part arrives packed once more (train.zip.001.zip), unzip it first.",
            "Join the parts, in order: mkdir -p {target} && cat {downloads}/train.zip.00[1-5] > {target}/train.zip   "
            "(on Windows: copy /b train.zip.001+train.zip.002+train.zip.003+train.zip.004+train.zip.005 train.zip)",
            "unzip {downloads}/trainLabels.csv.zip -d {target}   (leave train.zip packed: the images are read inside)",
        ),
    ),
    "eyepacs_resized": Source(
        title="The Kaggle 2015 photographs scaled down to smaller JPEGs by a Kaggle user",
        home="https://www.kaggle.com/datasets/tanlikesmath/diabetic-retinopathy-resized",
        licence="derived from the competition's images, so its rules apply; redistribution not allowed",
        citation="Kaggle and EyePACS, Diabetic Retinopathy Detection, 2015; resized by tanlikesmath",
        images={"train": 35126},
        needs_login="Kaggle",
        steps=(
            "Sign in at Kaggle, open https://www.kaggle.com/datasets/tanlikesmath/diabetic-retinopathy-resized and "
            "read its licence.",
            _TOKEN_STEP,
            *_one_archive(
                "kaggle datasets download -d tanlikesmath/diabetic-retinopathy-resized",
                "diabetic-retinopathy-resized.zip",
                "trainLabels.csv",
            ),
        ),
    ),
    "aptos2019": Source(
        title="Kaggle 2019 (APTOS): fundus photographs from Aravind Eye Hospital, grades 0-4",
        home="https://www.kaggle.com/competitions/aptos2019-blindness-detection",
        licence=_COMPETITION_LICENCE,
        citation="Kaggle and Asia Pacific Tele-Ophthalmology Society, APTOS 2019 Blindness Detection, 2019",
        images={"train": 3662},
        needs_login="Kaggle",
        steps=_competition(
            "aptos2019-blindness-detection",
            *_one_archive(
                "kaggle competitions download -c aptos2019-blindness-detection",
                "aptos2019-blindness-detection.zip",
                "train.csv",
            ),
        ),
    ),
    "dr_f1_score_4": Source(
        title="Kaggle class competition: fundus photographs as PNG, grades 0-4",
        home="https://www.kaggle.com/competitions/diabetic-retinopathy-classification-f1-score-4",
        licence=_COMPETITION_LICENCE,
        citation="Kaggle, Diabetic Retinopathy Classification F1 Score 4",
        needs_login="Kaggle",
        steps=_competition(
            "diabetic-retinopathy-classification-f1-score-4",
            *_one_archive(
                "kaggle competitions download -c diabetic-retinopathy-classification-f1-score-4",
                "diabetic-retinopathy-classification-f1-score-4.zip",
                "'*train.csv'",
            ),
            "With the 2015 photographs beside it (medic download eyepacs_resized tells how to get them), training and "
            "validation images are chosen from both archives by: "
            "medic data -m {target}/diabetic-retinopathy-classification-f1-score-4.zip "
            "-a diabetic-retinopathy-resized.zip -d data",
        ),
    ),
}


def sources_table() -> pd.DataFrame:
    """The known sets, one row each: ``title``, images by split (``Int64``), ``licence``, ``login``, ``home``."""
    rows = [
        {
            "name": name,
            "title": source.title,
            **{split: source.images.get(split) for split in SPLITS},
            "licence": source.licence,
            "login": source.needs_login or "none",
            "home": source.home,
        }
        for name, source in SOURCES.items()
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(SPLITS, "Int64")).set_index("name")
