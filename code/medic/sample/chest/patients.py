"""The people of the synthetic chest X-ray set: who has which finding, when, and in which view it is taken.

Shares follow the mixture of NIH ChestX-ray14 (Wang et al., CVPR 2017) in which about half of the radiographs have no
finding, except that every finding is frequent enough to be in every split.
"""

import numpy as np
import pandas as pd

from medic.task import FINDINGS

FEWEST_PATIENTS = 120  # below, too few are left without a finding
LEAST_OF_A_FINDING = 5  # patients: 1 to test, 4 to train on, so that a validation split can have one too

# share of patients by their main finding; the others have none at first
SHARES = {
    "Infiltration": 0.12,
    "Effusion": 0.085,
    "Cardiomegaly": 0.06,
    "Atelectasis": 0.07,
    "Pneumothorax": 0.045,
    "Consolidation": 0.04,
    "Mass": 0.035,
    "Nodule": 0.035,
    "Emphysema": 0.035,
    "Edema": 0.03,
    "Fibrosis": 0.025,
    "Pleural_Thickening": 0.02,
    "Pneumonia": 0.015,
    "Hernia": 0.005,
}
# what else a patient with a main finding has, and how probably
COMPANIONS = {
    "Atelectasis": {"Effusion": 0.4, "Infiltration": 0.15},
    "Cardiomegaly": {"Effusion": 0.35, "Edema": 0.12},
    "Effusion": {"Atelectasis": 0.3, "Infiltration": 0.3, "Cardiomegaly": 0.12},
    "Infiltration": {"Effusion": 0.2, "Atelectasis": 0.1},
    "Mass": {"Nodule": 0.25, "Effusion": 0.25},
    "Nodule": {"Mass": 0.15},
    "Pneumonia": {"Infiltration": 0.35, "Effusion": 0.2, "Edema": 0.1},
    "Pneumothorax": {"Effusion": 0.2, "Emphysema": 0.15},
    "Consolidation": {"Effusion": 0.45, "Infiltration": 0.2},
    "Edema": {"Infiltration": 0.4, "Effusion": 0.4, "Cardiomegaly": 0.25},
    "Emphysema": {"Fibrosis": 0.1, "Pneumothorax": 0.1},
    "Fibrosis": {"Pleural_Thickening": 0.2, "Infiltration": 0.1},
    "Pleural_Thickening": {"Effusion": 0.15, "Fibrosis": 0.1},
    "Hernia": {"Atelectasis": 0.15, "Cardiomegaly": 0.15},
}
LASTING = ("Cardiomegaly", "Mass", "Nodule", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")
# how much more often than the others a patient is too ill to stand up, by finding
IN_BED = {
    "Effusion": 0.3,
    "Edema": 0.45,
    "Consolidation": 0.45,
    "Pneumonia": 0.4,
    "Infiltration": 0.3,
    "Atelectasis": 0.15,
    "Cardiomegaly": 0.15,
}
FOLLOW_UPS = (0.38, 0.27, 0.16, 0.11, 0.08)  # share of patients with 1, 2, ... radiographs
LARGEST_ID = 30805  # patients of the real set


def people_with(patients: int, rng: np.random.Generator) -> pd.DataFrame:
    """One row a patient.

    Returns:
        ``patient`` (8 digits), ``main`` (finding, or empty), ``sex``, ``age`` (years, at the first radiograph),
        ``radiographs`` (how many) and ``split`` (a fifth of the patients of each main finding to "test").
    """
    count = {name: max(LEAST_OF_A_FINDING, round(share * patients)) for name, share in SHARES.items()}
    main = np.repeat(["", *count], [patients - sum(count.values()), *count.values()])
    people = pd.DataFrame({"main": rng.permutation(main)})
    ids = np.sort(rng.choice(np.arange(1, max(LARGEST_ID, 2 * patients)), patients, replace=False))
    people.insert(0, "patient", [f"{number:08d}" for number in ids])
    people["sex"] = np.where(rng.random(patients) < 0.46, "F", "M")
    age = rng.normal(np.where(people["main"] == "", 52, 59), 14)
    people["age"] = np.rint(age).clip(19, 92).astype(int)
    people["radiographs"] = 1 + rng.choice(len(FOLLOW_UPS), patients, p=FOLLOW_UPS)
    rare = [name for name, share in SHARES.items() if share * patients < LEAST_OF_A_FINDING - 1]
    # more patients than in life, so fewer radiographs of each
    people.loc[people["main"].isin(rare), "radiographs"] = people["radiographs"].clip(upper=2)
    people["split"] = "train"
    for _, rows in people.groupby("main"):
        tested = rng.permutation(rows.index)[: max(1, round(0.2 * len(rows)))]
        people.loc[tested, "split"] = "test"
    return people


def follow_ups(people: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """One row a radiograph.

    Findings that last stay once they have come; the others come and go. Severities change from one radiograph to the
    next.

    Returns:
        ``image``, ``patient``, ``follow_up``, ``age``, ``sex``, ``view``, ``split``, ``label`` (any finding), one 0/1
        column a finding, ``person`` (row in ``people``) and ``severity`` (dict, 0-1 by finding).
    """
    rows = []
    for index, person in enumerate(people.itertuples()):
        courses = _courses(person.main, person.radiographs, rng)
        age, frail = person.age, rng.normal(0, 0.12)
        for number in range(person.radiographs):
            severity = {name: round(float(course[number]), 3) for name, course in courses.items() if course[number] > 0}
            in_bed = 0.31 + frail + max((IN_BED.get(name, 0) for name in severity), default=0)
            rows.append(
                {
                    "image": f"{person.patient}_{number:03d}.png",
                    "patient": person.patient,
                    "follow_up": number,
                    "age": age,
                    "sex": person.sex,
                    "view": "AP" if rng.random() < in_bed else "PA",
                    "split": person.split,
                    "label": int(bool(severity)),
                    **{name: int(name in severity) for name in FINDINGS},
                    "person": index,
                    "severity": severity,
                }
            )
            age += int(rng.random() < 0.3)
    return pd.DataFrame(rows)


def _courses(main: str, radiographs: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The severity of each of a patient's findings in each radiograph, 0 where it is absent."""
    if not main:
        return {}
    names = [main, *(name for name, share in COMPANIONS[main].items() if rng.random() < share)]
    courses = {}
    for name in names:
        start = 0 if rng.random() < 0.6 else rng.integers(radiographs)
        lasts = radiographs if name in LASTING else 1 + rng.geometric(0.6)
        drift = rng.beta(1.6, 1.5) + np.cumsum(rng.normal(0, 0.12, radiographs))
        when = np.arange(radiographs)
        courses[name] = np.where((when >= start) & (when < start + lasts), drift.clip(0.12, 1), 0)
    return courses
