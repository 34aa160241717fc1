"""Splits that keep a patient on one side."""

import numpy as np
import pandas as pd

from medic.data.records import SPLITS, targets
from medic.data.stores import Store
from medic.errors import MedicError
from medic.task import Task


def split_by_patient(
    records: pd.DataFrame,
    *,
    validation: float = 0.2,
    test: float | None = None,
    seed: int = 0,
    task: Task | None = None,
    store: Store | None = None,
) -> pd.DataFrame:
    """Deal patients, not images, to train, validation and test; stratified by a patient's worst label.

    With a multilabel task a patient's stratum is the rarest class that any of their images shows (compare Sechidis et
    al., ECML PKDD 2011, p. 145). A stratum of three patients is in every split.

    Args:
        records: with the columns ``patient``, ``split`` and ``label``; for a multilabel task those of its classes.
        validation: share of the patients, 0 to below 1.
        test: share of the patients; None keeps the rows whose split is ``test`` already, and deals out the others.
        seed: the same seed gives the same split, 0 to 4294967295.
        task: decides the strata; None goes by ``label``.
        store: where the images are. Where no patient is known, copies of one picture are looked for there and stay on
            one side, which is said; the column ``group`` then names the first image of each group.

    Returns:
        The records in their order, with a new ``split`` column.

    Raises:
        MedicError: a share or the seed is out of range, or a patient has images in the kept test split and outside it.
    """
    shares = {"validation": validation, "test": test or 0}
    if min(shares.values()) < 0 or sum(shares.values()) >= 1:
        raise MedicError(f"validation={validation} and test={test} must be shares that leave something for training")
    if not 0 <= seed < 1 << 32:
        raise MedicError(f"the seed {seed} is outside 0 to 4294967295; give another whole number")
    if store is not None and not patients_known(records) and "group" not in records:
        from medic.data.check.duplicates import copy_groups

        records = records.assign(group=copy_groups(records, store))
        groups = records["group"].value_counts()
        if len(groups := groups[groups > 1]):
            said = f"{groups.sum()} of {len(records)} images are copies of one another (medic check lists them)"
            print(f"no patient is known, and {said}: their {len(groups)} groups stay on one side of every split")
    dealt = records["split"] != "test" if test is None else pd.Series(True, index=records.index)
    # Copies are dealt together, as the images of one patient are.
    together = records["group" if "group" in records else "patient"]
    if "group" not in records:
        refuse_crossing(records.assign(split=np.where(dealt, "train", "test")))
    elif shared := int((dealt & together.isin(together[~dealt])).sum()):
        print(f"{shared} images are copies of images in the given test split; --test 0.2 deals all of them anew")
    if task is not None and task.kind == "multilabel":
        present = pd.DataFrame(targets(records, task) > 0).groupby(together.to_numpy()).max()
        present = present[present.sum().sort_values(kind="stable").index]  # the rarest class first
        present = present[present.index.isin(together[dealt])]
        rarest = np.where(present.any(axis=1), present.to_numpy().argmax(axis=1), len(task.classes))
        stratum = pd.Series(rarest, present.index)
    else:
        stratum = records[dealt].groupby(together[dealt])["label"].max()
    random, chosen = np.random.default_rng(seed), dict.fromkeys(stratum.index, "train")
    for _, same in stratum.groupby(stratum):
        patients = list(random.permutation(same.index.to_numpy()))
        least = int(len(patients) >= 3)  # of three patients every split gets one, and train keeps one of any stratum
        counts = {name: max(least, round(share * len(patients))) for name, share in shares.items() if share}
        while counts and sum(counts.values()) >= len(patients):
            counts[max(counts, key=counts.__getitem__)] -= 1
        for name, count in counts.items():
            chosen |= dict.fromkeys(patients[:count], name)
            del patients[:count]
    return records.assign(split=records["split"].where(~dealt, together.map(chosen)))


def complete_splits(
    records: pd.DataFrame, *, seed: int = 0, task: Task | None = None, store: Store | None = None
) -> pd.DataFrame:
    """Give records all three splits, keeping those that the source brings, so that results can be compared.

    A missing test split takes a fifth of the patients, a missing validation split a fifth of the others' patients; the
    rest trains. Arguments, returns and errors are those of ``split_by_patient``.
    """
    given, how = set(records["split"]), {"seed": seed, "task": task, "store": store}
    if {"validation", "test"} <= given:
        return records
    if "validation" in given:
        rest = split_by_patient(records[records["split"] != "validation"], validation=0, test=0.2, **how)
        return records.assign(split=rest["split"].reindex(records.index).fillna("validation"))
    return split_by_patient(records, test=None if "test" in given else 0.2, **how)


def patients_known(records: pd.DataFrame) -> bool:
    """Return whether anything tells patients apart; otherwise each image counts as a patient."""
    if "patient_source" in records:
        return not (records["patient_source"] == "image").all()
    return not (records["patient"] == records["image"]).all()


def crossing_patients(records: pd.DataFrame) -> list[str]:
    """Return the patients who have images in more than one split."""
    splits = records.groupby("patient")["split"].nunique()
    return list(splits.index[splits > 1])


def refuse_crossing(records: pd.DataFrame) -> None:
    """Raise a ``MedicError`` that names patients and splits, if a patient has images in more than one split."""
    if crossing := crossing_patients(records):
        theirs = set(records.loc[records["patient"].isin(crossing), "split"])
        parts = ", ".join(name for name in SPLITS if name in theirs)
        named = ", ".join(map(str, crossing[:3])) + ", ..." * (len(crossing) > 3)
        raise MedicError(
            f"{len(crossing)} patients have images in more than one of {parts}: {named}. A model would be judged on "
            "people it has seen; correct the split, or deal anew by patient (--test 0.2)"
        )
