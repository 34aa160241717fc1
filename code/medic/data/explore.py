"""What a data set holds, in words for a person and in JSON for a machine; rows to look at, and pairs to compare."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pandas as pd

from medic.data.check import unlisted_files
from medic.data.records import class_counts, targets
from medic.data.split import crossing_patients, patients_known
from medic.data.stores import Store
from medic.errors import ImageReason
from medic.task import Task


@dataclass(frozen=True, eq=False)
class Description:
    """What ``describe`` found; ``docs/data_dictionary.md`` explains each figure under its key of ``to_dict``."""

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
        """Return plain values, for JSON."""
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
            "images_by_split": self.by_split.to_dict(),
            "classes": self.counts.to_dict("index"),
        }

    def _sentences(self) -> list[str]:
        known = self.told_by is not None
        people = [f"median age {self.age:g} years"] if self.age is not None else []
        people += [", ".join(f"{value} {n}" for value, n in told.items()) for told in (self.sex, self.view) if told]
        both = f", {self.pairs} of them with both eyes" if self.pairs is not None else ""
        said = {
            f"{self.images} images" + (f" of {self.patients} patients" if known else "") + both: True,
            "; ".join(people): people,
            "every listed image is there": not self.absent,
            f"{self.absent} listed images are absent": 0 < self.absent < self.images,
            "the images are elsewhere: this describes the tables alone": 0 < self.absent == self.images,
            f"{self.unlisted} image files are in no row of the table": self.unlisted,
            f"patients are told apart by {self.told_by}": self.told_by,
            "no patient is known: each image counts as a patient": not known,
            f"{self.crossing} patients have images in more than one split: split again by patient": self.crossing,
            "no patient is in two splits": known and not self.crossing,
        }
        return [sentence for sentence, so in said.items() if so]

    def __str__(self) -> str:
        last = "images" if self.task.kind == "multilabel" else "total"  # several classes an image: no sum of the rows
        table = pd.concat([self.counts, self.by_split.rename(last).to_frame().T])
        return f"{self.task.name}: " + "\n".join([*self._sentences(), "", table.to_string()])

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self._sentences())
        return f"<b>{html.escape(self.task.name)}</b><ul>{lines}</ul>{self.counts.to_html()}"


def describe(records: pd.DataFrame, store: Store, task: Task) -> Description:
    """Count images, patients and classes by split, and what is missing. No image is opened."""
    told, counts = records.reindex(columns=["eye", "age", "sex", "view"]), class_counts(records, task)
    sizes = records["split"].value_counts().reindex(counts.columns.drop("total"))
    source = next(iter(records.get("patient_source", ())), "")
    eyes = told["eye"].groupby(records["patient"]).nunique()
    return Description(
        task=task,
        images=len(records),
        patients=records["patient"].nunique(),
        pairs=int((eyes == 2).sum()) if told["eye"].notna().any() else None,
        absent=sum(name not in store for name in records["image"]),
        unlisted=sum(finding == "unlisted" for _, finding, _ in unlisted_files(records, store)),
        told_by=source if patients_known(records) else None,
        crossing=len(crossing_patients(records)),
        age=float(told["age"].median()) if told["age"].notna().any() else None,
        sex=told["sex"].value_counts().to_dict(),
        view=told["view"].value_counts().to_dict(),
        counts=counts,
        by_split=pd.concat([sizes, pd.Series({"total": len(records)})]),
    )


_BROKEN = {"absent", *get_args(ImageReason)}  # findings that leave no pixels to look at


def readable(records: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """Return the records whose images ``medic.data.check.check`` could decode, numbered anew."""
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
    several, labels = task.kind == "multilabel", targets(records, task)
    coded = labels if several else np.eye(len(task.classes), dtype=int)[labels]
    shows = pd.DataFrame(coded, records.index, list(task.classes)).loc[:, coded.any(axis=0)]
    totals = shows.sum().sort_values(ascending=False, kind="stable") if several else shows.sum()
    shuffled = records.assign(others=shows.sum(axis=1) - 1).sample(frac=1, random_state=seed)
    shuffled = shuffled.sort_values("others", kind="stable")
    chosen = [
        shuffled[shows.loc[shuffled.index, name] == 1].head(min(count, totals.min())).assign(**{"class": name})
        for name in totals.index
    ]
    return pd.concat(chosen or [shuffled.assign(**{"class": pd.Series(dtype=str)})])


def some_patients(records: pd.DataFrame, images: int | None, *, seed: int = 0) -> pd.DataFrame:
    """Return all images of patients drawn at random, about ``images`` in all; every row where that is None."""
    patients = records["patient"].drop_duplicates()
    if images is not None and images < len(records):
        patients = patients.sample(frac=images / len(records), random_state=seed)
    return records[records["patient"].isin(patients)].reset_index(drop=True)


def standardised_difference(one: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """Return ``other``'s means minus ``one``'s in standard deviations, by column (Austin, Stat. Med. 28, 2009)."""
    spread = np.sqrt((one.var() + other.var()) / 2)
    return (other.mean() - one.mean()) / spread.replace(0, np.nan)
