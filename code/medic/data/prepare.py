"""The prepared set: images cropped and scaled once, so that training reads small files."""

import hashlib
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from medic.data.images.decode import decode, used_bits
from medic.data.images.preprocess import Preprocessing
from medic.data.parallel import each
from medic.data.records import read_records
from medic.data.split import refuse_crossing
from medic.data.stores import PRODUCT_MARK, Store, is_synthetic, location_from, mark_product, open_from
from medic.errors import ImageError, MedicError
from medic.files import replacing, write_bytes, write_json

JPEG_QUALITY = 95
_EIGHT_BITS = (".jpg", ".jpeg", ".bmp", ".dcm")  # endings of files that are not searched for more
_FORMAT = 2
"""Counts up when the layout of a set changes, or the pixels that the same settings give: no set mixes the two."""


@dataclass(frozen=True, eq=False, repr=False)
class Prepared:
    """A prepared set on disk.

    Attributes:
        folder: where it lies: ``images/``, ``records.csv``, ``skipped.csv``, ``manifest.json``.
        records: the rows whose image was prepared, with the column ``file`` (its place below the folder).
        skipped: the rows that were left out, with ``reason`` and ``detail``.
        preprocessing: how bytes became pixels.
        synthetic: whether the originals are generated images, and every figure has to say so.
    """

    folder: Path
    records: pd.DataFrame
    skipped: pd.DataFrame
    preprocessing: Preprocessing
    synthetic: bool

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Prepared":
        """Open a prepared set.

        Raises:
            MedicError: there is none, it is incomplete, or it was written by another version.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
            if manifest["format"] != _FORMAT:
                raise ValueError(f"format {manifest['format']}, not {_FORMAT}: another version of medic made it")
            preprocessing = Preprocessing(**manifest["preprocessing"])
            records, skipped = (read_records(folder / name) for name in ("records.csv", "skipped.csv"))
            if not (records["label"].ge(0) & records["label"].mod(1).eq(0)).all():
                raise ValueError("records.csv has rows without a label")
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = f"no complete prepared set ({getattr(error, 'strerror', None) or error})"
            raise MedicError(f"{folder} holds {why}; run prepare (again): it goes on") from error
        return cls(folder, records, skipped, preprocessing, manifest["synthetic"])

    @cached_property
    def store(self) -> Store:
        """The store of the original images; raises a ``MedicError`` where they have moved."""
        return open_from(self.folder, json.loads((self.folder / "manifest.json").read_text())["source"])

    def split(self, name: str) -> pd.DataFrame:
        """Return the rows of one split; raises a ``MedicError`` where it has none."""
        rows = self.records[self.records["split"] == name].reset_index(drop=True)
        if rows.empty:
            there = ", ".join(sorted(set(self.records["split"])))
            raise MedicError(f"the prepared set {self.folder} has no images in the split {name!r}, only in {there}")
        return rows

    def pixels(self, file: str) -> np.ndarray:
        """Return one prepared image, uint8 (size, size, 3) RGB; ``file`` as in the records."""
        try:
            return decode((self.folder / file).read_bytes())
        except OSError as error:
            raise MedicError(f"{self.folder / file} cannot be read ({error.strerror}); run prepare again") from error

    def __repr__(self) -> str:
        images = f"{len(self.records)} images of {self.preprocessing.size} px"
        return f"<Prepared set {self.folder.name}: {images}, {len(self.skipped)} skipped>"


def _prepare_one(store: Store, preprocessing: Preprocessing, folder: Path, name: str) -> tuple[str, str, str]:
    """Prepare one image, unless that is done: its file, or the reason why there is none, and the detail."""
    if not (folder / PRODUCT_MARK).is_file():
        host = socket.gethostname()
        raise MedicError(f"{host} does not see {folder}; give a folder that all workers share at one place")
    if name not in store:
        return "", "absent", f"not in {store.location.name}"
    try:
        data = store.read(name)
        settings = json.dumps([_FORMAT, preprocessing.to_dict()], sort_keys=True)
        key = hashlib.blake2b(settings.encode() + data, digest_size=16).hexdigest()
        file = f"images/{key[:2]}/{key}.jpg"
        # Written whole or not at all, under a name made from its content: that it is there says that it is done.
        if not (folder / file).is_file():
            blue_first = cv2.cvtColor(preprocessing.pixels(data), cv2.COLOR_RGB2BGR)
            encoded = cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
            write_bytes(folder / file, encoded.tobytes())
        return file, "", ""
    except ImageError as error:
        return "", error.reason, str(error)


def prepare(
    records: pd.DataFrame,
    store: Store,
    folder: str | os.PathLike,
    preprocessing: Preprocessing | None = None,
    scheduler: str | None = None,
) -> Prepared:
    """Crop and scale every image once, and write it as JPEG (quality 95) under a name made from its content.

    An interrupted or repeated run reads all originals again, and makes only the files that are not there. Images that
    cannot be read are left out and listed with the reason. Where a set has images of 16 bits, they are scaled by the
    bits that the largest value uses, which is said.

    Args:
        records: checked records; their splits are saved with the set.
        store: where the images are.
        folder: where the prepared set goes.
        preprocessing: size and crop; the defaults when None.
        scheduler: a Dask cluster that does the work instead (``medic.data.parallel.each``). Its workers read the
            originals and write the images themselves, so that both folders must be shared with them.

    Raises:
        MedicError: a patient is in more than one split, the folder cannot be written, the disk is full, not one
            image could be read, or the cluster fails.
    """
    folder, records = Path(folder), records.reset_index(drop=True)
    refuse_crossing(records)
    mark_product(folder)
    preprocessing = preprocessing or Preprocessing()
    if preprocessing.bits is None and (bits := bits_of_set(store, records["image"], scheduler)):
        print(f"the images of 16 bits use {bits} of them: they are scaled by that")
        preprocessing = replace(preprocessing, bits=bits)
    work = partial(_prepare_one, store, preprocessing, folder.absolute())
    outcomes = each(work, records["image"].tolist(), title="preparing", scheduler=scheduler)
    made = pd.DataFrame(outcomes, columns=["file", "reason", "detail"])
    # A worker knows the originals by their full path.
    made["detail"] = [text.replace(os.path.abspath(store.location), str(store.location)) for text in made["detail"]]
    there = made["file"] != ""
    if not there.any():
        first = f"{records['image'].iloc[0]}, {made['reason'].iloc[0]}: {made['detail'].iloc[0]}"
        raise MedicError(f"not one of {len(records)} images in {store.location} could be prepared; the first: {first}")
    # Tables and manifest belong together: a kill in between leaves no set rather than a mixed one.
    (folder / "manifest.json").unlink(missing_ok=True)
    with replacing(folder / "records.csv") as kept, replacing(folder / "skipped.csv") as skipped:
        records[there].assign(file=made["file"]).to_csv(kept, index=False)
        records[~there].join(made[["reason", "detail"]]).to_csv(skipped, index=False)
    manifest = {
        "format": _FORMAT,
        "preprocessing": preprocessing.to_dict(),
        "source": location_from(folder, store),
        "synthetic": is_synthetic(store),
        "images": int(there.sum()),
        "skipped": made.loc[~there, "reason"].value_counts().to_dict(),
    }
    write_json(folder / "manifest.json", manifest)
    return Prepared.load(folder)


def bits_of_set(store: Store, names: Sequence[str], scheduler: str | None = None) -> int | None:
    """Return how many of 16 bits the PNG and TIFF files of a set use; None where it is all, or none has 16.

    Files that cannot be read say nothing. ``scheduler`` is that of ``medic.data.parallel.each``.
    """
    names = [name for name in names if not name.lower().endswith(_EIGHT_BITS)]
    bits = max(
        each(partial(_bits, store), names, title="looking for images of 16 bits", scheduler=scheduler), default=0
    )
    return bits if 9 <= bits < 16 else None


def _bits(store: Store, name: str) -> int:
    try:
        return used_bits(store.read(name)) or 0
    except ImageError:
        return 0
