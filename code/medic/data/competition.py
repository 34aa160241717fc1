"""Training and validation images from two archives, as an entry to the competition needs them.

The main archive holds the competition's photographs, the extra one those of the 2015 competition. Validation is drawn
from the main archive alone and keeps its natural distribution, because that is what an entry is judged on; training has
the same number of images of every class, as far as the two archives have them. Nothing is unpacked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared, prepare
from medic.data.readers import retinopathy
from medic.data.records import validate
from medic.data.split import split_by_patient
from medic.data.stores import FolderStore, JointStore, ZipStore, location_from
from medic.errors import ImageError, MedicError
from medic.files import replacing, write_json
from medic.task import RETINOPATHY

MAIN, EXTRA = "main", "extra"


@dataclass(frozen=True)
class Draw:
    """What decides a selection, given the archives.

    Attributes:
        per_class: training images of each class, above 0; a class may have fewer, never more.
        validation: share of the main archive's patients, above 0 and below 1.
        seed: 0 or above; the same seed gives the same images.
    """

    per_class: int
    validation: float
    seed: int

    def __post_init__(self) -> None:
        if self.per_class < 1 or not 0 < self.validation < 1 or self.seed < 0:
            raise MedicError(
                f"per_class={self.per_class}, validation={self.validation} and seed={self.seed} do not fit: per_class "
                "is a number of images from 1, validation a share between 0 and 1, seed a whole number from 0"
            )


@dataclass(frozen=True, eq=False)
class Selection:
    """Which images train and which validate.

    Attributes:
        records: the chosen images: ``image`` (``main/`` or ``extra/`` and the name in that archive), ``patient``,
            ``eye``, ``split`` (``train``, ``validation``), ``label``.
        store: both archives, read by those names.
        draw: the settings.
        before: int, listed images by class (rows) and archive (columns).
        dropped: images that could not be chosen, with ``image``, ``reason`` (``test_split``, ``absent``,
            ``same_name``, ``identical``, ``patient_in_validation``) and ``detail``.
        unlisted: by archive, image files that no row of its table names, such as those of a test without labels.
    """

    records: pd.DataFrame
    store: JointStore
    draw: Draw
    before: pd.DataFrame
    dropped: pd.DataFrame
    unlisted: dict[str, int]

    def balance(self, records: pd.DataFrame | None = None) -> pd.DataFrame:
        """Images of each class before and after.

        Args:
            records: what was really prepared; the chosen images when None.

        Returns:
            One row a class, int columns: ``main`` and ``extra`` (listed in the archive), ``train``, ``train_extra``
            (those of them that come from the extra archive) and ``validation``.
        """
        records = self.records if records is None else records
        train = records["split"] == "train"
        chosen = {
            "train": train,
            "train_extra": train & records["image"].str.startswith(f"{EXTRA}/"),
            "validation": records["split"] == "validation",
        }
        return self.before.assign(**{name: _by_class(records[rows]) for name, rows in chosen.items()})

    def short(self, records: pd.DataFrame | None = None) -> dict[str, int]:
        """The classes that have fewer training images than asked for, with how many they have; as ``balance``."""
        train = self.balance(records)["train"]
        return {name: int(count) for name, count in train.items() if count < self.draw.per_class}


def select(
    main: str | os.PathLike,
    extra: str | os.PathLike | None = None,
    *,
    per_class: int = 1000,
    validation: float = 0.2,
    seed: int = 0,
) -> Selection:
    """Choose validation images from the main archive, and as many training images of every class from both.

    Each archive, or folder, is read as ``medic.data.readers.retinopathy.read`` does, wherever in it the table lies.

    - Validation: a share of the main archive's patients, stratified by their worst grade (``split_by_patient``). Its
      images are never sampled, so it keeps the archive's natural distribution.
    - Training: of each class the main archive's other images, by chance ``per_class`` of them where there are more;
      a class that has fewer is filled up with images of the extra archive, by chance. A larger ``per_class`` only
      adds images.
    - No patient is on both sides. A name that ends in ``_left`` or ``_right`` tells the patient in both archives;
      any other name is a patient of its own, in its own archive. Patients who share a photograph, byte for byte, count
      as one.
    - Left out, and listed in ``dropped``: rows of a source's own test split; images that are listed and absent; images
      of the extra archive that have the name of one in the main archive (``same_name``: the main archive's copy and
      label hold); images with the bytes of another (``identical``: the first row holds, the main archive's first, also
      where the labels differ; told by size and CRC-32); images of the extra archive whose patient validates.

    An image that is damaged inside is found by ``medic.data.competition.write``, which skips it and says so.

    Args:
        main: zip file or folder of the competition: ``train.csv`` with ``id_code,diagnosis``.
        extra: zip file or folder of the 2015 set: ``trainLabels.csv`` with ``image,level``; None to do without.
        per_class: training images of each class.
        validation: share of the main archive's patients.
        seed: the same seed and archives give the same selection.

    Raises:
        MedicError: a setting is out of range; an archive is no zip file, has no table, a table that cannot be read, a
            label that is no grade, or a name twice; the two archives are swapped; nothing is left for a split.
    """
    draw = Draw(per_class, validation, seed)
    tables, stores = {}, {}
    for key, source in ((MAIN, main), (EXTRA, extra)):
        if source is not None:
            tables[key], stores[key] = retinopathy.read(source)
    _refuse_swapped(stores)
    store = JointStore(stores)
    listed = pd.concat([_in_joint_store(table, key) for key, table in tables.items()], ignore_index=True)
    listed = validate(listed, RETINOPATHY)
    from_main = listed["image"].str.startswith(f"{MAIN}/")
    before = pd.DataFrame(
        {MAIN: _by_class(listed[from_main]), EXTRA: _by_class(listed[~from_main])},
        index=pd.Index(RETINOPATHY.classes, name="class"),
    )

    reasons = dict(_unfit(listed, store))
    twins = dict(_identical(listed["image"].drop(list(reasons)), store))
    reasons |= {row: ("identical", _twin(listed, row, first)) for row, first in twins.items()}
    people = _people(listed["patient"], twins)
    fit = listed.drop(index=list(reasons))
    ours = fit[from_main[fit.index]]
    if ours.empty:
        raise MedicError(f"not one image that {stores[MAIN].location} lists can be used; see that it is complete")
    # The split is by person; the records keep the name that the archive gives the patient.
    dealt = split_by_patient(ours.assign(split="train", patient=people), validation=validation, test=0, seed=seed)
    ours = ours.assign(split=dealt["split"])
    held = ours[ours["split"] == "validation"]
    more = fit[~from_main[fit.index]].assign(split="train")
    known = people[more.index].isin(set(people[held.index]))
    reasons |= {
        row: ("patient_in_validation", f"an image of patient {patient} is in validation")
        for row, patient in more["patient"][known].items()
    }
    pools = (ours[ours["split"] == "train"], more[~known])
    if held.empty or all(pool.empty for pool in pools):
        raise MedicError(
            f"{len(ours)} images of {stores[MAIN].location} are too few for training and validation={validation}; "
            "take more images or another share"
        )
    chosen = pd.concat([held, *_training(pools, draw)]).sort_index()
    names = set(listed["image"])
    return Selection(
        records=chosen.reset_index(drop=True),
        store=store,
        draw=draw,
        before=before,
        dropped=pd.DataFrame(
            [(listed["image"][row], *why) for row, why in sorted(reasons.items())],
            columns=["image", "reason", "detail"],
        ),
        unlisted={key: sum(f"{key}/{name}" not in names for name in part.images()) for key, part in stores.items()},
    )


def _in_joint_store(table: pd.DataFrame, key: str) -> pd.DataFrame:
    # Without an eye in the name, equal names in two archives say nothing about the patient: "10" is not "10_left".
    alone = table["eye"].isna()
    return table.assign(
        image=f"{key}/" + table["image"], patient=table["patient"].mask(alone, f"{key}/" + table["patient"])
    )


def _refuse_swapped(stores: dict[str, FolderStore | ZipStore]) -> None:
    published = ("train.csv", "trainLabels.csv")
    held = {
        key: [any(PurePosixPath(name).name == table for name in store.names()) for table in published]
        for key, store in stores.items()
    }
    if held[MAIN] == [False, True] and held.get(EXTRA) == [True, False]:
        raise MedicError(
            f"the archives are swapped: {stores[EXTRA].location} holds the competition's train.csv and "
            f"{stores[MAIN].location} the 2015 trainLabels.csv; give the first one as main"
        )


def _unfit(listed: pd.DataFrame, store: JointStore) -> Iterator[tuple[int, tuple[str, str]]]:
    """The rows that cannot be chosen whatever the seed, identical ones aside, with reason and detail."""
    first_named: dict[str, int] = {}
    for row, image, split in zip(listed.index, listed["image"], listed["split"], strict=True):
        archive, _, name = image.partition("/")
        if split == "test":
            yield row, ("test_split", "belongs to the test split of its source")
        elif image not in store:
            yield row, ("absent", f"not in {store.stores[archive].location.name}")
        elif archive == MAIN:
            first_named[PurePosixPath(name).stem] = row
        elif (first := first_named.get(PurePosixPath(name).stem)) is not None:
            yield row, ("same_name", _twin(listed, row, first))


def _identical(images: pd.Series, store: JointStore) -> Iterator[tuple[int, int]]:
    """Rows whose bytes an earlier row has, with that row; only files of equal size are looked at more closely."""
    sizes = defaultdict(list)
    for row, image in images.items():
        try:
            sizes[store.size(image)].append(row)
        except ImageError:
            continue  # preparation names it
    sizes.pop(0, None)
    for rows in sizes.values():
        first: dict[int, int] = {}
        for row in rows if len(rows) > 1 else ():
            try:
                earlier = first.setdefault(store.checksum(images[row]), row)
            except ImageError:
                continue
            if earlier != row:
                yield row, earlier


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
    labels = listed["label"]
    differing = "" if labels[row] == labels[first] else f", labelled {labels[row]} here and {labels[first]} there"
    return f"stands for the same photograph as {listed['image'][first]}{differing}"


def _training(pools: tuple[pd.DataFrame, pd.DataFrame], draw: Draw) -> Iterator[pd.DataFrame]:
    """Of each class the rows of the first pool, then of the second, until there are enough."""
    for label in range(len(RETINOPATHY.classes)):
        wanted = draw.per_class
        for place, pool in enumerate(pools):
            rows = pool[pool["label"] == label].sort_values("image")
            order = np.random.default_rng([draw.seed, place, label]).permutation(len(rows))
            yield rows.iloc[order[:wanted]]
            wanted -= min(wanted, len(rows))


def _by_class(records: pd.DataFrame) -> np.ndarray:
    return np.bincount(records["label"].to_numpy(int), minlength=len(RETINOPATHY.classes))


_FORMAT = 1
_LABELS = {"train": "labels_train.csv", "validation": "labels_val.csv"}


def write(
    selection: Selection,
    folder: str | os.PathLike,
    preprocessing: Preprocessing | None = None,
    workers: int | None = None,
) -> Prepared:
    """Make a prepared set of a selection, with its labels, its chart and the account of how it came about.

    Beside the files of ``medic.data.prepare.prepare`` the folder gets ``labels_train.csv``, ``labels_val.csv`` (with
    the header ``image,label,archive,patient,file``; only images that could be read) and, last,
    ``selection.json``. Interrupted, it goes on; repeated with the same settings and archives, it does only what is new
    and leaves the same bytes.

    Args:
        selection: from ``select``.
        folder: where all of it goes.
        preprocessing: size and crop; the crop to the retina at 512 pixels when None.
        workers: as in ``prepare``.

    Raises:
        MedicError: the folder holds a selection of other settings or other archives (a finished one; runs may rest on
            it), it lies inside a folder that is an archive here, or as ``prepare``.
    """
    folder = Path(folder)
    for store in selection.store.stores.values():
        if isinstance(store, FolderStore) and folder.resolve().is_relative_to(store.location.resolve()):
            raise MedicError(f"{folder} lies inside {store.location}, which is read; give a folder outside of it")
    preprocessing = preprocessing or Preprocessing(size=512)
    settings = {
        "settings": asdict(selection.draw) | preprocessing.to_dict(),
        "archives": {key: _identity(store) for key, store in selection.store.stores.items()},
    }
    if not _finished_alike(folder, settings):
        # What is left of an earlier selection must not stand beside the images of this one.
        for name in (*_LABELS.values(), "balance.png"):
            # A folder that cannot be written is named by prepare.
            with contextlib.suppress(OSError):
                (folder / name).unlink()
    prepared = prepare(selection.records, selection.store, folder, preprocessing, workers=workers)
    places = prepared.records["image"].str.split("/", n=1, expand=True)
    labels = prepared.records.assign(archive=places[0], image=places[1])
    for split, file in _LABELS.items():
        rows = labels.loc[labels["split"] == split, ["image", "label", "archive", "patient", "file"]]
        with replacing(folder / file) as temporary:
            rows.to_csv(temporary, index=False)
    write_json(folder / "selection.json", {"format": _FORMAT} | settings | _account(selection, prepared))
    return prepared


def _identity(store: FolderStore | ZipStore) -> dict:
    """What tells an archive from another without reading it whole, which takes minutes for tens of gigabytes.

    The digest is the SHA-256 of every name with its size and, inside a zip file, the CRC-32 from its directory.
    """
    names, digest = store.names(), hashlib.sha256()
    for name in names:
        try:
            # Not a file's time of change: a copy of a folder is the same folder.
            fingerprint = store.fingerprint(name) if isinstance(store, ZipStore) else store.size(name)
        except ImageError:
            fingerprint = "unreadable"
        digest.update(f"{name}\0{fingerprint}\n".encode(errors="surrogateescape"))
    size = store.location.stat().st_size if isinstance(store, ZipStore) else None
    return {"bytes": size, "members": len(names), "digest": digest.hexdigest()}


def _finished_alike(folder: Path, settings: dict) -> bool:
    """Whether the folder holds this very selection; one that differs is refused."""
    path = folder / "selection.json"
    remedy = f"give another folder, or remove {path} to select anew here (images that fit are used again)"
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        earlier = {key: there[key] for key in settings}
        changed = [
            f"{name}={earlier['settings'].get(name)}, not {value}"
            for name, value in settings["settings"].items()
            if earlier["settings"].get(name) != value
        ]
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MedicError(f"{path} cannot be read as a selection ({error}); {remedy}") from error
    if changed:
        raise MedicError(f"{folder} holds a selection with {'; '.join(changed)}; {remedy}")
    if earlier["archives"] != settings["archives"]:
        raise MedicError(f"{folder} holds a selection from other archives, or they have changed; {remedy}")
    return True


def _account(selection: Selection, prepared: Prepared) -> dict:
    balance = selection.balance(prepared.records)
    columns = ["image", "reason", "detail"]
    left_out = [row for table in (selection.dropped, prepared.skipped) for row in table[columns].to_dict("records")]
    return {
        "locations": location_from(prepared.folder, selection.store),
        "synthetic": prepared.synthetic,
        "balance": {name: {column: int(n) for column, n in row.items()} for name, row in balance.iterrows()},
        "short": selection.short(prepared.records),
        "unlisted": selection.unlisted,
        "left_out": dict(Counter(row["reason"] for row in left_out)),
        "left_out_images": left_out,
    }
