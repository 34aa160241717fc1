"""What a data set holds, in words for a person and in JSON for a machine."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from medic.data.balance import class_counts
from medic.data.split import crossing_patients
from medic.data.stores import Store
from medic.data.strays import unlisted
from medic.task import Task


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

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {
            "task": self.task.name,
            "images": self.images,
            "patients": self.patients,
            "patients_with_both_eyes": self.pairs,
            "absent_images": self.absent,
            "unlisted_images": self.unlisted,
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
        if self.crossing:
            sentences.append(f"{self.crossing} patients have images in more than one split: split again by patient")
        else:
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
    )


def _shares(records: pd.DataFrame, column: str) -> dict[str, int]:
    if column not in records:
        return {}
    return {str(value): int(count) for value, count in records[column].value_counts().items()}
