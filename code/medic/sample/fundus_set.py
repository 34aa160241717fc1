"""A synthetic retinopathy data set in the layout of the published tutorial, with planted faults."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from medic.sample.fundus import fundus_photograph
from medic.sample.layout import File, Sample, csv, jpeg

# of grades 0-4 in one eye of each patient, by hospital
SHARES = {1: (0.48, 0.14, 0.22, 0.08, 0.08), 2: (0.66, 0.13, 0.13, 0.04, 0.04)}
LEAST_OF_A_GRADE = 5  # patients: 2 to test, 3 to train on, so that a validation split can have one too
TESTED = 0.43
NEIGHBOURS = ((1, 1, 2), (0, 2), (1, 3), (2, 2, 4), (3, 2))  # grades of an eye that differs from its twin, by grade


def cast(patients: int, seed: int, hospital: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Make up patients and the grades of their eyes; see ``Sample``. The records have ``eye``, train before test."""
    rng = np.random.default_rng(seed)
    people = _people(patients, SHARES[hospital], rng)
    records = people.melt(["patient", "split"], ["left", "right"], var_name="eye", value_name="label")
    records.insert(0, "image", records["patient"] + "_" + records["eye"])
    eyes = zip(records["label"], records["eye"], np.tile(np.arange(patients), 2), strict=True)
    records["drawn"] = [(grade, eye, [seed, hospital, index]) for grade, eye, index in eyes]
    records = records.sample(frac=1, random_state=rng).sort_values("split", ascending=False, kind="stable")
    grades = pd.crosstab(records["split"], records["label"]).loc[["train", "test"]]
    return records.reset_index(drop=True), _choose_faults(people), grades


def draw(records: pd.DataFrame, size: tuple[int, int], seed: int, hospital: int) -> Iterator[File]:
    """Draw each photograph; a mask is named ``<image>_mask``."""
    for row in records.itertuples():
        grade, eye, person = row.drawn
        rng = np.random.default_rng([*person, 1 if eye == "left" else 2])
        pixels, mask = fundus_photograph(grade, eye, rng, size, person=person, hospital=hospital)
        yield f"images/{row.image}.jpeg", jpeg(pixels, 88, row.fault), {f"{row.image}_mask": mask}


def tables(records: pd.DataFrame, twin: str, size: tuple[int, int]) -> dict[str, str]:
    """Return the lists of names and of grades."""
    return {
        f"{split}_{name}{twin}.csv": csv(rows[column], header=False)
        for split, rows in records.groupby("split")
        for name, column in {"img": "image", "label": "label"}.items()
    }


def _people(patients: int, shares: tuple[float, ...], rng: np.random.Generator) -> pd.DataFrame:
    """One row a patient: patient, left, right (grades), split."""
    count = [max(LEAST_OF_A_GRADE, round(patients * share)) for share in shares]
    count[0] = patients - sum(count[1:])
    names = rng.choice(np.arange(1, max(1000, 2 * patients)), patients, replace=False)
    people = pd.DataFrame({"patient": names.astype(str), "left": np.repeat(np.arange(5), count), "split": "train"})
    people["right"] = people["left"]
    for grade, rows in people.groupby("left"):
        order = rng.permutation(rows.index)
        people.loc[order[: max(2, round(TESTED * len(order)))], "split"] = "test"
        for index in order[1::4]:  # never the first of a split, so that each keeps every grade
            people.loc[index, rng.choice(["left", "right"])] = rng.choice(NEIGHBOURS[grade])
    return people.sample(frac=1, random_state=rng).reset_index(drop=True)


def _choose_faults(people: pd.DataFrame) -> pd.DataFrame:
    """Which photographs get which fault: image, fault, detail, source (of whose photograph the bytes are)."""
    alike = people[people["left"] == people["right"]].groupby(["left", "split"])["patient"]
    cut, twin, swapped, dark = alike.get_group((0, "train")).iloc[:4]
    original, blurred = alike.get_group((2, "train")).iloc[:2]
    text = alike.get_group((0, "test")).iloc[0]
    rows = [
        (f"{cut}_left", "truncated", "the JPEG ends after two fifths of its bytes"),
        (f"{text}_right", "not an image", "a text file named .jpeg"),
        (f"{original}_left", "duplicate", f"same bytes as {twin}_left; labels 2 and 0; this is the original"),
        (f"{twin}_left", "duplicate", f"same bytes as {original}_left; labels 0 and 2", f"{original}_left"),
        (f"{swapped}_left", "swapped eyes", "shows the right eye", f"{swapped}_right"),
        (f"{swapped}_right", "swapped eyes", "shows the left eye", f"{swapped}_left"),
        (f"{dark}_right", "nearly black", "exposed 25 times too short"),
        (f"{blurred}_right", "blurred", "far out of focus"),
    ]
    return pd.DataFrame(rows, columns=["image", "fault", "detail", "source"]).fillna("")


FILES = r"(train|test)_(img|label)(_small)?\.csv|images/\d+_(left|right)\.jpeg"
SAMPLE = Sample("retinopathy.md.j2", FILES, cast, draw, tables, (352, 40), size=(288, 43), frame=1.6, twin=(26, 14))
