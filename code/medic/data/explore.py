"""What a data set holds, in words for a person and in JSON for a machine; and rows to look at."""

from dataclasses import dataclass
from typing import get_args

import pandas as pd

from medic.data.check import unlisted_files
from medic.data.records import class_counts
from medic.data.split import crossing_patients, patients_known
from medic.data.stores import Store
from medic.errors import ImageReason
from medic.task import Task


@dataclass(frozen=True, eq=False, repr=False)
class Description:
    """What ``describe`` found.

    Attributes:
        values: all that was counted, as plain values for JSON; ``docs/data_dictionary.md`` explains each key.
        counts: images by class (rows) and split (columns), and in a last row in all, where each image counts once.
    """

    values: dict
    counts: pd.DataFrame

    def to_dict(self) -> dict:
        """Return plain values, for JSON."""
        return self.values

    def __repr__(self) -> str:
        found = self.values
        source, age, pairs = (found[key] for key in ("patients_told_apart_by", "age_median", "patients_with_both_eyes"))
        images, absent, crossing = (found[key] for key in ("images", "absent_images", "patients_in_two_splits"))
        known = source is not None
        people = [f"median age {age:g} years"] if age is not None else []
        people += [", ".join(f"{value} {n}" for value, n in found[key].items()) for key in ("sex", "view")]
        both = f", {pairs} of them with both eyes" if pairs is not None else ""
        said = {
            f"{images} images" + (f" of {found['patients']} patients" if known else "") + both: True,
            "; ".join(filter(None, people)): any(people),
            "every listed image is there": not absent,
            f"{absent} listed images are absent": 0 < absent < images,
            "the images are elsewhere: this describes the tables alone": 0 < absent == images,
            f"{found['unlisted_images']} image files are in no row of the table": found["unlisted_images"],
            f"patients are told apart by {source}": source,
            "no patient is known: each image counts as a patient": not known,
            f"{crossing} patients have images in more than one split: split again by patient": crossing,
            "no patient is in two splits": known and not crossing,
        }
        lines = [sentence for sentence, so in said.items() if so]
        return f"{found['task']}: " + "\n".join([*lines, "", self.counts.to_string()])


def describe(records: pd.DataFrame, store: Store, task: Task) -> Description:
    """Count images, patients and classes by split, and what is missing. No image is opened."""
    told, counts = records.reindex(columns=["eye", "age", "sex", "view"]), class_counts(records, task)
    sizes = pd.Series({name: (records["split"] == name).sum() for name in counts} | {"total": len(records)})
    source = next(iter(records.get("patient_source", ())), "")
    eyes = told["eye"].groupby(records["patient"]).nunique()
    values = {
        "task": task.name,
        "images": len(records),
        "patients": records["patient"].nunique(),
        "patients_with_both_eyes": int((eyes == 2).sum()) if told["eye"].notna().any() else None,
        "absent_images": sum(name not in store for name in records["image"]),
        "unlisted_images": sum(finding == "unlisted" for _, finding, _ in unlisted_files(records, store)),
        "patients_told_apart_by": source if patients_known(records) else None,
        "patients_in_two_splits": len(crossing_patients(records)),
        "age_median": float(told["age"].median()) if told["age"].notna().any() else None,
        "sex": told["sex"].value_counts().to_dict(),
        "view": told["view"].value_counts().to_dict(),
        "images_by_split": sizes.to_dict(),
        "classes": counts.to_dict("index"),
    }
    last = "images" if task.kind == "multilabel" else "total"  # several classes an image: no sum of the rows
    return Description(values, pd.concat([counts, sizes.rename(last).to_frame().T]))


_BROKEN = {"absent", *get_args(ImageReason)}  # findings that leave no pixels to look at


def readable(records: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """Return the records whose images ``medic.data.check.check`` could decode, numbered anew."""
    broken = findings.loc[findings["finding"].isin(_BROKEN), "image"]
    return records[~records["image"].isin(broken)].reset_index(drop=True)


def some_patients(records: pd.DataFrame, images: int | None, *, seed: int = 0) -> pd.DataFrame:
    """Return all images of patients drawn at random, about ``images`` in all; every row where that is None."""
    patients = records["patient"].drop_duplicates()
    if images is not None and images < len(records):
        patients = patients.sample(frac=images / len(records), random_state=seed)
    return records[records["patient"].isin(patients)].reset_index(drop=True)
