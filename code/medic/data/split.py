"""Splits that keep a patient on one side."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medic.errors import MedicError


def split_by_patient(
    records: pd.DataFrame, *, validation: float = 0.2, test: float | None = None, seed: int = 0
) -> pd.DataFrame:
    """Deal patients, not images, to train, validation and test; stratified by a patient's worst label.

    Within each stratum the patients are shuffled and the rounded share goes to a split. A stratum of three patients or
    more gives at least one to every split, so that a rare grade is seen everywhere.

    Args:
        records: with the columns ``patient``, ``split`` and ``label``.
        validation: share of the patients, 0 to below 1, that goes to validation.
        test: share for test; None keeps the rows whose split is ``test`` already, and deals out the others.
        seed: the same seed gives the same split.

    Returns:
        The records with a new ``split`` column; the order of the rows is kept.

    Raises:
        MedicError: a share is out of range, or a patient has images both in the kept test split and outside it.
    """
    if not 0 <= validation < 1 or not 0 <= (test or 0) < 1 or validation + (test or 0) >= 1:
        raise MedicError(f"validation={validation} and test={test} must be shares that leave something for training")
    dealt = records["split"] != "test" if test is None else pd.Series(True, index=records.index)
    if test is None:
        crossing = crossing_patients(records.assign(split=np.where(dealt, "rest", "test")))
        if len(crossing):
            raise MedicError(
                f"{len(crossing)} patients have images both in the given test split and outside it, for instance "
                f"{crossing[0]}: a model would be tested on people it has seen; give test=0.2 to split anew by patient"
            )
    worst = records[dealt].groupby("patient", sort=True)["label"].max()
    random = np.random.default_rng(seed)
    chosen = dict.fromkeys(worst.index, "train")
    for _, stratum in worst.groupby(worst):
        patients = random.permutation(stratum.index.to_numpy())
        start = 0
        for name, count in _counts({"validation": validation, "test": test or 0}, len(patients)).items():
            chosen |= dict.fromkeys(patients[start : start + count], name)
            start += count
    return records.assign(split=records["split"].where(~dealt, records["patient"].map(chosen)))


def _counts(shares: dict[str, float], patients: int) -> dict[str, int]:
    """How many patients of a stratum go to each split other than train, which keeps at least one."""
    counts = {name: round(share * patients) for name, share in shares.items()}
    if patients >= 3:
        counts = {name: max(1, count) if shares[name] else 0 for name, count in counts.items()}
    while sum(counts.values()) >= patients:
        counts[max(counts, key=counts.__getitem__)] -= 1
    return counts


def complete_splits(records: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Give records all three splits, keeping those that the source brings, for the sake of comparison with others.

    A missing test split takes a fifth of the patients, a missing validation split a fifth of the others' patients; the
    rest trains. Whoever wants other shares, or no regard for the source's splits, calls ``split_by_patient``.

    Args:
        records: as a reader gives them.
        seed: the same seed gives the same split.

    Raises:
        MedicError: as ``split_by_patient``.
    """
    given = set(records["split"])
    if {"validation", "test"} <= given:
        return records
    if "validation" in given:
        test = split_by_patient(records[records["split"] != "validation"], validation=0, test=0.2, seed=seed)
        return records.assign(split=test["split"].reindex(records.index).fillna("validation"))
    return split_by_patient(records, validation=0.2, test=None if "test" in given else 0.2, seed=seed)


def split_by_image(records: pd.DataFrame, *, validation: float = 0.2, test: float = 0.2, seed: int = 0) -> pd.DataFrame:
    """Deal single images out, whoever they belong to: only to show what that does to a result.

    Two images of one patient resemble each other, so a test split made this way flatters. Use ``split_by_patient``.

    Args and returns are those of ``split_by_patient``.
    """
    alone = records.assign(patient=np.arange(len(records)))
    return records.assign(split=split_by_patient(alone, validation=validation, test=test, seed=seed)["split"])


def crossing_patients(records: pd.DataFrame) -> list[str]:
    """The patients who have images in more than one split."""
    splits = records.groupby("patient")["split"].nunique()
    return list(splits.index[splits > 1])
