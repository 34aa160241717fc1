"""Training and validation images from two archives, as an entry to the competition needs them; nothing is unpacked.

The main archive holds the competition's photographs, the extra one those of the 2015 competition.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from medic.data.check.duplicates import connected
from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared, prepare
from medic.data.readers import retinopathy
from medic.data.records import validate
from medic.data.split import split_by_patient
from medic.data.stores import JointStore, location_from
from medic.errors import MedicError
from medic.files import write_json, write_text
from medic.task import RETINOPATHY

MAIN, EXTRA = "main", "extra"
_LABELS = {"train": "labels_train.csv", "validation": "labels_val.csv"}


@dataclass(frozen=True, eq=False)
class Selection:
    """Which images train and which validate."""

    records: pd.DataFrame  # the chosen images, named ``main/`` or ``extra/`` and the name in that archive
    store: JointStore  # both archives, read by those names
    settings: dict[str, float]  # ``per_class``, ``validation`` and ``seed``, as ``select`` was given them
    before: pd.DataFrame  # int, listed images by class (rows) and archive (columns)
    dropped: pd.DataFrame  # images that could not be chosen: ``image``, ``reason`` (as ``select`` says), ``detail``
    unlisted: dict[str, int]  # by archive, image files that no row of its table names, such as those of a test

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
            validation=_by_class(records[~train]),
        )

    def short(self, records: pd.DataFrame | None = None) -> dict[str, int]:
        """Return the training images of each class that has fewer of them than asked for; as ``balance``."""
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
    - Left out, with the reason: rows of a source's own test split (``test_split``); ``absent`` images; images of the
      extra archive with the name of one in the main archive, whose copy and label hold (``same_name``); images with the
      size and CRC-32 of an earlier one, also where the labels differ (``identical``); images of the extra archive whose
      patient validates (``patient_in_validation``).

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
    settings = {"per_class": per_class, "validation": validation, "seed": seed}
    if per_class < 1 or not 0 < validation < 1 or seed < 0:
        raise MedicError(f"{settings} do not fit: per_class is 1 or more, validation between 0 and 1, seed 0 or more")
    read = {key: retinopathy.read(source) for key, source in {MAIN: main, EXTRA: extra}.items() if source is not None}
    store = JointStore({key: part for key, (_, part) in read.items()})
    _refuse_swapped(store)
    listed = pd.concat([_named(table, key) for key, (table, _) in read.items()], ignore_index=True)
    listed = validate(listed, RETINOPATHY)
    from_main = listed["image"].str.startswith(f"{MAIN}/")

    reasons = dict(_unfit(listed, store))
    earlier = _same_bytes(listed["image"].drop(list(reasons)), store)
    reasons |= {row: ("identical", _twin(listed, row, first)) for row, first in earlier.items()}
    # Patients who share a photograph are one person, whatever the archives call them.
    codes, patients = pd.factorize(listed["patient"])
    people = pd.Series(connected(len(patients), list(zip(codes[earlier.index], codes[earlier], strict=True)))[codes])
    fit = listed.drop(index=list(reasons))
    ours, more = fit[from_main[fit.index]], fit[~from_main[fit.index]].assign(split="train")
    location = store.stores[MAIN].location
    if ours.empty:
        raise MedicError(f"not one image that {location} lists can be used; see that it is complete")
    dealt = split_by_patient(ours.assign(split="train", patient=people), validation=validation, test=0, seed=seed)
    ours = ours.assign(split=dealt["split"])
    held, train = ours[ours["split"] == "validation"], ours[ours["split"] == "train"]
    known = more[people[more.index].isin(people[held.index])]
    reasons |= {
        row: ("patient_in_validation", f"an image of patient {patient} is in validation")
        for row, patient in known["patient"].items()
    }
    more = more.drop(index=known.index)
    if held.empty or (train.empty and more.empty):
        raise MedicError(f"{len(ours)} images of {location} are too few for training and validation={validation}")
    names = set(listed["image"])
    return Selection(
        records=pd.concat([held, *_training((train, more), per_class, seed)]).sort_index().reset_index(drop=True),
        store=store,
        settings=settings,
        before=pd.DataFrame(
            {MAIN: _by_class(listed[from_main]), EXTRA: _by_class(listed[~from_main])},
            index=pd.Index(RETINOPATHY.classes, name="class"),
        ),
        dropped=pd.DataFrame(
            [(listed["image"][row], *why) for row, why in sorted(reasons.items())],
            columns=["image", "reason", "detail"],
        ),
        unlisted={
            key: sum(f"{key}/{name}" not in names for name in part.images()) for key, part in store.stores.items()
        },
    )


def write(
    selection: Selection,
    folder: str | os.PathLike,
    preprocessing: Preprocessing | None = None,
    workers: int | None = None,
) -> Prepared:
    """Prepare the images of a selection, by default cropped to the retina at 512 pixels; arguments as ``prepare``.

    Beside the files of ``medic.data.prepare.prepare`` the folder gets ``labels_train.csv``, ``labels_val.csv`` (only
    images that could be read) and, last, ``selection.json``, the account of how it came about. Interrupted, it goes on;
    repeated, it does only what is new; another selection takes the place of the one that is there.

    Raises:
        MedicError: as ``prepare``.
    """
    folder, preprocessing = Path(folder), preprocessing or Preprocessing(size=512)
    for path in (folder / name for name in (*_LABELS.values(), "balance.png", "selection.json")):
        if path.exists():
            path.unlink()
    prepared = prepare(selection.records, selection.store, folder, preprocessing, workers=workers)
    places = prepared.records["image"].str.split("/", n=1, expand=True)
    labels = prepared.records.assign(archive=places[0], image=places[1])
    for split, file in _LABELS.items():
        rows = labels.loc[labels["split"] == split, ["image", "label", "archive", "patient", "file"]]
        write_text(folder / file, rows.to_csv(index=False))
    left_out = pd.concat([selection.dropped, prepared.skipped])[["image", "reason", "detail"]].to_dict("records")
    account = {
        "format": 1,
        "settings": selection.settings | preprocessing.to_dict(),
        "images": {key: len(part.images()) for key, part in selection.store.stores.items()},
        "locations": location_from(folder, selection.store),
        "synthetic": prepared.synthetic,
        "balance": selection.balance(prepared.records).to_dict("index"),
        "short": selection.short(prepared.records),
        "unlisted": selection.unlisted,
        "left_out": dict(Counter(row["reason"] for row in left_out)),
        "left_out_images": left_out,
    }
    write_json(folder / "selection.json", account)
    return prepared


def _named(table: pd.DataFrame, key: str) -> pd.DataFrame:
    """The rows as they are named in both archives together."""
    # Without an eye in the name, equal names in two archives say nothing about the patient: "10" is not "10_left".
    patient = table["patient"].mask(table["eye"].isna(), f"{key}/" + table["patient"])
    return table.assign(image=f"{key}/" + table["image"], patient=patient)


def _refuse_swapped(store: JointStore) -> None:
    tables = {key: {PurePosixPath(name).name for name in part.names()} for key, part in store.stores.items()}
    if "trainLabels.csv" in tables[MAIN] and "train.csv" in tables.get(EXTRA, ()):
        right = store.stores[EXTRA].location
        raise MedicError(f"the archives are swapped: {right} holds the competition's train.csv; give it as main")


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


def _same_bytes(images: pd.Series, store: JointStore) -> pd.Series:
    """Rows whose bytes an earlier row has, with that row; only files of equal size are read."""
    sizes = images.map(store.size)
    shared = images[sizes.duplicated(keep=False) & (sizes > 0)]
    sums = shared.map(lambda name: zlib.crc32(store.read(name)))
    first = shared.index.to_series().groupby([sizes[shared.index], sums]).transform("first")
    return first[first != first.index]


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
