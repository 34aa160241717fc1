"""Training and validation images from two archives, as an entry to the competition needs them; nothing is unpacked.

The main archive holds the competition's photographs, the extra one those of the 2015 competition.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared, prepare
from medic.data.readers import retinopathy
from medic.data.records import validate
from medic.data.split import split_by_patient
from medic.data.stores import JointStore
from medic.errors import MedicError
from medic.files import write_text
from medic.task import RETINOPATHY

MAIN, EXTRA = "main", "extra"
_LABELS = {"train": "labels_train.csv", "validation": "labels_val.csv"}
_ACCOUNT = "selection.csv"


def select(
    main: str | os.PathLike,
    extra: str | os.PathLike | None = None,
    *,
    per_class: int = 1000,
    validation: float = 0.2,
    seed: int = 0,
) -> tuple[pd.DataFrame, JointStore]:
    """Choose validation images from the main archive, and as many training images of every class from both.

    Validation is a share of the main archive's patients, stratified by their worst grade, at its natural distribution.
    Training has of each class up to ``per_class`` of the main archive's other images, by chance, filled up from the
    extra archive. No patient is on both sides: a name that ends in ``_left`` or ``_right`` tells the patient in both
    archives, any other is a patient of its own. Where the main archive tells no patients, copies stay on one side.

    Args:
        main: zip file or folder of the competition: ``train.csv`` with ``id_code,diagnosis``.
        extra: zip file or folder of the 2015 set: ``trainLabels.csv`` with ``image,level``; None to do without.
        per_class: 1 or more; a larger one only adds images.
        validation: above 0 and below 1.
        seed: 0 or more; the same seed and archives give the same selection.

    Returns:
        Every listed image, named ``main/`` or ``extra/`` and the name in that archive: the reader's records with
        ``split`` (``train``, ``validation``, or empty) and ``reason`` (why it is in neither: ``absent``, ``test_split``
        of its source, ``patient_in_validation``, or ``not_drawn``; else empty); and both archives as one store.

    Raises:
        MedicError: a setting is out of range, an archive or its table cannot be read, or nothing is left for a split.
    """
    if per_class < 1 or not 0 < validation < 1 or seed < 0:
        settings = f"per_class={per_class}, validation={validation}, seed={seed}"
        raise MedicError(f"{settings} do not fit: per_class is 1 or more, validation between 0 and 1, seed 0 or more")
    read = {key: retinopathy.read(source) for key, source in {MAIN: main, EXTRA: extra}.items() if source is not None}
    store = JointStore({key: part for key, (_, part) in read.items()})
    parts = []
    for key, (table, _) in read.items():
        # Without an eye in the name, equal names in two archives say nothing about the patient: "10" is not "10_left".
        patient = table["patient"].mask(table["eye"].isna(), f"{key}/" + table["patient"])
        parts.append(table.assign(image=f"{key}/" + table["image"], patient=patient))
    listed = validate(pd.concat(parts, ignore_index=True), RETINOPATHY).assign(reason="")
    listed.loc[listed["split"] == "test", "reason"] = "test_split"
    listed.loc[~listed["image"].map(store.__contains__).astype(bool), "reason"] = "absent"

    fit, from_main = listed["reason"] == "", listed["image"].str.startswith(f"{MAIN}/")
    dealt = listed[fit & from_main].assign(split="train")
    held = split_by_patient(dealt, validation=validation, test=0, seed=seed, store=store)["split"] == "validation"
    held = fit & held.reindex(listed.index, fill_value=False)
    known = fit & ~from_main & listed["patient"].isin(listed["patient"][held])
    free = fit & ~held & ~known
    if not held.any() or not free.any():
        said = f"{(fit & from_main).sum()} images of {store.stores[MAIN].location}"
        raise MedicError(f"{said} are too few for training and validation={validation}; see that it is complete")
    shuffled = [listed[pool].sample(frac=1, random_state=seed) for pool in (free & from_main, free & ~from_main)]
    drawn = listed.index.isin(pd.concat(shuffled).groupby("label").head(per_class).index)
    listed["reason"] = listed["reason"].mask(known, "patient_in_validation").mask(free & ~drawn, "not_drawn")
    listed["split"] = np.select([held, drawn], ["validation", "train"], default="")
    return listed, store


def write(
    listed: pd.DataFrame, store: JointStore, folder: str | os.PathLike, preprocessing: Preprocessing | None = None
) -> Prepared:
    """Prepare the images that ``select`` chose, by default cropped to the retina at 512 pixels; raise as ``prepare``.

    Beside the files of ``medic.data.prepare.prepare`` the folder gets ``labels_train.csv``, ``labels_val.csv`` (only
    images that could be read) and, last, ``selection.csv``: every listed image, with its split or the reason why it has
    none. Interrupted, it goes on; another selection takes the place of the one that is there.
    """
    folder = Path(folder)
    for name in (*_LABELS.values(), _ACCOUNT):
        (folder / name).unlink(missing_ok=True)
    chosen = listed[listed["split"] != ""].drop(columns="reason")
    prepared = prepare(chosen, store, folder, preprocessing or Preprocessing(size=512))
    places = prepared.records["image"].str.split("/", n=1, expand=True)
    labels = prepared.records.assign(archive=places[0], image=places[1])
    for split, file in _LABELS.items():
        rows = labels.loc[labels["split"] == split, ["image", "label", "archive", "patient", "file"]]
        write_text(folder / file, rows.to_csv(index=False))
    write_text(folder / _ACCOUNT, listed[["image", "patient", "label", "split", "reason"]].to_csv(index=False))
    return prepared
