"""The folder that a selection becomes: a prepared set, its labels, and the account of how it came about."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import pandas as pd

from medic.data.competition.selection import Selection, unless_unreadable
from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared, prepare
from medic.data.stores import FolderStore, ZipStore, location_from
from medic.errors import MedicError
from medic.files import replacing, write_json

_LABELS = {"train": "labels_train.csv", "validation": "labels_val.csv"}


def write(
    selection: Selection,
    folder: str | os.PathLike,
    preprocessing: Preprocessing | None = None,
    workers: int | None = None,
) -> Prepared:
    """Make a prepared set of a selection, with its labels and the account of how it came about.

    Beside the files of ``medic.data.prepare.prepare`` the folder gets ``labels_train.csv``, ``labels_val.csv`` (only
    images that could be read) and, last, ``selection.json``. Interrupted, it goes on; repeated, it does only what is
    new.

    Args:
        selection: from ``select``.
        folder: where all of it goes.
        preprocessing: size and crop; the crop to the retina at 512 pixels when None.
        workers: as in ``prepare``.

    Raises:
        MedicError: the folder holds a finished selection of other settings or archives, it lies inside a folder that is
            read, or as ``prepare``.
    """
    folder, stores = Path(folder), selection.store.stores
    for store in stores.values():
        if isinstance(store, FolderStore) and folder.resolve().is_relative_to(store.location.resolve()):
            raise MedicError(f"{folder} lies inside {store.location}, which is read; give a folder outside of it")
    preprocessing = preprocessing or Preprocessing(size=512)
    settings = selection.settings | preprocessing.to_dict()
    archives = {key: _identity(store) for key, store in stores.items()}
    if not _holds_the_same(folder, settings, archives):
        # What is left of an earlier selection must not stand beside the images of this one; prepare names a folder
        # that cannot be written.
        for name in (*_LABELS.values(), "balance.png"):
            with contextlib.suppress(OSError):
                (folder / name).unlink()
    prepared = prepare(selection.records, selection.store, folder, preprocessing, workers=workers)
    places = prepared.records["image"].str.split("/", n=1, expand=True)
    labels = prepared.records.assign(archive=places[0], image=places[1])
    for split, file in _LABELS.items():
        with replacing(folder / file) as temporary:
            rows = labels.loc[labels["split"] == split, ["image", "label", "archive", "patient", "file"]]
            rows.to_csv(temporary, index=False)
    left_out = pd.concat([selection.dropped, prepared.skipped])[["image", "reason", "detail"]].to_dict("records")
    balance = selection.balance(prepared.records)
    account = {
        "format": 1,
        "settings": settings,
        "archives": archives,
        "locations": location_from(folder, selection.store),
        "synthetic": prepared.synthetic,
        "balance": {name: {column: int(n) for column, n in row.items()} for name, row in balance.iterrows()},
        "short": selection.short(prepared.records),
        "unlisted": selection.unlisted,
        "left_out": dict(Counter(row["reason"] for row in left_out)),
        "left_out_images": left_out,
    }
    write_json(folder / "selection.json", account)
    return prepared


def _identity(store: FolderStore | ZipStore) -> dict:
    """What tells an archive from another: the SHA-256 of every name with its size, and in a zip file its CRC-32."""
    names, digest, packed = store.names(), hashlib.sha256(), isinstance(store, ZipStore)
    for name in names:
        # Not a file's time of change: a copy of a folder is the same folder.
        fingerprint = unless_unreadable(store.fingerprint if packed else store.size, name)
        digest.update(f"{name}\0{'unreadable' if fingerprint is None else fingerprint}\n".encode())
    size = store.location.stat().st_size if packed else None
    return {"bytes": size, "members": len(names), "digest": digest.hexdigest()}


def _holds_the_same(folder: Path, settings: dict, archives: dict) -> bool:
    """Whether the folder holds this very selection; one that differs is refused."""
    path = folder / "selection.json"
    remedy = f"give another folder, or remove {path} to select anew here"
    if not path.is_file():
        return False
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        known, from_others = there["settings"], there["archives"] != archives
        changed = [f"{key}={known.get(key)}, not {value}" for key, value in settings.items() if known.get(key) != value]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MedicError(f"{path} cannot be read as a selection ({error}); {remedy}") from error
    if changed or from_others:
        what = f"with {'; '.join(changed)}" if changed else "from other archives, or they have changed"
        raise MedicError(f"{folder} holds a selection {what}; {remedy}")
    return True
