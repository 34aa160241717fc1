"""The folder that a selection of the competition's images becomes: a prepared set with its labels and its account."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

from medic.data.competition import Selection
from medic.data.prepare import Prepared, prepare
from medic.data.preprocess import Preprocessing
from medic.data.stores import FolderStore, ZipStore, location_from
from medic.errors import ImageError, MedicError
from medic.files import replacing, write_json

_FORMAT = 1
_LABELS = {"train": "labels_train.csv", "validation": "labels_val.csv"}
_CHART = "balance"


def write(
    selection: Selection,
    folder: str | os.PathLike,
    preprocessing: Preprocessing | None = None,
    workers: int | None = None,
) -> Prepared:
    """Make a prepared set of a selection, with its labels, its chart and the account of how it came about.

    Beside the files of ``medic.data.prepare.prepare`` the folder gets ``labels_train.csv``, ``labels_val.csv`` (with
    the header ``image,label,archive,patient,file``; only images that could be read), ``balance.png`` and, last,
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
        for name in (*_LABELS.values(), f"{_CHART}.png"):
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
    _draw_chart(selection, prepared)
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


def _draw_chart(selection: Selection, prepared: Prepared) -> None:
    # Drawing takes a second to import, and selecting does without.
    import matplotlib.pyplot as plt

    from medic import plots

    place = SimpleNamespace(synthetic=prepared.synthetic, images=prepared.folder)
    with plt.rc_context():
        plots.use_style()
        figure = plots.balance_before_after(selection.balance(prepared.records), selection.draw.per_class)
        reached = len(selection.before) - len(selection.short(prepared.records))
        finding = f"{reached} of {len(selection.before)} classes reach {selection.draw.per_class} training images"
        plots.title(figure, finding, place)
        plots.save(figure, _CHART, place)
        plt.close(figure)
