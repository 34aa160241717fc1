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
    """

    name: str
    url: str
    md5: str


@dataclass(frozen=True)
class Source:
    """A published data set.

    Attributes:
        title: what it is, in one line.
        home: the page of the set.
        licence: what one may do with it.
        citation: whom to name.
        images: number of images by split, as far as published.
        files: by edge length in pixels, the file to fetch and to convert; empty where a login is needed.
        as_published: the files of a set that is read as it is published: each is fetched into the set's folder.
        query: the search that makes a set out of an archive, where it is no finished one; how many images it has is
            for the caller to say.
        needs_login: the site that wants an account, or None.
        obstacle: why it cannot be fetched from here, where the login is not the whole reason.
        steps: the manual way, one line a step; ``{downloads}`` and ``{target}`` stand for the folders.
        line: the set's folder below the data folder, and the reader (in ``medic.data.readers``) that reads it.
    """

    title: str
    home: str
    licence: str
    citation: str
    images: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[int, RemoteFile] = field(default_factory=dict)
    as_published: tuple[RemoteFile, ...] = ()
    query: str | None = None
    needs_login: str | None = None
    obstacle: str | None = None
    steps: tuple[str, ...] = ()
    line: str = "retinopathy"


def _medmnist(name: str, md5: str) -> RemoteFile:
    return RemoteFile(f"{name}.npz", f"https://zenodo.org/records/10519652/files/{name}.npz?download=1", md5)


def _mnist(part: str, md5: str) -> RemoteFile:
    name = f"{part}-ubyte.gz"
    return RemoteFile(name, f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}", md5)


def repacking(archives: str, to: str) -> str:
    """A command that copies the files of tar archives (packed or not) unchanged into one zip file.

    A gzipped tar gives no access to a single member, a zip file does. The members are not packed anew: PNG and JPEG
    files would hardly become smaller.

    Args:
        archives: one name or a pattern such as ``downloads/images_*.tar.gz``, quoted as the shell wants it.
        to: the zip file to write, quoted likewise.
    """
    return (
        "python -c \"import glob, sys, tarfile, zipfile; z = zipfile.ZipFile(sys.argv[1], 'w'); "
        "[z.writestr(m.name, t.extractfile(m).read()) for p in sys.argv[2:] for a in sorted(glob.glob(p)) or [p] "
        f"for t in [tarfile.open(a, 'r|*')] for m in t if m.isfile()]; z.close()\" {to} {archives}"
    )


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
    "nih_chest_xray14": Source(
        title="NIH ChestX-ray14: frontal chest radiographs of 30,805 patients, 14 findings, 1024 x 1024, about 45 GB",
        home="https://nihcc.app.box.com/v/ChestXray-NIHCC",
        licence=(
            "no restriction on use; NIH asks for the link to its page, a citation of the paper, and an "
            "acknowledgement of the NIH Clinical Center as the data provider"
        ),
        citation=(
            "Wang et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks, CVPR 2017, pp. 3462-3471, "
            "https://arxiv.org/abs/1705.02315; data provider: NIH Clinical Center"
        ),
        images={"train": 86524, "test": 25596},
        needs_login="Kaggle",
        obstacle="is on a page that wants a browser (NIH's) or an account (Kaggle's)",
        steps=(
            "Either from Kaggle: sign in there, open https://www.kaggle.com/datasets/nih-chest-xrays/data and read "
            "its terms.",
            _TOKEN_STEP,
            *_one_archive(
                "kaggle datasets download -d nih-chest-xrays/data",
                "data.zip",
                "Data_Entry_2017.csv train_val_list.txt test_list.txt",
            ),
            "Or from NIH, without an account: open https://nihcc.app.box.com/v/ChestXray-NIHCC, save "
            "Data_Entry_2017_v2020.csv, train_val_list.txt and test_list.txt in {target}, and the twelve archives "
            "images_001.tar.gz to images_012.tar.gz of its folder images in {downloads}.",
            "Then copy the images from those archives, out of which single ones cannot be read, into one zip file: "
            + repacking("{downloads}/images_*.tar.gz", "{target}/images.zip"),
        ),
        line="chest_xray",
    ),
    "mnist": Source(
        title="MNIST: handwritten digits, grey, 28 x 28",
        home="http://yann.lecun.com/exdb/mnist/",
        licence="commonly stated as CC BY-SA 3.0 (https://creativecommons.org/licenses/by-sa/3.0/)",
        citation=(
            "LeCun, Cortes and Burges, The MNIST database of handwritten digits; LeCun et al., Gradient-based learning "
            "applied to document recognition, Proceedings of the IEEE 86(11), 1998, p. 2278"
        ),
        images={"train": 60000, "test": 10000},
        as_published=(
            _mnist("train-images-idx3", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            _mnist("train-labels-idx1", "d53e105ee54ea40749a09fcbcd1e9432"),
            _mnist("t10k-images-idx3", "9fb629c4189551a2d022fa330f9573f3"),
            _mnist("t10k-labels-idx1", "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
        line="digits",
    ),
    "skin_lesion": Source(
        title="ISIC Archive: dermoscopic photographs of pigmented skin lesions, benign or malignant, at full size",
        home="https://www.isic-archive.com",
        licence="one of CC-0, CC-BY and CC-BY-NC for each image; which one stands in metadata.csv",
        citation="International Skin Imaging Collaboration, ISIC Archive, and whom attribution.txt names",
        query="image_type:dermoscopic",
        line="skin_lesion",
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
