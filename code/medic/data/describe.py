"""What a data set holds, in words for a person and in JSON for a machine."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from medic.data.balance import class_counts
from medic.data.split import crossing_patients
from medic.data.stores import Store
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
        crossing: patients with images in more than one split.
        counts: images by class and split, with a total.
    """

    task: Task
    images: int
    patients: int
    pairs: int | None
    absent: int
    crossing: int
    counts: pd.DataFrame

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {
            "task": self.task.name,
            "images": self.images,
            "patients": self.patients,
            "patients_with_both_eyes": self.pairs,
            "absent_images": self.absent,
            "patients_in_two_splits": self.crossing,
            "classes": {name: {k: int(v) for k, v in row.items()} for name, row in self.counts.iterrows()},
        }

    def _sentences(self) -> list[str]:
        sentences = [f"{self.images} images of {self.patients} patients"]
        if self.pairs is not None:
            sentences[0] += f", {self.pairs} of them with both eyes"
        if self.absent == self.images:
            sentences.append("the images are elsewhere: this describes the tables alone")
        else:
            sentences.append(
                f"{self.absent} listed images are absent" if self.absent else "every listed image is there"
            )
        if self.crossing:
            sentences.append(f"{self.crossing} patients have images in more than one split: split again by patient")
        else:
            sentences.append("no patient is in two splits")
        return sentences

    def __str__(self) -> str:
        total = self.counts.sum().rename("total").to_frame().T
        return f"{self.task.name}: " + "\n".join([*self._sentences(), "", pd.concat([self.counts, total]).to_string()])

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{sentence}</li>" for sentence in self._sentences())
        return f"<b>{self.task.name}</b><ul>{lines}</ul>{self.counts.to_html()}"


def describe(records: pd.DataFrame, store: Store, task: Task) -> Description:
    """Count images, patients and classes by split, and what is missing. No image is opened."""
    eyes = records["eye"].dropna() if "eye" in records else pd.Series(dtype=object)
    pairs = int((records.loc[eyes.index].groupby("patient")["eye"].nunique() == 2).sum()) if len(eyes) else None
    return Description(
        task=task,
        images=len(records),
        patients=records["patient"].nunique(),
        pairs=pairs,
        absent=sum(name not in store for name in records["image"]),
        crossing=len(crossing_patients(records)),
        counts=class_counts(records, task),
    )
