"""The prepared set: images cropped and scaled once, so that training reads small files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from medic.data.images.decode import decode, used_bits
from medic.data.images.preprocess import Preprocessing
from medic.data.index import Index
from medic.data.parallel import each
from medic.data.records import read_records
from medic.data.split import refuse_crossing
from medic.data.stores import Store, is_synthetic, location_from, mark_product, open_from
from medic.errors import ImageError, MedicError
from medic.files import replacing, write_bytes, write_json

JPEG_QUALITY = 95
_FORMAT = 2
"""Counts up when the layout of a set changes, or the pixels that the same settings give: no set mixes the two."""
_ROWS_AT_ONCE = 20_000


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
    def load(cls, folder: str | os.PathLike) -> Prepared:
        """Open a prepared set.

        Raises:
            MedicError: there is none, it is incomplete, or it was written by another version.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
            preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
            if manifest["format"] != _FORMAT:
                raise MedicError(
                    f"the prepared set {folder} has format {manifest['format']}, not {_FORMAT}: another version of "
                    "medic made it, maybe with other pixels; prepare anew"
                )
            records, skipped = (read_records(folder / name) for name in ("records.csv", "skipped.csv"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MedicError(f"{folder} holds no complete prepared set; run prepare (again): it goes on") from error
        except (ValueError, KeyError, TypeError) as error:
            raise MedicError(f"the prepared set {folder} is damaged ({error}); delete it and prepare anew") from error
        return cls(folder, records, skipped, preprocessing, manifest["synthetic"])

    @cached_property
    def store(self) -> Store:
        """The store of the original images.

        Raises:
            MedicError: the originals have moved.
        """
        source = json.loads((self.folder / "manifest.json").read_text())["source"]
        return open_from(self.folder, source)

    def split(self, name: str) -> pd.DataFrame:
        """The rows of one split.

        Raises:
            MedicError: no image is in it.
        """
        rows = self.records[self.records["split"] == name].reset_index(drop=True)
        if rows.empty:
            there = ", ".join(sorted(set(self.records["split"])))
            raise MedicError(f"the prepared set {self.folder} has no images in the split {name!r}, only in {there}")
        return rows

    def pixels(self, file: str) -> np.ndarray:
        """One prepared image, uint8 (size, size, 3) RGB; ``file`` as in the records."""
        return decode((self.folder / file).read_bytes())

    def __repr__(self) -> str:
        return (
            f"<Prepared set {self.folder.name}: {len(self.records)} images of {self.preprocessing.size} px, "
            f"{len(self.skipped)} skipped>"
        )


class Outcome(NamedTuple):
    """What became of one image: its file's digest or the reason why there is none, and a line that the index lacks."""

    file: bytes
    reason: str = ""
    detail: str = ""
    new: bytes | None = None


@dataclass(frozen=True)
class ImageWork:
    """What is done with one image: here, or by a worker elsewhere, which gets it by pickle."""

    store: Store
    preprocessing: Preprocessing
    index: Index

    def __call__(self, name: str) -> Outcome:
        """Prepare one image, unless that is done."""
        if name not in self.store:
            return Outcome(b"", "absent", f"not in {self.store.location.name}")
        try:
            original = self._original(name, self._settings)
            file = self.index.find(original)
            if file is not None and os.path.isfile(self.index.folder / place(file)):
                return Outcome(file)
            data = self.store.read(name)
            file = hashlib.blake2b(self._settings.encode() + data, digest_size=16).hexdigest().encode()
            if not os.path.isfile(self.index.folder / place(file)):
                write_bytes(self.index.folder / place(file), jpeg(self.preprocessing.pixels(data)))
        except ImageError as error:
            return Outcome(b"", error.reason, str(error))
        return Outcome(file, new=original)

    def used_bits(self, name: str) -> Outcome:
        """How many bits an image of 16 bits uses, in 32 digits as the index holds them; 0 for all others."""
        try:
            original = self._original(name, "bits")
            known = self.index.find(original)
            return Outcome(known or b"%032d" % (used_bits(self.store.read(name)) or 0), new=None if known else original)
        except ImageError:
            return Outcome(b"0")  # said when it is prepared

    @cached_property
    def _settings(self) -> str:
        return json.dumps([_FORMAT, self.preprocessing.to_dict()], sort_keys=True)

    def _original(self, name: str, settings: str) -> bytes:
        what = f"{settings}\0{name}\0{self.store.fingerprint(name)}"
        return hashlib.blake2b(what.encode(), digest_size=12).hexdigest().encode()


def prepare(
    records: pd.DataFrame,
    store: Store,
    folder: str | os.PathLike,
    preprocessing: Preprocessing | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Prepared:
    """Crop and scale every image once, and write it as JPEG (quality 95) under a name made from its content.

    An interrupted run goes on where it stopped, and a repeated one does only what is new or has changed (``Index``).
    Images that cannot be read are left out and listed with the reason; the next run tries them again.

    Args:
        records: checked records; their splits are saved with the set.
        store: where the images are.
        folder: where the prepared set goes.
        preprocessing: size and crop; the defaults when None.
        workers: threads; one a core when None.
        scheduler: a Dask cluster that does the work instead (``medic.data.parallel.each``). Its workers read the
            originals and write the images themselves, so that both folders must be shared with them.

    Returns:
        The prepared set.

    Raises:
        MedicError: a patient is in more than one split, the folder cannot be written, the disk is full, not one
            image could be read, or the cluster fails.
    """
    folder = Path(folder)
    refuse_crossing(records)
    mark_product(folder)
    how = {"workers": workers, "scheduler": scheduler}
    made, faults = np.zeros(len(records), "S32"), {}
    with _writing(folder), contextlib.closing(Index(folder)) as index:
        work = _with_bits(ImageWork(store, preprocessing or Preprocessing(), index), records, how)
        for row, outcome in enumerate(each(work, records["image"].tolist(), title="preparing", **how)):
            if outcome.new is not None:
                index.add(outcome.new, outcome.file)
            made[row] = outcome.file
            if not outcome.file:
                # A worker knows the originals by their full path.
                detail = outcome.detail.replace(os.path.abspath(store.location), str(store.location))
                faults[row] = (outcome.reason, detail)
        if len(faults) == len(records):
            raise MedicError(
                f"not one of {len(records)} images in {store.location} could be prepared; "
                f"the first: {records['image'].iloc[0]}, {': '.join(faults[0])}"
            )
        # Tables and manifest belong together: a kill in between leaves no set rather than a mixed one.
        (folder / "manifest.json").unlink(missing_ok=True)
        _write_tables(records, folder, made, faults)
    write_json(
        folder / "manifest.json",
        {
            "format": _FORMAT,
            "preprocessing": work.preprocessing.to_dict(),
            "source": location_from(folder, store),
            "synthetic": is_synthetic(store),
            "images": len(records) - len(faults),
            "skipped": dict(Counter(reason for reason, _ in faults.values()).most_common()),
        },
    )
    return Prepared.load(folder)


def _with_bits(work: ImageWork, records: pd.DataFrame, how: dict) -> ImageWork:
    """The work with the bits that the set's 16-bit images use, which is said."""
    eight = (".jpg", ".jpeg", ".bmp", ".dcm")
    names = [name for name in records["image"] if not name.lower().endswith(eight) and name in work.store]
    if work.preprocessing.bits is not None or not names:
        return work
    largest = 0
    for outcome in each(work.used_bits, names, title="looking for images of 16 bits", **how):
        largest = max(largest, int(outcome.file))
        if outcome.new is not None:
            work.index.add(outcome.new, outcome.file)
    if not 9 <= largest < 16:
        return work
    print(f"the images of 16 bits use {largest} of them: they are scaled by that")
    return replace(work, preprocessing=replace(work.preprocessing, bits=largest))


def place(file: bytes) -> str:
    """Where an image of the set lies below its folder, by its digest."""
    return f"images/{file[:2].decode()}/{file.decode()}.jpg"


def _write_tables(records: pd.DataFrame, folder: Path, made: np.ndarray, faults: dict[int, tuple[str, str]]) -> None:
    """Write ``records.csv`` and ``skipped.csv``, some rows at a time: no second table of a million rows in memory."""
    with replacing(folder / "records.csv") as kept, replacing(folder / "skipped.csv") as skipped:
        for start in range(0, len(records), _ROWS_AT_ONCE):
            rows, how = slice(start, start + _ROWS_AT_ONCE), {"mode": "a", "index": False, "header": start == 0}
            part, there = records.iloc[rows], made[rows] != b""
            part[there].assign(file=[place(file) for file in made[rows][there]]).to_csv(kept, **how)
            reasons = [faults[row] for row in start + np.flatnonzero(~there)]
            columns = {name: [reason[at] for reason in reasons] for at, name in enumerate(("reason", "detail"))}
            part[~there].assign(**columns).to_csv(skipped, **how)


def jpeg(pixels: np.ndarray) -> bytes:
    """A prepared image, uint8 (S, S, 3) RGB, as the file that is kept of it."""
    written, data = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not written:
        raise MedicError("OpenCV could not write a JPEG; this installation of OpenCV lacks the encoder")
    return data.tobytes()


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MedicError(
            f"cannot write {folder}: {error.strerror}; free some space and run it again: it goes on"
        ) from error
