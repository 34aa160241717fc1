"""What a data set holds, in words for a person and in JSON for a machine."""

from __future__ import annotations

import io
from dataclasses import dataclass

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
        crossing: patients with images in more than one split.
        counts: images by class and split, with a total.
        by_split: images by split, with a total. For a multilabel task the counts do not sum to it.
        age: the images' median age in years, where the source tells ages; otherwise None.
        sex: images by sex, most frequent first; empty where the source does not tell.
        view: images by view, likewise.
        told_by: what tells patients apart; None where each image counts as a patient, empty where it is not said.
    """

    task: Task
    images: int
    patients: int
    pairs: int | None
    absent: int
    unlisted: int
    crossing: int
    counts: pd.DataFrame
    by_split: pd.Series
    age: float | None
    sex: dict[str, int]
    view: dict[str, int]
    told_by: str | None = ""

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
        sentences = [f"{self.images} images of {self.patients} patients"]
        if self.pairs is not None:
            sentences[0] += f", {self.pairs} of them with both eyes"
        people = [f"median age {self.age:g} years"] if self.age is not None else []
        people += [
            ", ".join(f"{value} {count}" for value, count in counts.items())
            for counts in (self.sex, self.view)
            if counts
        ]
        if people:
            sentences.append("; ".join(people))
        if self.absent == self.images:
            sentences.append("the images are elsewhere: this describes the tables alone")
        else:
            sentences.append(
                f"{self.absent} listed images are absent" if self.absent else "every listed image is there"
            )
        if self.unlisted:
            sentences.append(f"{self.unlisted} image files are in no row of the table")
        if self.told_by is None:
            sentences.append("no patient is known: each image counts as a patient")
        elif self.told_by:
            sentences.append(f"patients are told apart by {self.told_by}")
        if self.crossing:
            sentences.append(f"{self.crossing} patients have images in more than one split: split again by patient")
        elif self.told_by is not None:
            sentences.append("no patient is in two splits")
        return sentences

    def __str__(self) -> str:
        # The classes of a multilabel task overlap: the last row is not their sum.
        last = "images" if self.task.kind == "multilabel" else "total"
        total = self.by_split.rename(last).to_frame().T
        return f"{self.task.name}: " + "\n".join([*self._sentences(), "", pd.concat([self.counts, total]).to_string()])

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{sentence}</li>" for sentence in self._sentences())
        return f"<b>{self.task.name}</b><ul>{lines}</ul>{self.counts.to_html()}"


def describe(records: pd.DataFrame, store: Store, task: Task) -> Description:
    """Count images, patients and classes by split, and what is missing. No image is opened."""
    eyes = records["eye"].dropna() if "eye" in records else pd.Series(dtype=object)
    counts = class_counts(records, task)
    sizes = records["split"].value_counts().reindex(counts.columns.drop("total"))
    ages = records["age"].dropna() if "age" in records else pd.Series(dtype=float)
    pairs = int((records.loc[eyes.index].groupby("patient")["eye"].nunique() == 2).sum()) if len(eyes) else None
    return Description(
        task=task,
        images=len(records),
        patients=records["patient"].nunique(),
        pairs=pairs,
        absent=sum(name not in store for name in records["image"]),
        unlisted=len(unlisted(records, store)),
        crossing=len(crossing_patients(records)),
        counts=counts,
        by_split=pd.concat([sizes, pd.Series({"total": len(records)})]),
        age=float(ages.median()) if len(ages) else None,
        sex=_shares(records, "sex"),
        view=_shares(records, "view"),
        told_by=_told_by(records),
    )


def _told_by(records: pd.DataFrame) -> str | None:
    """What tells patients apart, as the reader says; None where each image counts as one."""
    if not patients_known(records):
        return None
    return str(records["patient_source"].iloc[0]) if "patient_source" in records else ""


def _shares(records: pd.DataFrame, column: str) -> dict[str, int]:
    if column not in records:
        return {}
    return {str(value): int(count) for value, count in records[column].value_counts().items()}


# Findings of ``medic.data.check.check`` that leave no pixels to look at.
_BROKEN = {"absent", "empty", "unsupported", "truncated", "unreadable", "too_large"}

# How Pillow calls what a PNG, TIFF, BMP or JPEG file stores, for those kinds that occur among radiographs.
_STORED = {"L": "grey", "I;16": "16 bits", "I;16B": "16 bits", "P": "palette"}


def readable(records: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """The records whose images can be decoded, by what ``medic.data.check.check`` found; numbered anew."""
    broken = findings.loc[findings["finding"].isin(_BROKEN), "image"]
    return records[~records["image"].isin(broken)].reset_index(drop=True)


def examples(records: pd.DataFrame, task: Task, count: int, *, seed: int = 0) -> pd.DataFrame:
    """As many images of each class that occurs: `count`, or as many as the rarest of them has.

    Of a multilabel task, images with few classes besides the one they are to show come first, and the most frequent
    class stands first; otherwise classes stand in the task's order.

    Args:
        records: as a reader gives them.
        task: names the classes.
        count: images wanted of each.
        seed: the same seed chooses the same images.

    Returns:
        Rows of the records, class after class, with two more columns: ``class``, the name of the class that the image
        is to show, and ``others``, how many classes it has besides. The index is that of the records; an image that
        has several classes may be chosen for each.
    """
    shuffled = records.sample(frac=1, random_state=seed).assign(others=0)
    totals = class_counts(records, task)["total"].reindex(task.classes)
    if task.kind == "multilabel":
        shuffled["others"] = targets(shuffled, task).sum(axis=1) - 1
        shuffled = shuffled.sort_values("others", kind="stable")
        totals = totals.sort_values(ascending=False, kind="stable")
    occurring = totals[totals > 0]
    chosen = [
        shuffled[_has(shuffled, task, name)].head(min(count, occurring.min())).assign(**{"class": name})
        for name in occurring.index
    ]
    return pd.concat(chosen) if chosen else shuffled.assign(**{"class": pd.Series(dtype=str)})


def _has(records: pd.DataFrame, task: Task, name: str) -> np.ndarray:
    return (
        targets(records, task)[:, task.classes.index(name)] == 1
        if task.kind == "multilabel"
        else (records["label"] == task.classes.index(name)).to_numpy()
    )


def some_patients(records: pd.DataFrame, images: int | None, *, seed: int = 0) -> pd.DataFrame:
    """All images of patients drawn at random, so many that about `images` come out; every row where that is None."""
    patients = records["patient"].drop_duplicates()
    if images is not None and images < len(records):
        patients = patients.sample(frac=images / len(records), random_state=seed)
    return records[records["patient"].isin(patients)].reset_index(drop=True)


def standardised_difference(one: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """The means of `other` minus those of `one`, in standard deviations (Austin, Statistics in Medicine 28, 2009).

    Args:
        one: numbers, a row an image.
        other: the same columns of the other group.

    Returns:
        One value a column; missing where a side has fewer than two rows, or no spread.
    """
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
    for it.

    Args:
        records: readable fundus photographs with ``eye`` known.
        store: where they are.

    Returns:
        bool, one a row.
    """
    small = Preprocessing(size=128)
    inner = cv2.circle(np.zeros((128, 128), np.uint8), (64, 64), 53, 1, -1)
    places = []
    for pixels in each(lambda name: small.pixels(store.read(name)), list(records["image"]), title="optic discs"):
        green = pixels[:, :, 1].astype(np.float32)
        bright = cv2.GaussianBlur(green, (0, 0), 4) - cv2.GaussianBlur(green, (0, 0), 20)
        places.append(cv2.minMaxLoc(bright, mask=inner)[3][0])
    at = np.array(places, dtype=float)
    return pd.Series(np.where(records["eye"] == "left", at > 64, at < 64), index=records.index, dtype=bool)


def file_kinds(records: pd.DataFrame, store: Store) -> pd.Series:
    """How each file stores its pixels, such as ``PNG, RGBA`` or ``DICOM, 16 bits, MONOCHROME1``.

    Returns:
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
    """How many images have each two classes of a multilabel task at once.

    Returns:
        int (C, C), rows and columns by class name, the most frequent first, classes that do not occur left out. The
        diagonal holds the images of each class.
    """
    present = targets(records, task)
    order = [column for column in np.argsort(-present.sum(axis=0), kind="stable") if present[:, column].any()]
    names = [task.classes[column] for column in order]
    return pd.DataFrame(present[:, order].T @ present[:, order], index=names, columns=names)


def pairs(together: pd.DataFrame) -> pd.DataFrame:
    """The classes that ride on others: which share of one's images shows the other too.

    Args:
        together: as ``co_occurrence`` gives it.

    Returns:
        One row for each two classes that meet, in both orders, the highest share first: ``class``, ``with``, ``images``
        (with both) and ``share`` (of those of ``class``).
    """
    shares = together.div(np.diag(together), axis=0)
    rows = [
        (one, other, int(together.loc[one, other]), float(shares.loc[one, other]))
        for one in together.index
        for other in together.columns
        if one != other and together.loc[one, other]
    ]
    return pd.DataFrame(rows, columns=["class", "with", "images", "share"]).sort_values(
        "share", ascending=False, kind="stable", ignore_index=True
    )


@dataclass(frozen=True)
class Repeats:
    """How much a patient's images say about one another.

    Attributes:
        patients: those with two images or more.
        most: images of the patient who has most.
        alike: probability that an image of such a patient has exactly the classes of the one before, the mean over
            patients; NaN without any.
        by_chance: the same for two images of different patients; NaN with fewer than two patients.
    """

    patients: int
    most: int
    alike: float
    by_chance: float


def repeats(records: pd.DataFrame, task: Task) -> Repeats:
    """Compare each image with the one before of the same patient, and with those of other patients.

    Args:
        records: with ``follow_up`` where the source has an order; otherwise the records' order is taken.
        task: whose classes are compared.
    """
    ordered = records.sort_values(["patient", "follow_up"] if "follow_up" in records else ["patient"], kind="stable")
    patient = ordered["patient"].reset_index(drop=True)
    said = pd.Series(list(map(bytes, targets(ordered, task).astype(np.uint8).reshape(len(ordered), -1))), dtype=object)
    again = patient == patient.shift()
    sizes = patient.value_counts()
    alike = (said == said.shift())[again].groupby(patient[again]).mean()
    # Two images of different patients: all pairs, without those of one patient.
    apart = _pairs(len(ordered)) - _pairs(sizes).sum()
    same = _pairs(said.value_counts()).sum() - _pairs(said.groupby([patient, said]).size()).sum()
    return Repeats(
        patients=int((sizes > 1).sum()),
        most=int(sizes.max()) if len(sizes) else 0,
        alike=float(alike.mean()),
        by_chance=float(same / apart) if apart else float("nan"),
    )


def _pairs(count: int | pd.Series) -> int | pd.Series:
    return count * (count - 1) // 2


def chest_figures(records: pd.DataFrame) -> dict[str, float]:
    """The few figures that describe a set of chest X-rays.

    Returns:
        ``chest_images``, ``chest_patients``, ``share_no_finding`` and ``share_several_findings`` (of the images),
        ``share_ap`` (of the images whose view is known; NaN without any).
    """
    several = targets(records, CHEST_XRAY).sum(axis=1)
    return {
        "chest_images": len(records),
        "chest_patients": records["patient"].nunique(),
        "share_no_finding": float((several == 0).mean()),
        "share_several_findings": float((several > 1).mean()),
        "share_ap": float((records["view"].dropna() == "AP").mean()),
    }
