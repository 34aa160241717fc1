"""What a data set holds, in words for a person and in JSON for a machine."""

from __future__ import annotations

import html
import io
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from medic.data.check import unlisted
from medic.data.images.decode import FORMATS, read_header
from medic.data.images.dicom import read_dicom
from medic.data.images.preprocess import Preprocessing
from medic.data.parallel import each
from medic.data.records import class_counts, targets
from medic.data.split import crossing_patients, patients_known
from medic.data.stores import Store
from medic.errors import ImageError
from medic.task import CHEST_XRAY, Task


@dataclass(frozen=True, eq=False)
class Description:
    """What ``describe`` found.

    Attributes:
        task: the task whose classes are counted.
        images: rows of the table.
        patients: distinct patients.
        pairs: patients with both eyes, where the source tells eyes; otherwise None.
        absent: images that the table lists and the store lacks.
        unlisted: image files beside the listed ones that no row of the table names.
        told_by: what tells patients apart; None where each image counts as a patient, empty where it is not said.
        crossing: patients with images in more than one split.
        age: the images' median age in years, where the source tells ages; otherwise None.
        sex: images by sex, most frequent first; empty where the source does not tell.
        view: images by view, likewise.
        counts: images by class and split, with a total.
        by_split: images by split, with a total. For a multilabel task the counts do not sum to it.
    """

    task: Task
    images: int
    patients: int
    pairs: int | None
    absent: int
    unlisted: int
    told_by: str | None
    crossing: int
    age: float | None
    sex: dict[str, int]
    view: dict[str, int]
    counts: pd.DataFrame
    by_split: pd.Series

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {
            "task": self.task.name,
            "images": self.images,
            "patients": self.patients,
            "patients_with_both_eyes": self.pairs,
            "absent_images": self.absent,
            "unlisted_images": self.unlisted,
            "patients_told_apart_by": self.told_by,
            "patients_in_two_splits": self.crossing,
            "age_median": self.age,
            "sex": self.sex,
            "view": self.view,
            "images_by_split": {split: int(count) for split, count in self.by_split.items()},
            "classes": {name: {k: int(v) for k, v in row.items()} for name, row in self.counts.iterrows()},
        }

    def _sentences(self) -> list[str]:
        known = self.told_by is not None
        images = f"{self.images} images" + (f" of {self.patients} patients" if known else "")
        people = [f"median age {self.age:g} years"] if self.age is not None else []
        people += [
            ", ".join(f"{value} {n}" for value, n in counts.items()) for counts in (self.sex, self.view) if counts
        ]
        absent = f"{self.absent} listed images are absent" if self.absent else "every listed image is there"
        crossing = f"{self.crossing} patients have images in more than one split: split again by patient"
        sentences = [
            images + (f", {self.pairs} of them with both eyes" if self.pairs is not None else ""),
            "; ".join(people),
            absent if self.absent < self.images else "the images are elsewhere: this describes the tables alone",
            f"{self.unlisted} image files are in no row of the table" if self.unlisted else "",
            f"patients are told apart by {self.told_by}" if self.told_by else "",
            "" if known else "no patient is known: each image counts as a patient",
            crossing if self.crossing else "no patient is in two splits" if known else "",
        ]
        return list(filter(None, sentences))

    def __str__(self) -> str:
        # The classes of a multilabel task overlap: the last row is not their sum.
        last = "images" if self.task.kind == "multilabel" else "total"
        total = self.by_split.rename(last).to_frame().T
        return f"{self.task.name}: " + "\n".join([*self._sentences(), "", pd.concat([self.counts, total]).to_string()])

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self._sentences())
        return f"<b>{html.escape(self.task.name)}</b><ul>{lines}</ul>{self.counts.to_html()}"


def describe(records: pd.DataFrame, store: Store, task: Task) -> Description:
    """Count images, patients and classes by split, and what is missing. No image is opened."""
    told = {name: records[name].dropna() for name in ("eye", "age", "sex", "view") if name in records}
    eyes = records.loc[told["eye"].index] if "eye" in told else records.head(0)
    counts = class_counts(records, task)
    sizes = records["split"].value_counts().reindex(counts.columns.drop("total"))
    source = str(records["patient_source"].iloc[0]) if "patient_source" in records and len(records) else ""
    return Description(
        task=task,
        images=len(records),
        patients=records["patient"].nunique(),
        pairs=int((eyes.groupby("patient")["eye"].nunique() == 2).sum()) if len(eyes) else None,
        absent=sum(name not in store for name in records["image"]),
        unlisted=len(unlisted(records, store)),
        told_by=source if patients_known(records) else None,
        crossing=len(crossing_patients(records)),
        age=float(told["age"].median()) if len(told.get("age", ())) else None,
        sex={str(value): int(count) for value, count in told["sex"].value_counts().items()} if "sex" in told else {},
        view={str(value): int(count) for value, count in told["view"].value_counts().items()} if "view" in told else {},
        counts=counts,
        by_split=pd.concat([sizes, pd.Series({"total": len(records)})]),
    )


# Findings of ``medic.data.check.check`` that leave no pixels to look at.
_BROKEN = {"absent", "empty", "unsupported", "truncated", "unreadable", "too_large"}
# How Pillow calls what a PNG, TIFF, BMP or JPEG file stores, for those kinds that occur among radiographs.
_STORED = {"L": "grey", "I;16": "16 bits", "I;16B": "16 bits", "P": "palette"}


def readable(records: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """The records whose images can be decoded, by what ``medic.data.check.check`` found; numbered anew."""
    broken = findings.loc[findings["finding"].isin(_BROKEN), "image"]
    return records[~records["image"].isin(broken)].reset_index(drop=True)


def examples(records: pd.DataFrame, task: Task, count: int, *, seed: int = 0) -> pd.DataFrame:
    """Choose as many images of each class that occurs: ``count``, or as many as the rarest of them has.

    Of a multilabel task, images with few classes besides the one they are to show come first, and the most frequent
    class stands first; otherwise classes stand in the task's order.

    Returns:
        Rows of the records, class after class, with two more columns: ``class``, the name of the class that the image
        is to show, and ``others``, how many classes it has besides. An image of several classes may stand for each.
    """
    shuffled = records.sample(frac=1, random_state=seed).assign(others=0)
    totals = class_counts(records, task)["total"].reindex(task.classes)
    if task.kind == "multilabel":
        shuffled["others"] = targets(shuffled, task).sum(axis=1) - 1
        shuffled = shuffled.sort_values("others", kind="stable")
        totals = totals.sort_values(ascending=False, kind="stable")
    labels, chosen = targets(shuffled, task), [shuffled.head(0).assign(**{"class": pd.Series(dtype=str)})]
    for name in totals[totals > 0].index:
        code = task.classes.index(name)
        theirs = shuffled[(labels[:, code] == 1) if task.kind == "multilabel" else labels == code]
        chosen.append(theirs.head(min(count, totals[totals > 0].min())).assign(**{"class": name}))
    return pd.concat(chosen[1:] or chosen)


def some_patients(records: pd.DataFrame, images: int | None, *, seed: int = 0) -> pd.DataFrame:
    """All images of patients drawn at random, so many that about `images` come out; every row where that is None."""
    patients = records["patient"].drop_duplicates()
    if images is not None and images < len(records):
        patients = patients.sample(frac=images / len(records), random_state=seed)
    return records[records["patient"].isin(patients)].reset_index(drop=True)


def standardised_difference(one: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """Return ``other``'s means minus ``one``'s in standard deviations, by column (Austin, Stat. Med. 28, 2009)."""
    spread = np.sqrt((one.var() + other.var()) / 2)
    return (other.mean() - one.mean()) / spread.replace(0, np.nan)


def both_eyes(records: pd.DataFrame) -> pd.DataFrame:
    """The grades of patients of whom both eyes are known: int columns ``left`` and ``right``, patients as index."""
    pairs = records.pivot_table(index="patient", columns="eye", values="label", aggfunc="max")
    return pairs.reindex(columns=["left", "right"]).dropna().astype(int)


def cross_counts(both: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Patients by the classes of left and right eye: int (C, C), codes of the left eye as rows; of ``both_eyes``."""
    codes = range(len(task.classes))
    return pd.crosstab(both["left"], both["right"]).reindex(index=codes, columns=codes, fill_value=0)


def disc_on_wrong_side(records: pd.DataFrame, store: Store) -> pd.Series:
    """Whether the brightest spot of the optic disc's size lies away from the nose, where the file's name puts the nose.

    The optic disc lies left in a picture of a left eye, right in that of a right eye. A bright exudate can be mistaken
    for it. The records are readable fundus photographs with ``eye`` known; the answer is bool, one a row.
    """
    small, places = Preprocessing(size=128), []
    inner = cv2.circle(np.zeros((128, 128), np.uint8), (64, 64), 53, 1, -1)
    for pixels in each(lambda name: small.pixels(store.read(name)), list(records["image"]), title="optic discs"):
        green = pixels[:, :, 1].astype(np.float32)
        bright = cv2.GaussianBlur(green, (0, 0), 4) - cv2.GaussianBlur(green, (0, 0), 20)
        places.append(cv2.minMaxLoc(bright, mask=inner)[3][0])
    at = np.array(places, dtype=float)
    return pd.Series(np.where(records["eye"] == "left", at > 64, at < 64), index=records.index, dtype=bool)


def file_kinds(records: pd.DataFrame, store: Store) -> pd.Series:
    """Say how each file stores its pixels, such as ``PNG, RGBA`` or ``DICOM, 16 bits, MONOCHROME1``.

    One text a row; missing where the file is absent or its header cannot be read.
    """
    kinds = list(each(lambda name: _kind(store, name), list(records["image"]), title="kinds of files"))
    return pd.Series(kinds, index=records.index, dtype="string")


def _kind(store: Store, name: str) -> str | None:
    try:
        data = store.read(name) if name in store else b""
        header = read_header(data)
        if header.format == "DICOM":
            dicom = read_dicom(data)
            return f"DICOM, {dicom.bits} bits, {dicom.kind}"
    except ImageError:
        return None
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return f"{header.format}, {_STORED.get(image.mode, image.mode)}"


def co_occurrence(records: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Count the images that have each two classes of a multilabel task at once: int (C, C), by class name.

    The most frequent class comes first; classes that do not occur are left out. The diagonal counts single classes.
    """
    present = targets(records, task)
    order = [column for column in np.argsort(-present.sum(axis=0), kind="stable") if present[:, column].any()]
    names = [task.classes[column] for column in order]
    return pd.DataFrame(present[:, order].T @ present[:, order], index=names, columns=names)


def pairs(together: pd.DataFrame) -> pd.DataFrame:
    """Say which share of one class's images shows another too, of a table of ``co_occurrence``.

    One row for each two classes that meet, in both orders, the highest share first: ``class``, ``with``, ``images``
    (with both) and ``share`` (of those of ``class``).
    """
    counted = together.rename_axis(index="with").melt(ignore_index=False, var_name="class", value_name="images")
    counted = counted.reset_index()[["class", "with", "images"]]
    shares = counted["images"] / counted["class"].map(pd.Series(np.diag(together), together.index))
    met = counted.assign(share=shares)[(counted["class"] != counted["with"]) & (counted["images"] > 0)]
    return met.sort_values("share", ascending=False, kind="stable", ignore_index=True)


class Repeats(NamedTuple):
    """How many patients have several images, and how often such an image has exactly the classes of the one before.

    ``alike`` is the mean over patients, ``by_chance`` that of two images of different patients; NaN without any.
    """

    patients: int
    most: int
    alike: float
    by_chance: float


def repeats(records: pd.DataFrame, task: Task) -> Repeats:
    """Compare each image with the one before of the same patient (by ``follow_up``), and with those of others."""
    ordered = records.sort_values(["patient", "follow_up"] if "follow_up" in records else ["patient"], kind="stable")
    patient = ordered["patient"].reset_index(drop=True)
    said = pd.Series(list(map(tuple, targets(ordered, task).reshape(len(ordered), -1)))).factorize()[0]
    said = pd.Series(said, index=patient.index)
    again = patient == patient.shift()
    alike = (said == said.shift())[again].groupby(patient[again]).mean().mean()

    def pairs_of(*keys: pd.Series) -> int:
        sizes = patient.groupby(list(keys)).size() if keys else pd.Series([len(patient)])
        return int((sizes * (sizes - 1) // 2).sum())

    # Two images of different patients: all pairs, without those of one patient.
    apart = pairs_of() - pairs_of(patient)
    same = pairs_of(said) - pairs_of(patient, said)
    sizes = patient.value_counts()
    most = int(sizes.max()) if len(sizes) else 0
    return Repeats(int((sizes > 1).sum()), most, float(alike), same / apart if apart else float("nan"))


def chest_figures(records: pd.DataFrame) -> dict[str, float]:
    """Return images, patients, and the shares without and with several findings, and of AP (of known views)."""
    several = targets(records, CHEST_XRAY).sum(axis=1)
    return {
        "chest_images": len(records),
        "chest_patients": records["patient"].nunique(),
        "share_no_finding": float((several == 0).mean()),
        "share_several_findings": float((several > 1).mean()),
        "share_ap": float((records["view"].dropna() == "AP").mean()),
    }
