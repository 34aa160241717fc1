"""Splits that keep a patient on one side."""

from __future__ import annotations

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

    Within each stratum the patients are shuffled and the rounded share goes to a split. A stratum of three patients or
    more gives at least one to every split, so that a rare grade is seen everywhere.

    With a multilabel task a patient's stratum is the rarest class that any of their images shows (by patients, over the
    whole table), and patients without any class are a stratum of their own. Then single patients are moved until a
    class that three patients or more have is in every split; only where many classes share few patients may one still
    miss a split (compare Sechidis et al., On the stratification of multi-label data, ECML PKDD 2011, p. 145).

    Args:
        records: with the columns ``patient``, ``split`` and ``label``; for a multilabel task those of its classes.
        validation: share of the patients, 0 to below 1, that goes to validation.
        test: share for test; None keeps the rows whose split is ``test`` already, and deals out the others.
        seed: the same seed gives the same split.
        task: decides the strata; None and tasks that are not multilabel go by ``label``.
        store: where the images are. Where no patient is known, copies of one picture are looked for there and stay on
            one side, which is said; None looks for none.

    Returns:
        The records with a new ``split`` column; the order of the rows is kept. Where copies were looked for, the column
        ``group`` names the first image of each group of copies.

    Raises:
        MedicError: a share is out of range, a patient has images both in the kept test split and outside it, or the
            columns of a multilabel task are missing.
    """
    if not 0 <= validation < 1 or not 0 <= (test or 0) < 1 or validation + (test or 0) >= 1:
        raise MedicError(f"validation={validation} and test={test} must be shares that leave something for training")
    check_seed(seed)
    if store is not None and not patients_known(records) and "group" not in records:
        records = _with_groups(records, store)
    dealt = records["split"] != "test" if test is None else pd.Series(True, index=records.index)
    if "group" in records:
        # Copies are dealt together, as the images of one patient are.
        shared = int((dealt & records["group"].isin(records["group"][~dealt])).sum())
        if shared:
            print(f"{shared} images are copies of images in the given test split; --test 0.2 deals all of them anew")
        told = split_by_patient(
            records.drop(columns="group").assign(patient=records["group"]),
            validation=validation,
            test=test or 0,
            seed=seed,
            task=task,
        )
        return records.assign(split=records["split"].where(~dealt, told["split"]))
    if test is None:
        crossing = crossing_patients(records.assign(split=np.where(dealt, "rest", "test")))
        if len(crossing):
            raise MedicError(
                f"{len(crossing)} patients have images both in the given test split and outside it, for instance "
                f"{crossing[0]}: a model would be tested on people it has seen; give test=0.2 to split anew by patient"
            )
    shares = {"validation": validation, "test": test or 0}
    multilabel = task is not None and task.kind == "multilabel"
    if multilabel:
        present = pd.DataFrame(targets(records, task), index=records["patient"]).groupby(level=0, sort=True).max()
        present = present[sorted(present, key=lambda code: present[code].sum())]  # the rarest class first
        present = present[present.index.isin(records["patient"][dealt])].astype(bool)
        stratum = pd.Series(
            np.where(present.any(axis=1), present.to_numpy().argmax(axis=1), len(task.classes)), index=present.index
        )
    else:
        stratum = records[dealt].groupby("patient", sort=True)["label"].max()
    random = np.random.default_rng(seed)
    chosen = dict.fromkeys(stratum.index, "train")
    for _, same in stratum.groupby(stratum):
        patients = random.permutation(same.index.to_numpy())
        start = 0
        for name, count in _counts(shares, len(patients)).items():
            chosen |= dict.fromkeys(patients[start : start + count], name)
            start += count
    if multilabel:
        _reach_every_split(chosen, present, ["train", *(name for name, share in shares.items() if share)])
    return records.assign(split=records["split"].where(~dealt, records["patient"].map(chosen)))


def _counts(shares: dict[str, float], patients: int) -> dict[str, int]:
    """How many patients of a stratum go to each split other than train, which keeps at least one."""
    counts = {name: round(share * patients) for name, share in shares.items()}
    if patients >= 3:
        counts = {name: max(1, count) if shares[name] else 0 for name, count in counts.items()}
    while sum(counts.values()) >= patients:
        counts[max(counts, key=counts.__getitem__)] -= 1
    return counts


def _reach_every_split(chosen: dict[str, str], present: pd.DataFrame, splits: list[str]) -> None:
    """Move single patients, so that a class which three patients or more have is in every split, any other in train.

    Strata alone do not see to it: a patient has several classes and is dealt for the rarest. Nobody is moved who is the
    last in a split to have some class.

    Args:
        chosen: the split of each patient; changed.
        present: one row a patient, True for each class the patient has.
        splits: the splits that get patients, ``train`` first.
    """
    has = present.to_numpy()
    side = np.array([splits.index(chosen[name]) for name in present.index])
    counts = np.array([has[side == place].sum(axis=0) for place in range(len(splits))])
    for code, total in enumerate(has.sum(axis=0)):
        for place in range(len(splits)) if total >= 3 else range(min(total, 1)):
            if counts[place, code]:
                continue
            for person in np.flatnonzero(has[:, code]):
                theirs, here = has[person], side[person]
                if (counts[here, theirs] > 1).all():
                    counts[here, theirs] -= 1
                    counts[place, theirs] += 1
                    side[person] = place
                    chosen[present.index[person]] = splits[place]
                    break


def complete_splits(
    records: pd.DataFrame, *, seed: int = 0, task: Task | None = None, store: Store | None = None
) -> pd.DataFrame:
    """Give records all three splits, keeping those that the source brings, for the sake of comparison with others.

    A missing test split takes a fifth of the patients, a missing validation split a fifth of the others' patients; the
    rest trains. Whoever wants other shares, or no regard for the source's splits, calls ``split_by_patient``.

    Args:
        records: as a reader gives them.
        seed: the same seed gives the same split.
        task: as for ``split_by_patient``.
        store: as for ``split_by_patient``.

    Raises:
        MedicError: as ``split_by_patient``.
    """
    given = set(records["split"])
    if {"validation", "test"} <= given:
        return records
    if "validation" in given:
        rest = records[records["split"] != "validation"]
        test = split_by_patient(rest, validation=0, test=0.2, seed=seed, task=task, store=store)
        return records.assign(split=test["split"].reindex(records.index).fillna("validation"))
    test = None if "test" in given else 0.2
    return split_by_patient(records, validation=0.2, test=test, seed=seed, task=task, store=store)


def split_by_image(records: pd.DataFrame, *, validation: float = 0.2, test: float = 0.2, seed: int = 0) -> pd.DataFrame:
    """Deal single images out, whoever they belong to: only to show what that does to a result.

    Two images of one patient resemble each other, so a test split made this way flatters. Use ``split_by_patient``.

    Args and returns are those of ``split_by_patient``.
    """
    alone = records.assign(patient=np.arange(len(records)))
    return records.assign(split=split_by_patient(alone, validation=validation, test=test, seed=seed)["split"])


def patients_known(records: pd.DataFrame) -> bool:
    """Return whether anything tells patients apart; otherwise each image counts as a patient."""
    if "patient_source" in records:
        return not (records["patient_source"] == "image").all()
    return not (records["patient"] == records["image"]).all()


def refuse_crossing(records: pd.DataFrame) -> None:
    """Refuse a split that shares a patient between any two of its parts.

    Raises:
        MedicError: it does; the message names patients and parts.
    """
    crossing = crossing_patients(records)
    if crossing:
        parts = sorted(records.loc[records["patient"].isin(crossing), "split"].unique(), key=SPLITS.index)
        named = ", ".join(map(str, crossing[:3])) + (", ..." if len(crossing) > 3 else "")
        raise MedicError(
            f"{len(crossing)} patients have images in more than one of {', '.join(parts)}: {named}. A model would be "
            "judged on people it has seen; correct the split, or deal anew by patient (--test 0.2)"
        )


def check_seed(seed: int) -> None:
    """Refuse a seed that random generators do not take.

    Raises:
        MedicError: it is below 0 or above 4294967295.
    """
    if not 0 <= seed < 1 << 32:
        raise MedicError(f"the seed {seed} is outside 0 to 4294967295; give another whole number")


def _with_groups(records: pd.DataFrame, store: Store) -> pd.DataFrame:
    from medic.data.check.duplicates import copy_groups

    records = records.assign(group=copy_groups(records, store))
    sizes = records["group"].value_counts()
    copies = int(sizes[sizes > 1].sum())
    if copies:
        print(
            f"no patient is known, and {copies} of {len(records)} images are copies of one another (medic check lists "
            f"them): their {int((sizes > 1).sum())} groups stay on one side of every split"
        )
    return records


def crossing_patients(records: pd.DataFrame) -> list[str]:
    """The patients who have images in more than one split."""
    splits = records.groupby("patient")["split"].nunique()
    return list(splits.index[splits > 1])
