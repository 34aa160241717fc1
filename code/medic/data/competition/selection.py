"""The choice of training and validation images from two archives; nothing is unpacked.

The main archive holds the competition's photographs, the extra one those of the 2015 competition.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from medic.data.readers import retinopathy
from medic.data.records import validate
from medic.data.split import split_by_patient
from medic.data.stores import JointStore
from medic.errors import ImageError, MedicError
from medic.task import RETINOPATHY

MAIN, EXTRA = "main", "extra"


@dataclass(frozen=True, eq=False)
class Selection:
    """Which images train and which validate.

    Attributes:
        records: the chosen images: ``image`` (``main/`` or ``extra/`` and the name in that archive), ``patient``,
            ``eye``, ``split`` (``train``, ``validation``), ``label``.
        store: both archives, read by those names.
        settings: ``per_class``, ``validation`` and ``seed``, as ``select`` was given them.
        before: int, listed images by class (rows) and archive (columns).
        dropped: images that could not be chosen, with ``image``, ``reason`` (``test_split``, ``absent``,
            ``same_name``, ``identical``, ``patient_in_validation``) and ``detail``.
        unlisted: by archive, image files that no row of its table names, such as those of a test without labels.
    """

    records: pd.DataFrame
    store: JointStore
    settings: dict[str, float]
    before: pd.DataFrame
    dropped: pd.DataFrame
    unlisted: dict[str, int]

    def balance(self, records: pd.DataFrame | None = None) -> pd.DataFrame:
        """Count the images of each class before and after.

        Args:
            records: what was really prepared; the chosen images when None.

        Returns:
            One row a class, int columns: ``main`` and ``extra`` (listed in the archive), ``train``, ``train_extra``
            (those of them that come from the extra archive) and ``validation``.
        """
        records = self.records if records is None else records
        train = records["split"] == "train"
        return self.before.assign(
            train=_by_class(records[train]),
            train_extra=_by_class(records[train & records["image"].str.startswith(f"{EXTRA}/")]),
            validation=_by_class(records[records["split"] == "validation"]),
        )

    def short(self, records: pd.DataFrame | None = None) -> dict[str, int]:
        """The classes that have fewer training images than asked for, with how many they have; as ``balance``."""
        train = self.balance(records)["train"]
        return {name: int(count) for name, count in train.items() if count < self.settings["per_class"]}


def select(
    main: str | os.PathLike,
    extra: str | os.PathLike | None = None,
    *,
    per_class: int = 1000,
    validation: float = 0.2,
    seed: int = 0,
) -> Selection:
    """Choose validation images from the main archive, and as many training images of every class from both.

    - Validation: a share of the main archive's patients, stratified by their worst grade, at its natural distribution.
    - Training: of each class the main archive's other images, by chance ``per_class`` of them; a class that has fewer
      is filled up with images of the extra archive, by chance. A larger ``per_class`` only adds images.
    - No patient is on both sides. A name that ends in ``_left`` or ``_right`` tells the patient in both archives; any
      other name is a patient of its own. Patients who share a photograph, byte for byte, count as one.
    - Left out, and listed in ``dropped``: rows of a source's own test split; absent images; images of the extra archive
      with the name of one in the main archive, whose copy and label hold; images with the bytes of an earlier one (by
      size and CRC-32), also where the labels differ; images of the extra archive whose patient validates.

    Args:
        main: zip file or folder of the competition: ``train.csv`` with ``id_code,diagnosis``.
        extra: zip file or folder of the 2015 set: ``trainLabels.csv`` with ``image,level``; None to do without.
        per_class: training images of each class, above 0; a class may have fewer, never more.
        validation: share of the main archive's patients, above 0 and below 1.
        seed: 0 or above; the same seed and archives give the same selection.

    Raises:
        MedicError: a setting is out of range; an archive or its table cannot be read; the two archives are swapped;
            nothing is left for a split.
    """
    if per_class < 1 or not 0 < validation < 1 or seed < 0:
        raise MedicError(
            f"per_class={per_class}, validation={validation}, seed={seed} do not fit: give a number from 1, a share "
            "between 0 and 1, and a whole number from 0"
        )
    sources = {MAIN: main} if extra is None else {MAIN: main, EXTRA: extra}
    read = {key: retinopathy.read(source) for key, source in sources.items()}
    store = JointStore({key: stored for key, (_, stored) in read.items()})
    _refuse_swapped(store)
    listed = validate(
        pd.concat([_named(table, key) for key, (table, _) in read.items()], ignore_index=True), RETINOPATHY
    )
    from_main = listed["image"].str.startswith(f"{MAIN}/")
    before = pd.DataFrame(
        {MAIN: _by_class(listed[from_main]), EXTRA: _by_class(listed[~from_main])},
        index=pd.Index(RETINOPATHY.classes, name="class"),
    )

    reasons = dict(_unfit(listed, store))
    twins = _identical(listed["image"].drop(list(reasons)), store)
    reasons |= {row: ("identical", _twin(listed, row, first)) for row, first in twins.items()}
    people = _people(listed["patient"], twins)
    fit = listed.drop(index=list(reasons))
    ours, more = fit[from_main[fit.index]], fit[~from_main[fit.index]].assign(split="train")
    if ours.empty:
        raise MedicError(f"not one image that {store.stores[MAIN].location} lists can be used; see that it is complete")
    # The split is by person; the records keep the name that the archive gives the patient.
    dealt = split_by_patient(ours.assign(split="train", patient=people), validation=validation, test=0, seed=seed)
    ours = ours.assign(split=dealt["split"])
    held = ours[ours["split"] == "validation"]
    known = people[more.index].isin(set(people[held.index]))
    reasons |= {
        row: ("patient_in_validation", f"an image of patient {patient} is in validation")
        for row, patient in more["patient"][known].items()
    }
    pools = (ours[ours["split"] == "train"], more[~known])
    if held.empty or all(pool.empty for pool in pools):
        raise MedicError(
            f"{len(ours)} images of {store.stores[MAIN].location} are too few for training and "
            f"validation={validation}; take more images or another share"
        )
    chosen = pd.concat([held, *_training(pools, per_class, seed)]).sort_index()
    left_out = [(listed["image"][row], *why) for row, why in sorted(reasons.items())]
    names = set(listed["image"])
    return Selection(
        records=chosen.reset_index(drop=True),
        store=store,
        settings={"per_class": per_class, "validation": validation, "seed": seed},
        before=before,
        dropped=pd.DataFrame(left_out, columns=["image", "reason", "detail"]),
        unlisted={
            key: sum(f"{key}/{name}" not in names for name in part.images()) for key, part in store.stores.items()
        },
    )


def _named(table: pd.DataFrame, key: str) -> pd.DataFrame:
    """The rows as they are named in both archives together."""
    # Without an eye in the name, equal names in two archives say nothing about the patient: "10" is not "10_left".
    patient = table["patient"].mask(table["eye"].isna(), f"{key}/" + table["patient"])
    return table.assign(image=f"{key}/" + table["image"], patient=patient)


def _refuse_swapped(store: JointStore) -> None:
    tables = {
        name.partition("/")[0] + "/" + PurePosixPath(name).name for name in store.names() if name.endswith(".csv")
    }
    right, wrong = {f"{MAIN}/train.csv", f"{EXTRA}/trainLabels.csv"}, {f"{MAIN}/trainLabels.csv", f"{EXTRA}/train.csv"}
    if wrong <= tables and not right & tables:
        raise MedicError(
            f"the archives are swapped: {store.stores[EXTRA].location} holds the competition's train.csv and "
            f"{store.stores[MAIN].location} the 2015 trainLabels.csv; give the first one as main"
        )


def _unfit(listed: pd.DataFrame, store: JointStore) -> Iterator[tuple[int, tuple[str, str]]]:
    """The rows that cannot be chosen whatever the seed, identical ones aside, with reason and detail."""
    first_named: dict[str, int] = {}
    for row, image, split in zip(listed.index, listed["image"], listed["split"], strict=True):
        archive, _, name = image.partition("/")
        stem = PurePosixPath(name).stem
        if split == "test":
            yield row, ("test_split", "belongs to the test split of its source")
        elif image not in store:
            yield row, ("absent", f"not in {store.stores[archive].location.name}")
        elif archive == MAIN:
            first_named[stem] = row
        elif stem in first_named:
            yield row, ("same_name", _twin(listed, row, first_named[stem]))


def _identical(images: pd.Series, store: JointStore) -> dict[int, int]:
    """Rows whose bytes an earlier row has, with that row; only files of equal size are looked at more closely."""
    sizes = {row: unless_unreadable(store.size, image) for row, image in images.items()}
    shared = {size for size, count in Counter(sizes.values()).items() if size and count > 1}
    first, twins = {}, {}
    for row in [row for row, size in sizes.items() if size in shared]:
        checksum = unless_unreadable(store.checksum, images[row])
        if checksum is not None and (earlier := first.setdefault((sizes[row], checksum), row)) != row:
            twins[row] = earlier
    return twins


def unless_unreadable(measure: Callable[[str], int], image: str) -> int | None:
    """Measure an image; None where it cannot be read, which preparation says."""
    try:
        return measure(image)
    except ImageError:
        return None


def _people(patients: pd.Series, twins: dict[int, int]) -> pd.Series:
    """Who the patients are: those who share a photograph are one person, whatever the archives call them."""
    same: dict[str, str] = {}

    def person(patient: str) -> str:
        while patient in same:
            patient = same[patient]
        return patient

    for row, first in twins.items():
        one, other = sorted((person(patients[row]), person(patients[first])))
        if one != other:
            same[other] = one
    return patients.map(person)


def _twin(listed: pd.DataFrame, row: int, first: int) -> str:
    mine, theirs = listed["label"][[row, first]]
    differing = "" if mine == theirs else f", labelled {mine} here and {theirs} there"
    return f"stands for the same photograph as {listed['image'][first]}{differing}"


def _training(pools: tuple[pd.DataFrame, pd.DataFrame], per_class: int, seed: int) -> Iterator[pd.DataFrame]:
    """Of each class the rows of the first pool, then of the second, until there are enough."""
    for label in range(len(RETINOPATHY.classes)):
        wanted = per_class
        for number, pool in enumerate(pools):
            rows = pool[pool["label"] == label].sort_values("image")
            yield rows.iloc[np.random.default_rng([seed, number, label]).permutation(len(rows))[:wanted]]
            wanted -= min(wanted, len(rows))


def _by_class(records: pd.DataFrame) -> np.ndarray:
    return np.bincount(records["label"].to_numpy(int), minlength=len(RETINOPATHY.classes))
